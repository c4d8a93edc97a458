"""CSV files: which of those there are hold which part, and whether pixels or names of images.

`csv_pixels.py` reads tables of pixels, `csv_tables.py` tables of files.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from transfer.data.fashion_mnist import CLASS_NAMES
from transfer.data.splits import Loaded, PassedOver, Split
from transfer.datasets.formats import csv_pixels, csv_tables, emnist
from transfer.datasets.formats.arrays import Part, make_loaded
from transfer.datasets.formats.image_folder import has_class_folders, is_image, reason_of
from transfer.datasets.formats.labels import read_labels
from transfer.datasets.formats.listing import list_tree
from transfer.datasets.formats.part_names import (
    TEST,
    TRAIN,
    VALIDATION,
    find_part_in_file,
    name_without_part,
)
from transfer.errors import InputError

_MOST_HEADER_BYTES = 1 << 22
_CHECKED = "CSV files have no published checksum"


# --- CSV ------------------------------------------------------------------------------------


def holds_csv(path: Path) -> bool:
    """Returns whether a path is a CSV file, or a folder with one that says what the images are."""
    if path.is_dir():
        return _find_train(path) is not None
    return path.suffix.lower() == ".csv"


def load_csv(path: Path) -> Loaded:
    """Reads CSV files: a label and the pixels of a square gray image a row, or a file and a label.

    A file of the training images is read with those beside it that have the same name but for the
    part: `Train.csv` and `Test.csv`.

    Raises:
        InputError: a file is missing, or a field is not what it should be; names the row, as an
            editor counts lines, and the column.
    """
    train_path = (_find_train(path) or path) if path.is_dir() else path
    if find_part_in_file(train_path.name) in (TEST, VALIDATION):
        raise InputError(
            f"--data should name the CSV with the training images. Received: {path}, by its name "
            f"a {find_part_in_file(train_path.name)} set."
        )
    files = {TRAIN: train_path, **_find_others(train_path)}
    if csv_tables.is_file_table(_read_header(train_path)):
        return _load_tables(path, files)
    return _load_pixels(path, files)


def _find_train(folder: Path) -> Path | None:
    # The CSV of the training images; None where there is none, or the folder has class folders.
    paths = _list_csv(folder)
    if any(path.name in csv_pixels.KAGGLE for path in paths):
        return folder / csv_pixels.KAGGLE[0]
    headers = {path: _read_header(path) for path in paths}
    readable = [path for path in paths if _is_readable(headers[path])]
    trains = [path for path in readable if find_part_in_file(path.name) == TRAIN]
    trains = trains or [path for path in readable if find_part_in_file(path.name) is None]
    if not trains:
        return None
    if any(csv_tables.is_file_table(headers[path]) for path in trains) and has_class_folders(
        folder
    ):
        return None
    if len(trains) > 1:
        raise InputError(
            f"{folder} should hold one CSV of training images. Received: "
            f"{', '.join(path.name for path in trains[:10])}; name it: --data {trains[0]}."
        )
    return trains[0]


def _list_csv(folder: Path) -> list[Path]:
    paths = (path for path in folder.iterdir() if path.suffix.lower() == ".csv")
    return sorted(path for path in paths if path.is_file() and not path.name.startswith("."))


def _read_header(path: Path) -> list[str]:
    if not path.is_file():  # opening a pipe might wait for ever
        return []
    with open(path, "rb") as file:
        line = file.readline(_MOST_HEADER_BYTES)
    for other in (b";", b"\t"):
        line = line.replace(other, b",") if b"," not in line else line
    return csv_pixels.read_columns(line)


def _is_readable(header: list[str]) -> bool:
    return csv_tables.is_file_table(header) or csv_pixels.is_pixel_table(header)


def _find_others(train: Path) -> dict[str, Path]:
    # The CSV files of the other parts, beside that of the training images.
    if find_part_in_file(train.name) != TRAIN:
        return {}
    found: dict[str, Path] = {}
    for path in _list_csv(train.parent):
        part = find_part_in_file(path.name)
        if part in (None, TRAIN) or name_without_part(path.name) != name_without_part(train.name):
            continue
        if part in found:
            raise InputError(
                f"{train.parent} should have one CSV for {part}. "
                f"Received: {found[part].name}, {path.name}."
            )
        found[str(part)] = path
    if train.name == csv_pixels.KAGGLE[0] and TEST not in found:
        found[TEST] = train.with_name(csv_pixels.KAGGLE[1])  # missing, which is told
    return found


def _without_labels(path: Path) -> PassedOver:
    return PassedOver(path.name, f"{path.name}, which has no labels")


def _pass_over_rest(path: Path, used: set[str]) -> Iterator[PassedOver]:
    # What else is in the folder that --data names; of a single CSV nothing else is looked at.
    if path.is_dir():
        for file in list_tree(path).all_files():
            if file not in used:
                reason = "images that no row names" if is_image(file) else reason_of(file)
                yield PassedOver(os.path.relpath(file, path), reason)


# --- Pixels ---------------------------------------------------------------------------------


def _load_pixels(path: Path, files: dict[str, Path]) -> Loaded:
    unlabelled = [
        file
        for part, file in files.items()
        if part != TRAIN and csv_pixels.lacks_labels(_read_header(file))
    ]
    files = {part: file for part, file in files.items() if file not in unlabelled}
    tables = {part: csv_pixels.read_pixel_table(file) for part, file in files.items()}
    parts = {
        part: Part(table.images, table.labels, str(files[part]), f"{files[part]}, labels")
        for part, table in tables.items()
    }
    train = tables[TRAIN]
    is_kaggle = csv_pixels.is_kaggle(files[TRAIN], train.images[0].size)
    named = is_kaggle and len(np.unique(train.labels)) == len(CLASS_NAMES)
    split = emnist.split_name(files[TRAIN].name)
    mapping = emnist.find_mapping(files[TRAIN].parent, split) if split else None
    used = {str(file) for file in (*files.values(), *unlabelled, *filter(None, [mapping]))}
    loaded = make_loaded(
        emnist.stand_upright(parts) if split else parts,
        str(path),
        f"not compared with the published Fashion-MNIST: {_CHECKED}" if is_kaggle else _CHECKED,
        class_names=CLASS_NAMES if named else None,
        notes=[
            *(note for table in tables.values() for note in table.notes),
            *([emnist.UPRIGHT] if split else []),
        ],
        passed_over=[*map(_without_labels, unlabelled), *_pass_over_rest(path, used)],
    )
    return emnist.name_classes(loaded, mapping) if split else loaded


# --- Files ----------------------------------------------------------------------------------


def _load_tables(path: Path, files: dict[str, Path]) -> Loaded:
    unlabelled = [x for x in list(files.values())[1:] if not csv_tables.has_labels(x)]
    files = {part: file for part, file in files.items() if file not in unlabelled}
    tables = {part: csv_tables.read_file_table(file) for part, file in files.items()}
    rows = {part: _rows_of_part(tables, part) for part in (TRAIN, VALIDATION, TEST)}
    rows = {part: found for part, found in rows.items() if len(found[0])}
    train = tables[TRAIN]
    if TRAIN not in rows:
        raise InputError(f"{files[TRAIN]} should have rows of the part train. Received: none.")
    labels = read_labels(
        {part: found[1] for part, found in rows.items()},
        str(path),
        dict.fromkeys(rows, f"{files[TRAIN]}, labels"),
        train.columns or None,
    )
    root = str(files[TRAIN].parent)
    splits = {part: Split(found[0], labels.parts[part], root) for part, found in rows.items()}
    used = {str(file) for file in (*files.values(), *unlabelled)}
    used |= {file for split in splits.values() for file in split.images}
    twice = sum(table.num_twice for table in tables.values())
    return Loaded(
        splits[TRAIN],
        splits.get(TEST),
        labels.class_names,
        str(path),
        f"image files, {_CHECKED}",
        splits.get(VALIDATION),
        notes=(*labels.notes, *([f"{twice:,} rows stand there twice"] if twice else [])),
        passed_over=(*map(_without_labels, unlabelled), *_pass_over_rest(path, used)),
    )


def _rows_of_part(
    tables: dict[str, csv_tables.FileTable], part: str
) -> tuple[np.ndarray, np.ndarray]:
    # Paths and labels of a part, which its own table has, or a column of the others says.
    paths, labels = [], []
    for of_table, table in tables.items():
        is_here = np.array([(said or of_table) == part for said in table.parts])
        paths.append(table.paths[is_here])
        labels.append(table.labels[is_here])
    return np.concatenate(paths), np.concatenate(labels)
