"""Parquet files with a column of encoded images and one of labels, as Hugging Face's hub has them.

Images are `bytes`, or a struct with a field `bytes`. A file can be read a row group at a time and
no less: the last ones are kept, so that images in order cost no more than the file.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transfer.datasets.formats.record_format import Found, RecordFormat
from transfer.errors import InputError
from transfer.storage.remote import NEEDS, open_stored, with_open

_IMAGE_NAMES = ("image", "img", "image_bytes", "image/encoded", "jpg", "png", "bytes", "content")
_LABEL_NAMES = ("label", "labels", "class", "cls", "target", "y", "fine_label", "image/class/label")
_AT_A_TIME = 256  # rows
_MOST_GROUP_BYTES = 2 << 30
_GROUPS_KEPT = 2  # of each open file


def scan_parquet(name: str, contents: bool, left_out: Counter[str]) -> Iterator[Found]:
    """Yields the images of a Parquet file in order; see `RecordFormat`.

    Raises:
        InputError: pyarrow is missing, the file is damaged, or has no column of images.
    """
    opened = _open(name)
    image, label = opened.image, opened.label
    wanted = [*([image.path] if contents else []), *([label] if label else [])]
    for group in range(opened.file.num_row_groups):
        opened.check_size(group)
        if not wanted:
            rows = opened.file.metadata.row_group(group).num_rows
            yield from (Found(group, row, None) for row in range(rows))
            continue
        row = 0
        for labels, images in _batches(opened, group, wanted):
            for index in range(len(labels or images)):
                value = labels[index] if labels else None
                content = (images[index] or b"") if images else None
                yield Found(group, row, value, content=content)
                row += 1


@dataclass(frozen=True)
class _ImageColumn:
    name: str
    path: str  # of the bytes: "image.bytes" of a struct

    def take(self, table: Any) -> Any:
        """Returns the bytes of a table or batch, as an array of pyarrow's."""
        column = table.column(self.name)
        if self.path == self.name:
            return column
        import pyarrow.compute

        return pyarrow.compute.struct_field(column, "bytes")


class _Opened:
    """An open Parquet file, and the row groups of it that were read last."""

    def __init__(self, name: str) -> None:
        parquet = _import()
        with _one_line(name):
            self.file = parquet.ParquetFile(open_stored(name))
            schema = self.file.schema_arrow
        self.name = name
        self.image = _find_image(name, schema)
        self.label = _find_label(name, schema)
        self.metadata = schema.metadata or {}
        self._groups: dict[int, Any] = {}

    def check_size(self, group: int) -> None:
        """Refuses a row group that would fill the memory."""
        # Not of each column: pyarrow ends the process where what is said of one is damaged.
        num_bytes = self.file.metadata.row_group(group).total_byte_size
        if num_bytes > _MOST_GROUP_BYTES:
            raise InputError(
                f"{self.name}, row group {group} should have at most {_MOST_GROUP_BYTES >> 30} GB, "
                f"as it is read whole. Received: {num_bytes / 1e9:.1f} GB; write it with fewer "
                "rows in a group (row_group_size)."
            )

    def read(self, group: int, row: int) -> bytes:
        """Returns the image of a row."""
        if group not in self._groups:
            while len(self._groups) >= _GROUPS_KEPT:
                del self._groups[next(iter(self._groups))]
            with _one_line(self.name):
                table = self.file.read_row_group(group, columns=[self.image.path])
            self._groups[group] = self.image.take(table)
        return bytes(self._groups[group][row].as_py() or b"")


def _open(name: str) -> _Opened:
    return _Opened(name)


@dataclass(frozen=True)
class ParquetRows:
    """A Parquet file in which an image has a row group and a row in it."""

    name: str

    def read(self, at: int, size: int) -> bytes:
        """Returns the image of row `size` of row group `at`."""
        return with_open(self.name, lambda opened: opened.read(at, size), _open)


def read_class_names(name: str) -> tuple[str, ...] | None:
    """Returns the names of labels 0, 1, 2, ... that `datasets` of Hugging Face keeps in a file."""
    opened = with_open(name, lambda opened: opened, _open)
    try:
        info = json.loads(opened.metadata[b"huggingface"])
        names = info["info"]["features"][opened.label]["names"]
        return tuple(names) if all(isinstance(one, str) for one in names) else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _batches(opened: _Opened, group: int, wanted: list[str]) -> Iterator[tuple[list, list]]:
    # Labels and images of some rows at a time; an empty list of what is not wanted.
    with _one_line(opened.name):
        batches = opened.file.iter_batches(_AT_A_TIME, [group], wanted)
        for batch in batches:
            labels = batch.column(opened.label).to_pylist() if opened.label else []
            has_images = opened.image.path in wanted
            yield labels, opened.image.take(batch).to_pylist() if has_images else []


def _find_image(name: str, schema: Any) -> _ImageColumn:
    found = {}
    for column in schema:
        if _is_binary(column.type):
            found[column.name] = _ImageColumn(column.name, column.name)
        elif _has_bytes(column.type):
            found[column.name] = _ImageColumn(column.name, f"{column.name}.bytes")
    named = [one for one in _IMAGE_NAMES if one in found]
    if named or len(found) == 1:
        return found[named[0] if named else next(iter(found))]
    raise InputError(
        f"{name} should have one column of encoded images, bytes or a struct with bytes, called "
        f"image. Received: {_describe(schema)}."
    )


def _find_label(name: str, schema: Any) -> str | None:
    import pyarrow.types as types

    named = [one for one in _LABEL_NAMES if one in schema.names]
    if not named:
        return None
    kind = schema.field(named[0]).type
    if types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind):
        return named[0]
    raise InputError(
        f"{name}, column {named[0]} should hold whole numbers or texts. Received: {kind}."
    )


def _is_binary(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_binary(kind) or types.is_large_binary(kind)


def _has_bytes(kind: Any) -> bool:
    import pyarrow.types as types

    if not types.is_struct(kind):
        return False
    return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)


def _describe(schema: Any) -> str:
    columns = [f"{column.name} ({column.type})" for column in schema]
    return ", ".join(columns[:8]) + (", ..." if len(columns) > 8 else "")


def _import() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(f"Parquet needs pyarrow; run `{NEEDS}`.") from error
    return pyarrow.parquet


@contextlib.contextmanager
def _one_line(name: str) -> Iterator[None]:
    # pyarrow raises errors of many kinds for a file that is damaged.
    try:
        yield
    except (InputError, FileNotFoundError):
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{name} is damaged or no Parquet file: {reason[:200]}.") from error


FORMAT = RecordFormat("Parquet", scan_parquet, ParquetRows, read_class_names)
