"""The working geometry of a data set: size, channels and fit, decided once and kept in the run.

Training, validation and test images, and the single photo of tomorrow, all come to the network
through these same numbers; nothing is decided a second time for one of them.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from PIL import Image

SQUASH = "squash"  # the whole image, its aspect not kept
FITS = (SQUASH,)


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


def choose_geometry(shapes: Iterable[Shape], image_size: int) -> Geometry:
    """Returns the geometry for a data set of images of these shapes.

    Images that all have one size, no larger than `image_size`, keep it; others are brought to
    (image_size, image_size). They are gray only where all are.

    Args:
        shapes: of all images of all parts.
        image_size: side of the images that the network sees, in pixels.
    """
    found = set(shapes)
    sizes = {shape.size for shape in found}
    width, height = sizes.pop() if len(sizes) == 1 else (image_size, image_size)
    if max(width, height) > image_size:
        width = height = image_size
    is_gray = bool(found) and all(shape.is_gray for shape in found)
    return Geometry(height, width, 1 if is_gray else 3)


def fit_image(image: Image.Image, geometry: Geometry) -> Image.Image:
    """Returns an image of gray or RGB pixels, upright, brought to a geometry's size.

    With antialiasing; an image that has the size already is returned as it is.
    """
    size = (geometry.width, geometry.height)
    if image.size == size:
        return image
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
