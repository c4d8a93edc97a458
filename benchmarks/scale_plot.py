"""What `python -m benchmarks.scale` measured, as a plot: seconds against images and pixels."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from transfer.plots import style


def plot_scale(images: Sequence[Mapping], pixels: Sequence[Mapping]) -> Figure:
    """Plots seconds against images and against pixels, with lines of linear growth.

    Args:
        images: points as `measure_point` returns them, of one image size.
        pixels: points of one number of images.
    """
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle("Cost of training (dashed: linear from the largest)")
    _plot_costs(left, images, [point["num_images"] for point in images])
    left.set(title=f"{images[0]['image_size']} pixels", xlabel="training images")
    _plot_costs(right, pixels, [point["image_size"] ** 2 for point in pixels])
    sides = [point["image_size"] for point in pixels]
    right.set_xticks([side**2 for side in sides], [f"{side}²" for side in sides])
    right.minorticks_off()
    right.set(title=f"{pixels[0]['num_images']:,} training images", xlabel="pixels of an image")
    return figure


def _plot_costs(axes: Axes, points: Sequence[Mapping], sizes: Sequence[int]) -> None:
    sizes = np.array(sizes)
    for key, label, colour, marker in (
        ("epoch_seconds", "a fine-tune epoch", style.BLUE, "o"),
        ("pass_seconds", "a pass of the head phase", style.VERMILLION, "s"),
    ):
        seconds = np.array([point[key] for point in points])
        axes.plot(sizes, seconds, color=colour, marker=marker, ls="", label=label)
        linear = seconds[sizes.argmax()] * sizes / sizes.max()
        axes.plot(sizes, linear, color=colour, ls="--", lw=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("seconds")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
