"""Minutes until so many of the validation images are right: `train.py` beside stock Keras.

Both begin with a new process, read the same images and start from the same weights; `train.py`
has its defaults, Keras the recipe of its guide. After each epoch it is noted how long they have
taken since, and the highest accuracy they had so far. One run each.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.interleaved import KERAS, PERCENT, Measurement, Settings
from benchmarks.processes import Finished, run_command
from benchmarks.recipes import HERE, STOCK, write_images, write_weights
from benchmarks.stock_keras import EPOCH
from transfer.models import packages, pretrained
from transfer.models.pretrained import BUNDLED
from transfer.models.weights import PHOTOS
from transfer.plots import style

Curve = list[tuple[float, float]]  # minutes since the start, accuracy in [0, 1] of an epoch

STEPS = tuple(percent / 100 for percent in (80, 85, 88, 90, 91, 92, 93, 94, 95))
MOST_STEPS = 5  # a terminal has no room for more
_OUR_EPOCH = re.compile(r"(head|small images|fine-tune) +\d+/\d+ ")
_COLOURS = {HERE: style.BLUE, STOCK: style.VERMILLION}


def measure_time_to_accuracy(settings: Settings) -> Measurement | None:
    """Returns the highest accuracy of each, and the minutes to those of `STEPS` that one reached.

    None: there are no pretrained weights to start from.
    """
    kind = _choose_weights(settings.backbone)
    if kind is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_images(settings.num_images, folder / "images.npz")
        curves = {HERE: _ours(settings, kind, folder)}
        if KERAS in settings.against:
            curves[STOCK] = _stock(settings, kind, folder)
    best = {name: max(accuracy for _, accuracy in curve) for name, curve in curves.items()}
    reached = [step for step in STEPS if step <= max(best.values())][-MOST_STEPS:]
    return Measurement(
        f"Time to accuracy on {settings.num_images:,} images: {settings.backbone}, weights {kind}, "
        f"{settings.image_size} pixels, batch {settings.batch_size}; seed 0, n = 1",
        {name: [100 * accuracy] for name, accuracy in best.items()},
        (),
        unit=PERCENT,
        columns={
            f"min to {100 * step:.0f} %": {
                name: _tell(minutes_to(step, curve)) for name, curve in curves.items()
            }
            for step in reached
        },
        facts={"curves": curves, "weights": kind, "num_images": settings.num_images},
    )


def minutes_to(accuracy: float, curve: Curve) -> float | None:
    """Returns when a curve first reached an accuracy; None if it never did."""
    return next((minutes for minutes, reached in curve if reached >= accuracy), None)


def plot_time_to_accuracy(title: str, curves: Mapping[str, Sequence]) -> Figure:
    """Plots the highest accuracy so far against minutes.

    Args:
        title: of the plot.
        curves: by contender, as `measure_time_to_accuracy` has them among its facts.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        best = [max(accuracy for _, accuracy in curve[:end]) for end in range(1, len(curve) + 1)]
        minutes = [minutes for minutes, _ in curve]
        percents = [100 * accuracy for accuracy in best]
        axes.step(
            minutes, percents, where="post", marker="o", ms=4, color=_COLOURS[name], label=name
        )
    axes.set_title(title, fontsize="small", wrap=True)
    axes.set(xlabel="minutes since the start", ylabel="% of validation images right")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    return figure


def _choose_weights(backbone: str) -> str | None:
    # What a machine that is offline has.
    if packages.find(backbone) is not None:
        return PHOTOS
    return BUNDLED if backbone in pretrained.available(BUNDLED) else None


def _ours(settings: Settings, kind: str, folder: Path) -> Curve:
    place = folder / "ours"
    place.mkdir()
    if kind == PHOTOS:
        _lend_package(settings.backbone, place / "keras" / "transfer" / "weights")
    words = ["--data", "../images.npz", "--backbone", settings.backbone, "--weights", kind]
    words += ["--image-size", settings.image_size, "--batch-size", settings.batch_size]
    finished = run_command("train", [*words, "--run-dir", "run"], place)
    seconds = [line.seconds for line in finished.lines if _OUR_EPOCH.match(line.text)]
    header, *rows = (place / "run" / "history.csv").read_text().splitlines()
    column = header.split(",").index("val_accuracy")
    accuracies = [float(row.split(",")[column]) for row in rows]
    return _curve(seconds, accuracies)


def _lend_package(backbone: str, folder: Path) -> None:
    # The process has a folder of its own for what Keras and this toolkit keep.
    path = packages.find(backbone)
    folder.mkdir(parents=True)
    for file in path.parent.glob(f"{path.name}*"):
        shutil.copy(file, folder)


def _stock(settings: Settings, kind: str, folder: Path) -> Curve:
    place = folder / "stock"
    place.mkdir()
    words = ["--data", "../images.npz", "--backbone", settings.backbone]
    words += ["--weights", write_weights(settings, kind, folder)]
    words += ["--image-size", settings.image_size, "--batch-size", settings.batch_size]
    words += ["--head-epochs", settings.head_epochs, "--finetune-epochs", settings.finetune_epochs]
    finished: Finished = run_command("benchmarks/stock_keras", words, place)
    lines = [line for line in finished.lines if line.text.startswith(EPOCH)]
    accuracies = [json.loads(line.text.removeprefix(EPOCH))["val_accuracy"] for line in lines]
    return _curve([line.seconds for line in lines], accuracies)


def _curve(seconds: Sequence[float], accuracies: Sequence[float]) -> Curve:
    pairs = zip(seconds, accuracies, strict=True)
    return [(each / 60, accuracy) for each, accuracy in pairs]


def _tell(minutes: float | None) -> str:
    return "never" if minutes is None else f"{minutes:.1f}"
