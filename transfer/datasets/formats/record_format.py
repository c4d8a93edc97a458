"""What each format of records says of an image, and the functions that read it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from transfer.data.records import RecordFile
from transfer.storage.remote import read_span


class Found(NamedTuple):
    """An encoded image in a file.

    Attributes:
        at: its place, as the file's `read` takes it.
        size: likewise.
        label: a whole number or a text; None where it has none.
        key: what it is called in the file, "/" in front; "" for its number.
        content: its bytes; None where they were not asked for.
    """

    at: int
    size: int
    label: int | str | None
    key: str = ""
    content: bytes | None = None


@dataclass(frozen=True)
class RecordFormat:
    """A format of files of encoded images.

    Attributes:
        name: in words.
        scan: from a path or URL, whether the bytes are wanted, and what counts whatever else is
            there, to an iterator of `Found`; in order, in bounded memory.
        open: from a path or URL to what reads an image again by its place.
        class_names: those that the file has for labels 0, 1, 2, ...; None where it has none.
    """

    name: str
    scan: Callable[[str, bool, Counter[str]], Iterator[Found]]
    open: Callable[[str], RecordFile]
    class_names: Callable[[str], tuple[str, ...] | None] = lambda name: None


@dataclass(frozen=True)
class ByteRanges:
    """A file in which an image is so many bytes from a byte on."""

    name: str

    def read(self, at: int, size: int) -> bytes:
        """Returns these bytes; see `read_span`."""
        return read_span(self.name, at, size)
