"""Images with their labels: a part of a data set, what a loader returns, a data set divided."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np

from transfer.data.geometry import Geometry
from transfer.data.records import PLACE, Encoded, RecordFile, Records

# What every class is counted against every other in has the square of it in cells: 200 MB.
MOST_CLASSES = 5_000


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, in a fixed order.

    Attributes:
        images: uint8 (N, H, W, 1 or 3) in [0, 255]; or the absolute paths of N image files,
            str in an object array (N,); or the places of N images within `files`, `PLACE` (N,).
        labels: int64 (N,) in [0, num_classes).
        root: folder that the paths of image files are told relative to; "" for arrays.
        names: path of each image file from the root, str in an object array (N,), kept after the
            files were decoded; None of images that are no files.
        files: that hold many images, where `images` are places in them.
    """

    images: np.ndarray
    labels: np.ndarray
    root: str = ""
    names: np.ndarray | None = None
    files: tuple[RecordFile, ...] = ()

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def are_files(self) -> bool:
        """True where `images` are encoded, which `transfer.data.decode` turns into pixels."""
        return self.images.dtype in (object, PLACE)

    @property
    def encoded(self) -> Sequence[Encoded]:
        """The N images that are not decoded yet."""
        if self.images.dtype == PLACE:
            return Records(self.images, self.files)
        return cast(Sequence[Encoded], self.images)

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
