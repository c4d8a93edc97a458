"""WebDataset's tar files: a picture and a `.cls` with its label, alike in name.

https://github.com/webdataset/webdataset has the convention: a sample is what stands beside each
other with the same name up to its first dot.
"""

import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from transfer.datasets.formats.image_folder import IMAGE_SUFFIXES
from transfer.datasets.formats.record_format import ByteRanges, Found, RecordFormat
from transfer.errors import InputError, shortened
from transfer.storage.remote import open_stored

_LABEL = ".cls"
_MOST_LABEL_BYTES = 1000
_BLOCK = 512
_PACKED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


@dataclass
class _Sample:
    key: str
    image: tarfile.TarInfo | None = None
    content: bytes | None = None
    label: int | str | None = None


def scan_tar(name: str, contents: bool, left_out: Counter[str]) -> Iterator[Found]:
    """Yields the pictures of a tar file in order; see `RecordFormat`.

    Raises:
        InputError: it is compressed, damaged or cut off, or a label is none.
    """
    with open_stored(name) as file:
        _refuse_packed(name, file)
        sample = _Sample("")
        for member in _members(name, file):
            key, suffix = _split_name(member.name)
            if key != sample.key:
                yield from _finish(sample)
                sample = _Sample(key)
            if suffix in IMAGE_SUFFIXES and sample.image is None:
                sample.image = member
                sample.content = _read(file, member) if contents else None
            elif suffix == _LABEL:
                sample.label = _parse_label(name, file, member)
            else:
                left_out[f"{suffix} files" if suffix else "files without a suffix"] += 1
        yield from _finish(sample)


def _finish(sample: _Sample) -> Iterator[Found]:
    if sample.image:
        place = sample.image.offset_data, sample.image.size
        yield Found(*place, sample.label, f"/{sample.image.name}", sample.content)


def _members(name: str, file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    # The regular files; the reader's own list of them would grow without end.
    try:
        archive = tarfile.open(fileobj=file, mode="r:")
        while member := archive.next():
            archive.members.clear()  # type: ignore[attr-defined]
            if member.isreg() and not member.issparse():
                yield member
        file.seek(archive.offset)
        end = file.read(_BLOCK)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
        raise InputError(f"{name} should be a tar file. Received: {error}.") from error
    # Whoever reads a tar takes a damaged header for its end.
    if end != bytes(_BLOCK):
        raise InputError(
            f"{name} should end with empty blocks, as tar files do. Received: "
            f"{'its end' if not end else 'something else'} at byte {archive.offset:,}; it is cut "
            "off or damaged."
        )


def _split_name(path: str) -> tuple[str, str]:
    folder, file = os.path.split(path)
    stem, dot, suffix = file.partition(".")
    return f"{folder}/{stem}", (dot + suffix).lower()


def _read(file: IO[bytes], member: tarfile.TarInfo) -> bytes:
    file.seek(member.offset_data)
    return file.read(member.size)


def _parse_label(name: str, file: IO[bytes], member: tarfile.TarInfo) -> int | str:
    if 0 < member.size <= _MOST_LABEL_BYTES:
        text = _read(file, member).decode("utf-8", "surrogateescape").strip()
        if text:
            return int(text) if text.isascii() and text.isdecimal() else text
    raise InputError(
        f"{name}, {shortened(member.name)} should be a whole number or the name of a class. "
        f"Received: {member.size:,} bytes."
    )


def _refuse_packed(name: str, file: IO[bytes]) -> None:
    start = file.read(2)
    file.seek(0)
    if start in _PACKED:
        raise InputError(
            f"{name} should not be compressed: images are read by their place in it. Received: "
            f"{_PACKED[start]}; the pictures in it are compressed already."
        )


FORMAT = RecordFormat("WebDataset tar", scan_tar, ByteRanges)
