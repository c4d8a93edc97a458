"""Pictures of what the audit found: images in rows, each with a caption. As `plots.py`."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MOST_SHOWN = 48
_WIDTH = 2.1  # inches, of one image
_CAPTION_WIDTH = 24  # characters above one image
_COLUMNS = 6
_GAP = 0.08  # of an image's width, between the two of a pair


def plot_gallery(title: str, images: np.ndarray, captions: Sequence[str]) -> Figure:
    """Shows images, at most 48 of them, the first ones, in rows of six.

    Args:
        title: stands above all.
        images: uint8 (N, H, W, 1 or 3).
        captions: N texts, lines of which are kept.
    """
    return _plot(title, images[:MOST_SHOWN], captions[:MOST_SHOWN], _COLUMNS, 1)


def plot_pairs(
    title: str, images: np.ndarray, others: np.ndarray, captions: Sequence[str]
) -> Figure:
    """Shows pairs of images side by side, at most 24 pairs, the first ones, in rows of three.

    Args:
        title: stands above all.
        images: uint8 (P, H, W, 1 or 3), the left one of each pair.
        others: the same, the right ones.
        captions: P texts, lines of which are kept.
    """
    shown = slice(MOST_SHOWN // 2)
    images, others = images[shown], others[shown]
    count, height, width, channels = images.shape
    gap = np.full((count, height, max(1, round(_GAP * width)), channels), 255, np.uint8)
    joined = np.concatenate([images, gap, others], axis=2)
    return _plot(title, joined, captions[shown], _COLUMNS // 2, 2)


def _plot(
    title: str, images: np.ndarray, captions: Sequence[str], columns: int, wide: int
) -> Figure:
    lines = [_fold(caption, wide * _CAPTION_WIDTH) for caption in captions]
    rows = max(-(-len(images) // columns), 1)
    height, width = images.shape[1:3]
    most_lines = max((caption.count("\n") + 1 for caption in lines), default=1)
    row_height = wide * _WIDTH * min(height / width, 1.5) + 0.16 * most_lines + 0.2
    figure = Figure(figsize=(_WIDTH * _COLUMNS, rows * row_height + 0.6), layout="constrained")
    figure.suptitle(title, fontsize="x-large")
    for axes in figure.subplots(rows, columns, squeeze=False).ravel():
        axes.set_axis_off()
    for axes, image, caption in zip(figure.axes, images, lines, strict=False):
        _show(axes, image)
        axes.set_title(caption, fontsize=9)
    return figure


def _fold(caption: str, width: int) -> str:
    return "\n".join(textwrap.fill(line, width) for line in caption.splitlines())


def _show(axes: Axes, image: np.ndarray) -> None:
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
