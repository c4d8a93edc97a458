"""From arrays to charts: what a report shows beside its tables and the images of `galleries.py`.

Each function takes arrays and returns a matplotlib `Figure` that belongs to nobody else: no
pyplot state, no window, so that a report is made the same on a server without a display.
Where a figure is one plot, `ax` draws it into an axes of the caller's. Colours are Okabe and
Ito's palette and cividis, which colour-blind readers can tell apart; nothing is told by
colour alone.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogFormatter, MaxNLocator

from transfer.plots.fonts import PlainFigure, show_as_they_are
from transfer.plots.style import BLUE, GRAY, LONGEST_LABEL, SPLIT_COLOURS, VERMILLION, shortened

if TYPE_CHECKING:
    from transfer.evaluation.calibration import RejectCurve  # loads scikit-learn

MOST_CELLS_WITH_NUMBERS = 40  # classes; beyond, numbers in the cells are too small to read
FEWEST_IN_BIN = 10  # images; of fewer an accuracy says nothing
MOST_CLASSES_WITH_NAMES = 120  # likewise for the names beside the axes


def plot_history(history: Sequence[Mapping[str, Any]], label_smoothing: float = 0.0) -> Figure:
    """Plots loss, accuracy and learning rate over the epochs of both phases.

    Args:
        history: a row for each epoch, in order: phase ("head" or "fine-tune"), epoch (counted
            within its phase from 1), loss and val_loss (nats), accuracy and val_accuracy
            (shares in [0, 1]), learning_rate. A value that is missing or None leaves a gap;
            a phase may be missing.
        label_smoothing: of the losses, which are higher by it; said beside their axis.

    Returns:
        A figure of three axes. A dashed line stands between the phases, a dotted one before
        each epoch whose learning rate is lower than the one before it in the same phase; a star
        marks the epoch of the lowest validation loss, whose weights are kept.
    """
    figure = PlainFigure(figsize=(8, 9), layout="constrained")
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    figure.suptitle("Training and validation by epoch")
    _plot_curves(loss, _column(history, "loss"), _column(history, "val_loss"))
    smoothed = f", labels\nsmoothed by {label_smoothing:g}" if label_smoothing else ""
    loss.set(title="Loss", ylabel=f"cross-entropy (nats){smoothed}")
    shares = [100 * _column(history, key) for key in ("accuracy", "val_accuracy")]
    _plot_curves(accuracy, *shares)
    accuracy.set(title="Accuracy", ylabel="accuracy (%)")
    _plot_learning_rate(rate, _column(history, "learning_rate"))
    _mark_kept(loss, _column(history, "val_loss"), _column(history, "val_loss"))
    _mark_kept(accuracy, _column(history, "val_loss"), 100 * _column(history, "val_accuracy"))
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
    style: dict[str, Any] = {"marker": "o", "markersize": 4}
    axes.plot(epochs, train, color=BLUE, label="training", **style)
    axes.plot(epochs, validation, color=VERMILLION, label="validation", ls="--", **style)


def _mark_kept(axes: Axes, losses: np.ndarray, values: np.ndarray) -> None:
    """Marks the epoch whose weights are kept, and writes the legend."""
    if np.isfinite(losses).any():
        kept = int(np.nanargmin(np.where(np.isfinite(losses), losses, np.nan)))
        label = f"kept: epoch {kept + 1}"
        style: dict[str, Any] = {"marker": "*", "s": 160, "zorder": 5, "edgecolors": "white"}
        axes.scatter([kept + 1], values[[kept]], color=VERMILLION, label=label, **style)
    axes.legend()


def _plot_learning_rate(axes: Axes, rates: np.ndarray) -> None:
    axes.plot(np.arange(1, len(rates) + 1), rates, color="black", drawstyle="steps-mid", marker=".")
    if np.nanmax(rates, initial=0.0) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())  # Matplotlib's own writes formulas
        axes.yaxis.set_minor_formatter(LogFormatter())
        axes.margins(y=0.25)


def _mark_changes(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    """Draws a line where the phase changes and where the learning rate drops within one.

    A rate that falls all the time, as along a cosine, has no drops worth a line.
    """
    phases, rates = [row["phase"] for row in history], _column(history, "learning_rate")
    falls_all_the_time = 2 * np.count_nonzero(np.diff(rates) < 0) > len(history)
    boundary: dict[str, Any] = {"color": "black", "ls": "--", "label": "next phase begins"}
    drop: dict[str, Any] = {"color": GRAY, "ls": ":", "label": "learning rate lowered"}
    for i in range(1, len(history)):
        new_phase = phases[i] != phases[i - 1]
        if new_phase or (rates[i] < rates[i - 1] and not falls_all_the_time):
            style = boundary if new_phase else drop
            axes.axvline(i + 0.5, lw=1.2, **style)
            style["label"] = None  # one entry in the legend is enough


def plot_learning_rates(tests: Sequence[Any]) -> Figure:
    """Plots the loss of each step against its learning rate, a plot for each phase.

    Args:
        tests: of each phase, with `phase`, `rates`, `losses`, `smoothed`, `now` and `suggested`.

    Returns:
        A figure; thin the loss of each batch, thick their average; lines at the rate of the
        settings and at the one suggested.
    """
    figure = PlainFigure(figsize=(8, 3.5 * max(1, len(tests))), layout="constrained")
    figure.suptitle("Loss at rising learning rates")
    for axes, test in zip(figure.subplots(len(tests), 1, squeeze=False)[:, 0], tests, strict=True):
        axes.plot(test.rates, test.losses, color=GRAY, lw=0.7, label="a batch")
        axes.plot(test.rates, test.smoothed, color=BLUE, lw=2, label="average")
        axes.axvline(test.now, color="black", ls=":", label=f"now: {test.now:g}")
        if test.suggested:
            label = f"suggested: {test.suggested:g}"
            axes.axvline(test.suggested, color=VERMILLION, ls="--", label=label)
        axes.set(title=f"{test.phase} phase", ylabel="cross-entropy (nats)", xscale="log")
        axes.xaxis.set_major_formatter(LogFormatter())  # Matplotlib's own writes formulas
        axes.set_ylim(0, 2.5 * test.smoothed[0])
        axes.grid(alpha=0.3)
        axes.legend()
    axes.set_xlabel("learning rate")
    return figure


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
        normalize: in percent of each row's sum; a class without test images stays 0.
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
    cells = counts
    if normalize:
        cells = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if ax is None:
        side = float(np.clip(0.42 * num_classes + 3.2, 5.5, 20))
        ax = PlainFigure(figsize=(side + 1, side), layout="compressed").subplots()
    display = ConfusionMatrixDisplay(cells, display_labels=shortened(class_names, LONGEST_LABEL))
    display.plot(
        ax=ax,
        include_values=num_classes <= MOST_CELLS_WITH_NUMBERS,
        values_format=".1f" if normalize else "d",
        colorbar=False,
        im_kw={"cmap": "cividis", "norm": PowerNorm(0.5, 0, 100 if normalize else None)},
        text_kw={"fontsize": 9 if num_classes <= 15 else 8},
    )
    _finish_confusion_matrix(ax, display, cells, normalize)
    return _root(ax)


def _finish_confusion_matrix(ax: Axes, display: Any, cells: np.ndarray, normalize: bool) -> None:
    if display.text_ is not None:
        for text, value in zip(display.text_.ravel(), cells.ravel(), strict=True):
            text.set_color("black" if display.im_.norm(value) > 0.55 else "white")
            text.set_visible(value >= (0.05 if normalize else 1))
    what = "percent of the true class (rows add up to 100)" if normalize else "test images"
    what += "\ncolours by the square root"
    ax.figure.colorbar(display.im_, ax=ax, label=what, fraction=0.04, pad=0.02)
    ax.set_title(f"Confusion matrix: {'percent' if normalize else 'counts'}")
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.tick_params(axis="x", rotation=90 if len(cells) > 5 else 0)
    if len(cells) > MOST_CLASSES_WITH_NAMES:
        ax.set(xticks=[], yticks=[])


def _root(axes: Axes) -> Figure:
    show_as_they_are(axes)  # the figure may be the caller's
    figure = axes.figure
    return figure.figure if isinstance(figure, SubFigure) else figure


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
        figure = PlainFigure(
            figsize=(9, _bars_height(num_classes, num_splits)), layout="constrained"
        )
        ax = figure.subplots()
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
        shortened(class_names, LONGEST_LABEL) if named else [],
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
        The figure: for each of the two a curve, and in its colour bars for the share of the images
        at each confidence; and a diagonal that a calibrated classifier would follow. Where fewer
        than `FEWEST_IN_BIN` images have a confidence there is no point.
    """
    from transfer.evaluation import calibration  # loads scikit-learn, see above

    if ax is None:
        ax = PlainFigure(figsize=(7, 6.4), layout="constrained").subplots()
    ax.plot([0, 100], [0, 100], color=GRAY, ls=":", label="confidence is accuracy")
    curves = [("as the model says", y_prob, BLUE, "-", "o")]
    if calibrated is not None:
        curves.append(("with the temperature", calibrated, VERMILLION, "--", "s"))
    for number, (name, probabilities, colour, style, marker) in enumerate(curves):
        bins = calibration.reliability_bins(y_true, probabilities)
        error = calibration.expected_calibration_error(y_true, probabilities)
        some = bins.count >= FEWEST_IN_BIN
        _draw_shares(ax, bins.count, colour, number, len(curves))
        ax.plot(
            100 * bins.confidence[some],
            100 * bins.accuracy[some],
            color=colour,
            ls=style,
            marker=marker,
            label=f"{name}: expected calibration error {100 * error:.2f}\u00a0%",
        )
    ax.set(xlim=(0, 100), ylim=(0, 100))
    ax.set(xlabel="confidence (%)", ylabel="accuracy (%); bars: share of the images (%)")
    ax.set_title("Reliability diagram: accuracy at each confidence", pad=60)
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
    # Above the axes, where no curve can hide behind it.
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return _root(ax)


def _draw_shares(axes: Axes, counts: np.ndarray, colour: str, number: int, of: int) -> None:
    """Draws bars of the share of the images in each bin, those of several curves side by side."""
    edges = np.linspace(0, 100, len(counts) + 1)
    width = (edges[1] - edges[0]) / of
    shares = 100 * counts / max(counts.sum(), 1)
    axes.bar(edges[:-1] + number * width, shares, width, align="edge", color=colour, alpha=0.25)


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
        threshold: of such a confidence; a mark shows what comes of answering from it on.
        ax: where to draw; a new figure where it is None.

    Returns:
        The figure.
    """
    from transfer.evaluation import calibration  # loads scikit-learn, see above

    if ax is None:
        ax = PlainFigure(figsize=(7, 4.8), layout="constrained").subplots()
    curve = calibration.reject_curve(y_true, y_prob)
    ax.plot(100 * curve.share_answered, 100 * curve.accuracy, color=BLUE)
    if threshold is not None:
        _mark_threshold(ax, curve, threshold)
    ax.set(xlabel="images answered (%), the surest first", ylabel="accuracy of the answers (%)")
    ax.set(title="Reject curve: the least certain images unanswered", xlim=(0, 100))
    ax.grid(alpha=0.3)
    return _root(ax)


def _mark_threshold(axes: Axes, curve: "RejectCurve", threshold: float) -> None:
    answered = np.flatnonzero(curve.threshold >= threshold)
    if not len(answered):
        return
    share, accuracy = 100 * curve.share_answered[answered[-1]], 100 * curve.accuracy[answered[-1]]
    label = (
        f"from calibrated confidence {100 * threshold:.1f}\u00a0% on: {share:.1f}\u00a0% answered, "
        f"{accuracy:.2f}\u00a0% right"
    )
    axes.plot(share, accuracy, color=VERMILLION, marker="D", ls="", label=label)
    axes.legend(loc="lower left")
