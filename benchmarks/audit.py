"""Measures what the audit finds of errors that are put into Fashion-MNIST on purpose.

    python -m benchmarks.audit [--seeds 3] [--skip labels]

Duplicates: 200 training images, each shifted by a pixel, made brighter or darker by up to 30 % and
saved as JPEG of quality 50 to 95, take the place of test images. Recall is the share of them that
is paired with its original. Other pairs that are reported are not false by that alone, because the
data has near duplicates of its own; they are drawn into a picture, to be looked at.

Labels: 500 of the 60,000 training labels become another class. Precision is the share of changed
labels among the 500 that the audit doubts most.
"""

import io
import time
from pathlib import Path

import click
import numpy as np
from PIL import Image

from transfer.commands.exit_codes import run
from transfer.formatting import format_percent, format_seconds
from transfer.plots import style

NUM_DUPLICATES = 200
NUM_LABEL_ERRORS = 500
BRIGHTNESS = (0.7, 1.3)  # factors
JPEG_QUALITY = (50, 95)


def alter_pictures(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns uint8 (N, H, W, C) images, each shifted, its brightness changed, and recompressed."""
    return np.stack([_alter(image, generator) for image in images])


def _alter(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    shifts = [(down, across) for down in (0, 1, 2) for across in (0, 1, 2)]
    shifts.remove((1, 1))  # no shift
    down, across = shifts[generator.integers(len(shifts))]
    shifted = np.pad(image, ((1, 1), (1, 1), (0, 0)))[down : down + height, across : across + width]
    bright = np.clip(np.rint(shifted * generator.uniform(*BRIGHTNESS)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    picture = Image.fromarray(bright[..., 0] if bright.shape[2] == 1 else bright)
    picture.save(
        file, "JPEG", quality=int(generator.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1))
    )
    return np.asarray(Image.open(file)).reshape(image.shape)


def change_labels(
    labels: np.ndarray, num_classes: int, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels of which `count` are another class, drawn evenly, and the indices of those."""
    changed = generator.choice(len(labels), count, replace=False)
    given = labels.copy()
    given[changed] = (labels[changed] + generator.integers(1, num_classes, count)) % num_classes
    return given, changed


@click.command()
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--skip", type=click.Choice(["duplicates", "labels"]), help="Leave one of them out.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/audit-benchmark"))
def main(seeds: int, skip: str | None, out: Path) -> None:
    """Measure how much of what is injected into Fashion-MNIST the audit finds."""
    from transfer.datasets.sources import load_undivided

    loaded = load_undivided("fashion-mnist")
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        if skip != "duplicates":
            _measure_duplicates(loaded.train.images, loaded.test.images, seed, out)
    if skip != "labels":
        _measure_labels(loaded.train.images, loaded.train.labels, seeds)


def _measure_duplicates(train: np.ndarray, test: np.ndarray, seed: int, out: Path) -> None:
    from transfer.data.duplicates import find_near_duplicates
    from transfer.plots import audit_galleries

    generator = np.random.default_rng(seed)
    originals = generator.choice(len(train), NUM_DUPLICATES, replace=False)
    replaced = generator.choice(len(test), NUM_DUPLICATES, replace=False)
    test = test.copy()
    test[replaced] = alter_pictures(train[originals], generator)
    started = time.perf_counter()
    found = find_near_duplicates(test, train)
    seconds = time.perf_counter() - started
    source = np.full(len(test), -1)
    source[replaced] = originals
    injected = source[found.first] == found.second
    recall = len(np.unique(found.first[injected])) / NUM_DUPLICATES
    # The best pair of each other test image; those of injected images are look-alikes of theirs.
    others = np.flatnonzero(source[found.first] < 0)
    others = others[np.sort(np.unique(found.first[others], return_index=True)[1])]
    captions = [f"difference {found.difference[index]:.1f}" for index in others]
    for start in range(0, len(others), audit_galleries.MOST_SHOWN // 2):
        part = others[start : start + audit_galleries.MOST_SHOWN // 2]
        figure = audit_galleries.plot_pairs(
            f"Reported and not injected, seed {seed}",
            test[found.first[part]],
            train[found.second[part]],
            captions[start : start + len(part)],
        )
        (out / f"not_injected_{seed}_{start}.png").write_bytes(style.png(figure))
    reported = len(np.unique(found.first))
    click.echo(
        f"seed {seed}: recall {format_percent(recall)}; test images reported: {reported:,}, of "
        f"them not injected {len(others):,}, to be looked at in {out}; {format_seconds(seconds)}"
    )


def _measure_labels(images: np.ndarray, labels: np.ndarray, seeds: int) -> None:
    from transfer.auditing.label_errors import find_label_errors
    from transfer.data.descriptors import appearance_features

    started = time.perf_counter()
    features = appearance_features(images)
    click.echo(f"features: {format_seconds(time.perf_counter() - started)}")
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        given, changed = change_labels(labels, 10, NUM_LABEL_ERRORS, generator)
        started = time.perf_counter()
        errors = find_label_errors(features, given)
        seconds = time.perf_counter() - started
        precision = np.isin(errors.indices[:NUM_LABEL_ERRORS], changed).mean()
        recall = np.isin(changed, errors.indices).mean()
        click.echo(
            f"seed {seed}: precision at {NUM_LABEL_ERRORS} {format_percent(precision)}; "
            f"{len(errors.indices):,} labels doubted, {format_percent(recall)} of the changed ones "
            f"among them; out-of-fold accuracy {format_percent(errors.accuracy)}; "
            f"{format_seconds(seconds)}"
        )


if __name__ == "__main__":
    run(main)
