"""The working geometry of a data set: size, channels and fit, decided once and kept in the run.

Training, validation and test images, and the single photo of tomorrow, all come to the network
through these same numbers; nothing is decided a second time for one of them.
"""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

SQUASH = "squash"  # the whole image, its aspect not kept
CROP = "crop"  # its middle, in the wanted aspect
PAD = "pad"  # the whole image, its edges repeated around it
FITS = (SQUASH, CROP, PAD)
AUTO = "auto"

_SAME_ASPECT = 1.05  # sides that differ by less are those of a cut or of rounding

SMALL = 64  # pixels; gray images up to this side are drawings and digits, cut out as they should be


class Shape(NamedTuple):
    """What is known of an image before its pixels are decoded."""

    size: tuple[int, int]  # (W, H) as seen, that is after EXIF's orientation
    is_gray: bool


@dataclass(frozen=True)
class Geometry:
    """What every image of a data set is brought to before it is batched.

    Attributes:
        height: in pixels, above 0.
        width: in pixels, above 0.
        channels: 1 for gray, 3 for RGB.
        fit: how an image of another size is brought to this one; one of `FITS`.
    """

    height: int
    width: int
    channels: int
    fit: str = SQUASH

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        return self.height, self.width, self.channels

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        return asdict(self)

    def describe(self) -> str:
        """Returns it in words: "96 x 96 pixels, in colour, crop"."""
        colours = "gray" if self.channels == 1 else "in colour"
        return f"{self.width} x {self.height} pixels, {colours}, {self.fit}"


# --- Choosing -------------------------------------------------------------------------------


def choose_geometry(shapes: Iterable[Shape], image_size: int, fit: str = SQUASH) -> Geometry:
    """Returns the geometry for a data set of images of these shapes.

    Images that all have one size, no larger than `image_size`, keep it, or with "crop" and "pad"
    the square within or around it, because the network sees squares; others are brought to
    (image_size, image_size). They are gray only where all are.

    Args:
        shapes: of all images of all parts.
        image_size: side of the images that the network sees, in pixels.
        fit: one of `FITS`, or "auto", see `choose_fit`.
    """
    found = set(shapes)
    fit = choose_fit(found) if fit == AUTO else fit
    sizes = {shape.size for shape in found}
    width, height = sizes.pop() if len(sizes) == 1 else (image_size, image_size)
    if fit != SQUASH:
        width = height = min(width, height) if fit == CROP else max(width, height)
    if max(width, height) > image_size:
        width = height = image_size
    is_gray = bool(found) and all(shape.is_gray for shape in found)
    return Geometry(height, width, 1 if is_gray else 3, fit)


def choose_fit(shapes: Collection[Shape]) -> str:
    """Returns what "auto" means for images of these shapes.

    "squash" where all are square, or gray and small: nothing is lost. Photos are padded: on the
    photo benchmark (`python -m benchmarks --only photo-fit`, docs/data.md) that is ahead of their
    middle alone, which loses what lies beside it, and as good as squashing.

    Args:
        shapes: of all images of all parts.
    """
    are_square = all(is_square(shape) for shape in shapes)
    are_small = all(shape.is_gray and max(shape.size) <= SMALL for shape in shapes)
    return SQUASH if are_square or are_small else PAD


def is_square(shape: Shape) -> bool:
    """Returns whether width and height are the same."""
    return shape.size[0] == shape.size[1]


def describe_fit(shapes: Collection[Shape], geometry: Geometry) -> str:
    """Returns what the fit does to images that are not square, in words; "" where all are.

    Args:
        shapes: of all images, one each.
        geometry: what they are brought to.
    """
    sizes = [shape.size for shape in shapes if not is_square(shape)]
    if not sizes:
        return ""
    told = {
        SQUASH: "squashed to a square",
        PAD: "padded to a square with their edges",
    }
    if geometry.fit == CROP:
        lost = float(np.mean([1 - min(size) / max(size) for size in sizes]))
        told[CROP] = f"cut to the square in their middle, {lost:.0%} of their area lost on average"
    return f"{len(sizes):,} of {len(shapes):,} images are not square: {told[geometry.fit]}"


def is_squashed(shape: Shape, geometry: Geometry) -> bool:
    """Returns whether an image of this shape loses its aspect where it is brought to a geometry."""
    (width, height), wanted = shape.size, geometry.width / geometry.height
    stretch = max(width / height / wanted, wanted / (width / height))
    return geometry.fit == SQUASH and stretch > _SAME_ASPECT


# --- Fitting --------------------------------------------------------------------------------


def fit_pixels(image: Image.Image | np.ndarray, geometry: Geometry) -> np.ndarray:
    """Returns one upright image as a data set of this geometry holds it.

    Args:
        image: gray or RGB pixels of 8 bits; an array is uint8 (H, W), (H, W, 1) or (H, W, 3).
        geometry: of the data set, of any size.

    Returns:
        uint8 (H, W, C), `geometry.shape`.
    """
    if isinstance(image, np.ndarray):
        is_gray = image.ndim == 3 and image.shape[2] == 1
        image = Image.fromarray(image[..., 0] if is_gray else image)
    mode = "L" if geometry.channels == 1 else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    return np.asarray(fit_image(image, geometry)).reshape(geometry.shape)


def fit_image(image: Image.Image, geometry: Geometry) -> Image.Image:
    """Returns an image of gray or RGB pixels, upright, brought to a geometry's size.

    With antialiasing; an image that has the size already is returned as it is.
    """
    size = (geometry.width, geometry.height)
    if image.size == size:
        return image
    if geometry.fit == CROP:
        return _resize(image, size, _middle(image.size, size))
    if geometry.fit == PAD:
        return _pad(_resize(image, _inner_size(image.size, size)), size)
    return _resize(image, size)


def _resize(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=2.0)


def _middle(have: tuple[int, int], want: tuple[int, int]) -> tuple[float, float, float, float]:
    # The largest box in the middle with the wanted aspect: left, top, right, bottom.
    scale = min(have[0] / want[0], have[1] / want[1])
    width, height = want[0] * scale, want[1] * scale
    left, top = (have[0] - width) / 2, (have[1] - height) / 2
    return left, top, left + width, top + height


def _inner_size(have: tuple[int, int], want: tuple[int, int]) -> tuple[int, int]:
    # The largest size with the image's own aspect.
    scale = min(want[0] / have[0], want[1] / have[1])
    width, height = (max(1, round(side * scale)) for side in have)
    return min(width, want[0]), min(height, want[1])


def _pad(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    # As the warp of augmentation does: what lies outside of the image repeats its edge.
    across, down = (want - have for want, have in zip(size, image.size, strict=True))
    sides = [(down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0)]
    pixels = np.asarray(image)
    return Image.fromarray(np.pad(pixels, sides[: pixels.ndim], mode="edge"))
