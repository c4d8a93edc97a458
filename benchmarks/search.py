"""Search for similar images: how long a query takes, and how often what is found is of its class.

    python -m benchmarks.search included runs/frozen

Images of Fashion-MNIST's test set are looked for among its training images, by the features of
each run; of one that was trained with --finetune-epochs 0 they are those of its first weights.
"""

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from transfer import console
from transfer.backend import load_keras
from transfer.commands.exit_codes import run as run_command
from transfer.data.splits import Split
from transfer.datasets.sources import load_splits
from transfer.deploy.choices import INCLUDED
from transfer.deploy.similar import Index, make_index
from transfer.evaluation.answering import features_of

if TYPE_CHECKING:
    from transfer.runs.finished import FinishedRun

NEAREST = 10
_QUERIES_TIMED = 50


@click.command(context_settings={"max_content_width": 100})
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--queries", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--catalogue", type=click.IntRange(100), default=60_000, show_default=True)
@click.option("--size", type=click.IntRange(10), default=100_000, show_default=True)
def main(runs: tuple[str, ...], queries: int, catalogue: int, size: int) -> None:
    """Measure precision@10 of similar images, and the time of a query among many."""
    console.speak()
    load_keras()
    train, test = _load_images(catalogue, queries)
    for name in runs:
        run = _open(name)
        features = features_of(run, train)
        index = make_index(tuple(map(str, train.labels)), features)
        share = precision(index, features_of(run, test), test.labels)
        console.show(
            f"{name}: precision@{NEAREST} {share:.4f}, {test.num_images:,} test images among "
            f"{train.num_images:,} training images, {index.features.shape[1]:,} features"
        )
        seconds = [1000 * one for one in time_queries(features, size)]
        console.show(
            f"A query among {size:,} images: {statistics.median(seconds):.1f} ms, median of "
            f"{len(seconds)} (from {min(seconds):.1f} to {max(seconds):.1f})"
        )


def precision(index: Index, features: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean share of the nearest images that are of a query's class."""
    own = [
        np.mean([index.paths[found] == str(label) for found, _ in index.nearest(one, NEAREST)])
        for one, label in zip(features, labels, strict=True)
    ]
    return float(np.mean(own))


def time_queries(features: np.ndarray, size: int) -> list[float]:
    """Returns the seconds of queries among images like these.

    Args:
        features: float (N, F); the catalogue is these again and again, and the queries some of
            them, each with noise of a tenth of its features' spread.
        size: of the catalogue.
    """
    generator = np.random.default_rng(0)
    spread = features.std(axis=0) / 10

    def like(rows: np.ndarray) -> np.ndarray:
        noise = generator.standard_normal((len(rows), features.shape[1]), np.float32)
        return features[rows] + spread * noise

    index = make_index(("",) * size, like(np.arange(size) % len(features)))
    seconds = []
    for query in like(generator.integers(len(features), size=_QUERIES_TIMED)):
        started = time.perf_counter()
        index.nearest(query, 12)
        seconds.append(time.perf_counter() - started)
    return seconds


def _load_images(catalogue: int, queries: int) -> tuple[Split, Split]:
    splits = load_splits("fashion-mnist")
    images = np.concatenate([splits.train.images, splits.validation.images])
    labels = np.concatenate([splits.train.labels, splits.validation.labels])
    test = splits.test.take(np.arange(min(queries, splits.test.num_images)))
    return Split(images[:catalogue], labels[:catalogue]), test


def _open(name: str) -> "FinishedRun":
    from transfer.runs.finished import FinishedRun
    from transfer.runs.included import unpack_included

    return FinishedRun(unpack_included() if name == INCLUDED else Path(name))


if __name__ == "__main__":
    run_command(main)
