"""What says that images are the same ones: a SHA-256 of their content, never of their names.

A run keeps the fingerprint of each part, so that a resumed run, a report and an evaluation years
later know whether they see the images that were trained on. Image files that were moved or renamed
without changing their order stay the same images; other pixels under the same names do not.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from transfer.data.records import Encoded, Record
from transfer.data.splits import Split
from transfer.data.streamed import StreamedImages
from transfer.errors import InputError
from transfer.storage.untrusted import open_regular

# Begins the fingerprint of image files; those of runs before 0.2.0 have no such mark.
CONTENT = "content-2:"
OUTDATED = (
    "the run is of version 0.1.0, which kept names and sizes of its image files: whether their "
    "pixels have changed since cannot be told."
)
_BATCH = 256  # files a thread takes at a time


def fingerprint(split: Split, like: str = "") -> str:
    """Returns the SHA-256 of a split's images and labels, in order.

    Of arrays it covers shape, pixels and labels: 64 hexadecimal digits. Of image files it covers,
    for each, the label and every byte of the content; `CONTENT` stands before the digits. To hash
    a photo costs a fiftieth of decoding it, which comes after and finds the file in memory. A file
    that cannot be read counts as such. Of images that are decoded anew whenever they are asked for
    it covers those files, and how they are decoded.

    Args:
        split: image files, not decoded, or an array.
        like: a fingerprint that a run kept, to compare this one with; where it is of names and
            sizes, so is this one.
    """
    if split.are_files and is_outdated(split, like):
        return _fingerprint_names(split)
    digest = hashlib.sha256()
    if split.are_files:
        for content, label in zip(_digest_files(split.encoded), split.labels, strict=True):
            digest.update(content + int(label).to_bytes(8, "little"))
        return CONTENT + digest.hexdigest()
    digest.update(f"{split.images.shape}\n".encode())
    if isinstance(split.images, StreamedImages):
        digest.update(f"{split.images.identify()}\n".encode())
        return digest.hexdigest()
    for start in range(0, split.num_images, 4096):  # a memory-mapped array stays on the disk
        digest.update(np.ascontiguousarray(split.images[start : start + 4096], np.uint8).data)
    digest.update(np.ascontiguousarray(split.labels, "<i8").data)
    return digest.hexdigest()


def is_outdated(split: Split, kept: str) -> bool:
    """Returns whether a kept fingerprint is of the names and sizes of files, as 0.1.0 had it."""
    return split.are_files and bool(kept) and not kept.startswith(CONTENT)


def _fingerprint_names(split: Split) -> str:
    # What 0.1.0 kept of image files: path from the root, size and label.
    digest = hashlib.sha256()
    for path, label in zip(map(str, split.encoded), split.labels, strict=True):
        name = Path(os.path.relpath(path, split.root)).as_posix()
        size = os.path.getsize(path) if os.path.exists(path) else -1
        digest.update(f"{name}\0{size}\0{label}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _digest_files(paths: Sequence[Encoded]) -> Iterator[bytes]:
    def digest(start: int) -> list[bytes]:
        return [_digest_file(path) for path in paths[start : start + _BATCH]]

    workers = min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:  # most of it is waiting
        ahead = _BATCH * workers * 4  # digests of all images at once would take gigabytes
        for first in range(0, len(paths), ahead):
            for digests in pool.map(digest, range(first, min(first + ahead, len(paths)), _BATCH)):
                yield from digests


def _digest_file(path: Encoded) -> bytes:
    try:
        if isinstance(path, Record):
            return hashlib.sha256(path.read()).digest()
        with open_regular(Path(path)) as file:  # a pipe might wait for ever
            return hashlib.file_digest(file, "sha256").digest()
    except (OSError, ValueError, InputError):  # ValueError: a null character in the path
        return hashlib.sha256(b"unreadable").digest()
