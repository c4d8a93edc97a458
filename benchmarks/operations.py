"""Where the time of a fine-tuning step goes, operation by operation, as TensorFlow's profiler says.

    python -m benchmarks.operations [--backbone mobilenetv2] [--batch-size 128] [--json]
    python -m benchmarks.operations --plot docs/roofline.png

A row's share is of the time that all operations took together. Of convolutions it is known how
many operations they count for, and what they must at least read and write: so each kind has a share
of what the machine's matrix units can do and of what its memory gives, and a place under the roof
that both make (Williams et al. 2009, https://doi.org/10.1145/1498765.1498785).
"""

import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from benchmarks.interleaved import Settings
from transfer import console
from transfer.backend import load_keras
from transfer.commands.exit_codes import run
from transfer.models.backbones import BACKBONES
from transfer.plots import style
from transfer.storage.atomic import write_atomically

# Kinds of operations by the name that TensorFlow has for them, the first that fits. The last part
# of a step's name stands before it: gradients of 1x1 convolutions are products of matrices.
KINDS = {
    "depthwise convolutions, forward": r"Depthwise(?!.*Backprop)",
    "depthwise convolutions, gradient of the input": r"Depthwise.*BackpropInput",
    "depthwise convolutions, gradient of the kernel": r"Depthwise.*BackpropFilter",
    "convolutions, forward": r"Conv2D(?!.*Backprop)",
    "convolutions, gradient of the input": r"Conv2DBackpropInput|gradient_of_input.*MatMul",
    "convolutions, gradient of the kernel": r"Conv2DBackpropFilter|gradient_of_kernel.*MatMul",
    "dense layers": r"MatMul",
    "offsets and their gradients": r"BiasAdd",
    "activations and their gradients": r"Relu|Sigmoid|Swish|Gelu|Erf",
    "sums of branches and gradients": r"AddV2|AddN",
    "optimizer and other arithmetic": r"Apply|Assign|Mul|Sub|RealDiv|Sqrt|Rsqrt|Square|Pow",
    "copies and layouts": r"Transpose|Reshape|Copy|Pad|Slice|Concat|Cast|ToTf",
}
OTHERS = "others"
FLOAT32_BYTES = 4


class Row(NamedTuple):
    """What one kind of operation took of a step.

    Attributes:
        kind: one of `KINDS`, or `OTHERS`.
        milliseconds: of one step, all threads together.
        share: of all operations, 0 to 1.
        of_peak: operations/s as a share of the matrix peak; None where they are not counted.
        of_memory: bytes/s that must at least be read and written, as a share of the memory's;
            above 1 where caches keep what comes next.
        intensity: operations a byte; None where they are not counted.
    """

    kind: str
    milliseconds: float
    share: float
    of_peak: float | None = None
    of_memory: float | None = None
    intensity: float | None = None


class Work(NamedTuple):
    """What one pass of a kind of layer takes at least: operations, and bytes read and written."""

    operations: int = 0
    num_bytes: int = 0


def kind_of(operation: str) -> str:
    """Returns the kind of an operation, such as "Conv2D" or "gradient_of_input:MatMul"."""
    return next((kind for kind, name in KINDS.items() if re.search(name, operation)), OTHERS)


def profile(step: Callable[[], object], steps: int) -> Counter[str]:
    """Returns milliseconds of one step by kind of operation, of several after a first one."""
    import tensorflow as tf

    step()  # which is traced
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(steps):
            step()
        tf.profiler.experimental.stop()
        [path] = Path(folder).rglob("*.xplane.pb")
        return _sum_up(path.read_bytes(), steps)


def _sum_up(content: bytes, steps: int) -> Counter[str]:
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(content)
    spent: Counter[str] = Counter()
    for plane in space.planes:
        names = {number: each.name for number, each in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events if line.name.startswith("tf_Compute") else ():
                name, separator, operation = names[event.metadata_id].rpartition(":")
                if separator and not name.endswith(":"):  # A::b is no operation
                    last = name.rpartition("/")[-1] if operation.endswith("MatMul") else ""
                    spent[kind_of(f"{last}:{operation}")] += event.duration_ps / 1e9 / steps
    return spent


def tabulate(spent: Counter[str], work: dict[str, Work], peak: float, memory: float) -> list[Row]:
    """Returns the rows, the longest first.

    Args:
        spent: as `profile` returns it.
        work: of one pass of a step, of "convolutions" and "depthwise convolutions"; each gradient
            takes as much.
        peak: operations/s of the machine.
        memory: bytes/s of its memory.
    """
    whole = sum(spent.values())
    rows = []
    for kind, milliseconds in spent.most_common():
        row = Row(kind, milliseconds, milliseconds / whole)
        counted = work.get(kind.partition(",")[0])
        if counted and milliseconds:
            seconds = milliseconds / 1e3
            row = row._replace(
                of_peak=counted.operations / seconds / peak,
                of_memory=counted.num_bytes / seconds / memory,
                intensity=counted.operations / counted.num_bytes,
            )
        rows.append(row)
    return rows


def count_work(model: Any, batch_size: int) -> dict[str, Work]:
    """Returns what one pass of a batch takes by kind of layer; a multiply-add counts as two."""
    import keras

    from benchmarks.steps import multiply_adds_of

    counted: dict[str, Work] = {}
    for layer in model.layers:
        if not isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            continue
        is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        kind = "depthwise convolutions" if is_depthwise else "convolutions"
        before = counted.get(kind, Work())
        maps = sum(math.prod(tensor.shape[1:]) for tensor in (layer.input, layer.output))
        values = batch_size * maps + math.prod(layer.kernel.shape)
        counted[kind] = Work(
            before.operations + 2 * batch_size * multiply_adds_of(layer),
            before.num_bytes + FLOAT32_BYTES * values,
        )
    return counted


def show(title: str, rows: Iterable[Row]) -> None:
    """Prints the table."""
    table = Table(title=title)
    table.add_column("operations")
    for name in ("ms a step", "share", "of matrix peak", "of memory"):
        table.add_column(name, justify="right")
    for row in rows:
        limits = ("" if limit is None else f"{100 * limit:.0f} %" for limit in row[3:5])
        table.add_row(row.kind, f"{row.milliseconds:.1f}", f"{100 * row.share:.1f} %", *limits)
    console.show(table)


def plot_roofline(title: str, rows: Iterable[Row], peak: float, memory: float) -> Figure:
    """Plots operations/s against operations a byte, under what the machine allows.

    Args:
        title: of the plot.
        rows: as `tabulate` returns them.
        peak: operations/s of the machine.
        memory: bytes/s of its memory.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    ends = np.array([0.5, peak / memory, 500])
    axes.loglog(ends, np.minimum(peak, ends * memory) / 1e9, color="gray", label="the machine")
    colours = {"forward": style.BLUE, "input": style.GREEN, "kernel": style.VERMILLION}
    for row in rows:
        if row.of_peak is None:
            continue
        marker = "s" if row.kind.startswith("depthwise") else "o"
        colour = colours[row.kind.split()[-1]]
        rate = row.of_peak * peak / 1e9
        axes.plot(row.intensity, rate, marker, color=colour, markersize=9, label=row.kind)
    axes.set(title=title, xlabel="operations a byte read or written", ylabel="billion operations/s")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right", fontsize="small")
    return figure


@click.command()
@click.option(
    "--backbone", type=click.Choice(list(BACKBONES)), default="mobilenetv2", show_default=True
)
@click.option("--image-size", type=click.IntRange(32), default=96, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=128, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the roofline, a PNG.")
def main(
    backbone: str, image_size: int, batch_size: int, steps: int, as_json: bool, plot: Path | None
) -> None:
    """Show where the time of a step of fine-tuning goes."""
    console.speak(quiet=as_json)
    load_keras()
    from benchmarks.machine import measure_matrix_peak, measure_memory
    from benchmarks.steps import build_finetuning, make_batch

    settings = Settings(
        backbone=backbone,
        image_size=image_size,
        batch_size=batch_size,
        repeats=1,
        num_images=0,
        against=frozenset(),
        steps=steps,
        head_epochs=0,
        finetune_epochs=0,
    )
    model, batch = build_finetuning(settings), make_batch(settings)
    peak, memory = measure_matrix_peak(3), measure_memory(3)
    spent = profile(lambda: model.train_on_batch(*batch), steps)
    work = count_work(model.get_layer("backbone"), batch_size)
    rows = tabulate(spent, work, peak, memory)
    title = f"A step of fine-tuning: {backbone}, {image_size} pixels, batch {batch_size}"
    if plot:
        write_atomically(plot, style.png(plot_roofline(title, rows, peak, memory)))
    if as_json:
        click.echo(json.dumps([row._asdict() for row in rows], indent=2))
        return
    limits = f"{peak / 1e9:.0f} billion operations and {memory / 1e9:.0f} GB a second"
    show(f"{title}; the machine: {limits}", rows)


if __name__ == "__main__":
    run(main)
