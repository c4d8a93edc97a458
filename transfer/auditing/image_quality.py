"""Images that are hard to see or unlike the others: dark, light, blurred, of an odd size.

The measures are those of CleanVision (https://github.com/cleanlab/cleanvision): percentiles of the
perceived brightness, the variance of the Laplacian, the size beside the usual one. They are taken
at the working size: what only a larger picture shows does not matter to training.
"""

from typing import NamedTuple

import numpy as np

from transfer.data.decode import shrink_images
from transfer.data.descriptors import CHUNK_IMAGES

DARK, LIGHT, BLURRED, ODD_SIZE = KINDS = ("dark", "light", "blurred", "odd size")

MOST_DARK = 0.32  # brightness of the lightest hundredth, black 0 and white 1; CleanVision's
LEAST_LIGHT = 0.95  # of the darkest twentieth; likewise
# Of the sixteen photos of benchmarks/photos.py the least is 0.16, of Fashion-MNIST 0.4.
LEAST_SHARPNESS = 0.03
MOST_TIMES_USUAL = 4.0  # a side, of the median one, or the median one of it

_SHARPNESS_SIZE = 64  # pixels; the measure depends on it
# Perceived brightness of red, green and blue, http://alienryderflex.com/hsp.html.
_WEIGHTS = np.array([0.241, 0.691, 0.068], np.float32)
_EMPTY = 1.0  # variance in gray levels; with less there is nothing that could be sharp


class Odd(NamedTuple):
    """Images of one kind, the most striking first.

    Attributes:
        indices: int (K,).
        values: float (K,), the measure of each.
    """

    indices: np.ndarray
    values: np.ndarray


def find_odd_images(pixels: np.ndarray, sizes: np.ndarray) -> dict[str, Odd]:
    """Finds images that are dark, light, blurred or of an odd size.

    Args:
        pixels: uint8 (N, H, W, 1 or 3).
        sizes: int (N, 2), width and height of each image as it is stored.

    Returns:
        The images of each of `KINDS`. Measures: of dark images the brightness of their lightest
        hundredth, of light ones of their darkest twentieth, both in [0, 1]; of blurred ones the
        Laplacian's variance by the pixels', at 64 pixels; of odd sizes the side, the root of the
        area, as a multiple of the median one.
    """
    lightest, darkest = _brightness(pixels)
    sharpness = _sharpness(shrink_images(pixels, _SHARPNESS_SIZE))
    sides = np.sqrt(sizes.prod(axis=1, dtype=float))
    sides /= np.median(sides)
    oddness = np.maximum(sides, 1 / sides)
    return {
        DARK: _first(lightest < MOST_DARK, lightest, lightest),
        LIGHT: _first(darkest > LEAST_LIGHT, -darkest, darkest),
        BLURRED: _first(sharpness < LEAST_SHARPNESS, sharpness, sharpness),
        ODD_SIZE: _first(oddness > MOST_TIMES_USUAL, -oddness, sides),
    }


def _first(is_odd: np.ndarray, order: np.ndarray, values: np.ndarray) -> Odd:
    indices = np.flatnonzero(is_odd)
    indices = indices[np.argsort(order[indices], kind="stable")]
    return Odd(indices, values[indices])


def _brightness(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Of the lightest hundredth and of the darkest twentieth of each image, float (N,) in [0, 1].
    parts = []
    for start in range(0, len(pixels), CHUNK_IMAGES):
        squares = (pixels[start : start + CHUNK_IMAGES] / np.float32(255)) ** 2
        seen = squares @ _WEIGHTS if pixels.shape[3] == 3 else squares[..., 0]
        parts.append(np.percentile(np.sqrt(seen).reshape(len(seen), -1), (99, 5), axis=1))
    lightest, darkest = np.concatenate(parts, axis=1)
    return lightest, darkest


def _sharpness(pixels: np.ndarray) -> np.ndarray:
    # float (N,); infinite of images that show nothing, or are too small to tell.
    parts = []
    for start in range(0, len(pixels), CHUNK_IMAGES):
        gray = pixels[start : start + CHUNK_IMAGES].mean(axis=3, dtype=np.float32)
        inner = gray[:, 1:-1, 1:-1]
        around = gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:]
        if not inner.size:
            parts.append(np.full(len(gray), np.inf))
            continue
        contrast = gray.var(axis=(1, 2))
        edges = (around - 4 * inner).var(axis=(1, 2))
        parts.append(np.where(contrast > _EMPTY, edges / np.maximum(contrast, _EMPTY), np.inf))
    return np.concatenate(parts)
