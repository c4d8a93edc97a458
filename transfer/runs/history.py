"""The rows of history.csv: one an epoch, both phases."""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transfer.errors import InputError, shortened
from transfer.runs.files import HISTORY
from transfer.storage.atomic import read_json as read_json
from transfer.storage.atomic import write_atomically
from transfer.storage.untrusted import read_regular

_MOST_BYTES = 8 << 20  # of 20,000 epochs at the most, in two phases
_LONGEST_PHASE = 40  # characters
_LARGEST = 2**53  # of whole numbers; beyond, they are no floats
_LARGEST_FLOAT = 3.5e38  # a loss is a float32, perhaps infinite; beyond, no axis has room for it

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
        InputError: the file is missing or no plain file, its columns are not `HISTORY_COLUMNS`,
            or a value is none of an epoch.
    """
    path = run_dir / HISTORY
    try:
        text = read_regular(path, _MOST_BYTES).decode("utf-8")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if tuple(reader.fieldnames or ()) != HISTORY_COLUMNS:
            raise ValueError(f"columns {shortened(reader.fieldnames)}")
        return check_rows([_parse_history_row(row) for row in reader])
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path} should hold the columns {','.join(HISTORY_COLUMNS)}. Received: {error}."
        ) from error


def check_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows of a history, which may come from a stranger.

    Raises:
        ValueError: a value is missing, or none of an epoch.
    """
    for number, row in enumerate(rows, start=1):
        found = [type(row.get(name)) for name in HISTORY_COLUMNS] if isinstance(row, dict) else []
        # Plain floats or whole numbers; a bool is neither.
        kinds_fit = found[:2] == [str, int] and set(found[2:]) <= {int, float}
        if not kinds_fit or len(row) != len(found):
            raise ValueError(f"row {number} is {shortened(row)}")
        is_phase = len(row["phase"]) <= _LONGEST_PHASE and row["phase"].isprintable()
        numbers = [row[name] for name in HISTORY_COLUMNS[1:]]
        if not is_phase or any(_is_beyond(one) for one in numbers):
            raise ValueError(f"row {number} is {shortened(row)}")
    return rows


def _is_beyond(number: float) -> bool:
    if isinstance(number, int):
        return abs(number) > _LARGEST
    return math.isfinite(number) and abs(number) > _LARGEST_FLOAT


def _parse_history_row(row: Mapping[str, str]) -> dict:
    if None in row:  # where csv puts cells without a column
        raise ValueError(f"more cells than columns: {shortened(row)}")
    numbers = {column: float(row[column]) for column in HISTORY_COLUMNS[2:]}
    return {"phase": row["phase"], "epoch": int(row["epoch"])} | numbers
