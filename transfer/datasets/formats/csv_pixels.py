"""A CSV of a label and the pixels of a square gray image a row, as Kaggle's.

The label may be a number or a text, in the first column or in the last; a table without a header
line is taken to begin with the label.
"""

import io
import math
import re
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from transfer.datasets.formats.checks import regular_size
from transfer.errors import InputError

KAGGLE = ("fashion-mnist_train.csv", "fashion-mnist_test.csv")
_LABEL_NAMES = ("label", "labels", "class", "target", "y")
_WHOLE_NUMBER = re.compile(rb"\s*([0-9]{1,9})(\.0*)?\s*")
_BLOCK_BYTES = 1 << 22
_MOST_HEADER_BYTES = 1 << 22
_MOST_FIELD_BYTES = 32  # of a number with blanks around it
_MOST_LABEL_BYTES = 1024
_PLAIN = b"0123456789, \t\r\n"
_MANY_ZEROS = b"0" * 7  # of ten digits at least so many lead a number in range


class PixelTable(NamedTuple):
    """What a CSV of pixels holds."""

    images: np.ndarray  # uint8 (N, side, side)
    labels: np.ndarray  # int64 or str (N,)
    notes: tuple[str, ...]  # what was guessed


class _Layout(NamedTuple):
    columns: list[str]
    label: int  # index of its column: 0, or the last
    is_text: bool
    has_header: bool
    highest_label: int


def is_kaggle(path: Path, num_pixels: int) -> bool:
    """Returns whether a CSV of so many pixels a row is one of Kaggle's two of Fashion-MNIST."""
    return path.name in KAGGLE and num_pixels == 28 * 28


def lacks_labels(columns: list[str]) -> bool:
    """Returns whether a header is that of pixels alone, as Kaggle's test sets have it."""
    side = math.isqrt(len(columns))
    return side > 1 and side * side == len(columns) and columns[0].lower() not in _LABEL_NAMES


def is_pixel_table(columns: list[str]) -> bool:
    """Returns whether a header is that of labels and pixels, or a first row of numbers."""
    side = math.isqrt(len(columns) - 1)
    is_labelled = any(columns[index].lower() in _LABEL_NAMES for index in (0, -1))
    return side > 1 and side * side == len(columns) - 1 and (is_labelled or _are_numbers(columns))


def _are_numbers(columns: list[str]) -> bool:
    return all(_WHOLE_NUMBER.fullmatch(field.encode()) for field in columns)


def read_columns(line: bytes) -> list[str]:
    """Returns the fields of a CSV's first line, shortened."""
    text = line.decode("utf-8-sig", "backslashreplace")
    return [field.strip().strip('"')[:40] for field in text.split(",")]


def read_pixel_table(path: Path) -> PixelTable:
    """Reads a CSV of labels and pixels.

    Raises:
        InputError: the file is missing, or a field is not a number in range; names the row, as an
            editor counts lines, and the column.
    """
    try:
        regular_size(path)
        with open(path, "rb") as file:
            layout = _read_layout(file, path)
            blocks, row = [], 1 + layout.has_header
            while lines := _read_lines(file, row, len(layout.columns), path):
                blocks.append(_parse_block(lines, row, layout, path))
                row += len(lines)
    except FileNotFoundError as error:
        raise InputError(
            f"{path} should be there, beside the other CSV file. Received: no such file."
        ) from error
    if not any(len(labels) for labels, _ in blocks):
        raise InputError(f"{path} should have a row for each image. Received: only the header.")
    side = math.isqrt(len(layout.columns) - 1)
    pixels = np.concatenate([pixels for _, pixels in blocks]).reshape(-1, side, side)
    notes = () if layout.has_header else (f"{path.name} has no header: the label comes first",)
    return PixelTable(pixels, np.concatenate([labels for labels, _ in blocks]), notes)


def _read_layout(file: IO[bytes], path: Path) -> _Layout:
    columns = read_columns(file.readline(_MOST_HEADER_BYTES))
    after_header = file.tell()
    first = file.readline(len(columns) * _MOST_FIELD_BYTES + _MOST_LABEL_BYTES)
    has_header = not _are_numbers(columns)
    label = _find_label(columns, path) if has_header else 0
    side = math.isqrt(len(columns) - 1)
    if not side or side * side != len(columns) - 1:
        raise InputError(
            f"{path}, row 1: there should be the label and the pixels of a square image, as 785 "
            f"columns for 28 x 28 pixels. Received: {len(columns)} columns."
        )
    file.seek(after_header if has_header else 0)
    fields = first.rstrip(b"\r\n").split(b",")
    kaggle = is_kaggle(path, len(columns) - 1)
    is_text = has_header and not kaggle and _is_text(fields[label if label < len(fields) else 0])
    return _Layout(columns, label, is_text, has_header, 9 if kaggle else 255)


def _find_label(columns: list[str], path: Path) -> int:
    for index in (0, len(columns) - 1):
        if columns[index].lower() in _LABEL_NAMES:
            return index
    raise InputError(
        f"{path}, row 1: the first column should be called 'label' and the others be pixels, or "
        "there should be a column of image files, called 'path', and one of labels. "
        f"Received: {columns[0]!r}."
    )


def _is_text(field: bytes) -> bool:
    # Begins like a word: a damaged number is none.
    return field.strip().strip(b'"')[:1].isalpha() and field.strip().lower() not in (b"nan", b"inf")


def _parse_block(
    lines: list[bytes], row: int, layout: _Layout, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    # Returns labels, int64 or str (rows,), and pixels, uint8 (rows, columns - 1).
    if layout.is_text:
        return _parse_text_block(lines, row, layout, path)
    highest = [255] * len(layout.columns)
    highest[layout.label] = layout.highest_label
    values = _parse_rows(lines, highest)
    if values is None:
        values = _parse_rows_one_by_one(lines, row, layout.columns, highest, path)
    pixels = np.delete(values, layout.label, axis=1).astype(np.uint8)
    return values[:, layout.label].astype(np.int64), pixels


def _parse_text_block(
    lines: list[bytes], row: int, layout: _Layout, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    labels, pixels = [], []
    for number, line in enumerate(lines, row):
        rest = line
        if not line.isspace():
            split = bytes.partition if layout.label == 0 else bytes.rpartition
            parts = split(line.rstrip(b"\r\n"), b",")
            label, rest = (parts[0], parts[2]) if layout.label == 0 else (parts[2], parts[0])
            labels.append(_read_label(label, f"{path}, row {number}"))
            rest += b"\n"
        pixels.append(rest)
    columns = [name for index, name in enumerate(layout.columns) if index != layout.label]
    highest = [255] * len(columns)
    values = _parse_rows(pixels, highest)
    if values is None:
        values = _parse_rows_one_by_one(pixels, row, columns, highest, path)
    return np.array(labels, dtype=str), values.astype(np.uint8)


def _read_label(field: bytes, where: str) -> str:
    text = field[:_MOST_LABEL_BYTES].decode("utf-8", "backslashreplace").strip().strip('"')
    if not text:
        raise InputError(f"{where}: there should be a label. Received: none.")
    return text


def _read_lines(file: IO[bytes], first_row: int, num_columns: int, path: Path) -> list[bytes]:
    # Returns whole lines, about a block of them. A last row without a line break may be cut off
    # within its last number, and a line without an end would fill the memory.
    most = num_columns * _MOST_FIELD_BYTES + _MOST_LABEL_BYTES
    lines = io.BytesIO(file.read(_BLOCK_BYTES) + file.readline(most)).readlines()
    last = lines[-1] if lines else b"\n"
    if not last.endswith(b"\n") and (len(last) >= most or not last.isspace()):
        raise InputError(
            f"{path}, row {first_row + len(lines) - 1}: should end with a line break within "
            f"{most:,} bytes. Received: none; the file is cut off (fetch it again), or only this "
            "line break is missing (add it)."
        )
    return lines


def _parse_rows(lines: list[bytes], highest: list[int]) -> np.ndarray | None:
    # Returns uint8 (rows, columns), or None for anything but whole numbers in range. NumPy's own
    # parser takes more than that for a number: signs, and any number of leading zeros.
    text = b"".join(lines)
    if text.isspace() or text.translate(None, _PLAIN) or _MANY_ZEROS in text:
        return None
    try:
        values = np.loadtxt(lines, np.uint8, comments=None, delimiter=",", ndmin=2)
    except (ValueError, OverflowError):
        return None
    in_range = values.shape[1] == len(highest) and (values.max(axis=0) <= highest).all()
    return values if in_range else None


def _parse_rows_one_by_one(
    lines: list[bytes], first_row: int, columns: list[str], highest: list[int], path: Path
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
