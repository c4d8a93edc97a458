"""The four IDX files of MNIST and its kin, plain, .gz or .xz."""

import gzip
import hashlib
import io
import lzma
import math
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from transfer.data.fashion_mnist import CLASS_NAMES, FASHION_MNIST, FASHION_MNIST_SHA256
from transfer.data.formats.checks import (
    MissingFileError,
    check_room,
    check_same_shape,
    make_split,
    number_classes,
    regular_size,
)
from transfer.data.splits import Loaded, Split
from transfer.errors import InputError

# --- IDX ------------------------------------------------------------------------------------

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


def holds_idx(path: Path) -> bool:
    """Returns whether a folder holds one of the four IDX files."""
    return path.is_dir() and any(_idx_candidates(path, stem) for stem in FASHION_MNIST_SHA256)


def load_idx(folder: Path) -> Loaded:
    """Reads the four IDX files of a folder, plain, .gz or .xz.

    Returns:
        The published Fashion-MNIST where all checksums match, else a data set of its own.

    Raises:
        InputError: a file is missing (`MissingFileError`) or damaged.
    """
    train, test, digests = read_idx_folder(folder)
    different = differing_files(digests, FASHION_MNIST_SHA256)
    if not different:
        checked = "checksums verified"
        return Loaded(train, test, CLASS_NAMES, str(folder), checked, name=FASHION_MNIST)
    class_names = number_classes(train, test, str(folder))
    checked = f"not the published Fashion-MNIST: another SHA-256 for {', '.join(different)}"
    return Loaded(train, test, class_names, str(folder), checked)


def differing_files(digests: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Returns the names whose SHA-256 is not the expected one."""
    return [stem for stem, digest in digests.items() if digest != expected[stem]]


def read_idx_folder(folder: Path) -> tuple[Split, Split, dict[str, str]]:
    """Returns training and test images, and the SHA-256 of each file's content decompressed."""
    arrays, digests = {}, {}
    for stem in FASHION_MNIST_SHA256:
        path = find_idx_file(folder, stem)
        content = read_bytes(path)
        digests[stem] = hashlib.sha256(content).hexdigest()
        shape = _read_idx_header(io.BytesIO(content), path)
        pixels = np.frombuffer(content, np.uint8, offset=_idx_header_bytes(path))
        arrays[stem] = pixels.reshape(shape)
    train, test = (
        make_split(
            arrays[f"{part}-images-idx3-ubyte"],
            arrays[f"{part}-labels-idx1-ubyte"],
            f"{folder}, {part}-* files",
        )
        for part in ("train", "t10k")
    )
    check_same_shape(train, test, str(folder))
    return train, test, digests


def _idx_candidates(folder: Path, stem: str) -> list[Path]:
    paths = [folder / f"{stem}{suffix}" for suffix in ("", ".gz", ".xz")]
    return [path for path in paths if os.path.exists(path)]  # False, too, where forbidden


def find_idx_file(folder: Path, stem: str) -> Path:
    """Returns the file of this name, plain, .gz or .xz.

    Raises:
        MissingFileError: there is none.
    """
    if found := _idx_candidates(folder, stem):
        return found[0]
    raise MissingFileError(f"{folder} should hold {stem} or {stem}.gz. Received: no such file.")


def read_bytes(path: Path) -> bytes:
    """Reads an IDX file whole, decompressing .gz and .xz, and no further than its header promises.

    Returns:
        The header and as many bytes after it as its shape needs.

    Raises:
        InputError: it cannot be read, its compression is damaged, or its header is not that of
            an IDX file or not of so many bytes.
    """
    opener = _OPENERS.get(path.suffix)
    try:
        file_bytes = regular_size(path)
        with open(path, "rb") as file:
            if opener is None:
                return _read_promised(file, file_bytes, False, path)
            try:
                with opener(file) as unpacked:
                    return _read_promised(unpacked, file_bytes, True, path)
            except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
                raise InputError(
                    f"{path} should be a whole {path.suffix} file. Received: {error} "
                    f"(in its first {file.tell():,} bytes); fetch it again."
                ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read_promised(file: IO[bytes], file_bytes: int, is_packed: bool, path: Path) -> bytes:
    header_bytes = _idx_header_bytes(path)
    shape = _read_idx_header(file, path)
    promised = math.prod(shape)
    found = file_bytes - header_bytes
    if is_packed or found == promised:
        check_room(promised, file_bytes, path)
        file.seek(0)
        content = file.read(header_bytes + promised + 1)  # one more, to see the end and checksum
        found = len(content) - header_bytes
        if found == promised:
            return content
    more = " or more" if is_packed and found > promised else ""
    raise InputError(
        f"{path} should have {promised:,} bytes after its header, for the shape {shape}. "
        f"Received: {found:,}{more}; fetch it again."
    )


def _idx_header_bytes(path: Path) -> int:
    return 4 + 4 * _idx_dimensions(path)


def _idx_dimensions(path: Path) -> int:
    return 3 if "idx3" in path.name else 1


def _read_idx_header(file: IO[bytes], path: Path) -> tuple[int, ...]:
    # Returns the shape. The format is described at the foot of http://yann.lecun.com/exdb/mnist/.
    num_dimensions = _idx_dimensions(path)
    header = file.read(_idx_header_bytes(path))
    if len(header) < _idx_header_bytes(path):
        raise InputError(
            f"{path} should begin with {_idx_header_bytes(path)} bytes of header. "
            f"Received: {len(header)} bytes in all; fetch it again."
        )
    magic, *shape = struct.unpack(f">{num_dimensions + 1}I", header)
    if magic != 0x0800 + num_dimensions:
        raise InputError(
            f"{path} should begin with the magic number 0x{0x0800 + num_dimensions:08x} (unsigned "
            f"bytes in {num_dimensions} dimensions). Received: 0x{magic:08x}."
        )
    return tuple(shape)
