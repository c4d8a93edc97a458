"""Kills a training run again and again and shows that nothing is lost.

    python -m tools.kill_training --kills 100

A small run of six epochs (two of the head phase, four of the fine-tune phase, with dropout,
augmentation, plateau and early stopping) is killed with SIGKILL and resumed, over and over, until
it is done; then the next one. Every second kill waits for a checkpoint that is being written. After
each kill every epoch that the run had told of must be in a whole checkpoint and the run folder
readable; each finished run must equal, to the last bit of weights, optimizer and history, the
one that was never killed.
"""

import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from tests import commands
from transfer.backend import load_keras
from transfer.runs import files
from transfer.runs.facts import read_facts
from transfer.runs.history import read_history

EPOCHS = 6
MOST_SECONDS = 300  # of one process, which takes seconds; then it hangs
OPTIONS = (
    "--backbone tiny --data stripes.npz --weights tiny.weights.h5 --image-size 32 --batch-size 32 "
    "--head-epochs 2 --finetune-epochs 4 --head-learning-rate 0.01 --finetune-learning-rate 0.1 "
    "--plateau-patience 1 --dropout 0.5 --offline"
).split()


@dataclass
class Tally:
    """What happened so far."""

    kills: int = 0
    in_a_save: int = 0
    runs: int = 0
    lost_epochs: int = 0
    unreadable: int = 0
    different: int = 0
    hung: int = 0

    @property
    def bad(self) -> bool:
        """Whether anything was lost."""
        return bool(self.lost_epochs or self.unreadable or self.different or self.hung)


def kill_runs(folder: Path, kills: int, seed: int) -> Tally:
    """Kills runs until `kills` of them happened, finishes the last one, and counts.

    Args:
        folder: to work in, empty or with what `write_inputs` writes.
        kills: how many.
        seed: of the moments.
    """
    generator, tally = random.Random(seed), Tally()
    write_inputs(folder)
    seconds, expected = _train_undisturbed(folder)
    while tally.kills < kills:
        run_dir = folder / f"run{tally.runs}"
        while not (run_dir / "summary.json").exists():
            process, output = _start(folder, run_dir)
            if tally.kills < kills:
                _wait(process, output, generator.randint(0, 1), generator.uniform(0, seconds))
                if tally.kills % 2:
                    _wait_for_save(process, run_dir, generator.uniform(0, 0.01))
                tally.in_a_save += _saving(run_dir)
                if process.is_alive():
                    process.kill()
                    tally.kills += 1
            tally.hung += not end(process)
            _check(tally, run_dir, output)
        tally.runs += 1
        tally.different += _sha256(run_dir) != expected
    return tally


def write_inputs(folder: Path) -> None:
    """Writes the data set and the weights that the runs start from, where they are not there."""
    if not (folder / "tiny.weights.h5").exists():
        process = commands.start("train", ["--help"], folder, folder / "inputs.txt", _write_inputs)
        process.join()


def _write_inputs() -> None:
    import keras
    import numpy as np

    from tests.conftest import make_stripes
    from transfer.models.backbones import build_backbone

    add_tiny_backbone()
    x_train, y_train = make_stripes(240)
    x_test, y_test = make_stripes(61, seed=1)
    np.savez("stripes.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    keras.utils.set_random_seed(7)
    build_backbone("tiny", 32).save_weights("tiny.weights.h5")


def add_tiny_backbone() -> None:
    """Gives the process a backbone that trains in a second."""
    from tests.conftest import tiny_row
    from transfer.models.backbones import BACKBONES

    BACKBONES["tiny"] = tiny_row()


def _start(folder: Path, run_dir: Path) -> tuple:
    # Killed before it had begun, a run is begun again by the same command.
    begun = (run_dir / "config.json").exists()
    output = run_dir.with_suffix(".txt")
    arguments = ["--resume", run_dir] if begun else [*OPTIONS, "--run-dir", run_dir]
    return commands.start("train", arguments, folder, output, add_tiny_backbone), output


def end(process) -> bool:
    """Waits for the end of a process; returns False where it hung and had to be killed."""
    process.join(MOST_SECONDS)
    if not process.is_alive():
        return True
    process.kill()
    process.join()
    return False


def _train_undisturbed(folder: Path) -> tuple[float, dict]:
    # Returns the seconds of a mean epoch and what the run should come to.
    started = time.perf_counter()
    process, output = _start(folder, folder / "undisturbed")
    process.join()
    if process.exitcode or len(told_epochs(output)) != EPOCHS:
        raise RuntimeError(f"it should tell {EPOCHS} epochs. Received: {output.read_text()}")
    return (time.perf_counter() - started) / EPOCHS, _sha256(folder / "undisturbed")


def wait_until(process, ready: Callable[[], bool]) -> None:
    """Waits until something is so, the process has ended, or it hangs."""
    deadline = time.monotonic() + MOST_SECONDS
    while process.is_alive() and not ready() and time.monotonic() < deadline:
        time.sleep(0.0005)


def _wait(process, output: Path, epochs: int, seconds: float) -> None:
    # Until so many more epochs are told, and some time of the next one.
    told = len(told_epochs(output))
    wait_until(process, lambda: len(told_epochs(output)) >= told + epochs)
    process.join(seconds)


def _wait_for_save(process, run_dir: Path, seconds: float) -> None:
    wait_until(process, lambda: _saving(run_dir))
    time.sleep(seconds)


def told_epochs(output: Path) -> set[tuple[str, str]]:
    """Returns phase and number of each epoch that a training has told."""
    text = output.read_text() if output.exists() else ""
    return set(re.findall(r"^(head|fine-tune) (\d+)/\d+ ", text, re.MULTILINE))


def _saving(run_dir: Path) -> bool:
    return any((run_dir / "checkpoints").glob(".partial-*"))


def _check(tally: Tally, run_dir: Path, output: Path) -> None:
    from transfer.training.checkpoint import newest_checkpoint

    if not (run_dir / "config.json").exists() or (run_dir / "summary.json").exists():
        return
    try:
        read_facts(run_dir)
        if (run_dir / files.HISTORY).exists():
            read_history(run_dir)
        checkpoint = newest_checkpoint(run_dir / files.CHECKPOINTS, _raise)
    except Exception as error:
        click.echo(f"{run_dir}: {error}", err=True)
        tally.unreadable += 1
        return
    kept = len(checkpoint.state.history) if checkpoint else 0
    tally.lost_epochs += max(0, len(told_epochs(output)) - kept)


def _raise(line: str) -> None:
    raise ValueError(line)


def _sha256(run_dir: Path) -> dict:
    return json.loads((run_dir / "summary.json").read_text())["sha256"]


@click.command()
@click.option("--kills", default=100, show_default=True, help="How many processes to kill.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
def main(kills: int, seed: int) -> None:
    """Kill small training runs at random moments and count what is lost: nothing should be."""
    load_keras()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_runs(Path(folder), kills, seed)
    for name, count in vars(tally).items():
        click.echo(f"{name.replace('_', ' '):>12}  {count:>5}")
    click.echo(f"{'seconds':>12}  {time.perf_counter() - started:>5.0f}")
    sys.exit(tally.bad)


if __name__ == "__main__":
    main()
