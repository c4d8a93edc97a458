"""Further commands: `python -m transfer COMMAND`."""

import dataclasses
import importlib.util
import math
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from transfer import cli
from transfer.config import Config
from transfer.errors import InputError, Interrupted
from transfer.pretraining import Settings

if TYPE_CHECKING:
    import numpy as np

DEFAULTS = Settings()
SIDE = click.IntRange(32, 128)


@click.group(context_settings={"max_content_width": 100, "show_default": True})
def main() -> None:
    """Further commands; see also train.py and evaluate.py."""


def _setting(name: str, kind: click.ParamType, text: str):
    option = "--" + name.replace("_", "-")
    return click.option(option, type=kind, default=getattr(DEFAULTS, name), help=text)


@main.command()
@_setting("systems", click.IntRange(2), "Systems of affine maps; the fractals of each are a class.")
@_setting("silhouettes", click.IntRange(0), "Textured silhouettes, further classes.")
@_setting("renderings", click.IntRange(2), "Pictures of each class in the bank of sprites.")
@_setting("instances", click.IntRange(1, 16), "Most sprites in an image; 1 for one label each.")
@_setting(
    "curriculum",
    click.FloatRange(0, 1),
    "Share of the steps over which the images become as hard as they get.",
)
@_setting("image_size", SIDE, "Side of the images for most of the schedule, in pixels.")
@_setting("final_image_size", SIDE, "Side of the images for the rest of it, in pixels.")
@_setting("final_share", click.FloatRange(0, 1), "Share of the steps at the final size.")
@_setting("batch_size", click.IntRange(1), "Images in a training step.")
@_setting("sample_steps", click.IntRange(1), "Images to train on in all.")
@_setting("learning_rate", click.FloatRange(0, min_open=True), "Peak of the one cycle, of AdamW.")
@_setting(
    "precision",
    click.Choice(["auto", "float32", "bfloat16"]),
    "Number format; auto is bfloat16 on a GPU or TPU.",
)
@_setting("seed", click.IntRange(0, 2**31 - 1), "Seed of every random choice.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/pretraining"),
    help="Folder for all that is kept.",
)
@click.option("--resume", is_flag=True, help="Go on with the pretraining in --out.")
@click.option(
    "--time-limit",
    type=click.FloatRange(0, min_open=True),
    default=math.inf,
    show_default="none",
    help="Minutes after which to keep a checkpoint and stop.",
)
@cli.conduct_options
@click.pass_context
def pretrain(
    ctx: click.Context,
    out: Path,
    resume: bool,
    time_limit: float,
    quiet: bool,
    verbose: bool,
    **options,
) -> None:
    """Pretrain MobileNetV2 on fractals, where no pretrained weights are to be had.

    Runs on the backend of Keras that $KERAS_BACKEND names, tensorflow or jax.
    """
    _load_keras(verbose)
    from transfer.pretraining import folder
    from transfer.pretraining.pretrain import FINISHED, pretrain

    settings = Settings(**options)
    if resume:
        settings = folder.read_settings(out)
        _check_same(ctx, dataclasses.asdict(settings))
    reason = pretrain(
        settings,
        out,
        cli.make_console(quiet),
        resume=resume,
        time_limit=60 * time_limit,
        command=_command_line(),
    )
    told = f"Stopped by {reason}; go on with `--resume --out {out}`."
    if reason.startswith("SIG"):
        raise Interrupted(signal.Signals[reason], told)
    if reason != FINISHED:
        click.echo(told, err=True)


@main.command()
@cli.setting_options("data", "limit")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/audit"),
    help="Folder for lists and pictures; those of an earlier audit are replaced.",
)
@click.option(
    "--weights",
    default="none",
    help="Find label errors by a backbone's features: auto, imagenet or a weights file; "
    "none takes the images' gradients and pixels, which suits small gray images.",
)
@cli.setting_options("backbone", "image_size")
@click.option("--offline", is_flag=True, help="Never use the network.")
@cli.conduct_options
def audit(
    data: str,
    limit: int | None,
    out: Path,
    weights: str,
    backbone: str,
    image_size: int,
    offline: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Look for what is wrong with a data set: duplicates, leaks into the test, wrong labels.

    Also files that cannot be read, images that show next to nothing, and classes of unequal
    size. Nothing is changed; what is found is listed in --out, with pictures.
    """
    from transfer.data.audit import examine, read_images
    from transfer.data.sources import describe_origin, load_undivided
    from transfer.evaluation.audit_report import print_audit, write_audit
    from transfer.evaluation.label_errors import find_label_errors

    console = cli.make_console(quiet)
    loaded = load_undivided(data, offline=offline)
    facts = {"data": describe_origin(loaded), "command": _command_line()}
    console.print(f"Data: {facts['data']}", soft_wrap=True)
    images = read_images(loaded, image_size, limit)
    config = Config(backbone=backbone, weights=weights, image_size=image_size)
    features, facts["features"] = _audit_features(images.pixels, config, offline, verbose)
    console.print(f"Label errors are looked for by {facts['features']}", soft_wrap=True)
    with console.status("Looking for duplicates"):
        findings = examine(images)
    with console.status("Looking for label errors"):
        errors = find_label_errors(features, images.labels)
    summary = write_audit(out, facts, images, findings, errors)
    console.print()
    print_audit(summary, console)
    console.print(f"\nLists and pictures: {out}", soft_wrap=True)


def _command_line() -> str:
    return shlex.join(["python", "-m", "transfer", *sys.argv[1:]])


def _audit_features(
    pixels: "np.ndarray", config: Config, offline: bool, verbose: bool
) -> "tuple[np.ndarray, str]":
    """Returns the features (N, D) that label errors are found by, and what they are, in words."""
    if config.weights != "none":
        cli.load_tensorflow(verbose)
        from transfer.training.features import load_pretrained_features

        features, weights = load_pretrained_features(pixels, config, offline=offline)
        if features is not None:
            return features, f"features of {config.backbone}, {weights.provenance}"
    from transfer.data.descriptors import appearance_features

    return appearance_features(pixels), "gradients and pixels of the images"


def _check_same(ctx: click.Context, settings: dict) -> None:
    """Raises `click.UsageError` for an option that contradicts the settings resumed."""
    for name, value in cli.given_settings(ctx, settings).items():
        if settings[name] != value:
            raise click.UsageError(
                f"--{name.replace('_', '-')} of this pretraining is {settings[name]}. "
                f"Received: {value}; leave it out to resume."
            )


def _load_keras(verbose: bool) -> None:
    """Imports Keras on $KERAS_BACKEND, else on TensorFlow, else, where that is missing, on JAX.

    Raises:
        InputError: it is another backend, or not installed.
    """
    has_tensorflow = importlib.util.find_spec("tensorflow") is not None
    backend = os.environ.get("KERAS_BACKEND") or ("tensorflow" if has_tensorflow else "jax")
    if backend == "tensorflow":
        cli.load_tensorflow(verbose)
        return
    if backend != "jax":
        raise InputError(f"KERAS_BACKEND should be tensorflow or jax. Received: {backend!r}.")
    os.environ["KERAS_BACKEND"] = backend  # whatever keras.json says
    try:
        import jax  # noqa: F401
        import keras  # noqa: F401
    except ImportError as error:
        raise InputError(f"{error}; run `pip install -r requirements.txt`.") from error


if __name__ == "__main__":
    cli.run(main)
