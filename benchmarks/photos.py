"""A data set of photographs where none can be fetched: crops of those that come with libraries.

    python -m benchmarks.photos --out photos [--per-class 20] [--wide]
    python train.py --data photos

Sixteen photos come with scikit-learn, scikit-image and matplotlib. The upper and the lower half of
eight of them, and eight textures, are the 24 classes. Each is cut into four columns: training
images show the first and the third, test images the second and the fourth, so that no pixel is in
both. Every image is a square,
or with `--wide` a rectangle, of changed scale, turn, light and sharpness. What is measured on it
is true of small data sets of photos with many textures and few objects, and of nothing more.
"""

import importlib.util
from functools import cache
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from PIL import Image, ImageFilter

from transfer.commands.exit_codes import run
from transfer.errors import InputError


class Photo(NamedTuple):
    """A photo of a library, and its classes: upper and lower half, or the whole of a texture."""

    package: str
    path: str  # in it
    parts: tuple[str, ...] = ("upper", "lower")

    @property
    def class_names(self) -> list[str]:
        return [f"{Path(self.path).stem} {part}".strip() for part in self.parts]


_TEXTURE = ("",)
_SAMPLES = "mpl-data/sample_data"
FEW_PHOTOS = (  # that are everywhere
    Photo("sklearn", "datasets/images/china.jpg"),
    Photo("sklearn", "datasets/images/flower.jpg"),
    Photo("matplotlib", f"{_SAMPLES}/grace_hopper.jpg"),
)
PHOTOS = (
    *FEW_PHOTOS,
    Photo("skimage", "data/astronaut.png"),
    Photo("skimage", "data/camera.png"),
    Photo("skimage", "data/chelsea.png"),
    Photo("skimage", "data/coffee.png"),
    Photo("skimage", "data/motorcycle_left.png"),
    Photo("skimage", "data/brick.png", _TEXTURE),
    Photo("skimage", "data/coins.png", _TEXTURE),
    Photo("skimage", "data/grass.png", _TEXTURE),
    Photo("skimage", "data/gravel.png", _TEXTURE),
    Photo("skimage", "data/hubble_deep_field.jpg", _TEXTURE),
    Photo("skimage", "data/ihc.png", _TEXTURE),
    Photo("skimage", "data/retina.jpg", _TEXTURE),
    Photo("skimage", "data/rocket.jpg", _TEXTURE),
)
MOST_PIXELS = 640  # of a photo's longer side
COLUMNS = {"train": (0, 2), "test": (1, 3)}  # of four
SIZE = 128  # of the shorter side of an image, in pixels
WIDE = (4 / 3, 3 / 2, 16 / 9)  # aspects, and their inverses

_SCALES = (0.5, 0.95)  # share of the largest rectangle that fits
_DEGREES = 20
_GAMMAS = (0.6, 1.6)
_TINT = 0.15  # of each colour's gain, either way
_MOST_BLUR = 2.0  # pixels, in half of the images


class PhotoSet(NamedTuple):
    """Images of one part of the data set.

    Attributes:
        images: RGB, in the order of the labels' draws.
        labels: int64 (N,).
        class_names: "china upper", "china lower", ...
    """

    images: list[Image.Image]
    labels: np.ndarray
    class_names: tuple[str, ...]


def has_photos() -> bool:
    """Returns whether all sixteen photos are here."""
    return importlib.util.find_spec("skimage") is not None


def make_photos(
    part: str,
    per_class: int,
    seed: int,
    *,
    wide: bool = False,
    photos: tuple[Photo, ...] = PHOTOS,
) -> PhotoSet:
    """Draws images of every class.

    Args:
        part: "train" or "test".
        per_class: images of each class.
        seed: of all that is drawn.
        wide: rectangles, not squares.
        photos: what they are cut from.

    Raises:
        InputError: a library is not installed.
    """
    bands = [(photo, number) for photo in photos for number in range(len(photo.parts))]
    generator = np.random.default_rng([seed, sorted(COLUMNS).index(part)])
    images, labels = [], np.repeat(np.arange(len(bands)), per_class)
    for label in labels:
        images.append(_draw(_region(*bands[label], part, generator), wide, generator))
    names = tuple(name for photo in photos for name in photo.class_names)
    return PhotoSet(images, labels.astype(np.int64), names)


@cache
def _open(package: str, path: str) -> Image.Image:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise InputError("the photos need scikit-image: pip install 'transfer[benchmarks]'.")
    photo = Image.open(Path(spec.origin).parent / path).convert("RGB")
    photo.thumbnail((MOST_PIXELS, MOST_PIXELS))
    return photo


def _region(photo: Photo, band: int, part: str, generator: np.random.Generator) -> Image.Image:
    image, bands = _open(photo.package, photo.path), len(photo.parts)
    column = generator.choice(COLUMNS[part])
    left, right = (round(image.width * edge / 4) for edge in (column, column + 1))
    top, bottom = (round(image.height * edge / bands) for edge in (band, band + 1))
    return image.crop((left, top, right, bottom))


def _draw(region: Image.Image, wide: bool, generator: np.random.Generator) -> Image.Image:
    # A turned rectangle from within the region, so that nothing beyond it is seen.
    aspect = generator.choice(WIDE) ** generator.choice((-1, 1)) if wide else 1.0
    angle = np.radians(generator.uniform(-_DEGREES, _DEGREES))
    cosine, sine = np.cos(angle), abs(np.sin(angle))
    bounds = aspect * cosine + sine, aspect * sine + cosine  # of a turned one of height 1
    largest = min(region.width / bounds[0], region.height / bounds[1])
    height = largest * generator.uniform(*_SCALES)
    x, y = (
        generator.uniform(height * bound / 2, side - height * bound / 2)
        for bound, side in zip(bounds, region.size, strict=True)
    )
    size = (round(SIZE * max(aspect, 1)), round(SIZE * max(1 / aspect, 1)))
    step, turned = height / size[1], np.sin(angle)
    across, down = step * cosine, step * turned
    left = x - (across * size[0] - down * size[1]) / 2
    top = y - (down * size[0] + across * size[1]) / 2
    matrix = (across, -down, left, down, across, top)
    image = region.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return _change_light(image, generator)


def _change_light(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    if generator.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(generator.uniform(0, _MOST_BLUR)))
    gamma = np.exp(generator.uniform(*np.log(_GAMMAS)))
    gains = 1 + generator.uniform(-_TINT, _TINT, 3)
    pixels = (np.asarray(image) / 255) ** gamma * gains
    return Image.fromarray(np.rint(255 * pixels.clip(0, 1)).astype(np.uint8))


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Must be new.")
@click.option("--per-class", type=click.IntRange(4), default=20, show_default=True)
@click.option("--wide", is_flag=True, help="Rectangles, not squares.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def main(out: Path, per_class: int, wide: bool, seed: int) -> None:
    """Write the photo benchmark as a folder of images, as many for the test as for training."""
    if out.exists():
        raise InputError(f"--out should be new. Received: {out}, which exists.")
    for part in COLUMNS:
        made = make_photos(part, per_class, seed, wide=wide)
        for number, (image, label) in enumerate(zip(made.images, made.labels, strict=True)):
            folder = out / part / made.class_names[label]
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{number:04d}.png")
    click.echo(f"{2 * len(made.labels):,} images of {len(made.class_names)} classes in {out}")


if __name__ == "__main__":
    run(main)
