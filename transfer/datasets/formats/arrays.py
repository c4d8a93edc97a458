"""Where the formats that hold pixels themselves meet: arrays of all parts become a data set.

Shapes, range and labels are decided here, once, from all parts together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from transfer.data.ranges import choose_range, find_extremes, to_bytes
from transfer.data.splits import Loaded, PassedOver, Split
from transfer.datasets.formats import checks
from transfer.datasets.formats.labels import read_labels
from transfer.datasets.formats.part_names import TEST, TRAIN, VALIDATION
from transfer.errors import InputError


@dataclass(frozen=True, eq=False)
class Part:
    """Images and labels of a part as a file holds them, with their places for errors."""

    images: np.ndarray  # numbers (N, H, W) or (N, H, W, 1 or 3)
    labels: np.ndarray  # as `read_labels` takes them
    images_name: str
    labels_name: str

    def check(self) -> "Part":
        """Returns it with images (N, H, W, 1 or 3).

        Raises:
            InputError: no numbers, another shape, no image, or not as many labels.
        """
        if self.images.dtype.kind not in "buif":
            raise InputError(
                f"{self.images_name} should hold uint8 images, or floats in [0, 1] or [0, 255]. "
                f"Received: {self.images.dtype} {self.images.shape}."
            )
        images = checks.with_channels(self.images, self.images_name)
        checks.check_as_many(images, self.labels, self.images_name)
        return Part(images, self.labels, self.images_name, self.labels_name)


def make_loaded(
    parts: Mapping[str, Part],
    location: str,
    checked: str,
    *,
    class_names: tuple[str, ...] | None = None,
    name: str = "",
    notes: Sequence[str] = (),
    passed_over: Sequence[PassedOver] = (),
) -> Loaded:
    """Returns a data set of arrays: uint8 images of one shape and range, labels from 0.

    Args:
        parts: "train", and perhaps "validation" and "test".
        location: as of `Loaded`, as all that follows.
        checked: a few words.
        class_names: of labels 0, 1, 2, ..., where they are known.
        name: of the data set.
        notes: what was guessed or changed already.
        passed_over: whatever is there and not used.

    Raises:
        InputError: shapes, ranges or labels cannot be used, or do not go together.
    """
    parts = {part: one.check() for part, one in parts.items()}
    images = {part: one.images for part, one in parts.items()}
    checks.check_same_shape(images, location)
    chosen = choose_range({one.images_name: find_extremes(one.images) for one in parts.values()})
    labels = read_labels(
        {part: one.labels for part, one in parts.items()},
        location,
        {part: one.labels_name for part, one in parts.items()},
        class_names,
    )
    splits = {
        part: Split(to_bytes(images[part], chosen.factor), labels.parts[part]) for part in parts
    }
    all_notes = [*notes, *([chosen.words] if chosen.words else []), *labels.notes]
    return Loaded(
        splits[TRAIN],
        splits.get(TEST),
        labels.class_names,
        location,
        checked,
        splits.get(VALIDATION),
        name,
        notes=tuple(all_notes),
        passed_over=tuple(passed_over),
    )
