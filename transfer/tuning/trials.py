"""One trial: an ordinary training run with its own settings, and what is kept of it.

A trial's run folder is `<project>/trial_<id>/run`, that of `train.py` without the model. How many
epochs a search method grants a trial is its budget; `with_budget` says what it buys.
"""

import contextlib
import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfer import console
from transfer.config import Config
from transfer.errors import DiskError, InputError, disk_error, printable
from transfer.runs import files
from transfer.runs.checked import Reader
from transfer.runs.facts import Summary, read_facts, read_summary
from transfer.storage.atomic import remove_leftovers
from transfer.training import run
from transfer.training.checkpoint import remove_checkpoints
from transfer.training.data import Data
from transfer.training.heads import HeadStart, train_head
from transfer.tuning import processes

RUN = "run"


@dataclass(frozen=True)
class TrialResult:
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
    def from_text(cls, text: str) -> "TrialResult":
        """Returns what `to_text` was called on.

        Raises:
            InputError, ValueError: it is no such text.
        """
        read = Reader({"record": json.loads(text)}, "a trial").part("record")
        scores = {}
        for name, most in (("val_accuracy", 1.0), ("val_loss", sys.float_info.max)):
            has_none = read.values.get(name) is None
            scores[name] = None if has_none else read.number(name, most=most)
        reason = read.text("reason")
        if not reason and None in scores.values():
            raise read.refusal("reason", "a text, or the trial should have scores", reason)
        return cls(
            dict(read.part("settings").values),
            **scores,
            epochs=read.count("epochs"),
            seconds=read.number("seconds"),
            worker=read.text("worker"),
            reason=reason,
        )


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
    if config.finetune_epochs:
        return dataclasses.replace(config, finetune_epochs=epochs)
    return dataclasses.replace(config, head_epochs=epochs)


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a process share."""

    data: Data
    offline: bool = False
    # By backbone, where only heads are trained.
    heads: Mapping[str, HeadStart] = field(default_factory=dict)


def run_trial(config: Config, context: TrialContext, folder: Path, worker: str) -> TrialResult:
    """Trains once with these settings; a run that had finished before a kill is not repeated.

    Args:
        config: the trial's settings.
        context: what it shares with other trials.
        folder: of the trial.
        worker: name of who runs it.

    Returns:
        The scores, or the reason why there are none.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came; the trial is to be run again.
        DiskError: the disk is full, which is no fault of the trial.
    """
    try:
        summary = _finished(folder / RUN, config)
        if summary is None:
            folder.mkdir(parents=True, exist_ok=True)
            summary = _train(config, context, folder / RUN)
    except DiskError:
        raise
    except InputError as error:
        return TrialResult(config.to_dict(), worker=worker, reason=str(error).split(";")[0])
    except Exception as error:  # whatever it is, the other trials may be well
        if told := disk_error(error, folder):
            raise told from error
        return TrialResult(config.to_dict(), worker=worker, reason=_one_line(error))
    kept = summary.kept_phase
    return TrialResult(
        config.to_dict(),
        val_accuracy=kept.val_accuracy,
        val_loss=kept.val_loss,
        epochs=sum(phase.epochs for phase in summary.phases.values()),
        seconds=summary.seconds,
        worker=worker,
    )


def run_shared_trial(config: Config, folder: Path, worker: str) -> TrialResult:
    """Runs a trial on the context that `Processes.share` was given; else as `run_trial`."""
    return run_trial(config, processes.shared, folder, worker)


def _finished(run_dir: Path, config: Config) -> Summary | None:
    # Killed after the run had ended and before the search heard of it.
    if not (run_dir / files.SUMMARY).exists():
        return None
    with contextlib.suppress(InputError):
        if read_facts(run_dir).settings == config:
            return read_summary(run_dir)
    return None


def _train(config: Config, context: TrialContext, run_dir: Path) -> Summary:
    _remove_run(run_dir)  # of an attempt that was killed
    try:
        with console.speaking(quiet=True):
            if config.backbone in context.heads:
                start = context.heads[config.backbone]
                return train_head(config, context.data, start, run_dir).summary
            return run.train(
                config,
                run_dir=run_dir,
                offline=context.offline,
                data=context.data,
                keep_model=False,
            ).summary
    finally:
        remove_checkpoints(run_dir / files.CHECKPOINTS)


def _remove_run(run_dir: Path) -> None:
    # What training writes there, and nothing of anybody else's.
    if run_dir.is_symlink() or not run_dir.is_dir():
        return
    remove_checkpoints(run_dir / files.CHECKPOINTS)
    remove_leftovers(run_dir, ".+", alone=True)
    for folder, _, names in os.walk(run_dir, topdown=False):  # follows no link
        for name in names:
            if name in files.OF_TRAINING or name.startswith("events.out.tfevents."):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, name))
        with contextlib.suppress(OSError):  # somebody keeps something there
            os.rmdir(folder)


def _one_line(error: Exception) -> str:
    return printable(traceback.format_exception_only(error)[-1].strip().splitlines()[0])
