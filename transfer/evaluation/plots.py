"""From arrays to pictures: what `report.py` shows beside its tables.

Each function takes arrays and returns a matplotlib `Figure` that belongs to nobody else: no
pyplot state, no window, so that a report is made the same on a server without a display.
Where a figure is one plot, `ax` draws it into an axes of the caller's. Colours are Okabe and
Ito's palette and cividis, which colour-blind readers can tell apart; nothing is told by
colour alone.
"""

import io
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

# M. Okabe, K. Ito, "Color Universal Design" (2008), https://jfly.uni-koeln.de/color/
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, GRAY = "#56B4E9", "#CC79A7", "#666666"
SPLIT_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION)

MOST_CELLS_WITH_NUMBERS = 40  # classes; beyond, numbers in the cells are too small to read
MOST_CLASSES_WITH_NAMES = 120  # likewise for the names beside the axes
SAMPLE_COLUMNS = 6
SAMPLE_WIDTH = 2.1  # inches
CAPTION_WIDTH = 24  # characters in a line above a sample image
LONGEST_LABEL = 32  # characters
MOST_PAIRS_SHOWN = 3  # of confused classes
PICTURE_DPI = 110


def png(figure: Figure) -> bytes:
    """Returns a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PICTURE_DPI)
    return buffer.getvalue()


def plot_history(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Plots loss, accuracy and learning rate over the epochs of both phases.

    Args:
        history: a row for each epoch, in order: phase ("head" or "fine-tune"), epoch (counted
            within its phase from 1), loss and val_loss (nats), accuracy and val_accuracy
            (shares in [0, 1]), learning_rate. A value that is missing or None leaves a gap;
            a phase may be missing.

    Returns:
        A figure of three axes. A dashed line stands between the phases, a dotted one before
        each epoch whose learning rate is lower than the one before it in the same phase.
    """
    figure = Figure(figsize=(8, 9), layout="constrained")
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    figure.suptitle("Training and validation by epoch")
    _plot_curves(loss, _column(history, "loss"), _column(history, "val_loss"))
    loss.set(title="Loss", ylabel="cross-entropy (nats)")
    shares = [100 * _column(history, key) for key in ("accuracy", "val_accuracy")]
    _plot_curves(accuracy, *shares)
    accuracy.set(title="Accuracy", ylabel="accuracy (%)")
    _plot_learning_rate(rate, _column(history, "learning_rate"))
    for axes in (loss, accuracy, rate):
        axes.grid(alpha=0.3)
        _mark_changes(axes, history)
    if rate.get_legend_handles_labels()[1]:
        rate.legend()
    rate.set(title="Learning rate", ylabel="learning rate", xlabel=_epochs_label(history))
    rate.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    rate.set_xlim(0.5, max(len(history), 1) + 0.5)
    if not history:
        loss.text(0.5, 0.5, "no epoch was trained", transform=loss.transAxes, ha="center")
    return figure


def _column(history: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    values = [row.get(key) for row in history]
    return np.array([np.nan if value in (None, "") else float(value) for value in values])


def _plot_curves(axes: Axes, train: np.ndarray, validation: np.ndarray) -> None:
    epochs = np.arange(1, len(train) + 1)
    style = {"marker": "o", "markersize": 4}
    axes.plot(epochs, train, color=BLUE, label="training", **style)
    axes.plot(epochs, validation, color=VERMILLION, label="validation", ls="--", **style)
    axes.legend()


def _plot_learning_rate(axes: Axes, rates: np.ndarray) -> None:
    axes.plot(np.arange(1, len(rates) + 1), rates, color="black", drawstyle="steps-mid", marker=".")
    if np.nanmax(rates, initial=0.0) > 0:
        axes.set_yscale("log")
        axes.margins(y=0.25)


def _mark_changes(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    """Draws a line where the phase changes and where the learning rate drops within one.

    A rate that falls all the time, as along a cosine, has no drops worth a line.
    """
    phases, rates = [row["phase"] for row in history], _column(history, "learning_rate")
    falls_all_the_time = 2 * np.count_nonzero(np.diff(rates) < 0) > len(history)
    boundary = {"color": "black", "ls": "--", "lw": 1.2, "label": "next phase begins"}
    drop = {"color": GRAY, "ls": ":", "lw": 1.2, "label": "learning rate lowered"}
    for i in range(1, len(history)):
        new_phase = phases[i] != phases[i - 1]
        if new_phase or (rates[i] < rates[i - 1] and not falls_all_the_time):
            style = boundary if new_phase else drop
            axes.axvline(i + 0.5, **style)
            style["label"] = None  # one entry in the legend is enough


def _epochs_label(history: Sequence[Mapping[str, Any]]) -> str:
    """Returns the name of the axis, for example "epoch (1 to 5: head, 6 to 16: fine-tune)"."""
    parts, start = [], 1
    for phase, rows in itertools.groupby(history, key=lambda row: row["phase"]):
        end = start + len(list(rows)) - 1
        parts.append(f"{start} to {end}: {phase}" if end > start else f"{start}: {phase}")
        start = end + 1
    return f"epoch ({', '.join(parts)})" if parts else "epoch"


def plot_confusion_matrix(
    confusion_matrix: np.ndarray | Sequence[Sequence[int]],
    class_names: Sequence[str],
    normalize: bool = False,
    ax: Axes | None = None,
) -> Figure:
    """Plots a confusion matrix in counts, or in shares of each true class.

    Args:
        confusion_matrix: (C, C) counts, rows are true classes, columns predicted ones.
        class_names: C names.
        normalize: divide each row by its sum; a class without test images stays 0.
        ax: where to draw; a new figure, sized for C, where it is None.

    Returns:
        The figure. Cells that round to 0 stay empty; the colours follow the square root, because
        mistakes are few beside the diagonal and would otherwise all look alike.

    Raises:
        ValueError: the matrix is not (C, C).
    """
    from sklearn.metrics import ConfusionMatrixDisplay  # keeps the other plots quick to import

    counts, num_classes = np.asarray(confusion_matrix), len(class_names)
    if counts.shape != (num_classes, num_classes):
        raise ValueError(
            f"`confusion_matrix` should have shape ({num_classes}, {num_classes}), a row for "
            f"each of `class_names`. Received: shape {counts.shape}"
        )
    cells = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) if normalize else counts
    if ax is None:
        side = float(np.clip(0.42 * num_classes + 3.2, 5.5, 20))
        ax = Figure(figsize=(side + 1, side), layout="constrained").subplots()
    display = ConfusionMatrixDisplay(cells, display_labels=_shortened(class_names, LONGEST_LABEL))
    display.plot(
        ax=ax,
        include_values=num_classes <= MOST_CELLS_WITH_NUMBERS,
        values_format=".2f" if normalize else "d",
        colorbar=False,
        im_kw={"cmap": "cividis", "norm": PowerNorm(0.5, 0, 1 if normalize else None)},
        text_kw={"fontsize": 9 if num_classes <= 15 else 8},
    )
    _finish_confusion_matrix(ax, display, cells, normalize)
    return _root(ax)


def _finish_confusion_matrix(ax: Axes, display: Any, cells: np.ndarray, normalize: bool) -> None:
    if display.text_ is not None:
        for text, value in zip(display.text_.ravel(), cells.ravel(), strict=True):
            text.set_color("black" if display.im_.norm(value) > 0.55 else "white")
            text.set_visible(value >= (0.005 if normalize else 1))
    what = "share of the true class (rows add up to 1)" if normalize else "number of test images"
    ax.figure.colorbar(display.im_, ax=ax, label=what, fraction=0.04, pad=0.02)
    ax.set_title(f"Confusion matrix: {'shares' if normalize else 'counts'}")
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.tick_params(axis="x", rotation=90 if len(cells) > 5 else 0)
    if len(cells) > MOST_CLASSES_WITH_NAMES:
        ax.set(xticks=[], yticks=[])


def _root(axes: Axes) -> Figure:
    figure = axes.figure
    return figure.figure if isinstance(figure, SubFigure) else figure


def _shortened(names: Sequence[str], width: int) -> list[str]:
    """Returns the names with the middle left out of long ones: their ends tell them apart."""
    half = width // 2 - 1
    return [name if len(name) <= width else f"{name[:half]}…{name[-half:]}" for name in names]


def plot_sample_predictions(
    images: np.ndarray,
    y_true: np.ndarray,
    y_prob: np.ndarray,
    class_names: Sequence[str],
    num_each: int = 12,
    seed: int = 0,
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
    return _plot_blocks(title, blocks, images, y_true, y_prob, class_names)


def plot_mistakes_and_doubts(
    images: np.ndarray,
    y_true: np.ndarray,
    y_prob: np.ndarray,
    class_names: Sequence[str],
    num_each: int = 12,
) -> Figure:
    """Shows the mistakes the model was surest of, and the images it was least sure of.

    The first are often wrong labels, the second images that people would argue about too.

    Args:
        images: (N, H, W, 1 or 3) uint8 in [0, 255].
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1].
        class_names: C names.
        num_each: at most so many of each kind.

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
    return _plot_blocks(title, blocks, images, y_true, y_prob, class_names)


def plot_confused_pairs(
    images: np.ndarray,
    y_true: np.ndarray,
    y_prob: np.ndarray,
    class_names: Sequence[str],
    num_pairs: int = MOST_PAIRS_SHOWN,
    num_each: int = SAMPLE_COLUMNS,
) -> Figure:
    """Shows the classes most often taken for each other, with examples of each side.

    Args:
        images: (N, H, W, 1 or 3) uint8 in [0, 255].
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1].
        class_names: C names.
        num_pairs: at most so many pairs, the one with the most mistakes of both sides first.
        num_each: at most so many images of each side, the surest mistakes first.

    Returns:
        A figure of two blocks for each pair; one empty block where nothing is confused.

    Raises:
        ValueError: the arrays do not have the same N.
    """
    _is_right(images, y_true, y_prob)
    y_true, predicted = np.asarray(y_true), np.argmax(y_prob, axis=1)
    names = _shortened(class_names, LONGEST_LABEL)
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
    return _plot_blocks(title, blocks, images, y_true, y_prob, class_names)


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
) -> Figure:
    """Draws blocks of images under each other, each image with its caption."""
    captions = [
        [_caption(int(y_true[i]), y_prob[i], class_names) for i in b.chosen] for b in blocks
    ]
    height, width = np.shape(images)[1:3]
    heights = [_block_height(lines, height / width) for lines in captions]
    figure = Figure(figsize=(SAMPLE_WIDTH * SAMPLE_COLUMNS, sum(heights) + 0.4))
    figure.set_layout_engine("constrained", h_pad=0.06)
    figure.suptitle(title, fontsize="x-large")
    parts = figure.subfigures(len(blocks), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, block, lines in zip(parts, blocks, captions, strict=True):
        _draw_block(part, block, np.asarray(images)[block.chosen], lines)
    return figure


def _caption(true: int, probabilities: np.ndarray, class_names: Sequence[str]) -> str:
    """Returns the predicted class and, where it is another, the true one; with confidences."""
    predicted = int(np.argmax(probabilities))
    names = _shortened(class_names, LONGEST_LABEL)
    # Spaces that do not break keep the number and its unit on one line.
    lines = [f"{names[predicted]}, {100 * probabilities[predicted]:.0f}\u00a0%"]
    if predicted != true:
        lines.append(f"true: {names[true]}, {100 * probabilities[true]:.0f}\u00a0%")
    return "\n".join(textwrap.fill(line, CAPTION_WIDTH) for line in lines)


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
        axes.set_title(caption, fontsize=9)


def _show_image(axes: Axes, image: np.ndarray) -> None:
    """Draws uint8 (H, W, 1 or 3); small images keep their pixels visible."""
    axes.set_axis_off()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def plot_class_distribution(
    counts: Mapping[str, np.ndarray], class_names: Sequence[str], ax: Axes | None = None
) -> Figure:
    """Plots how many images each class has in each split.

    Args:
        counts: split name to (C,) counts, for example of train, validation and test.
        class_names: C names.
        ax: where to draw; a new figure, sized for C, where it is None.

    Returns:
        The figure, a group of horizontal bars for each class.

    Raises:
        ValueError: a split has another number of classes.
    """
    num_classes, num_splits = len(class_names), len(counts)
    for split, values in counts.items():
        if np.shape(values) != (num_classes,):
            raise ValueError(
                f"Counts of {split!r} should have shape ({num_classes},), one for each of "
                f"`class_names`. Received: shape {np.shape(values)}"
            )
    if ax is None:
        ax = Figure(figsize=(9, _bars_height(num_classes, num_splits)), layout="constrained")
        ax = ax.subplots()
    thickness = 0.8 / max(num_splits, 1)
    for i, (split, values) in enumerate(counts.items()):
        centers = np.arange(num_classes) + (i - (num_splits - 1) / 2) * thickness
        colour = SPLIT_COLOURS[i % len(SPLIT_COLOURS)]
        label = f"{split} ({int(np.sum(values)):,} images)"
        bars = ax.barh(centers, values, height=thickness, color=colour, label=label)
        if num_classes <= MOST_CLASSES_WITH_NAMES:
            ax.bar_label(bars, [f"{int(value):,}" for value in values], padding=2, fontsize=7)
    _finish_class_distribution(ax, class_names)
    return _root(ax)


def _bars_height(num_classes: int, num_splits: int) -> float:
    if num_classes > MOST_CLASSES_WITH_NAMES:
        return 12.0
    return max(3.0, 1.5 + (0.2 if num_classes <= 15 else 0.15) * num_classes * num_splits)


def _finish_class_distribution(ax: Axes, class_names: Sequence[str]) -> None:
    named = len(class_names) <= MOST_CLASSES_WITH_NAMES
    ax.set_yticks(
        np.arange(len(class_names)) if named else [],
        _shortened(class_names, LONGEST_LABEL) if named else [],
    )
    ax.set_ylim(len(class_names) - 0.4, -0.6)  # the first class on top
    ax.margins(x=0.1)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="x", alpha=0.3)
    ax.set_axisbelow(True)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set(xlabel="number of images", ylabel="class")
    # Between the title and the axes, where no bar can hide behind it.
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False)
    ax.set_title("Images of each class", pad=28)


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
    figure = Figure(
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


def plot_reliability(
    y_true: np.ndarray,
    y_prob: np.ndarray,
    calibrated: np.ndarray | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Plots how often predictions of each confidence are right.

    Args:
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1], as the model gives them.
        calibrated: (N, C) floats in [0, 1], the same with a temperature.
        ax: where to draw; a new figure where it is None.

    Returns:
        The figure: a curve for each of the two, a diagonal that a calibrated classifier would
        follow, and gray bars for the share of the images of each bin of `y_prob`.
    """
    from transfer.evaluation import calibration  # loads scikit-learn, see above

    if ax is None:
        ax = Figure(figsize=(7, 6.4), layout="constrained").subplots()
    bins = calibration.reliability_bins(y_true, y_prob)
    edges = np.linspace(0, 100, len(bins.count) + 1)
    shares = 100 * bins.count / bins.count.sum()
    label = "share of the images, as the model says"
    ax.bar(edges[:-1], shares, np.diff(edges), align="edge", color="#DDDDDD", label=label)
    ax.plot([0, 100], [0, 100], color=GRAY, ls=":", label="confidence is accuracy")
    curves = [("as the model says", y_prob, BLUE, "-", "o")]
    if calibrated is not None:
        curves.append(("with the temperature", calibrated, VERMILLION, "--", "s"))
    for name, probabilities, colour, style, marker in curves:
        bins = calibration.reliability_bins(y_true, probabilities)
        error = calibration.expected_calibration_error(y_true, probabilities)
        some = bins.count > 0
        ax.plot(
            100 * bins.confidence[some],
            100 * bins.accuracy[some],
            color=colour,
            ls=style,
            marker=marker,
            label=f"{name}: expected calibration error {100 * error:.2f}\u00a0%",
        )
    ax.set(xlabel="confidence (%)", ylabel="accuracy (%)", xlim=(0, 100), ylim=(0, 100))
    ax.set_title("Reliability diagram: accuracy at each confidence", pad=76)
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
    # Above the axes, where no curve can hide behind it.
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return _root(ax)


def plot_reject_curve(
    y_true: np.ndarray,
    y_prob: np.ndarray,
    threshold: float | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Plots accuracy against the share of images that are answered, the surest first.

    Args:
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1], with the temperature where there is one.
        threshold: a confidence; a mark shows what comes of answering from it on.
        ax: where to draw; a new figure where it is None.

    Returns:
        The figure.
    """
    from transfer.evaluation import calibration  # loads scikit-learn, see above

    if ax is None:
        ax = Figure(figsize=(7, 4.8), layout="constrained").subplots()
    curve = calibration.reject_curve(y_true, y_prob)
    shares, accuracies = 100 * curve.share_answered, 100 * curve.accuracy
    ax.plot(shares, accuracies, color=BLUE)
    answered = np.flatnonzero(curve.threshold >= threshold) if threshold is not None else []
    if len(answered):
        point = shares[answered[-1]], accuracies[answered[-1]]
        label = (
            f"from confidence {100 * threshold:.1f}\u00a0% on: {point[0]:.1f}\u00a0% answered, "
            f"{point[1]:.2f}\u00a0% right"
        )
        ax.plot(*point, color=VERMILLION, marker="D", ls="", label=label)
        ax.legend(loc="lower left")
    ax.set(xlabel="images answered (%), the surest first", ylabel="accuracy of the answers (%)")
    ax.set(title="Reject curve: the least certain images unanswered", xlim=(0, 100))
    ax.grid(alpha=0.3)
    return _root(ax)
