"""Encoded images within larger files: many to a file, found again by their place in it.

A place has a few bytes, so that ten million of them fit where ten million paths would not. Who
decodes an image does not ask whether it is a file of its own (a path) or a `Record`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, overload

import numpy as np

# Which file, which image of it from 0, and two numbers that the file itself understands.
PLACE = np.dtype([("file", "<i4"), ("row", "<i4"), ("at", "<i8"), ("size", "<i8")])


class RecordFile(Protocol):
    """A file with many images."""

    @property
    def name(self) -> str:
        """Path or URL of it."""

    def read(self, at: int, size: int) -> bytes:
        """Returns the encoded image at a place.

        Raises:
            InputError: the file cannot be read, or has changed.
        """


@dataclass(frozen=True)
class Record:
    """An encoded image within a file.

    Attributes:
        name: of it: that of the file, and its key or number behind a mark.
        content: its bytes; None where `file` has them.
        file: where it is.
        at: its place there.
        size: likewise.
    """

    name: str
    content: bytes | None = None
    file: RecordFile | None = None
    at: int = 0
    size: int = 0

    def __str__(self) -> str:
        return self.name

    def read(self) -> bytes:
        """Returns its bytes.

        Raises:
            InputError: the file cannot be read, or has changed.
        """
        if self.content is None and self.file is not None:
            return self.file.read(self.at, self.size)
        return self.content or b""


Encoded = str | Record  # the path of an image file, or an image within a file


class Records(Sequence[Record]):
    """Images at N places, made into a `Record` when one is asked for."""

    def __init__(self, places: np.ndarray, files: Sequence[RecordFile]) -> None:
        self._places, self._files = places, files

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> "Records": ...
    def __getitem__(self, index: int | slice) -> "Record | Records":
        if isinstance(index, slice):
            return Records(self._places[index], self._files)
        number, row, at, size = self._places[index].tolist()
        file = self._files[number]
        return Record(f"{file.name}#{row}", None, file, at, size)

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))
