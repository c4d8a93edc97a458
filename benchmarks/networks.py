"""The networks everybody tries on Fashion-MNIST, trained here, each with its published claim.

    python -m benchmarks.networks [--network lenet5] [--seeds 3] [--folder runs/networks]

Each trains from random weights by its own recipe (`transfer/recipes.py`) with several seeds; the
epoch is chosen on validation images, the test images are read once. Runs that have finished are
not made again, and one that was stopped is resumed: the command may be given until all are there.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import click

from benchmarks import resumable
from transfer import console
from transfer.commands.exit_codes import run
from transfer.formatting import format_percent, format_seconds, format_spread
from transfer.report.document import Table
from transfer.runs.facts import Summary, read_summary


@dataclass(frozen=True)
class Network:
    """One row of the table.

    Attributes:
        title: what it is called there.
        backbone: its row of `BACKBONES`.
        claim: accuracy on the test images that is published for it, in words; "" for none.
        options: what its authors do that is not in the recipe, by name of the option.
    """

    title: str
    backbone: str
    claim: str = ""
    options: dict[str, float] = field(default_factory=dict)


_SPLIT = {"validation-fraction": 0.2}  # the authors'
NETWORKS = (
    Network("dense, 128 units", "mlp"),
    Network("1 convolution of 32, dense 32", "cnn32", "91.1 %", _SPLIT),
    Network("1 convolution of 64, dense 32", "cnn64", "91.6 %", _SPLIT),
    Network("the same with dropout 0.3", "cnn64", "91.9 %", _SPLIT | {"dropout": 0.3}),
    Network("2 convolutions of 32 and 64, dense 128", "cnn32-64", "91.7 %"),
    Network("LeNet-5 with BatchNorm", "lenet5", "89 %"),
    Network("ResNet-9", "resnet9"),
)
HEADER = ("network", "--backbone", "parameters", "claimed", "test accuracy", "a run")


@dataclass(frozen=True)
class Trained:
    """What one run came to."""

    summary: Summary
    test_accuracy: float  # share in [0, 1]


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--network",
    "backbones",
    type=click.Choice(list(dict.fromkeys(network.backbone for network in NETWORKS))),
    multiple=True,
    show_default="all",
    help="By its backbone; may be given more than once.",
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--data", default="fashion-mnist", show_default=True, help="As of transfer train.")
@click.option("--limit", type=click.IntRange(100), help="Images of each split; default: all.")
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("runs/networks"), show_default=True
)
def main(
    backbones: tuple[str, ...],
    seeds: int,
    first_seed: int,
    data: str,
    limit: int | None,
    folder: Path,
) -> None:
    """Train the networks everybody tries and compare them with what is claimed for them."""
    console.speak()
    given: dict[str, object] = {"data": data} | ({"limit": limit} if limit else {})
    rows = []
    for network in NETWORKS:
        if backbones and network.backbone not in backbones:
            continue
        trained = []
        for seed in range(first_seed, first_seed + seeds):
            trained.append(_train(network, given | {"seed": seed}, folder))
            console.say(" | ".join(_row(network, trained)))
        rows.append(_row(network, trained))
    Table(HEADER, (False, False, True, True, True, True), rows).show()


def _train(network: Network, given: dict[str, object], folder: Path) -> Trained:
    wish = {"backbone": network.backbone} | network.options | given
    varied = {name: value for name, value in network.options.items() if name not in _SPLIT}
    name = "-".join(f"{name}{value}" for name, value in varied.items())
    run_dir = folder / "-".join(filter(None, (network.backbone, name, str(given["seed"]))))
    resumable.train_once(run_dir, wish)
    metrics = json.loads(resumable.run_transfer(["evaluate", str(run_dir), "--json"]))
    return Trained(read_summary(run_dir), metrics["accuracy"])


def _row(network: Network, trained: Sequence[Trained]) -> tuple[str, ...]:
    parameters = trained[-1].summary.num_parameters
    seconds = fmean(one.summary.seconds for one in trained)
    accuracies = [one.test_accuracy for one in trained]
    spread = format_spread(accuracies) if trained[1:] else format_percent(accuracies[0])
    return (
        network.title,
        network.backbone,
        f"{parameters:,}",
        network.claim or "–",
        spread,
        format_seconds(seconds),
    )


if __name__ == "__main__":
    run(main, "python -m benchmarks.networks")
