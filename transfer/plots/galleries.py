"""Galleries: pictures of images, in rows, with what the model says of them.

Like `charts.py`, each function takes arrays and returns a `Figure` that belongs to nobody else, in
the same colours.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from transfer.errors import printable
from transfer.plots.sheet import CAPTION_WIDTH, Cell, Sheet
from transfer.plots.style import BLUE, GREEN, LONGEST_LABEL, VERMILLION, shortened

if TYPE_CHECKING:
    from transfer.evaluation.explain import Explanations, FeatureMaps  # loads TensorFlow

SAMPLE_COLUMNS = 6
MOST_PAIRS_SHOWN = 3  # of confused classes
MAP_COLUMNS = 8  # feature maps of a layer
SMALLEST_MAP = 4  # cells; a smaller one is a few squares
ALIKE = 0.8  # correlation from which two feature maps show the same
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
        paths: of the N images, where they are files; under each image, else its number.

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
        paths: of the N images, where they are files; under each image, else its number.

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
        paths: of the N images, where they are files; under each image, else its number.

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
    """Draws blocks of images under each other, each image with its caption and where it is."""
    sheet = Sheet(title, SAMPLE_COLUMNS)
    for block in blocks:
        sheet.add_heading(block.heading, block.colour)
        sheet.add_rows(
            [
                Cell(
                    images[index],
                    _caption(int(y_true[index]), y_prob[index], class_names),
                    _place(int(index), paths),
                )
                for index in block.chosen
            ]
        )
    return sheet.draw()


def _caption(true: int, probabilities: np.ndarray, class_names: Sequence[str]) -> str:
    """Returns the predicted class and, where it is another, the true one; with confidences."""
    predicted = int(np.argmax(probabilities))
    names = shortened(class_names, LONGEST_LABEL)
    # Spaces that do not break keep the number and its unit on one line.
    lines = [f"{names[predicted]}, {100 * probabilities[predicted]:.0f}\u00a0%"]
    if predicted != true:
        lines.append(f"true: {names[true]}, {100 * probabilities[true]:.0f}\u00a0%")
    return "\n".join(lines)


def _place(index: int, paths: Sequence[str] | np.ndarray | None) -> str:
    """Returns where an image is: the end of its path, which names the file, or its number."""
    if paths is None:
        return f"test image {index:,}"
    path = printable(str(paths[index]))
    return path if len(path) <= CAPTION_WIDTH else "\u2026" + path[1 - CAPTION_WIDTH :]


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
    pixels = np.clip(np.rint(augmented), 0, 255).astype(np.uint8)
    captions = [
        f"{what}\n{height} x {width} pixels"
        for what, (height, width) in (
            ("original", originals.shape[1:3]),
            ("augmented", augmented.shape[2:4]),
        )
    ]
    sheet = Sheet("Training images before and after augmentation", augmented.shape[1] + 1, wide=0.8)
    for original, views in zip(originals, pixels, strict=True):
        cells = [Cell(original, captions[0]), Cell(views[0], captions[1])]
        sheet.add_rows(cells + [Cell(view) for view in views[1:]])
        captions = ["", ""]  # above the first row alone
    return sheet.draw()


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
        predicted and, where that is wrong, its map for the true class. An empty map says so.
    """
    num_right, wrong = len(explanations.right), explanations.wrong
    rows = {"predicted class": explanations.for_predicted[:num_right]}
    wrong_rows = {
        "predicted class": explanations.for_predicted[num_right:],
        "true class": explanations.for_true,
    }
    blocks = [
        (_Block("Right, drawn by chance", GREEN, explanations.right), rows),
        (_Block("Wrong, the surest first", VERMILLION, wrong), wrong_rows),
    ]
    sheet = Sheet(
        "What speaks for a class: yellow most, blue least", SAMPLE_COLUMNS, has_labels=True
    )
    for block, maps in blocks:
        if not len(block.chosen):
            continue
        sheet.add_heading(block.heading, block.colour)
        captions = [_caption(int(y_true[i]), y_prob[i], class_names) for i in block.chosen]
        chosen = images[block.chosen]
        sheet.add_rows([Cell(*one) for one in zip(chosen, captions, strict=True)], "test image")
        for name, of_images in maps.items():
            sheet.add_rows(
                [
                    Cell(image, "" if one.any() else "nothing speaks for it", overlay=one)
                    for image, one in zip(chosen, of_images, strict=True)
                ],
                f"for the {name}",
            )
    return sheet.draw()


def plot_feature_maps(image: np.ndarray, layers: Sequence["FeatureMaps"]) -> Figure:
    """Shows what layers make of an image: of each some channels that vary much, no two alike.

    Args:
        image: (H, W, 1 or 3) uint8 in [0, 255].
        layers: (h, w, channels) floats of each layer.

    Returns:
        A figure of a block for the image and one for each layer of cells enough; each channel has a
        scale of its own, from dark to light.
    """
    layers = [layer for layer in layers if min(layer.maps.shape[:2]) >= SMALLEST_MAP] or layers
    sheet = Sheet("What the network sees of a test image", MAP_COLUMNS, wide=0.7)
    height, width = image.shape[:2]
    sheet.add_heading(f"Test image, {height} x {width} pixels", BLUE)
    sheet.add_rows([Cell(image)])
    for number, layer in enumerate(layers, start=1):
        height, width, count = layer.maps.shape
        channels = _choose_channels(layer.maps)
        sheet.add_heading(
            f"Depth {number} of {len(layers)}: {height} x {width} cells, {len(channels)} of "
            f"{count:,} channels, those that vary most",
            BLUE,
        )
        sheet.add_rows([Cell(layer.maps[..., one], f"channel {one}") for one in channels])
    return sheet.draw()


def _choose_channels(maps: np.ndarray, most: int = MAP_COLUMNS) -> list[int]:
    """Returns channels of (h, w, channels) with a large deviation, those alike left out."""
    flat = maps.reshape(-1, maps.shape[-1]).T.astype(np.float64)  # (channels, cells)
    flat -= flat.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(flat, axis=1)
    order = np.argsort(-lengths, kind="stable")
    flat /= np.maximum(lengths, np.finfo(np.float64).tiny)[:, np.newaxis]
    chosen: list[int] = []
    for channel in order:
        is_new = not chosen or np.abs(flat[chosen] @ flat[channel]).max() < ALIKE
        if is_new and lengths[channel] > 0:
            chosen.append(int(channel))
        if len(chosen) == most:
            break
    others = [int(channel) for channel in order if channel not in chosen]
    return chosen or others[:1]


def plot_gallery(title: str, images: np.ndarray, captions: Sequence[str]) -> Figure:
    """Shows images, at most 48 of them, the first ones, in rows of six.

    Args:
        title: stands above all.
        images: uint8 (N, H, W, 1 or 3).
        captions: N texts, lines of which are kept.
    """
    sheet = Sheet(title, SAMPLE_COLUMNS)
    chosen = zip(images[:MOST_SHOWN], captions, strict=False)
    sheet.add_rows([Cell(image, caption) for image, caption in chosen])
    return sheet.draw()


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
    sheet = Sheet(title, SAMPLE_COLUMNS // 2, wide=2)
    sheet.add_rows([Cell(*one) for one in zip(joined, captions, strict=False)])
    return sheet.draw()


def plot_classes(samples: Sequence[tuple[str, np.ndarray]]) -> Figure:
    """Shows some images of each class, a row a class.

    Args:
        samples: name of a class, and uint8 (K, H, W, 1 or 3) of its images.
    """
    sheet = Sheet("Some images of each class", SAMPLE_COLUMNS, wide=0.75)
    for name, images in samples:
        sheet.add_heading(shortened([name], 2 * LONGEST_LABEL)[0], BLUE)
        sheet.add_rows([Cell(image) for image in images])
    return sheet.draw()
