"""One image with the map of an explanation over it, as a picture of its own."""

import matplotlib
import numpy as np
from PIL import Image

from transfer.plots.sheet import MAP_OPACITY

LEAST_SIDE = 320  # pixels; small images are drawn larger


def draw_overlay(image: np.ndarray, one_map: np.ndarray) -> Image.Image:
    """Returns an image with the places that speak for a class in yellow.

    Args:
        image: uint8 (H, W, 1 or 3).
        one_map: float (h, w) in [0, 1].

    Returns:
        RGB, at least `LEAST_SIDE` pixels on its shorter side; where nothing speaks for the class,
        the image alone.
    """
    height, width = image.shape[:2]
    times = max(1, -(-LEAST_SIDE // min(height, width)))
    size = (width * times, height * times)
    pixels = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    photo = Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
    if not one_map.any():
        return photo
    levels = Image.fromarray((255 * one_map).astype(np.uint8)).resize(
        size, Image.Resampling.BILINEAR
    )
    colours = matplotlib.colormaps["cividis"](np.asarray(levels))[..., :3]
    return Image.blend(photo, Image.fromarray((255 * colours).astype(np.uint8)), MAP_OPACITY)
