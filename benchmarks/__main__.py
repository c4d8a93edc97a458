"""Measures this toolkit on the user's machine, beside stock Keras, PyTorch and fastai.

    python -m benchmarks [--quick] [--against keras,torch] [--only steps] [--output FILE.json]

The contenders of a measurement take turns in one run, so that a machine whose speed drifts slows
all of them. `python -m benchmarks.scale` and `python -m benchmarks.precision` measure what a single
command cannot; `python -m benchmarks.audit` the audit of the data.
"""

import importlib.util
import json
from pathlib import Path

import click

from benchmarks.interleaved import AGAINST, FASTAI, TORCH, Measurement, Settings, print_measurement
from transfer import console
from transfer.backend import load_keras
from transfer.commands import options
from transfer.commands.exit_codes import run
from transfer.models.backbones import BACKBONES
from transfer.storage.atomic import write_atomically, write_json

PHOTO_PARTS = ("few-shot", "photo-fit")  # need photos that come with scikit-image
TIME_TO_ACCURACY = "time-to-accuracy"
PARTS = ("steps", "unfreeze", "pipeline", "fit", "prediction", "engines", "recipe")
PARTS += (TIME_TO_ACCURACY, *PHOTO_PARTS)
QUICK = {"image_size": 32, "batch_size": 16, "repeats": 2, "num_images": 400}
SEED = 0  # of all noise and all shuffling; the recipe counts up from it


def _split_names(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    for name in names:
        if name not in AGAINST:
            raise click.BadParameter(f"should be of {','.join(AGAINST)}. Received: {name!r}.")
    return names


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--backbone", type=click.Choice(list(BACKBONES)), default="mobilenetv2", show_default=True
)
@click.option("--image-size", type=click.IntRange(32), default=96, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=128, show_default=True)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Turns of each contender; of the recipe at most 2.",
)
@click.option(
    "--num-images",
    type=click.IntRange(100),
    default=10_000,
    show_default=True,
    help="Images of the recipe, the pipeline and the prediction pass.",
)
@click.option(
    "--against",
    callback=_split_names,
    default=",".join(AGAINST),
    show_default=True,
    help="Whom to measure against; who is not installed is left out.",
)
@click.option(
    "--only",
    type=click.Choice(PARTS),
    multiple=True,
    show_default="all",
    help="Measure this part alone; may be given more than once.",
)
@click.option("--quick", is_flag=True, help="Small sizes: to see that it works, not to believe it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="none",
    help="Write the JSON to this file as well.",
)
@click.option(
    "--history",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="none",
    help="Compare with the last such run on this machine that this file has, and add this one.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="none",
    help="Draw time-to-accuracy, a PNG.",
)
@click.pass_context
def main(
    ctx: click.Context,
    backbone: str,
    against: tuple[str, ...],
    only: tuple[str, ...],
    quick: bool,
    as_json: bool,
    output: Path | None,
    history: Path | None,
    plot: Path | None,
    **sizes: int,
) -> None:
    """Measure training, inference, input pipeline and the whole recipe on this machine."""
    console.speak(quiet=as_json)
    if quick:
        sizes = QUICK | options.given_settings(ctx, QUICK)
    settings = Settings(
        backbone=backbone,
        against=_present(against, backbone),
        steps=1 if quick else 3,
        head_epochs=2 if quick else 10,
        finetune_epochs=1 if quick else 5,
        **sizes,
    )
    load_keras()
    from benchmarks.machine import describe_machine

    machine = describe_machine()
    console.show(
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, load "
        f"{machine['load_before']:.1f}; n = {settings.repeats}, medians\n",
    )
    results = {"machine": machine, "seed": SEED, "quick": quick, "measurements": {}}
    for part in only or PARTS:
        measurement = _measure(part, settings)
        if measurement is None:
            missing = "scikit-image is not installed (pip install 'transfer[benchmarks]')"
            why = missing if part in PHOTO_PARTS else f"{backbone} has no pretrained weights here"
            console.show(f"{part}: {why}; left out.\n")
            continue
        print_measurement(measurement)
        results["measurements"][part] = measurement.to_json()
        if plot and part == TIME_TO_ACCURACY:
            _draw(plot, measurement)
        if output:
            write_json(output, results)  # after each part: the next takes minutes
    if history:
        _compare(history, results, {"backbone": backbone, "quick": quick, **sizes})
    if as_json:
        click.echo(json.dumps(results, indent=2))


def _draw(path: Path, measurement: Measurement) -> None:
    from benchmarks.time_to_accuracy import plot_time_to_accuracy
    from transfer.plots.style import png

    figure = plot_time_to_accuracy(measurement.title, measurement.facts["curves"])
    write_atomically(path, png(figure))


def _compare(path: Path, results: dict, settings: dict) -> None:
    from benchmarks.history import compare, describe, note

    entry = describe(results, settings)
    for line in compare(path, entry):
        console.show(line)
    note(path, entry)


def _present(against: tuple[str, ...], backbone: str) -> frozenset[str]:
    # Whom we can be measured against here.
    present = set(against)
    for name, title in ((TORCH, "PyTorch"), (FASTAI, "fastai")):
        missing = ""
        if backbone != "mobilenetv2":
            missing = "its network here is MobileNetV2"
        elif importlib.util.find_spec(name) is None:
            missing = f"it is not installed (pip install {name})"
        if name in against and missing:
            console.show(f"{title} is left out: {missing}.")
            present.remove(name)
    return frozenset(present)


def _measure(part: str, settings: Settings) -> Measurement | None:
    if part in ("steps", "unfreeze"):
        from benchmarks import steps

        return (steps.measure_steps if part == "steps" else steps.measure_unfreeze)(settings)
    if part in ("pipeline", "fit"):
        from benchmarks import pipelines

        measure = pipelines.measure_pipeline if part == "pipeline" else pipelines.measure_fit
        return measure(settings)
    if part == "prediction":
        from benchmarks.predictions import measure_prediction

        return measure_prediction(settings)
    if part == "engines":
        from benchmarks.engines import measure_engines

        return measure_engines(settings)
    if part in PHOTO_PARTS:
        return _measure_photos(part, settings)
    if part == TIME_TO_ACCURACY:
        from benchmarks.time_to_accuracy import measure_time_to_accuracy

        return measure_time_to_accuracy(settings)
    from benchmarks.recipes import measure_recipe

    return measure_recipe(settings)


def _measure_photos(part: str, settings: Settings) -> Measurement | None:
    from benchmarks import few_shot, photos

    if not photos.has_photos():
        return None
    measure = few_shot.measure_few_shot if part == "few-shot" else few_shot.measure_fit
    return measure(settings)


if __name__ == "__main__":
    run(main)
