"""The rows of history.csv: one an epoch, both phases."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from transfer.errors import InputError
from transfer.runs.files import HISTORY
from transfer.storage.atomic import read_json as read_json
from transfer.storage.atomic import write_atomically

HISTORY_COLUMNS = (
    "phase",
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "learning_rate",
    "seconds",
)


def write_history(run_dir: Path, rows: Iterable[Mapping]) -> None:
    """Writes history.csv: one row an epoch, the columns `HISTORY_COLUMNS`."""
    lines = [",".join(HISTORY_COLUMNS)]
    lines += [",".join(str(row[column]) for column in HISTORY_COLUMNS) for row in rows]
    write_atomically(run_dir / HISTORY, "\n".join(lines) + "\n")


def read_history(run_dir: Path) -> list[dict]:
    """Reads history.csv back: `phase` is a str, `epoch` an int, the rest floats.

    Raises:
        InputError: the file is missing or its columns are not `HISTORY_COLUMNS`.
    """
    path = run_dir / HISTORY
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != HISTORY_COLUMNS:
                raise ValueError(f"columns {reader.fieldnames}")
            return [_parse_history_row(row) for row in reader]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path} should hold the columns {','.join(HISTORY_COLUMNS)}. Received: {error}."
        ) from error


def _parse_history_row(row: Mapping[str, str]) -> dict:
    numbers = {column: float(row[column]) for column in HISTORY_COLUMNS[2:]}
    return {"phase": row["phase"], "epoch": int(row["epoch"])} | numbers
