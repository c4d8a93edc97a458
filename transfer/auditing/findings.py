"""What is wrong with a data set before anything is trained on it.

The images of all its parts are looked at as one list, each with its part, its index or file name,
and its label: which files cannot be read, how many images each class has, which images show next
to nothing, and which are there twice, within a part or across.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transfer.auditing.image_quality import Odd, find_odd_images
from transfer.data.decode import decode_readable, relative_name
from transfer.data.descriptors import CHUNK_IMAGES
from transfer.data.division import limited_indices
from transfer.data.duplicates import Pairs, find_exact_duplicates, find_near_duplicates
from transfer.data.records import Encoded, Record
from transfer.data.splits import Loaded, PassedOver, Split

PARTS = ("train", "validation", "test")
LEAST_CONTRAST = 0.05  # of the range from 0 to 255, as skimage.exposure.is_low_contrast has it
_DARK, _BRIGHT = 1, 99  # percentiles that the contrast is taken between


@dataclass(frozen=True, eq=False)
class Images:
    """All readable images of a data set.

    Attributes:
        pixels: uint8 (N, H, W, 1 or 3).
        labels: int64 (N,).
        parts: str (N,), one of `PARTS`.
        names: N texts: the index within the part, or the file's path from the root.
        digests: N SHA-256 of the pixels, or of the file.
        sizes: int (N, 2), width and height of each as it is stored.
        class_names: name of each label.
        unreadable: a line ("path (reason)") for each file that does not decode.
        passed_over: whatever lies there and is not used.
    """

    pixels: np.ndarray
    labels: np.ndarray
    parts: np.ndarray
    names: list[str]
    digests: list[bytes]
    sizes: np.ndarray
    class_names: tuple[str, ...]
    unreadable: list[str]
    passed_over: Sequence[PassedOver] = ()


@dataclass(frozen=True, eq=False)
class Findings:
    """What the audit found in `Images`; all indices are into them.

    Attributes:
        class_counts: part to (C,) numbers of images.
        low_contrast: int (K,), the emptiest first.
        contrast: float (K,), of each of them: share of the range from black to white.
        odd: images of each kind of `image_quality.KINDS`.
        duplicates: pairs, exact ones (difference 0) first.
        is_exact: bool (P,), whether the two files, or arrays of pixels, are the same.
    """

    class_counts: dict[str, np.ndarray]
    low_contrast: np.ndarray
    contrast: np.ndarray
    odd: dict[str, Odd]
    duplicates: Pairs
    is_exact: np.ndarray

    def crosses(self, images: Images) -> np.ndarray:
        """Returns bool (P,): whether the two of a pair are in different parts."""
        return images.parts[self.duplicates.first] != images.parts[self.duplicates.second]

    def disagrees(self, images: Images) -> np.ndarray:
        """Returns bool (P,): whether the two of a pair have different labels."""
        return images.labels[self.duplicates.first] != images.labels[self.duplicates.second]


def read_images(loaded: Loaded, image_size: int, limit: int | None = None) -> Images:
    """Decodes all images of a data set that can be decoded, and lists the rest.

    Args:
        loaded: the parts that the data set has of its own.
        image_size: larger images are shrunk to this side, in pixels.
        limit: at most this many images of each part, stratified.

    Raises:
        InputError: no image can be decoded, or there is no room for the pixels.
    """
    splits = loaded.parts()
    indices = {
        name: np.arange(split.num_images) if limit is None else limited_indices(split.labels, limit)
        for name, split in splits.items()
    }
    taken = [split.take(indices[name]) for name, split in splits.items()]
    together = Split(
        np.concatenate([split.images for split in taken]),
        np.concatenate([split.labels for split in taken]),
        loaded.train.root,
        files=loaded.train.files,  # all parts have the same
    )
    parts = np.repeat(list(splits), [split.num_images for split in taken])
    numbers = np.concatenate(list(indices.values()))
    decoded = decode_readable(together, image_size)
    kept = decoded.indices
    readable = together.take(kept)
    names = (
        [relative_name(str(path), readable.root) for path in readable.encoded]
        if readable.are_files
        else [str(number) for number in numbers[kept]]
    )
    return Images(
        decoded.images,
        readable.labels,
        parts[kept],
        names,
        [_digest(image) for image in readable.encoded],
        decoded.sizes,
        loaded.class_names,
        decoded.bad,
        loaded.passed_over,
    )


def _digest(image: np.ndarray | Encoded) -> bytes:
    if isinstance(image, Record):
        return hashlib.sha256(image.read()).digest()
    if not isinstance(image, str):
        return hashlib.sha256(np.ascontiguousarray(image).data).digest()
    with open(image, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def examine(images: Images) -> Findings:
    """Counts classes, finds images that are odd in some way and duplicates, exact and near."""
    num_classes = len(images.class_names)
    contrast = _contrast(images.pixels)
    order = np.argsort(contrast, kind="stable")
    empty = order[contrast[order] < LEAST_CONTRAST]
    duplicates, is_exact = _find_duplicates(images)
    return Findings(
        {
            part: np.bincount(images.labels[images.parts == part], minlength=num_classes)
            for part in PARTS
            if (images.parts == part).any()
        },
        empty,
        contrast[empty],
        find_odd_images(images.pixels, images.sizes),
        duplicates,
        is_exact,
    )


def _contrast(pixels: np.ndarray) -> np.ndarray:
    # Share of the range between the darkest and the brightest hundredth: float (N,).
    parts = []
    for start in range(0, len(pixels), CHUNK_IMAGES):
        gray = pixels[start : start + CHUNK_IMAGES].mean(axis=3).reshape(-1, pixels[0, ..., 0].size)
        low, high = np.percentile(gray, (_DARK, _BRIGHT), axis=1)
        parts.append((high - low) / 255)
    return np.concatenate(parts)


def _find_duplicates(images: Images) -> tuple[Pairs, np.ndarray]:
    original = find_exact_duplicates(images.digests)
    copies = np.flatnonzero(original != np.arange(len(original)))
    # Each content once: many copies of one picture would hide its near duplicates.
    unique = np.flatnonzero(original == np.arange(len(original)))
    near = find_near_duplicates(images.pixels[unique])
    pairs = Pairs(
        np.concatenate([original[copies], unique[near.first]]),
        np.concatenate([copies, unique[near.second]]),
        np.concatenate([np.zeros(len(copies), np.float32), near.difference]),
    )
    return pairs, np.arange(len(pairs.first)) < len(copies)
