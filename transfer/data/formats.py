"""The formats a data set can have: each loader reads one, checks it, and returns `Loaded`.

A loader knows nothing of where users keep their data or how it is divided; that is
`sources.py`, whose table `SOURCES` has one row for each loader here. Every damage that can be
told is told in one line with the file and the place in it. A changed pixel or label of a plain
IDX or CSV file, and CSV rows missing at the end, cannot be told by the file itself: only by the
checksum, where one is published. Nothing is unpickled, and nothing is allocated or decompressed
that the size of the file does not make plausible.
"""

import dataclasses
import gzip
import hashlib
import io
import lzma
import math
import os
import re
import stat
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from transfer.errors import InputError
from transfer.memory import usable_memory

FASHION_MNIST = "fashion-mnist"
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# SHA-256 of the four files, decompressed: distributors compress them differently.
FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
_SPLIT_FOLDERS = {
    "train": ("train",),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
EXPECTED = (
    "a folder with the four IDX files or with Kaggle's two CSV files, a train CSV, an .npz, "
    "or a folder of images with one sub-folder a class"
)


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, in a fixed order.

    Attributes:
        images: uint8 (N, H, W, 1 or 3) in [0, 255]; or the absolute paths of N image files,
            str in an object array (N,).
        labels: int64 (N,) in [0, num_classes).
        root: folder that the paths of image files are told relative to; "" for arrays.
    """

    images: np.ndarray
    labels: np.ndarray
    root: str = ""

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def are_files(self) -> bool:
        """True where `images` holds paths, which `transfer.data.decode` turns into pixels."""
        return self.images.dtype == object

    def take(self, indices: np.ndarray) -> "Split":
        """Returns the split of these images, in this order; indices int (M,) or bool (N,)."""
        return dataclasses.replace(self, images=self.images[indices], labels=self.labels[indices])


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a loader returns: the parts that a data set has of its own, not yet divided."""

    train: Split
    test: Split | None
    class_names: tuple[str, ...]
    location: str
    checked: str  # a few words for the provenance line
    validation: Split | None = None
    name: str = ""  # "" for the name of the file or folder
    origin: str = ""  # "" for the location


class MissingFileError(InputError):
    """A place has no such file: nothing is wrong with it, the search goes on."""


# --- What a file may ask of this machine ----------------------------------------------------

# Compressed images are a tenth of their size, drawings a fiftieth; a decompression bomb of
# deflate is a thousandth. Small arrays may be all zeros.
_MOST_EXPANSION = 200
_SMALL_BYTES = 256 << 20


def _regular_size(path: Path) -> int:
    # Returns the size of a file in bytes. Opening a pipe or a terminal might wait for ever.
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "a pipe or a device"
        raise InputError(f"{path} should be a file. Received: {kind}.")
    return facts.st_size


def _check_room(num_bytes: int, file_bytes: int, path: Path) -> None:
    # Before anything is allocated: a header of a few bytes can promise terabytes.
    if num_bytes > max(_SMALL_BYTES, _MOST_EXPANSION * file_bytes):
        raise InputError(
            f"{path} should not promise more than {_MOST_EXPANSION} times its own size. Received: "
            f"a file of {file_bytes:,} bytes that promises {num_bytes:,}; it is damaged or made "
            "to fill the memory."
        )
    if num_bytes > usable_memory():
        raise InputError(
            f"{path} should fit into the memory of {usable_memory() / 1e9:.1f} GB. "
            f"Received: {num_bytes / 1e9:.1f} GB; take a part of it, or a machine with more."
        )


# --- IDX ------------------------------------------------------------------------------------


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
    class_names = _number_classes(train, test, str(folder))
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
    splits = []
    for part in ("train", "t10k"):
        images, labels = arrays[f"{part}-images-idx3-ubyte"], arrays[f"{part}-labels-idx1-ubyte"]
        splits.append(_make_split(images, labels, f"{folder}, {part}-* files"))
    _check_same_shape(*splits, str(folder))
    return *splits, digests


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
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix)
    try:
        file_bytes = _regular_size(path)
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
        _check_room(promised, file_bytes, path)
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


# --- CSV ------------------------------------------------------------------------------------

_KAGGLE_CSV = ("fashion-mnist_train.csv", "fashion-mnist_test.csv")
_WHOLE_NUMBER = re.compile(rb"\s*([0-9]{1,9})(\.0*)?\s*")
_BLOCK_BYTES = 1 << 22
_MOST_HEADER_BYTES = 1 << 22
_MOST_FIELD_BYTES = 32  # of a number with blanks around it


def holds_csv(path: Path) -> bool:
    """Returns whether a path is a CSV file, or a folder with one of Kaggle's two."""
    if path.is_dir():
        return any((path / name).exists() for name in _KAGGLE_CSV)
    return path.suffix.lower() == ".csv"


def load_csv(path: Path) -> Loaded:
    """Reads CSV files of a label and the pixels of a square gray image a row, as Kaggle's.

    Raises:
        InputError: a file is missing, or a field is not a number in range; names the row, as
            an editor counts lines, and the column.
    """
    train_path = path / _KAGGLE_CSV[0] if path.is_dir() else path
    if "train" not in train_path.name and "test" in train_path.name:
        raise InputError(
            f"--data should name the CSV with the training images. Received: {path}, a test set."
        )
    paths = [train_path]
    if "train" in train_path.name:
        paths.append(train_path.with_name("test".join(train_path.name.rsplit("train", 1))))
    splits = [_read_csv(part) for part in paths]
    if len(splits) == 2:
        _check_same_shape(*splits, str(path))
    train, test = splits[0], splits[1] if len(splits) == 2 else None
    class_names = _number_classes(train, test, str(path))
    if _is_kaggle(train_path, train.images[0].size) and len(class_names) == len(CLASS_NAMES):
        class_names = CLASS_NAMES
    checked = "not compared with the published Fashion-MNIST: CSV files have no published checksum"
    return Loaded(train, test, class_names, str(path), checked)


def _is_kaggle(path: Path, num_pixels: int) -> bool:
    return path.name in _KAGGLE_CSV and num_pixels == 28 * 28


def _read_csv(path: Path) -> Split:
    try:
        _regular_size(path)
        with open(path, "rb") as file:
            columns = _read_csv_header(file.readline(_MOST_HEADER_BYTES), path)
            highest_label = 9 if _is_kaggle(path, len(columns) - 1) else 255
            blocks, row = [], 2
            while lines := _read_lines(file, row, len(columns), path):
                values = _parse_rows(lines, len(columns), highest_label)
                if values is None:
                    values = _parse_rows_one_by_one(lines, row, columns, highest_label, path)
                blocks.append((values[:, 0].astype(np.int64), values[:, 1:].astype(np.uint8)))
                row += len(lines)
    except FileNotFoundError as error:
        raise InputError(
            f"{path} should be there, beside the other CSV file. Received: no such file."
        ) from error
    side = math.isqrt(len(columns) - 1)
    if not any(len(labels) for labels, _ in blocks):
        raise InputError(f"{path} should have a row for each image. Received: only the header.")
    pixels = np.concatenate([pixels for _, pixels in blocks]).reshape(-1, side, side)
    return _make_split(pixels, np.concatenate([labels for labels, _ in blocks]), str(path))


def _read_lines(file: IO[bytes], first_row: int, num_columns: int, path: Path) -> list[bytes]:
    # Returns whole lines, about a block of them. A last row without a line break may be cut off
    # within its last number, and a line without an end would fill the memory.
    most = num_columns * _MOST_FIELD_BYTES
    lines = io.BytesIO(file.read(_BLOCK_BYTES) + file.readline(most)).readlines()
    last = lines[-1] if lines else b"\n"
    if not last.endswith(b"\n") and (len(last) >= most or not last.isspace()):
        raise InputError(
            f"{path}, row {first_row + len(lines) - 1}: should end with a line break within "
            f"{most:,} bytes. Received: none; the file is cut off (fetch it again), or only this "
            "line break is missing (add it)."
        )
    return lines


def _read_csv_header(line: bytes, path: Path) -> list[str]:
    text = line.decode("utf-8-sig", "backslashreplace")
    columns = [field.strip().strip('"')[:40] for field in text.split(",")]
    if columns[0].lower() != "label":
        raise InputError(
            f"{path}, row 1: the first column should be called 'label' and the others be pixels. "
            f"Received: {columns[0]!r}."
        )
    side = math.isqrt(len(columns) - 1)
    if not side or side * side != len(columns) - 1:
        raise InputError(
            f"{path}, row 1: there should be the label and the pixels of a square image, as 785 "
            f"columns for 28 x 28 pixels. Received: {len(columns)} columns."
        )
    return columns


def _parse_rows(lines: list[bytes], num_columns: int, highest_label: int) -> np.ndarray | None:
    # Returns int32 (rows, columns), or None for anything but plain numbers of one to three digits
    # in range. Whole-array arithmetic reads 60,000 rows in seconds, where int() takes a minute.
    text = b"".join(lines).replace(b"\r\n", b"\n")
    text = np.frombuffer(text if text.endswith(b"\n") else text + b"\n", np.uint8)
    ends = np.flatnonzero((text == ord(",")) | (text == ord("\n")))
    widths = np.diff(ends, prepend=-1) - 1
    digits = text - np.uint8(ord("0"))  # wraps around: whatever is no digit is above 9
    if (
        len(ends) != len(lines) * num_columns
        or (text[ends.reshape(len(lines), -1)[:, -1]] != ord("\n")).any()
        or widths.min() < 1
        or widths.max() > 3
        or (digits <= 9).sum() != len(text) - len(ends)
    ):
        return None
    values = digits[ends - 1].astype(np.int32)
    values += np.where(widths > 1, digits[ends - 2], 0) * np.int32(10)
    values += np.where(widths > 2, digits[ends - 3], 0) * np.int32(100)
    values = values.reshape(len(lines), num_columns)
    in_range = values[:, 0].max() <= highest_label and values[:, 1:].max() <= 255
    return values if in_range else None


def _parse_rows_one_by_one(
    lines: list[bytes], first_row: int, columns: list[str], highest_label: int, path: Path
) -> np.ndarray:
    # The slow way, for rows with blanks or "12.0", and to find the place of an error.
    rows = []
    for row, line in enumerate(lines, first_row):
        if line.isspace():
            continue
        fields = line.rstrip(b"\r\n").split(b",")
        if len(fields) != len(columns):
            raise InputError(
                f"{path}, row {row}: there should be {len(columns)} columns, as in the header. "
                f"Received: {len(fields)}."
            )
        highest = [highest_label] + [255] * (len(columns) - 1)
        place = f"{path}, row {row}, column "
        rows.append(
            [
                _parse_field(field, top, place + column)
                for column, field, top in zip(columns, fields, highest, strict=True)
            ]
        )
    return np.array(rows, dtype=np.int32).reshape(-1, len(columns))


def _parse_field(field: bytes, highest: int, where: str) -> int:
    match = _WHOLE_NUMBER.fullmatch(field)
    if match and int(match[1]) <= highest:
        return int(match[1])
    received = field[:40].decode("ascii", "backslashreplace")
    raise InputError(
        f"{where}: there should be a whole number from 0 to {highest}. Received: {received!r}."
    )


# --- NPZ ------------------------------------------------------------------------------------

_NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
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

    Raises:
        InputError: an array is missing, damaged, pickled, of a wrong shape or out of range.
    """
    arrays = read_arrays(path, _NPZ_KEYS, optional=("class_names",))
    unit_range = _is_unit_range(arrays["x_train"], f"{path}, x_train")
    splits = []
    for part in ("train", "test"):
        where = f"{path}, {part} arrays"
        _check_as_many(arrays[f"x_{part}"], arrays[f"y_{part}"], where)
        images = _to_uint8(arrays[f"x_{part}"], unit_range, f"{path}, x_{part}")
        labels = _to_labels(arrays[f"y_{part}"], f"{path}, y_{part}")
        splits.append(_make_split(images, labels, where))
    _check_same_shape(*splits, str(path))
    if "class_names" in arrays:
        most = splits[0].num_images
        class_names = _to_class_names(arrays["class_names"], most, f"{path}, class_names")
        _check_labels(*splits, class_names, str(path))
    else:
        class_names = _number_classes(*splits, str(path))
    return Loaded(*splits, class_names, str(path), "no published checksum")


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
        file_bytes = _regular_size(path)
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
            _check_room(sum(members[key].file_size for key in keys), file_bytes, path)
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
    members = {}
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
    _check_printable(class_names, where)
    return class_names


# --- Folders of images ----------------------------------------------------------------------


def load_image_folder(root: Path) -> Loaded:
    """Lists the image files of a folder with one sub-folder a class, without decoding them.

    The class folders may lie under train/, validation/ (val/, valid/) and test/.

    Raises:
        InputError: a class has no images, or the splits do not have the same classes.
    """
    parts = {part: _list_classes(folder) for part, folder in _find_split_folders(root).items()}
    class_names = tuple(parts["train"])
    _check_printable(class_names, str(root))
    for part, classes in parts.items():
        if tuple(classes) != class_names:
            odd = sorted(set(classes) ^ set(class_names))
            raise InputError(
                f"{root}: train and {part} should have the same class folders. "
                f"Received: {', '.join(map(repr, odd[:10]))} in only one of them."
            )
    splits = {part: _make_file_split(classes, root) for part, classes in parts.items()}
    return Loaded(
        splits["train"],
        splits.get("test"),
        class_names,
        str(root),
        "image files, no published checksum",
        splits.get("validation"),
    )


def _find_split_folders(root: Path) -> dict[str, Path]:
    # Returns {"train": root} for class folders right under the root. A folder called train that
    # holds images, not folders, is a class (of vehicles, say).
    folders = {path.name.lower(): path for path in _list_folders(root)}
    found = {}
    for part, names in _SPLIT_FOLDERS.items():
        present = [name for name in names if name in folders and _list_folders(folders[name])]
        if len(present) > 1:
            raise InputError(
                f"{root} should have one folder for {part}. Received: {', '.join(present)}."
            )
        if present:
            found[part] = folders[present[0]]
    if found and "train" not in found:
        raise InputError(
            f"{root} should have a folder train with one sub-folder a class. "
            f"Received: only {', '.join(found)}."
        )
    return found or {"train": root}


def _list_folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _list_classes(folder: Path) -> dict[str, list[str]]:
    # Returns the image files of each class, both sorted: the order is the same on any disk.
    classes = {path.name: _list_images(path) for path in _list_folders(folder)}
    if not classes:
        raise InputError(f"{folder} should be {EXPECTED}. Received: {_describe_folder(folder)}.")
    for name, files in classes.items():
        if not files:
            raise InputError(
                f"{folder / name} should hold the images of a class ({', '.join(IMAGE_SUFFIXES)}). "
                f"Received: {_describe_folder(folder / name)}."
            )
    return classes


def _describe_folder(folder: Path) -> str:
    names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if not names:
        return "an empty folder"
    shown = ", ".join(sorted(names)[:3])
    return f"a folder with {shown}{' and others' if len(names) > 3 else ''}"


def _list_images(folder: Path) -> list[str]:
    return sorted(
        str(path)
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and not path.is_dir()
    )


def _make_file_split(classes: dict[str, list[str]], root: Path) -> Split:
    paths = np.array([path for files in classes.values() for path in files], dtype=object)
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    return Split(paths, labels.astype(np.int64), str(root))


# --- Checks that all formats share ----------------------------------------------------------


def _make_split(images: np.ndarray, labels: np.ndarray, where: str) -> Split:
    # images uint8 (N, H, W) or (N, H, W, 1 or 3), labels any integers (N,)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        raise InputError(
            f"{where} should hold images (N, H, W), (N, H, W, 1) or (N, H, W, 3). "
            f"Received: {images.shape}."
        )
    _check_as_many(images, labels, where)
    return Split(images, labels.astype(np.int64))


def _check_as_many(images: np.ndarray, labels: np.ndarray, where: str) -> None:
    if images.shape[:1] != labels.shape[:1]:
        count = [f"{array.shape[0]:,}" if array.ndim else "no" for array in (images, labels)]
        raise InputError(
            f"{where} should have as many labels as images. "
            f"Received: {count[0]} images, {count[1]} labels."
        )


def _check_printable(class_names: tuple[str, ...], where: str) -> None:
    # They are shown in terminals and written into files.
    for name in class_names:
        if not name or _CONTROL_CHARACTERS.search(name):
            raise InputError(
                f"{where}: names of classes should be texts without control characters and, as "
                f"names of folders, in UTF-8. Received: {name!r}."
            )


def _check_same_shape(train: Split, test: Split, where: str) -> None:
    if train.images.shape[1:] != test.images.shape[1:]:
        raise InputError(
            f"{where}: training and test images should have one shape. "
            f"Received: {train.images.shape[1:]} and {test.images.shape[1:]}."
        )


def _number_classes(train: Split, test: Split | None, where: str) -> tuple[str, ...]:
    # Returns "0", "1", ... for data that has no names for its classes.
    found = np.unique(train.labels)
    if found[-1] != len(found) - 1:
        raise InputError(
            f"{where}: training labels should be 0, 1, 2, ... without gaps. "
            f"Received: {len(found)} different ones from {found[0]} to {found[-1]}."
        )
    class_names = tuple(str(label) for label in found)
    _check_labels(train, test, class_names, where)
    return class_names


def _check_labels(
    train: Split, test: Split | None, class_names: tuple[str, ...], where: str
) -> None:
    for part, split in (("training", train), ("test", test)):
        if split is not None and split.labels.max() >= len(class_names):
            index = int((split.labels >= len(class_names)).argmax())
            raise InputError(
                f"{where}: labels should be 0 to {len(class_names) - 1}. "
                f"Received: {split.labels[index]} for {part} image {index}."
            )
