"""What each place of weights is worth: head alone, two and five fine-tune epochs, by data size.

    python -m benchmarks.places [--limit 1000] [--limit 10000] [--folder runs/places]

One run a place, size and seed gives all three figures: at a constant learning rate the epochs of
a shorter run are the first ones of a longer. Runs that have finished are not made again, and one
that was stopped is resumed. The accuracies are those of validation images, never of test images.
"""

import itertools
import statistics
from pathlib import Path

import click

from benchmarks import resumable
from transfer import console
from transfer.commands.exit_codes import run
from transfer.formatting import format_spread
from transfer.models import packages, pretrained
from transfer.models.pretrained import BUNDLED
from transfer.report.document import Table
from transfer.runs.history import read_history

BACKBONES = ("mobilenetv2", "efficientnetlite0", "vgg16")
HEAD, EPOCHS = "head", (2, 5)  # the columns
# One recipe for all places and sizes, whatever the defaults are by now.
RECIPE = {
    "head-epochs": 10,
    "finetune-epochs": EPOCHS[-1],
    "batch-size": 128,
    "optimizer": "adam",
    "schedule": "plateau",
    "warm-up-fraction": 0,
    "rotation-degrees": 10,
    "zoom-fraction": 0.1,
    "translation-fraction": 0,
    "unfreeze": "all",
    "label-smoothing": 0,
}
LEARNING_RATES = {"photos": 1e-4, BUNDLED: 3e-4}  # of fine-tuning; from random weights its own


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--backbone", "backbones", type=click.Choice(BACKBONES), multiple=True, default=BACKBONES
)
@click.option(
    "--limit",
    "limits",
    type=click.IntRange(100),
    multiple=True,
    default=(1000, 10_000, 54_000),
    show_default=True,
    help="Training images; may be given more than once.",
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--image-size", type=click.IntRange(32), default=64, show_default=True)
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("runs/places"), show_default=True
)
def main(
    backbones: tuple[str, ...], limits: tuple[int, ...], seeds: int, image_size: int, folder: Path
) -> None:
    """Measure what each place of weights is worth on Fashion-MNIST's validation images."""
    console.speak()
    rows = []
    for limit, backbone in itertools.product(limits, backbones):
        for place in _places(backbone):
            wish = {"backbone": backbone, "weights": place, "limit": limit}
            wish["image-size"] = image_size
            found = [_measure(wish | {"seed": seed}, folder) for seed in range(seeds)]
            cells = [_spread([one.get(column) for one in found]) for column in (HEAD, *EPOCHS)]
            rows.append((f"{limit:,}", backbone, place, *cells))
            console.say(" | ".join(rows[-1]))
    header = ("images", "backbone", "weights", "head alone", *(f"{n} epochs" for n in EPOCHS))
    Table(header, (True, *[False] * 2, *[True] * 3), rows).show()


def _places(backbone: str) -> list[str]:
    photos = ["photos"] if backbone in packages.PACKAGES else []
    fractals = [BUNDLED] if backbone in pretrained.available(BUNDLED) else []
    return [*photos, *fractals, "none"]


def _measure(wish: dict[str, object], folder: Path) -> dict[str | int, float]:
    # Returns the best validation accuracy up to each column's epoch.
    run_dir = folder / "-".join(str(value) for value in wish.values())
    settings = wish | RECIPE
    if wish["weights"] in LEARNING_RATES:
        settings["finetune-learning-rate"] = LEARNING_RATES[str(wish["weights"])]
    resumable.train_once(run_dir, settings)
    history = read_history(run_dir)
    found: dict[str | int, float] = {}
    head = [row["val_accuracy"] for row in history if row["phase"] == HEAD]
    if head:
        found[HEAD] = max(head)
    for last in EPOCHS:
        epochs = [
            row["val_accuracy"] for row in history if row["phase"] != HEAD and row["epoch"] <= last
        ]
        found[last] = max(epochs)
    return found


def _spread(values: list[float | None]) -> str:
    there = [value for value in values if value is not None]
    if not there:
        return "–"
    return format_spread(there) if len(there) > 1 else f"{100 * statistics.fmean(there):.2f} %"


if __name__ == "__main__":
    run(main, "python -m benchmarks.places")
