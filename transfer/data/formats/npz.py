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

from transfer.data.formats.checks import (
    check_as_many,
    check_labels,
    check_printable,
    check_room,
    check_same_shape,
    make_split,
    number_classes,
    regular_size,
)
from transfer.data.splits import Loaded
from transfer.errors import InputError
from transfer.storage.atomic import whole_file

# --- NPZ ------------------------------------------------------------------------------------

_TRAIN_KEYS, _TEST_KEYS = ("x_train", "y_train"), ("x_test", "y_test")
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
    """Reads x_train, y_train, x_test, y_test (and class_names, where present) from an .npz file.

    Without x_test and y_test it has no test part of its own.

    Raises:
        InputError: an array is missing, damaged, pickled, of a wrong shape or out of range.
    """
    arrays = read_arrays(path, _TRAIN_KEYS, optional=(*_TEST_KEYS, "class_names"))
    return from_arrays(arrays, f"{path}, ", str(path), "no published checksum")


def from_arrays(
    arrays: Mapping[str, np.ndarray], where: str, location: str, checked: str
) -> Loaded:
    """Checks arrays of images and labels and returns them as a data set.

    Args:
        arrays: x_train (N, H, W), (N, H, W, 1) or (N, H, W, 3), uint8 or floats in [0, 1] or
            [0, 255]; y_train (N,), whole numbers from 0; if there is a test part x_test and
            y_test; class_names, where there are any.
        where: what stands before an array's name in errors.
        location: what the data set says of its place.
        checked: a few words for the provenance line.

    Raises:
        InputError: an array is missing, of a wrong shape or out of range.
    """
    has_test = any(key in arrays for key in _TEST_KEYS)
    keys = _TRAIN_KEYS + (_TEST_KEYS if has_test else ())
    if absent := [key for key in keys if key not in arrays]:
        expected = ", ".join(_TRAIN_KEYS + _TEST_KEYS)
        raise InputError(f"{where}should hold {expected}. Received: no {', '.join(absent)}.")
    unit_range = _is_unit_range(arrays["x_train"], f"{where}x_train")
    splits = []
    for part in ("train", "test")[: 1 + has_test]:
        place = f"{where}{part} arrays"
        check_as_many(arrays[f"x_{part}"], arrays[f"y_{part}"], place)
        images = _to_uint8(arrays[f"x_{part}"], unit_range, f"{where}x_{part}")
        labels = _to_labels(arrays[f"y_{part}"], f"{where}y_{part}")
        splits.append(make_split(images, labels, place))
    train, test = splits[0], splits[1] if has_test else None
    if test is not None:
        check_same_shape(train, test, location)
    if "class_names" in arrays:
        names = arrays["class_names"]
        class_names = _to_class_names(names, train.num_images, f"{where}class_names")
        check_labels(train, test, class_names, location)
    else:
        class_names = number_classes(train, test, location)
    return Loaded(train, test, class_names, location, checked)


def write_arrays(path: Path, loaded: Loaded) -> None:
    """Writes a data set of arrays as an .npz file that `load_npz` reads, whole or not at all.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    arrays: dict[str, Any] = {"class_names": np.array(loaded.class_names)}
    for part, split in (("train", loaded.train), ("test", loaded.test)):
        if split is not None:
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
            keys = [*required, *(key for key in optional if key in members)]
            check_room(sum(members[key].file_size for key in keys), file_bytes, path)
            for key in keys:
                arrays[key] = _read_array(archive, members[key])
    except _NPZ_ERRORS as error:
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(
            f"{path}, {key}: should be a whole .npz of plain arrays. Received: {reason[:200]}."
        ) from error
    return arrays


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


def _is_unit_range(images: np.ndarray, where: str) -> bool:
    # Floats that never exceed 1 are taken for [0, 1], other numbers for [0, 255].
    if images.dtype.kind not in "uif" or not images.size:
        raise InputError(
            f"{where} should hold uint8 images, or floats in [0, 1] or [0, 255]. "
            f"Received: {images.dtype} {images.shape}."
        )
    with np.errstate(invalid="ignore"):
        low, high = float(images.min()), float(images.max())  # NaN, if there is one
    if not (0 <= low and high <= 255):
        raise InputError(
            f"{where} should be in [0, 1] or [0, 255], without NaN. Received: {low:g} to {high:g}."
        )
    return images.dtype.kind == "f" and high <= 1


def _to_uint8(images: np.ndarray, unit_range: bool, where: str) -> np.ndarray:
    # Returns uint8 of the same shape. `unit_range` is what the training images have.
    within_one = _is_unit_range(images, where)
    if unit_range and not within_one:
        raise InputError(f"{where} should be in [0, 1], as x_train. Received: numbers above 1.")
    if images.dtype == np.uint8:
        return images
    scaled = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), 1024):  # no second float copy of the whole
        block = images[start : start + 1024].astype(np.float64)
        scaled[start : start + 1024] = np.rint(block * 255 if unit_range else block)
    return scaled


def _to_labels(labels: np.ndarray, where: str) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:  # as keras.datasets.cifar10 has them
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "uif":
        raise InputError(
            f"{where} should hold one whole number for each image. "
            f"Received: {labels.dtype} {labels.shape}."
        )
    wrong = ~((labels >= 0) & (labels < 2**31) & (labels == np.floor(labels)))  # NaN is wrong
    if wrong.any():
        index = int(wrong.argmax())
        raise InputError(
            f"{where}[{index}] should be a whole number from 0. Received: {labels[index]}."
        )
    return labels.astype(np.int64)


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
