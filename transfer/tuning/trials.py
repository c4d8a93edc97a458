"""One trial: an ordinary training run with its own settings, and what is kept of it.

A trial's run folder is `<project>/trial_<id>/run`, that of `train.py` without the model. How many
epochs a search method grants a trial is its budget; `with_budget` says what it buys.
"""

import contextlib
import dataclasses
import json
import shutil
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from transfer import runs
from transfer.config import Config
from transfer.errors import InputError, Interrupted
from transfer.training import train
from transfer.training.heads import HeadStart, train_head
from transfer.training.record import Data
from transfer.tuning import processes

RUN = "run"


@dataclass(frozen=True)
class Record:
    """What is kept of a trial that ended."""

    settings: dict[str, Any]  # all fields of its Config
    val_accuracy: float | None = None  # share in [0, 1], of the epoch whose weights were kept
    val_loss: float | None = None  # nats, of the same epoch
    epochs: int = 0  # of both phases together
    seconds: float = 0.0
    worker: str = ""  # which ran it
    reason: str = ""  # why it failed, one line; "" if it did not

    def to_text(self) -> str:
        """Returns it as JSON, for `from_text`."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_text(cls, text: str) -> "Record":
        """Returns what `to_text` was called on."""
        return cls(**json.loads(text))


def full_budget(config: Config) -> int:
    """Returns the epochs of a full trial: see `with_budget`."""
    return config.finetune_epochs or config.head_epochs


def with_budget(config: Config, epochs: int) -> Config:
    """Returns settings of a trial that may take so many epochs.

    They are epochs of the fine-tune phase; the head phase, which runs on features kept from trial
    to trial and costs next to nothing, is granted whole. Where there is no fine-tune phase they
    are epochs of the head phase. A trial that Hyperband takes further begins anew with more epochs,
    so that each score is that of one ordinary run, whatever its schedule.
    """
    name = "finetune_epochs" if config.finetune_epochs else "head_epochs"
    return dataclasses.replace(config, **{name: epochs})


@dataclass(frozen=True)
class Ground:
    """What all trials of a process share."""

    data: Data
    offline: bool = False
    # By backbone, where only heads are trained.
    heads: Mapping[str, HeadStart] = field(default_factory=dict)


def run_trial(config: Config, ground: Ground, folder: Path, worker: str) -> Record:
    """Trains once with these settings; a run that had finished before a kill is not repeated.

    Args:
        config: the trial's settings.
        ground: what it shares with other trials.
        folder: of the trial.
        worker: name of who runs it.

    Returns:
        The scores, or the reason why there are none.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; the trial is to be run again.
        InputError: the disk is full, which is no fault of the trial.
    """
    try:
        summary = _finished(folder / RUN, config)
        if summary is None:
            folder.mkdir(parents=True, exist_ok=True)
            summary = _train(config, ground, folder / RUN)
    except Interrupted:
        raise
    except InputError as error:
        if isinstance(error.__cause__, OSError):
            raise
        return Record(config.to_dict(), worker=worker, reason=str(error).split(";")[0])
    except Exception as error:  # whatever it is, the other trials may be well
        return Record(config.to_dict(), worker=worker, reason=_one_line(error))
    phases = summary["phases"]
    kept = list(phases.values())[-1]
    return Record(
        config.to_dict(),
        val_accuracy=kept["val_accuracy"],
        val_loss=kept["val_loss"],
        epochs=sum(phase["epochs"] for phase in phases.values()),
        seconds=summary["seconds"],
        worker=worker,
    )


def run_shared_trial(config: Config, folder: Path, worker: str) -> Record:
    """Runs a trial on the ground that `Processes.share` was given; else as `run_trial`."""
    return run_trial(config, processes.shared, folder, worker)


def _finished(run_dir: Path, config: Config) -> Mapping | None:
    # Killed after the run had ended and before the search heard of it.
    if not (run_dir / runs.SUMMARY).exists():
        return None
    with contextlib.suppress(InputError):
        if runs.read_facts(run_dir)["settings"] == config.to_dict():
            return runs.read_json(run_dir / runs.SUMMARY)
    return None


def _train(config: Config, ground: Ground, run_dir: Path) -> Mapping:
    shutil.rmtree(run_dir, ignore_errors=True)  # of an attempt that was killed
    console = Console(quiet=True)
    try:
        if config.backbone in ground.heads:
            start = ground.heads[config.backbone]
            return train_head(config, ground.data, start, console, run_dir).summary
        return train.train(
            config,
            console,
            run_dir=run_dir,
            offline=ground.offline,
            data=ground.data,
            keep_model=False,
        ).summary
    finally:
        shutil.rmtree(run_dir / runs.CHECKPOINTS, ignore_errors=True)


def _one_line(error: Exception) -> str:
    text = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
