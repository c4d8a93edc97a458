"""The whole recipe, head epochs and fine-tune epochs: `train.py` beside the stock Keras recipe.

Both read the same images, start from the same weights, validate after each epoch, never stop
early, and run in a process of their own, timed from its start to the end of training. Each is then
asked once what it says of all test images.
"""

import json
import statistics
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.interleaved import KERAS, SECONDS, Measurement, Settings
from benchmarks.processes import Finished, run_command
from benchmarks.stock_keras import TRAINED
from transfer.datasets.sources import load_splits, load_undivided
from transfer.formatting import format_percent
from transfer.models import pretrained
from transfer.models.pretrained import BUNDLED
from transfer.models.weights import load_backbone

HERE, STOCK = "here: train.py", "Keras: the guide's recipe"
MOST_REPEATS = 2  # they take minutes each


def measure_recipe(settings: Settings) -> Measurement | None:
    """Returns the seconds of the recipe, and the test accuracies, one value a repeat.

    Each repeat has another seed. None: there are no pretrained weights to start from.
    """
    repeats = min(settings.repeats, MOST_REPEATS)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        kind = BUNDLED if settings.backbone in pretrained.available(BUNDLED) else "auto"
        weights = write_weights(settings, kind, folder)
        if weights is None:
            return None
        num_test = write_images(settings.num_images, folder / "images.npz")
        seconds: dict[str, list[float]] = {}
        accuracies: dict[str, list[float]] = {}
        for seed in range(repeats):
            for name, contender in ((HERE, _ours), (STOCK, _stock)):
                if name == STOCK and KERAS not in settings.against:
                    continue
                place = folder / f"{contender.__name__}{seed}"
                place.mkdir()
                taken, accuracy = contender(settings, weights, seed, place)
                seconds.setdefault(name, []).append(taken)
                accuracies.setdefault(name, []).append(accuracy)
    means = {name: statistics.fmean(values) for name, values in accuracies.items()}
    return Measurement(
        f"{settings.head_epochs} head and {settings.finetune_epochs} fine-tune epochs on "
        f"{settings.num_images:,} images: {settings.backbone}, {settings.image_size} pixels, "
        f"batch {settings.batch_size}",
        seconds,
        ((HERE, STOCK),),
        unit=SECONDS,
        columns={
            f"accuracy on {num_test:,} test images": {
                name: format_percent(mean) for name, mean in means.items()
            }
        },
        facts={
            "test_accuracy": accuracies,
            "num_test_images": num_test,
            "num_images": settings.num_images,
            "seeds": list(range(repeats)),
            "weights": weights.name,
        },
    )


def write_weights(settings: Settings, kind: str, folder: Path) -> Path | None:
    """Returns a file in the folder with what `--weights` means; None for random weights."""
    network, weights = load_backbone(settings.backbone, settings.image_size, kind, offline=True)
    path = folder / f"{weights.name}.weights.h5"
    network.save_weights(path)
    return path if weights.pretrained else None


def write_images(num_images: int, path: Path) -> int:
    """Writes as many training images as asked for, of each class alike, and all test images.

    Returns:
        The number of test images.
    """
    some, everything = load_splits(limit=num_images), load_undivided()
    test = everything.test
    np.savez(
        path,
        x_train=some.train.images,
        y_train=some.train.labels,
        x_test=test.images,
        y_test=test.labels,
        class_names=np.array(some.class_names),
    )
    return test.num_images


def _options(settings: Settings, seed: int) -> list[object]:
    return [
        *("--data", "../images.npz", "--backbone", settings.backbone),
        *("--image-size", settings.image_size, "--batch-size", settings.batch_size),
        *("--head-epochs", settings.head_epochs, "--finetune-epochs", settings.finetune_epochs),
        *("--seed", seed),
    ]


def _ours(settings: Settings, weights: Path, seed: int, folder: Path) -> tuple[float, float]:
    # Included weights by their name: train.py knows what suits them.
    given = BUNDLED if weights.name.startswith(BUNDLED) else weights
    epochs = settings.head_epochs + settings.finetune_epochs
    never_stop = ("--early-stopping-patience", epochs)
    words = [*_options(settings, seed), *never_stop, "--weights", given, "--run-dir", "run"]
    trained = run_command("train", words, folder)
    evaluated = run_command("evaluate", ["run", "--json"], folder)
    return trained.seconds, json.loads(evaluated.text)["accuracy"]


def _stock(settings: Settings, weights: Path, seed: int, folder: Path) -> tuple[float, float]:
    words = [*_options(settings, seed), "--weights", weights]
    finished: Finished = run_command("benchmarks/stock_keras", words, folder)
    return finished.when(TRAINED), json.loads(finished.lines[-1].text)["accuracy"]
