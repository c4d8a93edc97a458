"""Trainings of a benchmark that takes hours: what has finished is not made again."""

import itertools
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from transfer.errors import InputError
from transfer.runs import files


def train_once(run_dir: Path, settings: Mapping[str, object]) -> None:
    """Trains into a run folder, or goes on where it was stopped, or does nothing where it is done.

    Args:
        run_dir: the run folder.
        settings: by the name of the option; True stands for an option without a value.
    """
    if (run_dir / files.SUMMARY).is_file():
        return
    if (run_dir / files.CONFIG).is_file():
        run_transfer(["train", "--resume", str(run_dir)])
        return
    words = (
        [f"--{name}"] if value is True else [f"--{name}", str(value)]
        for name, value in (dict(settings) | {"run-dir": run_dir}).items()
    )
    run_transfer(["train", *itertools.chain(*words)])


def run_transfer(words: Sequence[str]) -> str:
    """Returns what a command of `transfer` prints.

    Raises:
        InputError: it ends otherwise than well; it has said why.
    """
    command = [sys.executable, "-m", "transfer", *words]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if finished.returncode:
        told = shlex.join(words)
        raise InputError(f"transfer {told} ended with exit code {finished.returncode}.")
    return finished.stdout
