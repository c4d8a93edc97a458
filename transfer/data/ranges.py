"""Which numbers mean black and white: decided once for a data set, from all of its parts.

Floats of [0, 1], bits, bytes and 16-bit numbers are told apart by the largest number that occurs.
Where that is not clear, or where the parts seem to differ, nothing is guessed: a wrong guess makes
black images, and a result of them that looks like any other.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from transfer.errors import InputError

BYTE, SIXTEEN_BITS = 255, 65535
_TOLERANCE = 1e-3  # what resizing and float32 add to the brightest pixel
# No image of a whole data set that is a quarter as bright as white: its numbers mean less bits.
_LEAST_OF_BYTE = 64
_LEAST_OF_SIXTEEN_BITS = 32768
_MOST_APART = 8  # the brightest pixels of two parts


class Extremes(NamedTuple):
    """The lowest and the highest pixel of a part, and whether its numbers are floats."""

    low: float
    high: float
    is_float: bool

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


class Range(NamedTuple):
    """What a pixel is multiplied by to be in [0, 255], and what to say of it, "" for nothing."""

    factor: float
    words: str


def find_extremes(images: np.ndarray) -> Extremes:
    """Returns the lowest and highest pixel of an array of numbers, NaN where there is one."""
    with np.errstate(invalid="ignore"):
        return Extremes(float(images.min()), float(images.max()), images.dtype.kind == "f")


def choose_range(parts: Mapping[str, Extremes]) -> Range:
    """Decides what the pixels of a data set mean.

    Args:
        parts: lowest and highest pixel of each part, by the name that an error gives it.

    Raises:
        InputError: they are none of [0, 1], [0, 255] and [0, 65535], or the parts differ.
    """
    for name, part in parts.items():
        if not (part.low >= -_TOLERANCE and part.high <= SIXTEEN_BITS):  # NaN is neither
            raise InputError(
                f"{name} should be in [0, 1], [0, 255] or [0, 65535], without NaN. "
                f"Received: {part}."
            )
    highest = max(part.high for part in parts.values())
    is_float = any(part.is_float for part in parts.values())
    found = _find_range(highest, is_float)
    if found is None or any(part.high * _MOST_APART < highest for part in parts.values()):
        told = ", ".join(f"{name} {part}" for name, part in parts.items())
        raise InputError(
            "all parts should have pixels in [0, 1], or all in [0, 255], or all in [0, 65535], and "
            f"some of each part bright. Received: {told}; what is white is unclear: scale them to "
            "[0, 255]."
        )
    return found


def _find_range(highest: float, is_float: bool) -> Range | None:
    if highest <= 1 + _TOLERANCE:
        if is_float:
            return Range(BYTE, "pixels in [0, 1], scaled to [0, 255]")
        return Range(BYTE, "pixels of 0 and 1, scaled to 0 and 255")
    if _LEAST_OF_BYTE <= highest <= BYTE * (1 + _TOLERANCE):
        return Range(1, "floats in [0, 255], rounded" if is_float else "")
    if highest >= _LEAST_OF_SIXTEEN_BITS:
        return Range(BYTE / SIXTEEN_BITS, "pixels of 16 bits, scaled to 8")
    return None


def to_bytes(images: np.ndarray, factor: float) -> np.ndarray:
    """Returns images multiplied by a factor, uint8 in [0, 255], of the same shape."""
    if images.dtype == np.uint8 and factor == 1:
        return images
    scaled = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), 1024):  # no second float copy of the whole
        block = images[start : start + 1024].astype(np.float64)
        scaled[start : start + 1024] = np.rint(block * factor).clip(0, BYTE)
    return scaled


def check_decoded(parts: Mapping[str, np.ndarray]) -> None:
    """Checks that decoded image files are not black for want of bits.

    A PNG of 16 bits may hold a scanner's 12, one of 8 bits a mask of 0 and 1: their decoder knows
    nothing of it.

    Args:
        parts: uint8 images (N, H, W, 1 or 3) by the part's name.

    Raises:
        InputError: no pixel of them, or of a part, is bright.
    """
    highest = {name: _brightest(images) for name, images in parts.items() if len(images)}
    most = max(highest.values(), default=BYTE)
    if most >= _LEAST_OF_BYTE and all(one * _MOST_APART >= most for one in highest.values()):
        return
    told = ", ".join(f"{value} in {name}" for name, value in highest.items())
    raise InputError(
        f"the brightest pixel of the image files should be near 255. Received: {told}; they seem "
        "to hold fewer bits than their format, and would be black: scale them to [0, 255]."
    )


def _brightest(images: np.ndarray) -> int:
    # Stops where it is bright enough: images that lie on the disk are not read a second time.
    highest = 0
    for start in range(0, len(images), 256):
        highest = max(highest, int(images[start : start + 256].max()))
        if highest > BYTE / 2:
            break
    return highest
