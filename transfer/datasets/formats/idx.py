"""The four IDX files of MNIST and its kin, plain, .gz or .xz, whatever they are called.

`train-images-idx3-ubyte` and `train-images.idx3-ubyte`, EMNIST's `emnist-letters-train-...`, and
the `raw` folder that torchvision makes.
"""

import gzip
import hashlib
import io
import lzma
import math
import os
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from transfer.data.fashion_mnist import CLASS_NAMES, FASHION_MNIST, FASHION_MNIST_SHA256
from transfer.data.splits import Loaded, PassedOver, Split
from transfer.datasets.formats import emnist
from transfer.datasets.formats.arrays import Part, make_loaded
from transfer.datasets.formats.checks import MissingFileError, check_room, regular_size
from transfer.datasets.formats.listing import list_tree
from transfer.datasets.formats.part_names import TEST, TRAIN
from transfer.errors import InputError

# --- IDX ------------------------------------------------------------------------------------

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
_SUFFIXES = ("", *_OPENERS)
_NAME = re.compile(
    r"(?P<prefix>(?:.*[-_.])?)(?P<part>train|t10k|test)[-_.](?P<kind>images|labels)"
    r"[-_.]idx[13][-_.]ubyte(?P<suffix>\.gz|\.xz)?",
    re.IGNORECASE,
)
_NAMES = dict(
    zip(
        [(part, kind) for part in (TRAIN, TEST) for kind in ("images", "labels")],
        FASHION_MNIST_SHA256,
        strict=True,
    )
)
_RAW = "raw"  # where torchvision keeps them


class _IdxFile(NamedTuple):
    path: Path
    prefix: str  # "" or "emnist-letters-"
    part: str
    kind: str  # "images" or "labels"


def holds_idx(path: Path) -> bool:
    """Returns whether a path is an IDX file, or a folder with some, perhaps in its `raw`."""
    if path.is_dir():
        return _find_folder(path) is not None
    return _parse_name(path) is not None


def load_idx(path: Path) -> Loaded:
    """Reads the IDX files of a folder, or those that go with one file, plain, .gz or .xz.

    Returns:
        The published Fashion-MNIST where all checksums match, else a data set of its own.

    Raises:
        InputError: a file is missing (`MissingFileError`) or damaged, or there are several sets.
    """
    folder = (_find_folder(path) or path) if path.is_dir() else path.parent
    wished = None if path.is_dir() else _parse_name(path)
    files = _choose_files(folder, wished.prefix if wished else None)
    contents = {name: read_bytes(file.path) for name, file in files.items()}
    parts = {}
    for part in (TRAIN, TEST):
        if (part, "images") in files:
            names = [str(files[part, kind].path) for kind in ("images", "labels")]
            arrays = [
                _to_array(contents[part, kind], name)
                for kind, name in zip(("images", "labels"), names, strict=True)
            ]
            parts[part] = Part(arrays[0], arrays[1], names[0], names[1])
    used = [file.path for file in files.values()]
    split = emnist.split_name(used[0].name)
    if split is None:
        return _describe(path, parts, contents, _list_others(path, used))
    mapping = emnist.find_mapping(folder, split)
    used += [mapping] if mapping else []
    parts = emnist.stand_upright(parts)
    loaded = _describe(path, parts, contents, _list_others(path, used), [emnist.UPRIGHT])
    return emnist.name_classes(loaded, mapping)


def _describe(
    path: Path,
    parts: dict[str, Part],
    contents: dict[tuple[str, str], bytes],
    passed_over: tuple[PassedOver, ...],
    notes: Sequence[str] = (),
) -> Loaded:
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    published = list(FASHION_MNIST_SHA256.values())
    if list(digests.values()) == published:
        return make_loaded(
            parts,
            str(path),
            "checksums verified",
            class_names=CLASS_NAMES,
            name=FASHION_MNIST,
            passed_over=passed_over,
        )
    other = [_NAMES[name] for name, digest in digests.items() if digest not in published]
    checked = f"not the published Fashion-MNIST: another SHA-256 for {', '.join(other)}"
    return make_loaded(parts, str(path), checked, notes=notes, passed_over=passed_over)


def differing_files(digests: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Returns the names whose SHA-256 is not the expected one."""
    return [stem for stem, digest in digests.items() if digest != expected[stem]]


def read_idx_folder(folder: Path) -> tuple[Split, Split, dict[str, str]]:
    """Returns training and test images, and the SHA-256 of each file's content decompressed.

    The four files have the names that were published, and no others are looked for.
    """
    arrays, digests = {}, {}
    for stem in FASHION_MNIST_SHA256:
        path = find_idx_file(folder, stem)
        content = read_bytes(path)
        digests[stem] = hashlib.sha256(content).hexdigest()
        arrays[stem] = _to_array(content, str(path))
    train, test = (
        Split(
            arrays[f"{part}-images-idx3-ubyte"][..., np.newaxis],
            arrays[f"{part}-labels-idx1-ubyte"].astype(np.int64),
        )
        for part in ("train", "t10k")
    )
    return train, test, digests


def find_idx_file(folder: Path, stem: str) -> Path:
    """Returns the file of this name, plain, .gz or .xz.

    Raises:
        MissingFileError: there is none.
    """
    paths = [folder / f"{stem}{suffix}" for suffix in _SUFFIXES]
    for path in paths:
        if os.path.exists(path):  # False, too, where forbidden
            return path
    raise MissingFileError(f"{folder} should hold {stem} or {stem}.gz. Received: no such file.")


def _parse_name(path: Path) -> _IdxFile | None:
    found = _NAME.fullmatch(path.name)
    if found is None:
        return None
    part = TRAIN if found["part"].lower() == TRAIN else TEST
    return _IdxFile(path, found["prefix"], part, found["kind"].lower())


def _find_folder(folder: Path) -> Path | None:
    # The folder itself, its raw, or the raw of its only sub-folder that has one.
    if _list_idx(folder):
        return folder
    raws = [path for path in (folder / _RAW, *sorted(folder.glob(f"*/{_RAW}"))) if _list_idx(path)]
    return raws[0] if raws and (len(raws) == 1 or raws[0] == folder / _RAW) else None


def _list_idx(folder: Path) -> list[_IdxFile]:
    try:
        entries = sorted(folder.iterdir())
        # Kaggle unpacks a file into a folder of its name.
        inner = [path for path in entries if path.is_dir() and _parse_name(path)]
        entries += [path for one in inner for path in sorted(one.iterdir())]
    except OSError:
        return []
    paths = [path for path in entries if not path.is_dir()]
    # Plain files go before packed ones.
    paths.sort(key=lambda path: path.suffix in _OPENERS)
    return [found for path in paths if (found := _parse_name(path))]


def _choose_files(folder: Path, prefix: str | None) -> dict[tuple[str, str], _IdxFile]:
    found = _list_idx(folder)
    prefixes = sorted({file.prefix for file in found})
    if prefix is None and len(prefixes) > 1:
        raise InputError(
            f"{folder} should hold one data set of IDX files. Received: several, which begin with "
            f"{', '.join(map(repr, prefixes[:10]))}; name a file of the one to take: --data "
            f"{found[0].path}."
        )
    prefix = prefixes[0] if prefix is None else prefix
    files: dict[tuple[str, str], _IdxFile] = {}
    for part in (TRAIN, TEST):
        for kind in ("images", "labels"):
            matching = [x for x in found if (x.prefix, x.part, x.kind) == (prefix, part, kind)]
            if matching:
                files[part, kind] = matching[0]
    for part, kind in _missing(files):
        name = f"{prefix}{_NAMES[part, kind]}"
        raise MissingFileError(f"{folder} should hold {name} or {name}.gz. Received: no such file.")
    return files


def _missing(files: dict[tuple[str, str], _IdxFile]) -> list[tuple[str, str]]:
    # Both files of a test may be missing, no other.
    parts = {TRAIN, *(part for part, _ in files)}
    wanted = [
        (part, kind) for part in (TRAIN, TEST) if part in parts for kind in ("images", "labels")
    ]
    return [name for name in wanted if name not in files]


def _list_others(path: Path, used: list[Path]) -> tuple[PassedOver, ...]:
    if not path.is_dir():
        return ()
    tree = list_tree(path)
    names = {str(file) for file in used}
    return tuple(
        PassedOver(os.path.relpath(file, path), _reason_of_other(file))
        for file in tree.all_files()
        if file not in names
    )


def _reason_of_other(path: str) -> str:
    return "other IDX files" if _parse_name(Path(path)) else "other files"


def _to_array(content: bytes, name: str) -> np.ndarray:
    path = Path(name)
    shape = _read_idx_header(io.BytesIO(content), path)
    return np.frombuffer(content, np.uint8, offset=_idx_header_bytes(path)).reshape(shape)


def read_bytes(path: Path) -> bytes:
    """Reads an IDX file whole, decompressing .gz and .xz, and no further than its header promises.

    Returns:
        The header and as many bytes after it as its shape needs.

    Raises:
        InputError: it cannot be read, its compression is damaged, or its header is not that of
            an IDX file or not of so many bytes.
    """
    opener = _OPENERS.get(path.suffix.lower())
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
    return 3 if "idx3" in path.name.lower() else 1


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
