"""What `python -m benchmarks.distribution --only speed` measured, as a plot."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transfer.plots import style

COLOURS = (style.BLUE, style.VERMILLION)


def plot_speed(rows: Sequence[Mapping]) -> Figure:
    """Plots the rate by processes, beside what gradients add to a step by link.

    Args:
        rows: as `benchmarks.distribution.measure_speed` returns them.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle("Training in several processes, two cores")
    networks = list(dict.fromkeys(row["network"] for row in rows))
    for number, network in enumerate(networks):
        own = [row for row in rows if row["network"] == network]
        _plot_rate(left, own, COLOURS[number])
        width = 0.8 / len(networks)
        _plot_links(right, own, COLOURS[number], width, (number - (len(networks) - 1) / 2) * width)
    left.axhline(1, color="gray", ls="--", lw=1, label="one process on both cores", zorder=0)
    left.set_xticks([1, 2, 4])
    left.set_ylim(0)
    left.set(xlabel="processes on two cores", ylabel="images/s, of those of one process")
    left.legend(loc="lower left")
    right.set(ylabel="milliseconds a step", title="a step of two processes, by link")
    right.legend(loc="upper left")
    return figure


def _plot_rate(axes: Axes, rows: Sequence[Mapping], colour: str) -> None:
    on_two = [row for row in rows if row["cores"] == 2 and row["link"] == "loopback"]
    whole = next(row for row in on_two if row["processes"] == 1)
    for what, marker, line in (("step", "o", "-"), ("pass", "s", ":")):
        words = {"step": "training", "pass": "features"}[what]
        rates = [row[what] / whole[what] for row in on_two]
        label = f"{whole['network']}, {words}"
        axes.plot([row["processes"] for row in on_two], rates, line, marker=marker, color=colour)
        axes.lines[-1].set_label(label)
    axes.grid(alpha=0.3)


def _plot_links(
    axes: Axes, rows: Sequence[Mapping], colour: str, width: float, shift: float
) -> None:
    by_link = {row["link"]: row for row in rows if row["processes"] == 2}
    places = np.arange(len(by_link)) + shift
    milliseconds = [1e3 * row["batch_size"] / row["step"] for row in by_link.values()]
    megabytes = rows[0]["parameters"] * 4 / 1e6
    label = f"{rows[0]['network']}, {megabytes:.1f} MB of gradients"
    bars = axes.bar(places, milliseconds, 0.95 * width, color=colour, label=label)
    axes.bar_label(bars, fmt="{:.0f}")
    axes.set_xticks(np.arange(len(by_link)), list(by_link))
    axes.set_ylim(0, max(axes.get_ylim()[1], 1.25 * max(milliseconds)))
