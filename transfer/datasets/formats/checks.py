"""The formats a data set can have: each loader reads one, checks it, and returns `Loaded`.

A loader knows nothing of where users keep their data or how it is divided; that is
`sources.py`, whose table `SOURCES` has one row for each loader here. Every damage that can be
told is told in one line with the file and the place in it. A changed pixel or label of a plain
IDX or CSV file, and CSV rows missing at the end, cannot be told by the file itself: only by the
checksum, where one is published. Nothing is unpickled, and nothing is allocated or decompressed
that the size of the file does not make plausible.
"""

import re
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from transfer.errors import InputError
from transfer.machine import usable_memory

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
EXPECTED = (
    "a folder with the four IDX files or with Kaggle's two CSV files, a train CSV, an .npz, "
    "Parquet, tar or TFRecord files, or a folder of images with one sub-folder a class"
)


class MissingFileError(InputError):
    """A place has no such file: nothing is wrong with it, the search goes on."""


# --- What a file may ask of this machine ----------------------------------------------------

# Compressed images are a tenth of their size, drawings a fiftieth; a decompression bomb of
# deflate is a thousandth. Small arrays may be all zeros.
_MOST_EXPANSION = 200
_SMALL_BYTES = 256 << 20


def regular_size(path: Path) -> int:
    """Returns the size of a file in bytes.

    Raises:
        InputError: it is a folder, a pipe or a device: opening a pipe might wait for ever.
        OSError: it is not there, or cannot be looked at.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "a pipe or a device"
        raise InputError(f"{path} should be a file. Received: {kind}.")
    return facts.st_size


def check_room(num_bytes: int, file_bytes: int, path: Path) -> None:
    """Checks what a file asks of the memory, before anything is allocated for it.

    A header of a few bytes can promise terabytes.

    Args:
        num_bytes: what the file says it holds, decompressed.
        file_bytes: its own size.
        path: the file, for the error.

    Raises:
        InputError: it promises more than is plausible, or more than fits into the memory.
    """
    if num_bytes > max(_SMALL_BYTES, _MOST_EXPANSION * file_bytes):
        raise InputError(
            f"{path} should not promise more than {_MOST_EXPANSION} times its own size. Received: "
            f"a file of {file_bytes:,} bytes that promises {num_bytes:,}; it is damaged or made "
            "to fill the memory."
        )
    if num_bytes > usable_memory():
        raise InputError(
            f"{path} should fit into the memory of {usable_memory() / 1e9:.1f} GB. "
            f"Received: {num_bytes / 1e9:.1f} GB; take a part of it, or a machine with more."
        )


# --- Checks that all formats share ----------------------------------------------------------


def with_channels(images: np.ndarray, where: str) -> np.ndarray:
    """Returns images (N, H, W) or (N, H, W, 1 or 3) as (N, H, W, 1 or 3).

    Args:
        images: of any type.
        where: their place, for the error.

    Raises:
        InputError: another shape, or no image.
    """
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        raise InputError(
            f"{where} should hold images (N, H, W), (N, H, W, 1) or (N, H, W, 3). "
            f"Received: {images.shape}."
        )
    return images


def check_as_many(images: np.ndarray, labels: np.ndarray, where: str) -> None:
    """Checks that there is a label for each image.

    Args:
        images: (N, ...).
        labels: (N,).
        where: their place, for the error.

    Raises:
        InputError: there are more of one than of the other.
    """
    if images.shape[:1] != labels.shape[:1]:
        count = [f"{array.shape[0]:,}" if array.ndim else "no" for array in (images, labels)]
        raise InputError(
            f"{where} should have as many labels as images. "
            f"Received: {count[0]} images, {count[1]} labels."
        )


def check_printable(class_names: tuple[str, ...], where: str) -> None:
    """Checks names of classes, which are shown in terminals and written into files.

    Raises:
        InputError: a name is empty, or holds a control character or what is not UTF-8.
    """
    for name in class_names:
        if not name or _CONTROL_CHARACTERS.search(name):
            raise InputError(
                f"{where}: names of classes should be texts without control characters and, as "
                f"names of folders, in UTF-8. Received: {name!r}."
            )


def check_same_shape(parts: Mapping[str, np.ndarray], where: str) -> None:
    """Checks that the images of all parts, arrays (N, ...), have one shape.

    Raises:
        InputError: they differ.
    """
    shapes = {name: images.shape[1:] for name, images in parts.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{shape} in {name}" for name, shape in shapes.items())
        raise InputError(
            f"{where}: the images of all parts should have one shape. Received: {told}."
        )
