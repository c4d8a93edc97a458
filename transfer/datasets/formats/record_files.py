"""Files that hold many encoded images with their labels: Parquet, WebDataset's tar, TFRecord.

Here files become parts and labels become classes, the same for all of them; each format has a
file of its own that reads it. Nothing is decoded, and of an image only its place is kept.
"""

import os
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from transfer.data.records import PLACE, Encoded, Record, RecordFile
from transfer.data.splits import Loaded, PassedOver, Split
from transfer.datasets.formats import parquet, tfrecord, webdataset
from transfer.datasets.formats.image_folder import has_class_folders, reason_of
from transfer.datasets.formats.labels import read_labels
from transfer.datasets.formats.listing import reason_of_leftover
from transfer.datasets.formats.part_names import (
    TEST,
    TRAIN,
    VALIDATION,
    find_part,
    find_part_in_file,
)
from transfer.datasets.formats.record_format import RecordFormat
from transfer.errors import InputError
from transfer.storage.remote import list_stored

FORMATS: dict[str, RecordFormat] = {
    ".parquet": parquet.FORMAT,
    ".tar": webdataset.FORMAT,
    ".tfrecord": tfrecord.FORMAT,
    ".tfrecords": tfrecord.FORMAT,
}
_SHARDED = ".tfrecord-"  # train.tfrecord-00000-of-00010
_MOST_ROWS = 2**31 - 1  # of a file


def format_of(name: str) -> RecordFormat | None:
    """Returns what reads a file, by its name; None where it holds no records."""
    name = os.path.basename(name).lower()
    return FORMATS[".tfrecord"] if _SHARDED in name else FORMATS.get(os.path.splitext(name)[1])


def holds_records(path: Path) -> bool:
    """Returns whether a path is such a file, or a folder with one and without class folders."""
    if not path.is_dir():
        return format_of(path.name) is not None
    if not any(format_of(name) and not reason_of_leftover(name) for name in list_stored(str(path))):
        return False
    return not has_class_folders(path)


def load_records(where: str | Path) -> Loaded:
    """Finds the images and labels in files of one format, without decoding them.

    The part that an image belongs to is that which the name of its file says, or else the folder
    that the file is in; all are for training where no name says anything.

    Args:
        where: a file, a folder with all below, or the URL of either.

    Raises:
        InputError: there is no such file, or one is damaged or has no images with labels.
    """
    location = str(where)
    files, others = _choose_files(location)
    parts: dict[str, _Part] = {}
    for number, name in enumerate(files):
        part = parts.setdefault(_part_of(name, location), _Part())
        part.read(number, name, files[name])
    if TRAIN not in parts or not parts[TRAIN].labels:
        raise InputError(
            f"{location} should hold training images with labels. Received: "
            f"{', '.join(_describe(name, part) for name, part in parts.items())}."
        )
    return _make_loaded(location, files, parts, others)


def encoded_records(name: str) -> Iterator[Record]:
    """Yields the images of one file in order, with or without labels, each with its bytes.

    Args:
        name: path or URL of the file.

    Raises:
        InputError: the file cannot be read or is damaged, from there on.
    """
    chosen = format_of(name)
    assert chosen is not None
    for row, found in enumerate(chosen.scan(name, True, Counter())):
        yield Record(f"{name}{found.key or f'#{row}'}", found.content or b"")


def expand_records(paths: Sequence[str]) -> Iterator[Encoded]:
    """Yields image files as they are, and of files of records each image."""
    for path in paths:
        if format_of(path):
            yield from encoded_records(path)
        else:
            yield path


def _choose_files(location: str) -> tuple[dict[str, RecordFormat], list[PassedOver]]:
    # Returns the files with what reads them, sorted, and those that are not used.
    files: dict[str, RecordFormat] = {}
    others = []
    for name in list_stored(location):
        chosen = None if reason_of_leftover(name) else format_of(name)
        if chosen:
            files[name] = chosen
        else:
            others.append(PassedOver(name.removeprefix(location).lstrip("/\\"), reason_of(name)))
    kinds = {chosen.name for chosen in files.values()}
    if len(kinds) != 1:
        raise InputError(
            f"{location} should hold files of one format: {', '.join(FORMATS)}. Received: "
            f"{' and '.join(sorted(kinds)) or 'none of them'}."
        )
    return files, others


def _part_of(name: str, location: str) -> str:
    if part := find_part_in_file(os.path.basename(name)):
        return part
    folders = os.path.dirname(name.removeprefix(location)).replace("\\", "/").split("/")
    return next(filter(None, map(find_part, reversed(folders))), TRAIN)


@dataclass
class _Part:
    """The images of a part as they are found: a few bytes each."""

    places: array = field(default_factory=lambda: array("q"))  # four numbers an image
    labels: array = field(default_factory=lambda: array("q"))  # numbers of `values`
    values: dict[int | str, int] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    left_out: Counter[str] = field(default_factory=Counter)

    def read(self, number: int, name: str, chosen: RecordFormat) -> None:
        """Adds the images of a file."""
        for row, found in enumerate(chosen.scan(name, False, self.left_out)):
            if row >= _MOST_ROWS:
                raise InputError(f"{name} should have at most {_MOST_ROWS:,} images.")
            if found.label is None:
                self.left_out["images without a label"] += 1
                continue
            self.places.extend((number, row, found.at, found.size))
            self.labels.append(self.values.setdefault(found.label, len(self.values)))
        self.class_names = chosen.class_names(name) or self.class_names

    def table(self) -> np.ndarray:
        """Returns `PLACE` (N,)."""
        numbers = np.frombuffer(self.places, np.int64).reshape(-1, 4)
        places = np.empty(len(numbers), PLACE)
        for column, name in enumerate(PLACE.names or ()):
            places[name] = numbers[:, column]
        return places


def _describe(name: str, part: _Part) -> str:
    left_out = [f"{count:,} {reason}" for reason, count in part.left_out.items()]
    return ", ".join([f"{len(part.labels):,} {name} images", *left_out])


def _make_loaded(
    location: str,
    files: Mapping[str, RecordFormat],
    parts: dict[str, _Part],
    others: list[PassedOver],
) -> Loaded:
    parts = {name: part for name, part in parts.items() if part.labels}
    labels = read_labels(
        {name: _to_array(part.values) for name, part in parts.items()},
        location,
        {name: f"{location}, {name}" for name in parts},
        parts[TRAIN].class_names,
    )
    opened = tuple(chosen.open(name) for name, chosen in files.items())
    root = location if location not in files else os.path.dirname(location)
    splits = {
        name: _make_split(part, labels.parts[name], opened, root) for name, part in parts.items()
    }
    left_out: Counter[str] = Counter()
    for part in parts.values():
        left_out += part.left_out
    notes = [f"in the files passed over {count:,} {reason}" for reason, count in left_out.items()]
    kind = next(iter(files.values())).name
    return Loaded(
        splits[TRAIN],
        splits.get(TEST),
        labels.class_names,
        location,
        f"{len(files):,} {kind} file{'s' * (len(files) > 1)}, no published checksum",
        splits.get(VALIDATION),
        notes=(*labels.notes, *notes),
        passed_over=tuple(others),
    )


def _to_array(values: Iterable[int | str]) -> np.ndarray:
    # NumPy would make texts of numbers where there are both.
    are_mixed = len({type(value) for value in values}) > 1
    return np.array(list(values), object if are_mixed else None)


def _make_split(
    part: _Part, of_values: np.ndarray, opened: tuple[RecordFile, ...], root: str
) -> Split:
    labels = of_values[np.frombuffer(part.labels, np.int64)]
    return Split(part.table(), labels.astype(np.int64), root, files=opened)
