"""Arrays in an .npz file."""

import lzma
import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from transfer.data.splits import Loaded, PassedOver
from transfer.datasets.formats.arrays import Part, make_loaded
from transfer.datasets.formats.checks import check_printable, check_room, regular_size
from transfer.datasets.formats.part_names import TEST, TRAIN, VALIDATION
from transfer.errors import InputError
from transfer.storage.atomic import whole_file

# --- NPZ ------------------------------------------------------------------------------------

_CLASS_NAMES = "class_names"
# Keras's names first; MedMNIST's last.
_KEYS = {
    TRAIN: (("x_train", "y_train"), ("train_images", "train_labels")),
    VALIDATION: (
        *((f"x_{name}", f"y_{name}") for name in ("validation", "valid", "val", "dev")),
        ("val_images", "val_labels"),
    ),
    TEST: (("x_test", "y_test"), ("test_images", "test_labels")),
}
_ZIP_END = struct.Struct("<10xH10x")  # the end of the list of members: how many there are
_MOST_MEMBERS = 1000
_MOST_NAME_LENGTH = 255
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# What zipfile, its decompressors and numpy's header parser raise for damaged bytes.
_NPZ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    tokenize.TokenError,
    struct.error,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    EOFError,
    RuntimeError,  # encrypted; NotImplementedError: an unknown compression
    MemoryError,
)


def load_npz(path: Path) -> Loaded:
    """Reads images and labels of train, validation and test from an .npz file.

    Arrays are called x_train and y_train, or as in `_KEYS`; class_names may name the labels.

    Raises:
        InputError: an array is missing, damaged, pickled, of a wrong shape or out of range.
    """
    keys = [key for of_part in _KEYS.values() for pair in of_part for key in pair]
    arrays, others = read_present(path, [*keys, _CLASS_NAMES])
    passed_over = tuple(PassedOver(name, "other arrays") for name in others)
    return from_arrays(arrays, f"{path}, ", str(path), "no published checksum", passed_over)


def from_arrays(
    arrays: Mapping[str, np.ndarray],
    where: str,
    location: str,
    checked: str,
    passed_over: Sequence[PassedOver] = (),
) -> Loaded:
    """Checks arrays of images and labels and returns them as a data set.

    Args:
        arrays: x_train (N, H, W), (N, H, W, 1) or (N, H, W, 3), bytes, bits, 16-bit numbers or
            floats in [0, 1] or [0, 255]; y_train as `read_labels` takes labels; if there is a test
            part x_test and y_test, likewise of a validation part; class_names, where there are
            any. Others are passed over.
        where: what stands before an array's name in errors.
        location: what the data set says of its place.
        checked: a few words for the provenance line.
        passed_over: whatever is there besides.

    Raises:
        InputError: an array is missing, of a wrong shape or out of range.
    """
    parts, used = {}, [_CLASS_NAMES]
    for part, spellings in _KEYS.items():
        if pair := _choose_keys(arrays, part, spellings, where):
            images, labels = pair
            used += pair
            parts[part] = Part(
                arrays[images], arrays[labels], f"{where}{images}", f"{where}{labels}"
            )
    class_names = None
    if _CLASS_NAMES in arrays:
        most = max(len(parts[TRAIN].labels), 1) if parts[TRAIN].labels.ndim else 1
        class_names = _to_class_names(arrays[_CLASS_NAMES], most, f"{where}class_names")
    others = [PassedOver(name, "other arrays") for name in arrays if name not in used]
    return make_loaded(
        parts, location, checked, class_names=class_names, passed_over=[*passed_over, *others]
    )


def _choose_keys(
    arrays: Mapping[str, np.ndarray], part: str, spellings: Sequence[tuple[str, str]], where: str
) -> tuple[str, str] | None:
    # Returns the names of a part's images and labels, None where there is no such part.
    present = [pair for pair in spellings if any(key in arrays for key in pair)]
    if not present and part != TRAIN:
        return None
    if len(present) > 1:
        told = ", ".join(key for pair in present for key in pair if key in arrays)
        raise InputError(f"{where}should hold one {part} part. Received: {told}.")
    pair = present[0] if present else spellings[0]
    if absent := [key for key in pair if key not in arrays]:
        expected = "x_train, y_train, x_test, y_test"
        raise InputError(f"{where}should hold {expected}. Received: no {', '.join(absent)}.")
    return pair


def write_arrays(path: Path, loaded: Loaded) -> None:
    """Writes a data set of arrays as an .npz file that `load_npz` reads, whole or not at all.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    arrays: dict[str, Any] = {"class_names": np.array(loaded.class_names)}
    for part, split in loaded.parts().items():
        arrays |= {f"x_{part}": split.images, f"y_{part}": split.labels}
    with whole_file(path) as file:
        np.savez(file, **arrays)


def read_arrays(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Reads arrays from an .npz file; never a pickle. Other members are never decompressed.

    Args:
        path: the file.
        required: names of arrays that must be there.
        optional: names of arrays that are read where they are there.

    Raises:
        InputError: an array is missing, damaged or pickled, or would not fit into memory.
    """
    arrays, _ = read_present(path, (*required, *optional), required)
    return arrays


def read_present(
    path: Path, wanted: Sequence[str], required: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns those of the wanted arrays that an .npz file has, and the names of its others.

    Arguments and errors as `read_arrays`.
    """
    # Not np.load: it does not read a member to its end, where the zip file's checksum is compared.
    arrays = {}
    key = "the archive"
    try:
        file_bytes = regular_size(path)
        with (
            open(path, "rb") as file,
            zipfile.ZipFile(file) as archive,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # numpy's remarks on headers from Python 2
            members = _list_members(archive, file)
            if absent := [key for key in required if key not in members]:
                raise InputError(
                    f"{path} should hold {', '.join(required)}. Received: no {', '.join(absent)}."
                )
            keys = [key for key in wanted if key in members]
            check_room(sum(members[key].file_size for key in keys), file_bytes, path)
            for key in keys:
                arrays[key] = _read_array(archive, members[key])
    except _NPZ_ERRORS as error:
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(
            f"{path}, {key}: should be a whole .npz of plain arrays. Received: {reason[:200]}."
        ) from error
    return arrays, [name for name in members if name not in wanted]


def _list_members(archive: zipfile.ZipFile, file: IO[bytes]) -> dict[str, zipfile.ZipInfo]:
    # Returns the members by the names of their arrays. That none is lost or has another name
    # is compared here: zipfile does neither for members that are not read.
    members: dict[str, zipfile.ZipInfo] = {}
    file.seek(-_ZIP_END.size - len(archive.comment), os.SEEK_END)
    (count,) = _ZIP_END.unpack(file.read(_ZIP_END.size))
    if count not in (len(archive.infolist()), 0xFFFF):  # ZIP64 may tell it elsewhere
        raise ValueError(f"{len(archive.infolist())} members instead of {count}")
    for member in archive.infolist():
        key = member.filename.removesuffix(".npy")
        if key in members or len(members) == _MOST_MEMBERS:
            raise ValueError(f"{key!r} twice" if key in members else "thousands of members")
        archive.open(member.filename).close()
        members[key] = member
    return members


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("a compression that NumPy does not write")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _NPY_HEADERS:
            raise ValueError(f"version {version} of NumPy's format, not that of plain arrays")
        shape, _, dtype = _NPY_HEADERS[version](file)
        promised, found = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
    if not dtype.hasobject and (promised != found or not dtype.itemsize):
        than = "more" if found > promised else "fewer"
        raise ValueError(f"{than} bytes than the array's shape {shape} needs, {found:,}")
    with archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        file.read(1)  # nothing, but only at its end the member's checksum is compared
    return array


def _to_class_names(names: np.ndarray, most: int, where: str) -> tuple[str, ...]:
    if (
        names.dtype.kind != "U"
        or names.ndim != 1
        or names.size > most  # a bomb: a class needs an image
        or names.dtype.itemsize > 4 * _MOST_NAME_LENGTH
    ):
        raise InputError(
            f"{where} should hold texts (N,), at most one for each image and of at most "
            f"{_MOST_NAME_LENGTH} characters. Received: {names.dtype} {names.shape}."
        )
    class_names = tuple(str(name) for name in names)
    if len(set(class_names)) != len(class_names):
        raise InputError(f"{where} should be all different. Received: one of them twice.")
    check_printable(class_names, where)
    return class_names
