"""Kills processes that train together, again and again: nothing is lost but the epoch.

    python -m tools.kill_processes --kills 20

Two processes train a small run of six epochs (two of the head phase, four of the fine-tune phase,
with dropout and augmentation). At a random moment one of the two, by turns, is killed with SIGKILL;
every fourth time it is halted instead (SIGSTOP), as if its machine had gone from the network. All
must end within 30 seconds, with one line that says how to go on, and every epoch that was told
must be in a whole checkpoint. Then the run goes on, in two processes or, every third time, in one.
Losses of finished runs must equal those of one that was never killed to 1e-5.
"""

import csv
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from tools import kill_training
from tools.kill_training import told_epochs, write_inputs

ROOT = Path(__file__).parents[1]
MOST_SECONDS = 30  # from a kill to the end of all
TOLERANCE = 1e-5
# With a higher rate so few images are learnt by leaps, which make a rounding larger than that.
OPTIONS = (*kill_training.OPTIONS, "--finetune-learning-rate", "0.01")


@dataclass
class Tally:
    """What happened so far."""

    kills: int = 0
    halts: int = 0
    runs: int = 0
    longest_seconds: float = 0.0
    lost_epochs: int = 0
    not_in_one_line: int = 0
    hung: int = 0
    different: int = 0

    @property
    def bad(self) -> bool:
        """Whether anything went wrong."""
        return bool(self.lost_epochs or self.not_in_one_line or self.hung or self.different)


class Training:
    """A training in processes of its own.

    Args:
        folder: its working folder.
        arguments: of the command.
        processes: how many.
    """

    def __init__(self, folder: Path, arguments: list[str], processes: int) -> None:
        self.output, self.errors = folder / "output.txt", folder / "errors.txt"
        command = [sys.executable, str(ROOT / "tests" / "tiny_train.py"), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_HOME": str(folder / "keras")}
        environment.pop("KERAS_BACKEND", None)
        with open(self.output, "wb") as output, open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                [*command, "--local-processes", str(processes)],
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=errors,
            )

    def workers(self) -> list[int]:
        """Returns the numbers of its workers, in order."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            return [int(word) for word in path.read_text().split()]
        except OSError:
            return []

    def epochs(self) -> int:
        """Returns how many epochs it has told."""
        return len(told_epochs(self.output))

    def wait_for(self, epochs: int) -> bool:
        """Waits until workers are there and so many are told; False where it ended before."""
        while self.process.poll() is None and not (self.workers() and self.epochs() >= epochs):
            time.sleep(0.05)
        return self.process.poll() is None


def kill_processes(folder: Path, kills: int, seed: int) -> Tally:
    """Kills until `kills` of them happened, finishes the last run, and counts.

    Args:
        folder: an empty folder to work in.
        kills: how many.
        seed: of the moments.
    """
    generator, tally = random.Random(seed), Tally()
    write_inputs(folder)
    whole = Training(folder, [*OPTIONS, "--run-dir", "whole"], 1)
    whole.process.wait()
    while tally.kills < kills:
        name = f"run{tally.runs}"
        while not (folder / name / "summary.json").exists():
            begun = (folder / name / "config.json").exists()
            arguments = ["--resume", name] if begun else [*OPTIONS, "--run-dir", name]
            training = Training(folder, arguments, 1 + (tally.kills % 3 != 2))
            if tally.kills < kills and training.wait_for(generator.randint(0, 2)):
                time.sleep(generator.uniform(0, 2))
                _kill_one(training, folder / name, tally)
            elif training.process.wait():
                raise RuntimeError(training.errors.read_text())
        tally.runs += 1
        tally.different += losses_differ(folder / "whole", folder / name)
    return tally


def _kill_one(training: Training, run_dir: Path, tally: Tally) -> None:
    workers = training.workers()
    if not workers or training.process.poll() is not None:
        return
    halts = len(workers) > 1 and tally.kills % 4 == 3
    victim = workers[(tally.kills + tally.halts) % len(workers)]  # halts too come to both
    started = time.monotonic()
    os.kill(victim, signal.SIGSTOP if halts else signal.SIGKILL)
    tally.kills, tally.halts = tally.kills + 1, tally.halts + halts
    try:
        training.process.wait(120)
    except subprocess.TimeoutExpired:
        training.process.kill()
    seconds = time.monotonic() - started
    tally.longest_seconds = max(tally.longest_seconds, seconds)
    tally.hung += seconds > MOST_SECONDS
    if training.process.returncode == 0:  # it was done
        return
    told, kept = training.epochs(), _kept(run_dir)
    click.echo(
        f"{tally.kills}: {seconds:.1f} s, {told} epochs told, {kept} kept, "
        f"{training.errors.read_text()[:60]!r}",
        err=True,
    )
    lines = training.errors.read_text().splitlines()
    tells = len(lines) == 1 and (f"--resume {shlex.quote(run_dir.name)}" in lines[0])
    tally.not_in_one_line += not (tells or "".join(lines).endswith("The run had not begun."))
    tally.lost_epochs += max(0, told - kept)


def _kept(run_dir: Path) -> int:
    from transfer.training.checkpoint import newest_checkpoint

    if (run_dir / "summary.json").exists():  # finished: its checkpoints are gone
        return len((run_dir / "history.csv").read_text().splitlines()) - 1
    checkpoint = newest_checkpoint(run_dir / "checkpoints", print)
    return checkpoint.state.epoch + 2 * (checkpoint.state.phase != "head") if checkpoint else 0


def losses_differ(one: Path, other: Path) -> bool:
    """Returns whether the losses of two runs differ by more than the tolerance."""
    names = ("loss", "val_loss")
    rows = [list(csv.DictReader(open(each / "history.csv"))) for each in (one, other)]
    numbers = [[float(row[name]) for row in each for name in names] for each in rows]
    apart = [abs(a - b) > TOLERANCE for a, b in zip(*numbers, strict=True)]
    return any(apart)


@click.command()
@click.option("--kills", default=20, show_default=True, help="How many processes to kill.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
def main(kills: int, seed: int) -> None:
    """Kill one of two processes that train together, at random moments; count what is lost."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_processes(Path(folder), kills, seed)
    for name, count in vars(tally).items():
        click.echo(f"{name.replace('_', ' '):>16}  {count:>5.4g}")
    click.echo(f"{'seconds':>16}  {time.perf_counter() - started:>5.0f}")
    sys.exit(tally.bad)


if __name__ == "__main__":
    main()
