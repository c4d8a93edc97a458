"""CSV files of a label and the pixels of a square gray image a row, as Kaggle's."""

import io
import math
import re
from pathlib import Path
from typing import IO

import numpy as np

from transfer.data.fashion_mnist import CLASS_NAMES
from transfer.data.formats.checks import (
    check_same_shape,
    make_split,
    number_classes,
    regular_size,
)
from transfer.data.splits import Loaded, Split
from transfer.errors import InputError

# --- CSV ------------------------------------------------------------------------------------

_KAGGLE_CSV = ("fashion-mnist_train.csv", "fashion-mnist_test.csv")
_WHOLE_NUMBER = re.compile(rb"\s*([0-9]{1,9})(\.0*)?\s*")
_BLOCK_BYTES = 1 << 22
_MOST_HEADER_BYTES = 1 << 22
_MOST_FIELD_BYTES = 32  # of a number with blanks around it
_PLAIN = b"0123456789, \t\r\n"
_MANY_ZEROS = b"0" * 7  # of ten digits at least so many lead a number in range


def holds_csv(path: Path) -> bool:
    """Returns whether a path is a CSV file, or a folder with one of Kaggle's two."""
    if path.is_dir():
        return any((path / name).exists() for name in _KAGGLE_CSV)
    return path.suffix.lower() == ".csv"


def load_csv(path: Path) -> Loaded:
    """Reads CSV files of a label and the pixels of a square gray image a row, as Kaggle's.

    Raises:
        InputError: a file is missing, or a field is not a number in range; names the row, as
            an editor counts lines, and the column.
    """
    train_path = path / _KAGGLE_CSV[0] if path.is_dir() else path
    if "train" not in train_path.name and "test" in train_path.name:
        raise InputError(
            f"--data should name the CSV with the training images. Received: {path}, a test set."
        )
    paths = [train_path]
    if "train" in train_path.name:
        paths.append(train_path.with_name("test".join(train_path.name.rsplit("train", 1))))
    splits = [_read_csv(part) for part in paths]
    train, test = splits[0], splits[1] if len(splits) == 2 else None
    if test is not None:
        check_same_shape(train, test, str(path))
    class_names = number_classes(train, test, str(path))
    if _is_kaggle(train_path, train.images[0].size) and len(class_names) == len(CLASS_NAMES):
        class_names = CLASS_NAMES
    checked = "not compared with the published Fashion-MNIST: CSV files have no published checksum"
    return Loaded(train, test, class_names, str(path), checked)


def _is_kaggle(path: Path, num_pixels: int) -> bool:
    return path.name in _KAGGLE_CSV and num_pixels == 28 * 28


def _read_csv(path: Path) -> Split:
    try:
        regular_size(path)
        with open(path, "rb") as file:
            columns = _read_csv_header(file.readline(_MOST_HEADER_BYTES), path)
            highest_label = 9 if _is_kaggle(path, len(columns) - 1) else 255
            blocks, row = [], 2
            while lines := _read_lines(file, row, len(columns), path):
                values = _parse_rows(lines, len(columns), highest_label)
                if values is None:
                    values = _parse_rows_one_by_one(lines, row, columns, highest_label, path)
                blocks.append((values[:, 0].astype(np.int64), values[:, 1:].astype(np.uint8)))
                row += len(lines)
    except FileNotFoundError as error:
        raise InputError(
            f"{path} should be there, beside the other CSV file. Received: no such file."
        ) from error
    side = math.isqrt(len(columns) - 1)
    if not any(len(labels) for labels, _ in blocks):
        raise InputError(f"{path} should have a row for each image. Received: only the header.")
    pixels = np.concatenate([pixels for _, pixels in blocks]).reshape(-1, side, side)
    return make_split(pixels, np.concatenate([labels for labels, _ in blocks]), str(path))


def _read_lines(file: IO[bytes], first_row: int, num_columns: int, path: Path) -> list[bytes]:
    # Returns whole lines, about a block of them. A last row without a line break may be cut off
    # within its last number, and a line without an end would fill the memory.
    most = num_columns * _MOST_FIELD_BYTES
    lines = io.BytesIO(file.read(_BLOCK_BYTES) + file.readline(most)).readlines()
    last = lines[-1] if lines else b"\n"
    if not last.endswith(b"\n") and (len(last) >= most or not last.isspace()):
        raise InputError(
            f"{path}, row {first_row + len(lines) - 1}: should end with a line break within "
            f"{most:,} bytes. Received: none; the file is cut off (fetch it again), or only this "
            "line break is missing (add it)."
        )
    return lines


def _read_csv_header(line: bytes, path: Path) -> list[str]:
    text = line.decode("utf-8-sig", "backslashreplace")
    columns = [field.strip().strip('"')[:40] for field in text.split(",")]
    if columns[0].lower() != "label":
        raise InputError(
            f"{path}, row 1: the first column should be called 'label' and the others be pixels. "
            f"Received: {columns[0]!r}."
        )
    side = math.isqrt(len(columns) - 1)
    if not side or side * side != len(columns) - 1:
        raise InputError(
            f"{path}, row 1: there should be the label and the pixels of a square image, as 785 "
            f"columns for 28 x 28 pixels. Received: {len(columns)} columns."
        )
    return columns


def _parse_rows(lines: list[bytes], num_columns: int, highest_label: int) -> np.ndarray | None:
    # Returns uint8 (rows, columns), or None for anything but whole numbers in range. NumPy's own
    # parser takes more than that for a number: signs, and any number of leading zeros.
    text = b"".join(lines)
    if text.isspace() or text.translate(None, _PLAIN) or _MANY_ZEROS in text:
        return None
    try:
        values = np.loadtxt(lines, np.uint8, comments=None, delimiter=",", ndmin=2)
    except (ValueError, OverflowError):
        return None
    in_range = values.shape[1] == num_columns and values[:, 0].max() <= highest_label
    return values if in_range else None


def _parse_rows_one_by_one(
    lines: list[bytes], first_row: int, columns: list[str], highest_label: int, path: Path
) -> np.ndarray:
    # The slow way, for rows with "12.0", and to find the place of an error.
    rows = []
    for row, line in enumerate(lines, first_row):
        if line.isspace():
            continue
        fields = line.rstrip(b"\r\n").split(b",")
        if len(fields) != len(columns):
            raise InputError(
                f"{path}, row {row}: there should be {len(columns)} columns, as in the header. "
                f"Received: {len(fields)}."
            )
        highest = [highest_label] + [255] * (len(columns) - 1)
        place = f"{path}, row {row}, column "
        rows.append(
            [
                _parse_field(field, top, place + column)
                for column, field, top in zip(columns, fields, highest, strict=True)
            ]
        )
    return np.array(rows, dtype=np.int32).reshape(-1, len(columns))


def _parse_field(field: bytes, highest: int, where: str) -> int:
    match = _WHOLE_NUMBER.fullmatch(field)
    if match and int(match[1]) <= highest:
        return int(match[1])
    received = field[:40].decode("ascii", "backslashreplace")
    raise InputError(
        f"{where}: there should be a whole number from 0 to {highest}. Received: {received!r}."
    )
