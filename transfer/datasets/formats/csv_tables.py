"""A CSV that names image files and their labels, a row each: `path,label`.

Paths are relative to the CSV, or to a folder beside it; their suffix may be missing, as in Kaggle's
`id,breed`. Labels are numbers, texts, or a column for each class with a single 1. A column called
`split` may say the part of each row.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transfer.datasets.formats.checks import regular_size
from transfer.datasets.formats.image_folder import IMAGE_SUFFIXES
from transfer.datasets.formats.listing import is_leftover_folder
from transfer.datasets.formats.part_names import find_part
from transfer.errors import InputError

_PATH_NAMES = (
    *("path", "filepath", "file_path", "image_path", "img_path", "filename", "file_name"),
    *("filepaths", "files", "file", "fname", "image", "images", "img", "image_name", "image_id"),
    *("img_name", "imageid", "id_code", "id", "name"),
)
_LABEL_NAMES = (
    *("label", "labels", "class", "class_name", "classname", "class_id", "classid", "category"),
    *("target", "diagnosis", "breed", "species", "tag", "y"),
)
_PART_NAMES = ("split", "set", "subset", "partition", "part", "data set", "dataset")
_DELIMITERS = ",;\t"


class FileTable(NamedTuple):
    """What a CSV of files says.

    Attributes:
        paths: str in an object array (N,), absolute.
        labels: int64 or str (N,), or one-hot rows (N, C).
        parts: part of each row, "" where the table does not say it.
        columns: names of the classes of one-hot rows.
        num_twice: rows that say again what another said.
    """

    paths: np.ndarray
    labels: np.ndarray
    parts: list[str]
    columns: tuple[str, ...]
    num_twice: int


class _Columns(NamedTuple):
    path: int
    label: int | None
    part: int | None
    one_hot: list[int]


def is_file_table(columns: Sequence[str]) -> bool:
    """Returns whether a header has a column that names image files."""
    return any(name.lower() in _PATH_NAMES for name in columns)


def has_labels(path: Path) -> bool:
    """Returns whether a CSV of files has labels, and is not a test set that lacks them."""
    header, rows = _read_rows(path)
    columns = _find_columns(header)
    first = next(rows, (0, [""] * len(header)))[1]
    return columns.label is not None or _is_one_hot(first, columns)


def read_file_table(path: Path) -> FileTable:
    """Reads a CSV of image files and labels; whether the files decode is not looked at.

    Raises:
        InputError: the file is damaged, a row lacks something, one image has two labels, or no
            file is where the table says; names the row, as an editor counts lines.
    """
    header, rows = _read_rows(path)
    columns = _find_columns(header)
    bases = _list_bases(path.parent)
    seen: dict[str, tuple] = {}
    num_twice = 0
    for row, fields in rows:
        where = f"{path}, row {row}"
        name = _take(fields, columns.path, f"{where}, column {header[columns.path]}")
        said = (*_read_label(fields, columns, header, where), _read_part(fields, columns, where))
        if seen.setdefault(name, said) != said:
            raise InputError(
                f"{where}: an image should have one label and one part. Received: {said[0]!r} for "
                f"{name!r}, which had {seen[name][0]!r} before."
            )
        num_twice += seen[name] is not said
    if not seen:
        raise InputError(f"{path} should have a row for each image. Received: only the header.")
    paths = np.empty(len(seen), object)
    paths[:] = _resolve(list(seen), bases, path, header[columns.path])
    names = tuple(header[index] for index in columns.one_hot) if columns.label is None else ()
    labels = _to_array([said[0] for said in seen.values()])
    return FileTable(paths, labels, [said[1] for said in seen.values()], names, num_twice)


def _read_rows(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    # Returns the header, and each row with its number.
    regular_size(path)
    content = path.read_bytes()
    if not content.endswith((b"\n", b"\r")):
        raise InputError(
            f"{path} should end with a line break. Received: none; the file is cut off (fetch it "
            "again), or only this line break is missing (add it)."
        )
    try:
        lines = content.decode("utf-8-sig").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} should be a text in UTF-8. Received: {error.reason}.") from error
    first = lines[0] if lines else ""
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader)]
    except (StopIteration, csv.Error) as error:
        raise InputError(f"{path}, row 1: should be a header. Received: {error}.") from error
    return header, _check_rows(reader, len(header), path)


def _check_rows(reader: Any, num_columns: int, path: Path) -> Iterator[tuple[int, list[str]]]:
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{path}, row {reader.line_num}: should be a row of a CSV. Received: {error}."
            ) from error
        if fields and len(fields) != num_columns:
            raise InputError(
                f"{path}, row {reader.line_num}: there should be {num_columns} columns, as in the "
                f"header. Received: {len(fields)}."
            )
        if any(field.strip() for field in fields):
            yield reader.line_num, fields


def _find_columns(header: list[str]) -> _Columns:
    lower = [name.lower() for name in header]

    def find(names: Sequence[str], taken: Sequence[int | None] = ()) -> int | None:
        found = [lower.index(name) for name in names if name in lower]
        return next((index for index in found if index not in taken), None)

    path = find(_PATH_NAMES)
    assert path is not None  # `is_file_table` has said so
    part = find(_PART_NAMES, [path])
    label = find(_LABEL_NAMES, [path])
    others = [index for index in range(len(header)) if index not in (path, part)]
    if label is None and len(others) == 1:
        label = others[0]
    return _Columns(path, label, part, others)


def _is_one_hot(fields: list[str], columns: _Columns) -> bool:
    return len(columns.one_hot) > 1 and all(_is_bit(fields[index]) for index in columns.one_hot)


def _is_bit(field: str) -> bool:
    return field.strip() in ("0", "1", "0.0", "1.0")


def _read_label(
    fields: list[str], columns: _Columns, header: list[str], where: str
) -> tuple[str | tuple[int, ...]]:
    if columns.label is not None:
        return (_take(fields, columns.label, f"{where}, column {header[columns.label]}"),)
    if not _is_one_hot(fields, columns):
        raise InputError(
            f"{where}: there should be a column called 'label', or one for each class with a "
            f"single 1. Received: columns {', '.join(header[:8])}."
        )
    return (tuple(int(float(fields[index])) for index in columns.one_hot),)


def _read_part(fields: list[str], columns: _Columns, where: str) -> str:
    if columns.part is None:
        return ""
    part = find_part(fields[columns.part].strip())
    if part is None:
        raise InputError(
            f"{where}: the part should be train, validation or test. "
            f"Received: {fields[columns.part]!r}."
        )
    return part


def _take(fields: list[str], index: int, where: str) -> str:
    text = fields[index].strip()
    if not text:
        raise InputError(f"{where}: should not be empty. Received: nothing.")
    return text


def _to_array(labels: list) -> np.ndarray:
    if all(isinstance(label, str) and label.isdecimal() and len(label) < 10 for label in labels):
        return np.array([int(label) for label in labels], np.int64)
    return np.array(labels)


# --- Where the files are --------------------------------------------------------------------


def _list_bases(folder: Path) -> list[Path]:
    # The CSV's folder, those right in it, and the folder above.
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    return [folder, *(x for x in inner if not is_leftover_folder(x.name)), folder.parent]


def _resolve(names: list[str], bases: list[Path], table: Path, column: str) -> list[str]:
    found = _find_base(names, bases)
    if found is None:
        raise InputError(
            f"{table}: column {column!r} should name image files, relative to {table.parent} or a "
            f"folder in it. Received: {names[0]!r}, which is not there."
        )
    first, suffix = found
    paths = []
    for name in names:
        path = os.path.join(first, name + suffix)
        if not os.path.exists(path):
            path = _search(name, bases) or path  # told where it does not decode
        paths.append(os.path.normpath(path))
    return paths


def _find_base(names: list[str], bases: list[Path]) -> tuple[Path, str] | None:
    # Where the first file that is there is, and the suffix that its name lacks.
    for name in names[:100]:
        for base in bases:
            for suffix in ("", *IMAGE_SUFFIXES):
                if os.path.isfile(os.path.join(base, name + suffix)):
                    return base, suffix
    return None


def _search(name: str, bases: list[Path]) -> str | None:
    paths = (os.path.join(base, name + end) for base in bases for end in ("", *IMAGE_SUFFIXES))
    return next((path for path in paths if os.path.isfile(path)), None)
