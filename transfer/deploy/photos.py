"""From what a user names to pixels: photos found, decoded as in training, turned if negative."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from transfer.data.decode import decode_files
from transfer.data.geometry import Geometry
from transfer.data.records import Encoded
from transfer.datasets.formats.image_folder import IMAGE_SUFFIXES
from transfer.datasets.formats.record_files import format_of
from transfer.deploy.facts import is_on_other_ground
from transfer.errors import InputError
from transfer.evaluation.outliers import border_levels
from transfer.storage.remote import is_url, list_stored

STDIN = "-"
_LONGEST_LIST = 64 << 20  # characters on stdin


@dataclass(frozen=True)
class Found:
    """Photos in the order they were named, each once.

    Attributes:
        paths: as they were named; also files of records, each with many photos.
        passed_over: number of other files in the folders.
        twice: how many were named again.
    """

    paths: tuple[str, ...]
    passed_over: int
    twice: int


def find_photos(names: Sequence[str], *, inside: bool = False) -> Found:
    """Lists photos: files as they are named, whatever their name, and images in folders.

    Args:
        names: of files and folders, these with all below, or URLs of either; "-" for a list on
            stdin, one a line.
        inside: take files of records too, for the photos in them.

    Raises:
        InputError: the list on stdin is too long, or no photo was named, or a URL cannot be read.
    """
    paths: dict[str, None] = {}
    passed_over = twice = 0
    for name in _named(names):
        below = _stored_below(name)
        images = [path for path in below if path == name or _is_image(path, inside)]
        passed_over += len(below) - len(images)
        for path in images:
            twice += path in paths
            paths[path] = None
    if not paths:
        raise InputError(
            f"a photo or a folder with photos ({', '.join(IMAGE_SUFFIXES)}) should be named. "
            f"Received: {', '.join(names) or 'an empty list'}, with no photo in it."
        )
    return Found(tuple(paths), passed_over, twice)


def _named(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name != STDIN:
            yield name
            continue
        text = sys.stdin.read(_LONGEST_LIST + 1)
        if len(text) > _LONGEST_LIST:
            raise InputError(f"the list on stdin should have at most {_LONGEST_LIST:,} characters.")
        yield from (line for line in text.split("\n") if line.strip())


def _stored_below(name: str) -> list[str]:
    if is_url(name):
        return list_stored(name)
    return list(_files_below(name)) if os.path.isdir(name) else [name]


def _files_below(folder: str) -> Iterator[str]:
    for where, folders, files in os.walk(folder):  # links to folders are not followed
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(where, name) for name in sorted(files) if name[0] != ".")


def is_inside(path: str) -> bool:
    """Returns whether a path stands for the photos within it."""
    return format_of(path) is not None


def _is_image(path: str, inside: bool) -> bool:
    return Path(path).suffix.lower() in IMAGE_SUFFIXES or (inside and is_inside(path))


@dataclass(frozen=True, eq=False)
class Photos:
    """Photos that were read.

    Attributes:
        images: uint8 (M, H, W, 1 or 3), those that decode.
        indices: int (M,), of each among the paths.
        reasons: of each path, why it does not decode; "" where it does.
        inverted: bool (M,), which of the images were turned.
        squashed: bool (M,), which of them did not keep their aspect.
    """

    images: np.ndarray
    indices: np.ndarray
    reasons: list[str]
    inverted: np.ndarray
    squashed: np.ndarray


def read_photos(
    paths: Sequence[Encoded], geometry: Geometry, ground: str, invert: str = "auto"
) -> Photos:
    """Decodes photos as the images of a data set are.

    Args:
        paths: of the files, or photos within files.
        geometry: of the data set.
        ground: of its images.
        invert: make a negative of all ("yes"), of none ("no"), or of those whose border is light
            where the data set's is dark, and the other way round ("auto").
    """
    images, indices, reasons, squashed = decode_files(paths, geometry)
    inverted = invert_images(images, ground, invert)
    return Photos(images, indices, reasons, inverted, squashed)


def to_picture(image: np.ndarray) -> Image.Image:
    """Returns uint8 (H, W, 1 or 3) as a picture."""
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def invert_images(images: np.ndarray, ground: str, invert: str) -> np.ndarray:
    """Makes negatives in place, uint8 (N, H, W, C); returns of which, bool (N,)."""
    if invert == "auto" and ground and len(images):
        borders = border_levels(images)
        chosen = np.array([is_on_other_ground(level, ground) for level in borders], bool)
    else:
        chosen = np.full(len(images), invert == "yes")
    images[chosen] = 255 - images[chosen]
    return chosen
