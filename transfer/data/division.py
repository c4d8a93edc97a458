"""A data set divided into training, validation and test images.

What a data set has of its own stays; what is missing is held out, stratified. Of small data sets
near duplicates stay on one side: a validation image that training has seen chooses a wrong epoch,
a test image that it has seen reports too good a number.
"""

from pathlib import Path

import numpy as np

from transfer.data.duplicates import group_split
from transfer.data.fashion_mnist import FASHION_MNIST, SAMPLE
from transfer.data.splits import MOST_CLASSES, Loaded, Split, Splits
from transfer.errors import InputError, printable

_TEST_FRACTION = 0.2
_FIXED_SEED = 1708_07747  # of the paper, arXiv:1708.07747; never the run's seed
_LARGEST_SHARE = 1 / 3  # of a class; a larger group of near duplicates stays in training


def divide(
    loaded: Loaded,
    validation_fraction: float,
    seed: int,
    limit: int | None,
    *,
    keeps_duplicates_together: bool = True,
) -> Splits:
    """Divides a data set into training, validation and test images, each part with every class.

    Args:
        loaded: what a loader returned; a part that it has of its own stays as it is.
        validation_fraction: share of the training images held out, in (0, 1).
        seed: chooses the validation images, not the test images.
        limit: keep at most so many images of each part, or None for all.
        keeps_duplicates_together: False divides as version 0.1.0 did.

    Raises:
        InputError: fewer than two classes, or too few training images of one.
    """
    train, validation, test = loaded.train, loaded.validation, loaded.test
    notes = loaded.remarks()
    missing = [part for part in ("test", "validation") if getattr(loaded, part) is None]
    if len(loaded.class_names) > MOST_CLASSES:
        raise InputError(
            f"{loaded.location} should have at most {MOST_CLASSES:,} classes. "
            f"Received: {len(loaded.class_names):,}."
        )
    _check_class_sizes(train, loaded, missing)
    groups = np.arange(train.num_images)
    if missing and keeps_duplicates_together:
        groups, told = _groups_to_keep(group_split(train), train.labels, 1 + len(missing))
        notes += told
    if test is None:
        kept, held = _hold_out(train.labels, groups, _TEST_FRACTION, _FIXED_SEED)
        train, test, groups = train.take(kept), train.take(held), groups[kept]
        notes.append(f"{_TEST_FRACTION:.0%} held out for the test, the same for every seed")
    if validation is None:
        kept, held = _hold_out(train.labels, groups, validation_fraction, seed)
        train, validation = train.take(kept), train.take(held)
    if limit is not None:
        train, validation, test = (_limit(part, limit) for part in (train, validation, test))
        notes.append(f"limited to at most {limit:,} of each split")
    name = data_name(loaded)
    origin = printable(f"{loaded.origin or loaded.location} ({'; '.join(notes)})")
    return Splits(train, validation, test, loaded.class_names, name, origin, loaded.location)


def data_name(loaded: Loaded) -> str:
    """Returns the name of a data set, printable.

    A folder that happens to be called fashion-mnist does not pass for the published data.
    """
    if loaded.name:
        return loaded.name
    name = printable(Path(loaded.location).name)
    return f"{name}-unverified" if name in (FASHION_MNIST, SAMPLE) else name


def _check_class_sizes(train: Split, loaded: Loaded, missing: list[str]) -> None:
    if len(loaded.class_names) < 2:
        raise InputError(
            f"{loaded.location} should have at least two classes. "
            f"Received: {len(loaded.class_names)}."
        )
    sizes = np.bincount(train.labels, minlength=len(loaded.class_names))
    smallest = int(sizes.argmin())
    needed = 1 + len(missing)
    if sizes[smallest] < needed:
        purpose = f", to hold out images for {' and '.join(missing)}" if missing else ""
        raise InputError(
            f"{loaded.location}: every class should have at least {needed} training "
            f"image{'s' * (needed > 1)}{purpose}. Received: {sizes[smallest]} of class "
            f"{loaded.class_names[smallest]!r}; add images or leave the class out."
        )


def _groups_to_keep(
    groups: np.ndarray, labels: np.ndarray, needed: int
) -> tuple[np.ndarray, list[str]]:
    # Returns the groups of near duplicates as they can be kept together, and what to say of them:
    # a class that has too few of them to be in every part is divided image by image.
    counts = np.bincount(labels[_representatives(groups, labels)], minlength=labels.max() + 1)
    scarce = np.isin(labels, np.flatnonzero(counts < needed))
    loose = np.isin(groups, groups[scarce])
    groups = np.where(loose, groups.max() + 1 + np.arange(len(groups)), groups)
    _, number, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    together = int((sizes[number] > 1).sum())
    return groups, [f"{together:,} near duplicates kept in one part"] if together else []


def _representatives(groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    # Returns the first image of each group that may be held out, sorted.
    _, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    of_class = np.bincount(labels)[labels[first]]
    is_small = (sizes == 1) | (sizes <= _LARGEST_SHARE * of_class)
    return np.sort(first[is_small])


def _hold_out(
    labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    # Returns the indices of those kept and of those held out, both with every class: the caller
    # has seen to two groups of each. Each group goes the way of its first image.
    from sklearn.model_selection import train_test_split  # half a second that --help need not pay

    first = _representatives(groups, labels)
    num_classes = int(labels.max()) + 1
    count = round(fraction * len(first))
    count = min(max(count, num_classes), len(first) - num_classes)
    kept, held = train_test_split(first, test_size=count, stratify=labels[first], random_state=seed)
    # Stratification rounds a rare class down to nothing.
    kept, held = _complete(labels, kept, held)
    held, kept = _complete(labels, held, kept)
    is_held = np.isin(groups, groups[held])
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def _complete(
    labels: np.ndarray, giver: np.ndarray, taker: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    # Moves one image of each class that `taker` lacks.
    lacking = np.setdiff1d(labels[giver], labels[taker])
    moved = np.array([np.flatnonzero(labels[giver] == label)[0] for label in lacking], dtype=int)
    return np.delete(giver, moved), np.concatenate([taker, giver[moved]])


def _limit(split: Split, limit: int) -> Split:
    return split.take(limited_indices(split.labels, limit))


def limited_indices(labels: np.ndarray, limit: int) -> np.ndarray:
    """Returns the indices, sorted, of the images that `limit` leaves; see `load_splits`."""
    # The r-th image of a class of n comes at (r + 0.5) / n of the way, the first of each class
    # before all: any beginning of this order is stratified, and a lower limit gives a part of
    # what a higher one gives. RandomState, because its numbers are the same in every numpy.
    shuffled = np.random.RandomState(_FIXED_SEED).permutation(len(labels))
    labels = labels[shuffled]
    sizes = np.bincount(labels)
    by_class = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels), dtype=np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    position = np.where(rank == 0, -1.0, (rank + 0.5) / sizes[labels])
    return np.sort(shuffled[np.argsort(position, kind="stable")[:limit]])
