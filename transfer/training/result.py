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
from transfer.runs.facts import PhaseSummary, Summary
from transfer.runs.history import HISTORY_COLUMNS, write_history
from transfer.training.checkpoint import remove_checkpoints
from transfer.training.phases import Run


@dataclass(frozen=True)
class Result:
    """What a training run hands back."""

    run_dir: Path
    summary: Summary
    history: list[dict[str, Any]]  # the rows of history.csv


Describe = Callable[[Result], None]  # writes more of a run before it counts as finished


def finish(
    trained: keras.Model, last: keras.Model, run: Run, describe: Describe | None = None
) -> Result:
    """Writes what a run came to, summary.json last.

    Args:
        trained: the model whose weights were learnt.
        last: the one that was trained last, with its optimizer.
        run: with its history.
        describe: called before summary.json is written.
    """
    run_dir, history = run.recorder.run_dir, run.recorder.rows
    # Two runs of one seed are the same if these are.
    sha256 = {
        "weights": fingerprint_variables(trained.variables),
        "optimizer": fingerprint_variables(last.optimizer.variables),
        "history": _fingerprint_history(history),
    }
    seconds = round(time.perf_counter() - run.started, 1)
    result = Result(run_dir, Summary(_summarise(history), seconds, sha256), history)
    write_history(run_dir, history)
    if describe:
        describe(result)
    result.summary.write(run_dir)
    remove_checkpoints(run_dir / files.CHECKPOINTS)
    return result


def _summarise(history: list[dict[str, Any]]) -> dict[str, PhaseSummary]:
    phases = {}
    for phase in dict.fromkeys(row["phase"] for row in history):
        rows = [row for row in history if row["phase"] == phase]
        # The epoch whose weights EarlyStopping put back.
        best = min(rows, key=lambda row: row["val_loss"])
        phases[phase] = PhaseSummary(
            epochs=len(rows),
            best_epoch=best["epoch"],
            val_loss=best["val_loss"],
            val_accuracy=best["val_accuracy"],
            seconds=round(sum(row["seconds"] for row in rows), 1),
        )
    return phases


def print_summary(result: Result) -> None:
    """Prints what was trained, how good it is on the validation images, and what to type next."""
    for name, phase in result.summary.phases.items():
        console.say(
            f"{name}: {phase.epochs} epochs in {format_seconds(phase.seconds)}, "
            f"best epoch {phase.best_epoch}: validation accuracy "
            f"{format_percent(phase.val_accuracy)}, loss {phase.val_loss:.4f}"
        )
    console.say(
        f"Done in {format_seconds(result.summary.seconds)}. Everything is in {result.run_dir}\n"
        f"Next: {console.how_to('evaluate', result.run_dir, '--report')}"
    )


def _fingerprint_history(history: Iterable[Mapping[str, Any]]) -> str:
    # SHA-256 of the rows of history.csv without their seconds.
    numbers = [{name: row[name] for name in HISTORY_COLUMNS[:-1]} for row in history]
    return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()
