"""Classes of unequal size: what class weights, or a loss of its own, bring to the rare ones.

    python -m benchmarks.imbalance [--seeds 3] [--ratio 100]

Of Fashion-MNIST's classes in an order by seed, the first keeps 500 training images and each next
one fewer, down to 500 by the ratio. The head alone is trained; recall is the mean over the classes
of 2,000 test images, which are of equal size.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np

import transfer
from transfer.commands.exit_codes import run
from transfer.formatting import format_spread

LARGEST = 500
TEST_IMAGES = 2000
ADJUSTED = "logit-adjusted loss"
WAYS = {"plain": {}, "--class-weights": {"class_weights": True}, ADJUSTED: {}}


def long_tail(labels: np.ndarray, ratio: float, seed: int) -> np.ndarray:
    """Returns the indices of images whose classes fall from 500 images to 500 / ratio."""
    generator = np.random.default_rng(seed)
    classes = generator.permutation(np.unique(labels))
    sizes = np.round(LARGEST * ratio ** -np.linspace(0, 1, len(classes))).astype(int)
    each = [
        generator.permutation(np.flatnonzero(labels == label))[:size]
        for label, size in zip(classes, sizes, strict=True)
    ]
    return np.concatenate(each)


@contextlib.contextmanager
def adjust_loss(labels: np.ndarray) -> Iterator[None]:
    """Has training learn with the logit-adjusted loss, tau 1, of training and validation images.

    Menon et al. 2020, https://arxiv.org/abs/2007.07314: each probability times the share of its
    class among the labels.
    """
    from keras import ops

    from transfer.training.counting import CountedCrossentropy

    shares = np.bincount(labels).astype(np.float32) / len(labels)
    plain = CountedCrossentropy.call

    def adjusted(loss: CountedCrossentropy, y_true: Any, y_pred: Any) -> Any:
        weighed = y_pred * shares
        return plain(loss, y_true, weighed / ops.sum(weighed, axis=-1, keepdims=True))

    with mock.patch.object(CountedCrossentropy, "call", adjusted):
        yield


@click.command()
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--ratio", "ratios", multiple=True, type=float, default=(100,), show_default=True)
@click.option("--weights", default="photos", show_default=True)
@click.option("--image-size", type=click.IntRange(32), default=64, show_default=True)
def main(seeds: int, ratios: tuple[float, ...], weights: str, image_size: int) -> None:
    """Measure macro recall on long-tailed Fashion-MNIST."""
    from transfer.datasets.sources import load_undivided

    loaded = load_undivided("fashion-mnist")
    test = loaded.test.take(np.arange(TEST_IMAGES))
    settings = {"weights": weights, "image_size": image_size, "finetune_epochs": 0}
    settings |= {"head_epochs": 10, "batch_size": 128}  # whatever the defaults are by now
    for ratio in ratios:
        for way, options in WAYS.items():
            found = []
            for seed in range(seeds):
                train = loaded.train.take(long_tail(loaded.train.labels, ratio, seed))
                parts = ((train.images, train.labels), (test.images, test.labels))
                adjusts = adjust_loss(train.labels) if way == ADJUSTED else contextlib.nullcontext()
                with tempfile.TemporaryDirectory() as folder, adjusts:
                    done = transfer.train(
                        parts, run_dir=Path(folder) / "run", seed=seed, **settings, **options
                    )
                    found.append(done.evaluate().metrics["recall_macro"])
            click.echo(f"{ratio:g} to 1, {way}: macro recall {format_spread(found)}")


if __name__ == "__main__":
    run(main)
