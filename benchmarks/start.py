"""The start: seconds from typing `train.py` to its first finished steps, and where they go.

    python -m benchmarks.start [--before CHECKOUT] [--limit 2000] [--repeats 3]

Each turn is two processes of the real command, the first with an empty cache of features, the
second with what the first kept. With `--before` another checkout of this repository, `git worktree
add ../before main`, takes turns with this one.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import click
from rich.table import Table

from benchmarks.start_process import PARTS
from transfer import console
from transfer.commands.exit_codes import run
from transfer.errors import InputError
from transfer.storage.atomic import write_json

REPOSITORY = Path(__file__).parent.parent
CACHES = ("empty", "kept")  # of the features, when the command begins

Turns = dict[str, list[dict[str, float]]]  # by contender and cache, seconds by part


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--before",
    type=click.Path(path_type=Path),
    show_default="none",
    help="Another checkout to compare with.",
)
@click.option("--limit", type=click.IntRange(10), default=2000, show_default=True)
@click.option("--weights", default="auto", show_default=True, help="As train.py takes it.")
@click.option("--data", default="auto", show_default=True, help="As train.py takes it.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="none",
    help="Write the seconds to this file as JSON.",
)
def main(before: Path | None, repeats: int, output: Path | None, **options: object) -> None:
    """Measure what passes before the first step of a training."""
    console.speak()
    contenders = {"here": REPOSITORY} | ({"before": before.resolve()} if before else {})
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    turns = measure(contenders, words, repeats)
    console.show(_table(turns, repeats))
    if output:
        write_json(output, {"n": repeats, "words": words, "seconds": turns})


def measure(contenders: dict[str, Path], words: Iterable[str], repeats: int) -> Turns:
    """Returns the seconds of each part, one entry a repeat, by "<contender>, <cache>".

    Args:
        contenders: the checkouts by name; they take turns.
        words: for `train.py`.
        repeats: turns of each.

    Raises:
        InputError: one is no checkout, or its command failed; with its last line.
    """
    for checkout in contenders.values():
        if not (checkout / "train.py").is_file():
            raise InputError(
                f"--before should be a checkout with its train.py. Received: {checkout}."
            )
    turns: Turns = {f"{name}, {cache}": [] for name in contenders for cache in CACHES}
    for _ in range(repeats):
        for name, checkout in contenders.items():
            with tempfile.TemporaryDirectory() as folder:
                for cache in CACHES:
                    seconds = _start(checkout, Path(folder), cache, list(words))
                    turns[f"{name}, {cache}"].append(seconds)
    return turns


def _start(checkout: Path, folder: Path, cache: str, words: list[str]) -> dict[str, float]:
    output = folder / f"{cache}.json"
    process = [sys.executable, str(REPOSITORY / "benchmarks" / "start_process.py")]
    process += [repr(time.time()), str(checkout), str(output), *words]
    environment = os.environ | {"KERAS_HOME": str(folder / "keras"), "TRANSFER_OFFLINE": "1"}
    done = subprocess.run(process, cwd=folder, env=environment, capture_output=True, text=True)
    if not output.is_file():
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"train.py of {checkout} ended before its first step: {last}")
    return json.loads(output.read_text())


def _table(turns: Turns, repeats: int) -> Table:
    table = Table(title=f"Seconds, medians of {repeats}", title_justify="left")
    table.add_column("part")
    for name in turns:
        table.add_column(name, justify="right")
    for part in PARTS:
        values = (statistics.median(one[part] for one in several) for several in turns.values())
        table.add_row(part, *(f"{value:.2f}" for value in values))
    return table


if __name__ == "__main__":
    run(main)
