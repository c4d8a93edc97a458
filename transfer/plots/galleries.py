"""Galleries: pictures of images, in rows, with what the model says of them.

Like `charts.py`, each function takes arrays and returns a `Figure` that belongs to nobody else, in
the same colours.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure

from transfer.errors import printable
from transfer.plots.fonts import PlainFigure
from transfer.plots.style import BLUE, GREEN, LONGEST_LABEL, VERMILLION, shortened

if TYPE_CHECKING:
    from transfer.evaluation.explain import Explanations, FeatureMaps  # loads TensorFlow

SAMPLE_COLUMNS = 6
SAMPLE_WIDTH = 2.1  # inches
CAPTION_WIDTH = 24  # characters in a line above a sample image
MOST_PAIRS_SHOWN = 3  # of confused classes
MAP_OPACITY = 0.6  # of a map over its image
MOST_SHOWN = 48  # images of a gallery of the audit
_GAP = 0.08  # of an image's width, between the two of a pair


def plot_sample_predictions(
    images: np.ndarray,
    y_true: np.ndarray,
    y_prob: np.ndarray,
    class_names: Sequence[str],
    num_each: int = 12,
    seed: int = 0,
    paths: Sequence[str] | np.ndarray | None = None,
) -> Figure:
    """Shows images that were predicted rightly and wrongly, with the model's confidence.

    Args:
        images: (N, H, W, 1 or 3) uint8 in [0, 255].
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1].
        class_names: C names.
        num_each: at most so many right ones and so many wrong ones, drawn evenly by chance,
            so that the picture does not flatter.
        seed: which ones are drawn.
        paths: of the N images, where they are files.

    Returns:
        A figure of two blocks, right and wrong; a block without images says so.

    Raises:
        ValueError: the arrays do not have the same N.
    """
    is_right = _is_right(images, y_true, y_prob)
    rng = np.random.default_rng(seed)
    blocks = [
        _Block(
            _shown(word, num_each, int(mask.sum()), "drawn by chance"),
            colour,
            np.sort(rng.permutation(np.flatnonzero(mask))[:num_each]),
        )
        for word, colour, mask in (("Right", GREEN, is_right), ("Wrong", VERMILLION, ~is_right))
    ]
    title = "Sample predictions on test images, with confidence"
    return _plot_blocks(title, blocks, images, y_true, y_prob, class_names, paths)


def plot_mistakes_and_doubts(
    images: np.ndarray,
    y_true: np.ndarray,
    y_prob: np.ndarray,
    class_names: Sequence[str],
    num_each: int = 12,
    paths: Sequence[str] | np.ndarray | None = None,
) -> Figure:
    """Shows the mistakes the model was surest of, and the images it was least sure of.

    The first are often wrong labels, the second images that people would argue about too.

    Args:
        images: (N, H, W, 1 or 3) uint8 in [0, 255].
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1].
        class_names: C names.
        num_each: at most so many of each kind.
        paths: of the N images, where they are files.

    Returns:
        A figure of two blocks; a block without images says so.

    Raises:
        ValueError: the arrays do not have the same N.
    """
    is_right = _is_right(images, y_true, y_prob)
    confidence = np.max(y_prob, axis=1)  # (N,)
    wrong = np.flatnonzero(~is_right)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")[:num_each]]
    unsure = np.argsort(confidence, kind="stable")[:num_each]
    blocks = [
        _Block(
            _shown("Wrong", num_each, len(wrong), "the surest first"),
            VERMILLION,
            surest,
        ),
        _Block(
            _shown("Right or wrong", num_each, len(is_right), "the least sure first"),
            BLUE,
            unsure,
        ),
    ]
    title = "The most confident mistakes and the least certain test images"
    return _plot_blocks(title, blocks, images, y_true, y_prob, class_names, paths)


def plot_confused_pairs(
    images: np.ndarray,
    y_true: np.ndarray,
    y_prob: np.ndarray,
    class_names: Sequence[str],
    num_pairs: int = MOST_PAIRS_SHOWN,
    num_each: int = SAMPLE_COLUMNS,
    paths: Sequence[str] | np.ndarray | None = None,
) -> Figure:
    """Shows the classes most often taken for each other, with examples of each side.

    Args:
        images: (N, H, W, 1 or 3) uint8 in [0, 255].
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1].
        class_names: C names.
        num_pairs: at most so many pairs, the one with the most mistakes of both sides first.
        num_each: at most so many images of each side, the surest mistakes first.
        paths: of the N images, where they are files.

    Returns:
        A figure of two blocks for each pair; one empty block where nothing is confused.

    Raises:
        ValueError: the arrays do not have the same N.
    """
    _is_right(images, y_true, y_prob)
    y_true, predicted = np.asarray(y_true), np.argmax(y_prob, axis=1)
    names = shortened(class_names, LONGEST_LABEL)
    blocks = []
    for pair in _confused_pairs(y_true, predicted, len(class_names))[:num_pairs]:
        for true, other in (pair, pair[::-1]):
            side = np.flatnonzero((y_true == true) & (predicted == other))
            surest = side[np.argsort(-np.max(y_prob, axis=1)[side], kind="stable")[:num_each]]
            heading = f"{names[true]} taken for {names[other]}"
            heading = _shown(heading, num_each, len(side), "the surest first")
            blocks.append(_Block(heading, VERMILLION, surest))
    blocks = blocks or [_Block("No class was taken for another", GREEN, np.array([], dtype=int))]
    title = "Classes taken for each other"
    return _plot_blocks(title, blocks, images, y_true, y_prob, class_names, paths)


def _confused_pairs(
    y_true: np.ndarray, predicted: np.ndarray, num_classes: int
) -> list[tuple[int, int]]:
    """Returns pairs of classes by their mistakes of both sides, the side with more first."""
    cells = np.bincount(y_true * num_classes + predicted, minlength=num_classes**2)
    mistakes = cells.reshape(num_classes, num_classes)
    both = np.triu(mistakes + mistakes.T, k=1)  # each pair once, without the diagonal
    order = np.argsort(-both, axis=None, kind="stable")[: np.count_nonzero(both)]
    pairs = [divmod(int(cell), num_classes) for cell in order]
    return [(a, b) if mistakes[a, b] >= mistakes[b, a] else (b, a) for a, b in pairs]


def _is_right(images: np.ndarray, y_true: np.ndarray, y_prob: np.ndarray) -> np.ndarray:
    """Returns (N,) bool, or says that the arrays do not fit each other."""
    if not len(images) == len(y_true) == len(y_prob):
        raise ValueError(
            "Expected as many images as labels and predictions. "
            f"Received: {len(images)}, {len(y_true)}, {len(y_prob)}"
        )
    return np.argmax(y_prob, axis=1) == np.asarray(y_true)


def _shown(word: str, most: int, total: int, how: str) -> str:
    return f"{word}: {min(most, total):,} of {total:,}, {how}" if total else f"{word}: none"


class _Block(NamedTuple):
    # A heading over images, in rows of `SAMPLE_COLUMNS`.
    heading: str
    colour: str
    chosen: np.ndarray  # (K,) indices into the test images


def _plot_blocks(
    title: str,
    blocks: Sequence[_Block],
    images: np.ndarray,
    y_true: np.ndarray,
    y_prob: np.ndarray,
    class_names: Sequence[str],
    paths: Sequence[str] | np.ndarray | None,
) -> Figure:
    """Draws blocks of images under each other, each image with its caption."""

    def caption(index: int) -> str:
        text = _caption(int(y_true[index]), y_prob[index], class_names)
        return text if paths is None else f"{text}\n{_short_path(paths[index])}"

    captions = [[caption(index) for index in block.chosen] for block in blocks]
    height, width = np.shape(images)[1:3]
    heights = [_block_height(lines, height / width) for lines in captions]
    figure = PlainFigure(figsize=(SAMPLE_WIDTH * SAMPLE_COLUMNS, sum(heights) + 0.4))
    figure.set_layout_engine("constrained", h_pad=0.06)
    figure.suptitle(title, fontsize="x-large")
    parts = figure.subfigures(len(blocks), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, block, lines in zip(parts, blocks, captions, strict=True):
        _draw_block(part, block, np.asarray(images)[block.chosen], lines)
    return figure


def _caption(true: int, probabilities: np.ndarray, class_names: Sequence[str]) -> str:
    """Returns the predicted class and, where it is another, the true one; with confidences."""
    predicted = int(np.argmax(probabilities))
    names = shortened(class_names, LONGEST_LABEL)
    # Spaces that do not break keep the number and its unit on one line.
    lines = [f"{names[predicted]}, {100 * probabilities[predicted]:.0f}\u00a0%"]
    if predicted != true:
        lines.append(f"true: {names[true]}, {100 * probabilities[true]:.0f}\u00a0%")
    return "\n".join(textwrap.fill(line, CAPTION_WIDTH) for line in lines)


def _short_path(path: str) -> str:
    """Returns the end of a path, which names the file."""
    path = printable(path)
    return path if len(path) <= CAPTION_WIDTH else "\u2026" + path[1 - CAPTION_WIDTH :]


def _block_height(captions: Sequence[str], height_by_width: float) -> float:
    """Returns the inches that a block needs: fixed ones would let long captions overlap."""
    rows = -(-len(captions) // SAMPLE_COLUMNS)
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    return 0.5 + rows * (SAMPLE_WIDTH * min(height_by_width, 1.5) + 0.16 * lines + 0.15)


def _draw_block(
    part: SubFigure, block: _Block, images: np.ndarray, captions: Sequence[str]
) -> None:
    part.suptitle(block.heading, color=block.colour, weight="bold")
    rows = -(-len(images) // SAMPLE_COLUMNS)
    if rows == 0:
        return
    all_axes = part.subplots(rows, SAMPLE_COLUMNS, squeeze=False).ravel()
    for axes in all_axes:
        axes.set_axis_off()
    for axes, image, caption in zip(all_axes, images, captions, strict=False):
        _show_image(axes, image)
        axes.set_title(caption, fontsize=9, parse_math=False)


def plot_augmentation(originals: np.ndarray, augmented: np.ndarray) -> Figure:
    """Shows images beside what augmentation makes of them.

    Args:
        originals: (K, h, w, 1 or 3) uint8 in [0, 255].
        augmented: (K, A, H, W, 1 or 3) float or uint8 in [0, 255], A views of each original.

    Returns:
        A figure of K rows: the original, then its A views.

    Raises:
        ValueError: the arrays do not have the shapes above.
    """
    originals, augmented = np.asarray(originals), np.asarray(augmented)
    if originals.ndim != 4 or augmented.ndim != 5 or len(originals) != len(augmented):
        raise ValueError(
            "Expected originals of shape (K, h, w, channels) and augmented of shape "
            f"(K, A, H, W, channels). Received: {originals.shape} and {augmented.shape}"
        )
    rows, views = augmented.shape[:2]
    figure = PlainFigure(
        figsize=(max(1.4 * (views + 1) + 0.2, 5.0), 1.4 * rows + 0.9), layout="constrained"
    )
    figure.suptitle("Training images before and after augmentation")
    grid = figure.subplots(rows, views + 1, squeeze=False)
    pixels = np.clip(np.rint(augmented), 0, 255).astype(np.uint8)
    for k in range(rows):
        _show_image(grid[k, 0], originals[k])
        for a in range(views):
            _show_image(grid[k, a + 1], pixels[k, a])
    height, width = originals.shape[1:3]
    grid[0, 0].set_title(f"original\n{height} x {width} pixels", fontsize=9)
    height, width = augmented.shape[2:4]
    grid[0, 1].set_title(f"augmented\n{height} x {width} pixels", fontsize=9)
    return figure


def plot_explanations(
    images: np.ndarray,
    y_true: np.ndarray,
    y_prob: np.ndarray,
    class_names: Sequence[str],
    explanations: "Explanations",
) -> Figure:
    """Shows images and, over them, where they speak for a class to the classifier.

    Args:
        images: (N, H, W, 1 or 3) uint8 in [0, 255].
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1].
        class_names: C names.
        explanations: which images, and their maps.

    Returns:
        A figure of two blocks, right and wrong; each image stands above its map for the class
        predicted and, where that is wrong, its map for the true class.
    """
    num_right, wrong = len(explanations.right), explanations.wrong
    predicted_row = "for the class predicted"
    blocks = [
        (
            _Block("Right, drawn by chance", GREEN, explanations.right),
            {predicted_row: explanations.for_predicted[:num_right]},
        ),
        (
            _Block("Wrong, the surest first", VERMILLION, wrong),
            {
                predicted_row: explanations.for_predicted[num_right:],
                "for the true class": explanations.for_true,
            },
        ),
    ]
    blocks = [(block, maps) for block, maps in blocks if len(block.chosen)]
    cell = SAMPLE_WIDTH * min(images.shape[1] / images.shape[2], 1.5) * 0.92
    heights = [0.8 + cell * (1 + len(maps)) for _, maps in blocks]
    figure = PlainFigure(figsize=(SAMPLE_WIDTH * SAMPLE_COLUMNS, sum(heights) + 0.6))
    figure.set_layout_engine("constrained", h_pad=0.04)
    figure.suptitle(
        f"What speaks for a class (Grad-CAM at layer {explanations.layer})", fontsize="x-large"
    )
    parts = figure.subfigures(len(blocks), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (block, maps) in zip(parts, blocks, strict=True):
        captions = [_caption(int(y_true[i]), y_prob[i], class_names) for i in block.chosen]
        _draw_maps(part, block, images[block.chosen], captions, maps)
    return figure


def _draw_maps(
    part: SubFigure,
    block: _Block,
    images: np.ndarray,
    captions: Sequence[str],
    maps: dict[str, np.ndarray],
) -> None:
    part.suptitle(block.heading, color=block.colour, weight="bold")
    grid = part.subplots(1 + len(maps), SAMPLE_COLUMNS, squeeze=False)
    for axes in grid.ravel():
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes, image, caption in zip(grid[0], images, captions, strict=False):
        _show_pixels(axes, image)
        axes.set_title(caption, fontsize=9)
    for row, (name, of_images) in zip(grid[1:], maps.items(), strict=True):
        row[0].set_ylabel(name)
        for axes, image, one in zip(row, images, of_images, strict=False):
            _show_pixels(axes, image)
            _show_map(axes, one, image.shape)
    weak_to_strong = ScalarMappable(Normalize(0, 1), "cividis")
    label = "share of the strongest cell"
    part.colorbar(weak_to_strong, ax=grid, label=label, alpha=MAP_OPACITY, fraction=0.03, pad=0.01)


def _show_map(axes: Axes, one: np.ndarray, shape: tuple[int, ...]) -> None:
    """Draws a map (h, w) in [0, 1] over an image of `shape` (H, W, channels)."""
    height, width = shape[:2]
    whole = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(
        one,
        cmap="cividis",
        vmin=0,
        vmax=1,
        alpha=MAP_OPACITY,
        extent=whole,
        interpolation="bilinear",
    )


def plot_feature_maps(image: np.ndarray, layers: Sequence["FeatureMaps"]) -> Figure:
    """Shows what layers make of an image: of each the channels that vary most over it.

    Args:
        image: (H, W, 1 or 3) uint8 in [0, 255].
        layers: (h, w, channels) floats of each layer.

    Returns:
        A figure of a block for the image and one for each layer; each channel has a scale of its
        own, from dark to light.
    """
    chosen = [_most_varied(layer.maps) for layer in layers]
    heights = [SAMPLE_WIDTH + 0.5] * (1 + len(layers))
    figure = PlainFigure(figsize=(SAMPLE_WIDTH * SAMPLE_COLUMNS, sum(heights) + 0.6))
    figure.set_layout_engine("constrained", h_pad=0.04)
    figure.suptitle(
        "Feature maps of a test image, each from its lowest to its highest value",
        fontsize="x-large",
    )
    rows = figure.subfigures(1 + len(layers), 1, squeeze=False, height_ratios=heights)
    first, *parts = rows[:, 0]
    height, width = image.shape[:2]
    block = _Block(f"Test image, {height} x {width} pixels", BLUE, np.array([0]))
    _draw_block(first, block, image[np.newaxis], [""])
    for part, layer, channels in zip(parts, layers, chosen, strict=True):
        height, width, count = layer.maps.shape
        cells = f"{layer.layer}: {height} x {width} cells"
        heading = f"{cells}, {len(channels)} of {count:,} channels, those that vary most"
        part.suptitle(heading, color=BLUE, weight="bold")
        row = part.subplots(1, SAMPLE_COLUMNS)
        for axes in row:
            axes.set_axis_off()
        for axes, channel in zip(row, channels, strict=False):
            axes.imshow(layer.maps[..., channel], cmap="cividis", interpolation="nearest")
            axes.set_title(f"channel {channel}", fontsize=9)
    return figure


def _most_varied(maps: np.ndarray, most: int = SAMPLE_COLUMNS) -> np.ndarray:
    """Returns the numbers of the channels of (h, w, channels) with the largest deviation."""
    deviations = maps.std(axis=(0, 1))
    return np.argsort(-deviations, kind="stable")[:most]


def plot_gallery(title: str, images: np.ndarray, captions: Sequence[str]) -> Figure:
    """Shows images, at most 48 of them, the first ones, in rows of six.

    Args:
        title: stands above all.
        images: uint8 (N, H, W, 1 or 3).
        captions: N texts, lines of which are kept.
    """
    return _plot_captioned(title, images[:MOST_SHOWN], captions[:MOST_SHOWN], SAMPLE_COLUMNS, 1)


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
    return _plot_captioned(title, joined, captions[shown], SAMPLE_COLUMNS // 2, 2)


def _plot_captioned(
    title: str, images: np.ndarray, captions: Sequence[str], columns: int, wide: int
) -> Figure:
    lines = [_fold(caption, wide * CAPTION_WIDTH) for caption in captions]
    rows = max(-(-len(images) // columns), 1)
    height, width = images.shape[1:3]
    most_lines = max((caption.count("\n") + 1 for caption in lines), default=1)
    row_height = wide * SAMPLE_WIDTH * min(height / width, 1.5) + 0.16 * most_lines + 0.2
    figure = PlainFigure(
        figsize=(SAMPLE_WIDTH * SAMPLE_COLUMNS, rows * row_height + 0.6), layout="constrained"
    )
    figure.suptitle(title, fontsize="x-large")
    for axes in figure.subplots(rows, columns, squeeze=False).ravel():
        axes.set_axis_off()
    for axes, image, caption in zip(figure.axes, images, lines, strict=False):
        _show_image(axes, image)
        axes.set_title(caption, fontsize=9)
    return figure


def _fold(caption: str, width: int) -> str:
    return "\n".join(textwrap.fill(line, width) for line in caption.splitlines())


def _show_image(axes: Axes, image: np.ndarray) -> None:
    """Draws uint8 (H, W, 1 or 3); small images keep their pixels visible."""
    axes.set_axis_off()
    _show_pixels(axes, image)


def _show_pixels(axes: Axes, image: np.ndarray) -> None:
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
