"""The runs of a folder, a row each: what `transfer runs` shows.

Reads small files, and of evaluated runs the model's checksum, so that a folder of hundreds is
listed in seconds; a run that is damaged is a row too, and says so.
"""

import contextlib
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

from transfer.errors import InputError
from transfer.runs import files
from transfer.runs.facts import Facts, read_facts, read_summary
from transfer.runs.folder import is_finished, is_locked
from transfer.storage.sizes import folder_bytes

FINISHED, TRAINING, UNFINISHED, DAMAGED = "finished", "training", "unfinished", "damaged"


@dataclass(frozen=True)
class RunRow:
    """One run.

    Attributes:
        name: of its folder.
        state: `FINISHED`, `TRAINING` now, `UNFINISHED` (to be resumed) or `DAMAGED`.
        data: name of the data set, "" where it is not known.
        backbone: likewise.
        weights: what it started from, likewise.
        validation_accuracy: share of the validation images, None where it is not known yet.
        test_accuracy: share of the test images, None before they were evaluated.
        num_bytes: of all its files.
        age_seconds: since it began, or was last written to where that is not known.
        problem: what is damaged, "" where nothing is.
    """

    name: str
    state: str
    data: str
    backbone: str
    weights: str
    validation_accuracy: float | None
    test_accuracy: float | None
    num_bytes: int
    age_seconds: float
    problem: str = ""


def list_runs(folder: Path = files.RUNS_FOLDER) -> list[RunRow]:
    """Returns a row for each run in a folder, the newest first.

    Raises:
        InputError: the folder is not there.
    """
    if not folder.is_dir():
        received = "a file" if folder.exists() else "no such folder"
        raise InputError(f"{folder} should be a folder of runs. Received: {received}.")
    now = time.time()
    rows = []
    for config in folder.glob(f"*/{files.CONFIG}"):
        with contextlib.suppress(FileNotFoundError):  # the run is being deleted
            rows.append(_row(config.parent, now - config.stat().st_mtime))
    return sorted(rows, key=lambda row: (row.age_seconds, row.name))


def _row(run_dir: Path, age_seconds: float) -> RunRow:
    row = RunRow(
        run_dir.name, _state(run_dir), "", "", "", None, None, folder_bytes(run_dir), age_seconds
    )
    try:
        facts = read_facts(run_dir)
        row = dataclasses.replace(
            row,
            data=facts.data.name,
            backbone=facts.settings.backbone,
            weights=facts.weights.name,
        )
        if row.state != FINISHED:
            return row
        return dataclasses.replace(
            row,
            validation_accuracy=read_summary(run_dir).kept_phase.val_accuracy,
            test_accuracy=_test_accuracy(run_dir, facts),
        )
    except InputError as error:
        return dataclasses.replace(row, state=DAMAGED, problem=str(error))


def _state(run_dir: Path) -> str:
    if is_finished(run_dir):
        return FINISHED
    return TRAINING if is_locked(run_dir) else UNFINISHED


def _test_accuracy(run_dir: Path, facts: Facts) -> float | None:
    from transfer.runs.predictions import load_predictions

    kept = load_predictions(run_dir, facts)
    return None if kept is None else float((kept.y_prob.argmax(axis=1) == kept.y_true).mean())
