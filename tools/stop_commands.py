"""Stops every command at random moments and looks at how it ends.

    python -m tools.stop_commands --stops 20

Each command is sent Ctrl-C or SIGTERM somewhere between its start and its end: while weights or
images load, features are computed, epochs run, a report is written. It must end with 130 or 143
(or 0, where it was done before), with one line on stderr, and leave nothing half done: no file is
set aside as damaged, none keeps a temporary name, and at the end each command runs through.
"""

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from tests import commands
from tools.kill_training import add_tiny_backbone, end, write_inputs
from transfer.backend import load_keras
from transfer.storage.atomic import is_temporary

SMALL = (
    "--backbone tiny --data stripes.npz --image-size 32 --batch-size 32 --offline "
    "--finetune-epochs 2"
).split()
PRETRAINING = (
    "--systems 2 --silhouettes 0 --renderings 8 --instances 1 --image-size 32 "
    "--final-image-size 32 --batch-size 8 --sample-steps 64"
).split()


@dataclass
class Tally:
    """What happened so far."""

    stops: int = 0
    too_late: int = 0  # the command was done before
    wrong_codes: int = 0
    wrong_words: int = 0  # a traceback, or more or less than a line
    set_aside: int = 0
    left_over: int = 0
    hung: int = 0
    broken: int = 0  # commands that do not run through afterwards
    seconds: dict[str, float] = field(default_factory=dict, repr=False)  # of each undisturbed

    @property
    def bad(self) -> bool:
        """Whether anything went wrong."""
        wrong = (self.wrong_codes, self.wrong_words, self.set_aside, self.left_over)
        return any((*wrong, self.hung, self.broken))


def add_backbone_in_cache() -> None:
    """Gives the process a small backbone whose "ImageNet" weights are in Keras's cache."""
    import dataclasses
    import shutil

    from transfer.models.backbones import BACKBONES
    from transfer.models.weights import imagenet_url, keras_cache

    add_tiny_backbone()
    BACKBONES["tiny"] = dataclasses.replace(BACKBONES["tiny"], weights_checksum=None)
    place = keras_cache() / imagenet_url("tiny", 32).rsplit("/", 1)[1]
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("tiny.weights.h5", place)


def command_words(number: int) -> dict[str, list[str]]:
    """Returns the words of each command; what they make bears the number."""
    return {
        "train": [*SMALL, "--weights", "imagenet", "--run-dir", f"runs/run{number}"],
        "evaluate": ["runs/first", "--report"],
        "tune": [*SMALL, "--trials", "2", "--weights", "imagenet", "--seed", str(number)],
        "audit": ["--data", "stripes.npz", "--out", f"audit{number}"],
        "pretrain": [*PRETRAINING, "--out", f"pretraining{number}"],
    }


def stop_commands(folder: Path, stops: int, seed: int, names: Sequence[str]) -> Tally:
    """Stops commands until `stops` of them were, and counts what went wrong.

    Args:
        folder: an empty folder to work in.
        stops: how many.
        seed: of the moments and signals.
        names: of the commands.
    """
    generator, tally = random.Random(seed), Tally()
    os.environ["KERAS_HOME"] = str(folder / "keras")
    write_inputs(folder)
    words = [*SMALL, "--weights", "imagenet", "--run-dir", "runs/first"]
    commands.run("train", words, folder, add_backbone_in_cache)
    for name in names:
        started = time.perf_counter()
        _check_through(tally, name, command_words(0)[name], folder)
        tally.seconds[name] = time.perf_counter() - started
    for number in range(1, stops + 1):
        name = names[number % len(names)]
        _stop_one(tally, name, number, folder, generator)
    for name in names:
        _check_through(tally, name, command_words(stops + 1)[name], folder)
    return tally


def _stop_one(tally: Tally, name: str, number: int, folder: Path, generator) -> None:
    _forget_results(folder)
    output, errors = folder / f"output{number}.txt", folder / f"errors{number}.txt"
    process = commands.start(
        name, command_words(number)[name], folder, output, add_backbone_in_cache, errors
    )
    process.join(generator.uniform(0, tally.seconds[name]))
    sent = generator.choice([signal.SIGINT, signal.SIGTERM])
    was_alive = process.is_alive()
    if was_alive:
        os.kill(process.pid, sent)
    tally.hung += not end(process)
    tally.stops += 1
    _judge(tally, f"{name} {number}, {sent.name}", process.exitcode, sent, errors.read_text())
    for path in _left(folder):
        click.echo(f"{name} {number}: {path}", err=True)
    tally.set_aside += sum(path.suffix == ".damaged" for path in _left(folder))
    tally.left_over += sum(path.suffix != ".damaged" for path in _left(folder))


def _judge(tally: Tally, what: str, code: int, sent: signal.Signals, told: str) -> None:
    # Before and after the command itself the system ends the process: a shell sees 128 + n too.
    stopped = code in (128 + sent, -sent)
    tally.too_late += code == 0
    tally.wrong_codes += not stopped and code != 0
    lines = told.strip().splitlines()
    right = len(lines) == (1 if code == 128 + sent else 0)
    tally.wrong_words += not right
    if not right or (not stopped and code != 0):
        click.echo(f"{what}: exit code {code}, {told}", err=True)


def _forget_results(folder: Path) -> None:
    # So that an evaluation predicts, and a training computes features.
    for path in (folder / "runs" / "first").glob("*predictions.npz"):
        path.unlink()
    for path in (folder / "keras" / "transfer" / "features").glob("*.npy"):
        path.unlink()


def _left(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.suffix == ".damaged" or is_temporary(p.name)]


def _check_through(tally: Tally, name: str, arguments: list[str], folder: Path) -> None:
    done = commands.run(name, arguments, folder, add_backbone_in_cache)
    if done.returncode:
        click.echo(f"{name}: exit code {done.returncode}, {done.stderr}", err=True)
        tally.broken += 1


@click.command()
@click.option("--stops", default=20, show_default=True, help="How many commands to stop.")
@click.option("--seed", default=0, show_default=True, help="Of the moments and signals.")
@click.option(
    "--only",
    type=click.Choice(list(command_words(0))),
    multiple=True,
    default=list(command_words(0)),
    show_default=True,
    help="The commands to stop; may be given several times.",
)
def main(stops: int, seed: int, only: tuple[str, ...]) -> None:
    """Stop every command at random moments and count what goes wrong: nothing should."""
    load_keras()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tally = stop_commands(Path(folder), stops, seed, only)
    for name, count in vars(tally).items():
        if name != "seconds":
            click.echo(f"{name.replace('_', ' '):>12}  {count:>5}")
    click.echo(f"{'seconds':>12}  {time.perf_counter() - started:>5.0f}")
    sys.exit(tally.bad)


if __name__ == "__main__":
    main()
