"""Images with their labels, and a data set divided into training, validation and test images."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from transfer.data.fashion_mnist import FASHION_MNIST, SAMPLE
from transfer.data.geometry import Geometry
from transfer.errors import InputError, printable

# What every class is counted against every other in has the square of it in cells: 200 MB.
MOST_CLASSES = 5_000


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, in a fixed order.

    Attributes:
        images: uint8 (N, H, W, 1 or 3) in [0, 255]; or the absolute paths of N image files,
            str in an object array (N,).
        labels: int64 (N,) in [0, num_classes).
        root: folder that the paths of image files are told relative to; "" for arrays.
        names: path of each image file from the root, str in an object array (N,), kept after the
            files were decoded; None of images that are no files.
    """

    images: np.ndarray
    labels: np.ndarray
    root: str = ""
    names: np.ndarray | None = None

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def are_files(self) -> bool:
        """True where `images` holds paths, which `transfer.data.decode` turns into pixels."""
        return self.images.dtype == object

    def take(self, indices: np.ndarray) -> "Split":
        """Returns the split of these images, in this order; indices int (M,) or bool (N,)."""
        return dataclasses.replace(
            self,
            images=self.images[indices],
            labels=self.labels[indices],
            names=None if self.names is None else self.names[indices],
        )


class PassedOver(NamedTuple):
    """A file, or an array or table within one, that is there and not used."""

    path: str  # from the data set's root
    reason: str  # a few words that follow a number: "3 hidden files"


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a loader returns: the parts that a data set has of its own, not yet divided.

    Attributes:
        train: images to learn from.
        test: images to report on, or None.
        class_names: name of each label.
        location: what `load_splits` takes as `data` to find the same place again.
        checked: a few words for the provenance line.
        validation: images to choose by, or None.
        name: of the data set, "" for that of the file or folder.
        origin: where it came from in words, "" for the location.
        notes: what was guessed or changed, a few words each.
        passed_over: whatever is there and not used.
    """

    train: Split
    test: Split | None
    class_names: tuple[str, ...]
    location: str
    checked: str
    validation: Split | None = None
    name: str = ""
    origin: str = ""
    notes: tuple[str, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()

    def parts(self) -> dict[str, Split]:
        """Returns the parts it has by their names: train, and perhaps validation and test."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in parts.items() if split is not None}

    def remarks(self) -> list[str]:
        """Returns what a reader of its provenance must know, a few words each."""
        passed_over = [f"passed over {count_passed_over(self.passed_over)}"]
        return [self.checked, *self.notes, *(passed_over if self.passed_over else [])]


_MOST_REASONS = 6  # told of what was passed over


def count_passed_over(passed_over: Sequence[PassedOver]) -> str:
    """Returns how many were passed over and why: "3: 2 hidden files, 1 .txt files"."""
    counts = Counter(one.reason for one in passed_over).most_common()
    told = [f"{count:,} {reason}" for reason, count in counts[:_MOST_REASONS]]
    others = sum(count for _, count in counts[_MOST_REASONS:])
    return f"{len(passed_over):,}: " + ", ".join(told + ([f"{others:,} others"] if others else []))


_TEST_FRACTION = 0.2
_FIXED_SEED = 1708_07747  # of the paper, arXiv:1708.07747; never the run's seed


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set, divided.

    Attributes:
        train: images to learn from.
        validation: images to choose by; never part of `test`.
        test: images to report on.
        class_names: name of each label, `num_classes` of them.
        name: "fashion-mnist" for the published data set, checksums verified, and nothing else;
            "fashion-mnist-sample" for the embedded sample; else the name of the file or folder.
        origin: where it came from, and what to know of it, printable.
        location: what `load_splits` takes as `data` to find the same place again.
        geometry: what every image was decoded to; None before they are decoded.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    name: str
    origin: str
    location: str = ""
    geometry: Geometry | None = None

    @property
    def provenance(self) -> str:
        """One printable line: what was taken, how many images, from where, whether verified."""
        test = f"{self.test.num_images:,} test images"
        return (
            f"{self.name}: {self.train.num_images:,} training, {self.validation.num_images:,} "
            f"validation and {test if self.test.num_images else 'the test images, left alone,'} "
            f"from {self.origin}"
        )

    def parts(self) -> dict[str, Split]:
        """Returns the splits by their names: train, validation, test."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


# --- Dividing -------------------------------------------------------------------------------


def divide(loaded: Loaded, validation_fraction: float, seed: int, limit: int | None) -> Splits:
    """Divides a data set into training, validation and test images, each part with every class.

    Args:
        loaded: what a loader returned; a part that it has of its own stays as it is.
        validation_fraction: share of the training images held out, in (0, 1).
        seed: chooses the validation images, not the test images.
        limit: keep at most so many images of each part, or None for all.

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
    if test is None:
        train, test = _hold_out(train, _TEST_FRACTION, _FIXED_SEED)
        notes.append(f"{_TEST_FRACTION:.0%} held out for the test, the same for every seed")
    if validation is None:
        train, validation = _hold_out(train, validation_fraction, seed)
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


def _hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    # Returns (kept, held out), both with every class: the caller has seen to two images of each.
    from sklearn.model_selection import train_test_split  # half a second that --help need not pay

    num_classes = int(split.labels.max()) + 1
    count = round(fraction * split.num_images)
    count = min(max(count, num_classes), split.num_images - num_classes)
    kept, held = train_test_split(
        np.arange(split.num_images), test_size=count, stratify=split.labels, random_state=seed
    )
    # Stratification rounds a rare class down to nothing.
    kept, held = _complete(split.labels, kept, held)
    held, kept = _complete(split.labels, held, kept)
    return split.take(np.sort(kept)), split.take(np.sort(held))


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
