"""What a training run came to: summary.json, and a few lines for a person."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from transfer import console
from transfer.formatting import format_percent, format_seconds
from transfer.models.fingerprints import fingerprint_variables
from transfer.runs import files
from transfer.runs.facts import FoldSummary, Summary, read_summary
from transfer.runs.history import HISTORY_COLUMNS, read_history, write_history
from transfer.training.checkpoint import remove_checkpoints
from transfer.training.distribution import is_first
from transfer.training.phases import Run
from transfer.training.scores import best_phase, summarise


@dataclass(frozen=True)
class Result:
    """What a training run hands back."""

    run_dir: Path
    summary: Summary
    history: list[dict[str, Any]]  # the rows of history.csv


Describe = Callable[[Result], None]  # writes more of a run before it counts as finished


def finish(
    trained: keras.Model,
    last: keras.Model,
    run: Run,
    describe: Describe | None = None,
    folds: Mapping[str, FoldSummary] | None = None,
) -> Result:
    """Writes what a run came to, summary.json last; then its checkpoints are of no use.

    Args:
        trained: the model whose weights were learnt.
        last: the one that was trained last, with its optimizer.
        run: with its history.
        describe: called before summary.json is written.
        folds: what a cross-validation came to.
    """
    run_dir, history = run.recorder.run_dir, run.recorder.rows
    # Two runs of one seed are the same if these are.
    sha256 = {
        "weights": fingerprint_variables(trained.variables),
        "optimizer": fingerprint_variables(last.optimizer.variables),
        "history": _fingerprint_history(history),
    }
    seconds = round(time.perf_counter() - run.started, 1)
    kept, parameters = best_phase(history), trained.count_params()
    summary = Summary(summarise(history), seconds, sha256, kept, dict(folds or {}), parameters)
    result = Result(run_dir, summary, history)
    write_history(run_dir, history)
    if describe and is_first():
        describe(result)
    result.summary.write(run_dir)
    remove_checkpoints(run_dir / files.CHECKPOINTS)
    return result


def tidy_up(run_dir: Path, describe: Describe | None = None) -> Result:
    """Finishes what a kill left undone of a run that had finished.

    Args:
        run_dir: holds summary.json.
        describe: called where something of what it writes is missing.

    Raises:
        InputError: summary.json or history.csv is damaged.
    """
    result = Result(run_dir, read_summary(run_dir), read_history(run_dir))
    if not is_first():
        return result
    shown = (files.CURVES, files.CARD)
    if describe and not all((run_dir / name).is_file() for name in shown):
        describe(result)
    remove_checkpoints(run_dir / files.CHECKPOINTS)
    return result


def print_summary(result: Result) -> None:
    """Prints what was trained, how good it is on the validation images, and what to type next."""
    for name, phase in result.summary.phases.items():
        console.say(
            f"Best of {name}: epoch {phase.best_epoch} of {phase.epochs}, validation loss "
            f"{phase.val_loss:.4f}, accuracy {format_percent(phase.val_accuracy)}"
        )
    for told in filter(None, (result.summary.tell_kept(), result.summary.tell_folds())):
        console.say(told)
    took = format_seconds(result.summary.seconds)
    console.say(f"Done in {took}. Everything is in {result.run_dir}")
    console.say(f"Next: {console.how_to('evaluate', result.run_dir, '--report')}")


def _fingerprint_history(history: Iterable[Mapping[str, Any]]) -> str:
    # SHA-256 of the rows of history.csv without their seconds.
    numbers = [{name: row[name] for name in HISTORY_COLUMNS[:-1]} for row in history]
    return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()
