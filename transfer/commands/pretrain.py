"""`transfer pretrain`: learn a backbone's first weights from images drawn by formula."""

import dataclasses
import math
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from transfer import console
from transfer.backend import load_keras
from transfer.commands import options
from transfer.errors import HOW_TO_GO_ON, Interrupted
from transfer.pretraining.settings import Settings

DEFAULTS = Settings()
SIDE = click.IntRange(32, 128)


def _setting(name: str, kind: click.ParamType, text: str) -> options.Decorator:
    return click.option(
        options.option_name(name), type=kind, default=getattr(DEFAULTS, name), help=text
    )


@click.command(context_settings=options.WIDTH | {"show_default": True})
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
    click.Choice(["auto", "float32", "bfloat16"], case_sensitive=False),
    "Number format; auto is bfloat16 on a GPU or TPU.",
)
@_setting("seed", click.IntRange(0, 2**31 - 1), "Seed of every random choice.")
@click.option(
    "--out",
    type=options.UserPath(file_okay=False),
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
@options.conduct_options
@click.pass_context
def main(
    ctx: click.Context,
    out: Path,
    resume: bool,
    time_limit: float,
    quiet: bool,
    verbose: bool,
    **values: Any,
) -> None:
    """Pretrain MobileNetV2 on fractals, where no pretrained weights are to be had.

    Runs on the backend of Keras that $KERAS_BACKEND names, tensorflow or jax.
    """
    console.speak(quiet, verbose)
    load_keras(verbose)
    from transfer.pretraining import folder
    from transfer.pretraining.pretrain import FINISHED, pretrain

    settings = Settings(**values)
    if resume:
        settings = folder.read_settings(out)
        _check_same(ctx, dataclasses.asdict(settings))
    reason = pretrain(
        settings,
        out,
        resume=resume,
        time_limit=60 * time_limit,
        command=console.command_line(),
    )
    again = console.how_to("pretrain", "--resume", "--out", out)
    told = f"Stopped by {reason}. {HOW_TO_GO_ON}{again}"
    if reason.startswith("SIG"):
        raise Interrupted(signal.Signals[reason], told)
    if reason != FINISHED:
        click.echo(told, err=True)


def _check_same(ctx: click.Context, settings: Mapping[str, Any]) -> None:
    """Raises `click.UsageError` for an option that contradicts the settings resumed."""
    for name, value in options.given_settings(ctx, settings).items():
        if settings[name] != value:
            raise click.UsageError(
                f"--{name.replace('_', '-')} of this pretraining is {settings[name]}. "
                f"Received: {value}; leave it out to resume."
            )
