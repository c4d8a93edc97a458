"""Where the time of a fine-tuning step goes, operation by operation, as TensorFlow's profiler says.

    python -m benchmarks.operations [--backbone mobilenetv2] [--batch-size 128] [--json]

A row's share is of the time that all operations took together. Of convolutions it is known how
many operations they count for: so each kind has a share of what the machine's matrix units can do.
"""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.table import Table

from benchmarks.interleaved import Settings
from transfer import console
from transfer.backend import load_keras
from transfer.commands.exit_codes import run
from transfer.models.backbones import BACKBONES

# Kinds of operations by the name that TensorFlow has for them, the first that fits.
KINDS = {
    "depthwise convolutions, forward": r"Depthwise(?!.*Backprop)",
    "depthwise convolutions, gradient of the input": r"Depthwise.*BackpropInput",
    "depthwise convolutions, gradient of the kernel": r"Depthwise.*BackpropFilter",
    "convolutions, forward": r"Conv2D(?!.*Backprop)",
    "convolutions, gradient of the input": r"Conv2DBackpropInput",
    "convolutions, gradient of the kernel": r"Conv2DBackpropFilter",
    "dense layers": r"MatMul",
    "offsets and their gradients": r"BiasAdd",
    "activations and their gradients": r"Relu|Sigmoid|Swish|Gelu|Erf",
    "sums of branches and gradients": r"AddV2|AddN",
    "optimizer and other arithmetic": r"Apply|Assign|Mul|Sub|RealDiv|Sqrt|Rsqrt|Square|Pow",
    "copies and layouts": r"Transpose|Reshape|Copy|Pad|Slice|Concat|Cast|ToTf",
}
OTHERS = "others"


class Row(NamedTuple):
    """What one kind of operation took of a step.

    Attributes:
        kind: one of `KINDS`, or `OTHERS`.
        milliseconds: of one step, all threads together.
        share: of all operations, 0 to 1.
        of_peak: operations/s as a share of the matrix peak; None where they are not counted.
    """

    kind: str
    milliseconds: float
    share: float
    of_peak: float | None


def kind_of(operation: str) -> str:
    """Returns the kind of an operation's name, such as "Conv2D"."""
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
                    spent[kind_of(operation)] += event.duration_ps / 1e9 / steps
    return spent


def tabulate(spent: Counter[str], operations: dict[str, int], peak: float) -> list[Row]:
    """Returns the rows, the longest first.

    Args:
        spent: as `profile` returns it.
        operations: of one pass of a step, of "convolutions" and "depthwise convolutions".
        peak: operations/s of the machine.
    """
    whole = sum(spent.values())
    rows = []
    for kind, milliseconds in spent.most_common():
        counted = operations.get(kind.partition(",")[0])
        of_peak = counted / (milliseconds / 1e3) / peak if counted and milliseconds else None
        rows.append(Row(kind, milliseconds, milliseconds / whole, of_peak))
    return rows


def count_operations(model: Any, batch_size: int) -> dict[str, int]:
    """Returns the operations of one pass of a batch, two for a multiply-add, by kind of layer."""
    import keras

    from benchmarks.steps import multiply_adds_of

    counted = Counter[str]()
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            counted["depthwise convolutions"] += multiply_adds_of(layer)
        elif isinstance(layer, keras.layers.Conv2D):
            counted["convolutions"] += multiply_adds_of(layer)
    return {kind: 2 * batch_size * number for kind, number in counted.items()}


def show(title: str, rows: Iterable[Row]) -> None:
    """Prints the table."""
    table = Table(title=title)
    table.add_column("operations")
    for name in ("ms a step", "share", "of matrix peak"):
        table.add_column(name, justify="right")
    for row in rows:
        of_peak = "" if row.of_peak is None else f"{100 * row.of_peak:.0f} %"
        share = f"{100 * row.share:.1f} %"
        table.add_row(row.kind, f"{row.milliseconds:.1f}", share, of_peak)
    console.show(table)


@click.command()
@click.option(
    "--backbone", type=click.Choice(list(BACKBONES)), default="mobilenetv2", show_default=True
)
@click.option("--image-size", type=click.IntRange(32), default=96, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=128, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def main(backbone: str, image_size: int, batch_size: int, steps: int, as_json: bool) -> None:
    """Show where the time of a step of fine-tuning goes."""
    console.speak(quiet=as_json)
    load_keras()
    from benchmarks.machine import measure_matrix_peak
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
    peak = measure_matrix_peak(3)
    spent = profile(lambda: model.train_on_batch(*batch), steps)
    rows = tabulate(spent, count_operations(model.get_layer("backbone"), batch_size), peak)
    if as_json:
        click.echo(json.dumps([row._asdict() for row in rows], indent=2))
        return
    title = f"A step of fine-tuning: {backbone}, {image_size} pixels, batch {batch_size}"
    show(f"{title}; matrix peak {peak / 1e9:.0f} billion operations a second", rows)


if __name__ == "__main__":
    run(main)
