"""The start of the walk: a data set, wherever it lies, becomes `Splits` of images and labels.

Nothing later knows where images come from. Every file is checked as it is read (published
checksum where there is one, header, counts, ranges). A new format is one loader and one row
in `SOURCES`.
"""

import dataclasses
import gzip
import hashlib
import lzma
import math
import os
import re
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transfer.downloads import DownloadError, download
from transfer.errors import InputError

FASHION_MNIST = "fashion-mnist"
SAMPLE = "fashion-mnist-sample"
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
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
SAMPLE_FOLDER = Path(__file__).parent / "sample"
DOWNLOAD_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"

# SHA-256 of the four files, decompressed: distributors compress them differently.
FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
SAMPLE_SHA256 = {
    "train-images-idx3-ubyte": "4f4f01b5da612a3a813bd074442e170529dcef734e6adf2afb15766746e27831",
    "train-labels-idx1-ubyte": "28a1f13b424a56c99d03b91c44a37c0839c02ac1e85437d7f948783457f0a5bf",
    "t10k-images-idx3-ubyte": "a7e6eef449f7c83f1c2dba6505b02224920e910b572485403a04ca12c4ec1385",
    "t10k-labels-idx1-ubyte": "7f263de4d84344d9534a9f13f13a926d204aa475c95f773dba10340a19799f69",
}

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
_SPLIT_FOLDERS = {
    "train": ("train",),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}
_FORMATS = (
    "a folder with the four IDX files or with Kaggle's two CSV files, a train CSV, an .npz, "
    "or a folder of images with one sub-folder a class"
)
_TEST_FRACTION = 0.2
_FIXED_SEED = 1708_07747  # of the paper, arXiv:1708.07747; never the run's seed


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
class Splits:
    """A data set, divided.

    Attributes:
        train: images to learn from.
        validation: images to choose by; never part of `test`.
        test: images to report on.
        class_names: name of each label, `num_classes` of them.
        name: "fashion-mnist" for the published data set, checksums verified, and nothing else;
            "fashion-mnist-sample" for the embedded sample; else the name of the file or folder.
        provenance: one printable line: what was taken, how many images, from where, whether
            verified.
        location: what `load_splits` takes as `data` to find the same place again.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    name: str
    provenance: str
    location: str = ""


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


@dataclass(frozen=True)
class Source:
    """A data format: whether a path holds it, and how it is read."""

    name: str
    recognise: Callable[[Path], bool]
    load: Callable[[Path], Loaded]


class _MissingError(InputError):
    """A place has no such file: nothing is wrong with it, the search goes on."""


def load_splits(
    data: str = "auto",
    *,
    validation_fraction: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
    offline: bool = False,
) -> Splits:
    """Loads a data set and divides it into training, validation and test images.

    Data without a validation part gives up a stratified share of its training images, chosen
    by `seed`; the test images are never touched. Data without a test part gives up a
    stratified 20 %, chosen by a fixed seed, so that all runs report on the same images.

    Args:
        data: "auto" (the first of $FASHION_MNIST_DIR, Keras's cache, the system package's
            folder, the download, the embedded sample), "fashion-mnist" (the same without the
            sample), "sample", or the path of a file or folder.
        validation_fraction: share of the training images, between 0 and 1.
        seed: chooses the validation images, 0 to 2**32 - 1.
        limit: at most this many images of each split, stratified, always the same ones; every
            class keeps at least one where `limit` is at least the number of classes.
        offline: no download; the environment variable TRANSFER_OFFLINE=1 says the same.

    Returns:
        `Splits`; images uint8 (N, H, W, 1 or 3), or paths for a folder of images; labels int64.

    Raises:
        InputError: the data is not there, damaged, or not what its format promises.
    """
    if not 0 < validation_fraction < 1:
        raise InputError(
            f"validation_fraction should be between 0 and 1. Received: {validation_fraction}."
        )
    if limit is not None and limit < 1:
        raise InputError(f"limit should be at least 1. Received: {limit}.")
    if data == "auto":
        loaded = _load_auto(offline)
    elif data == FASHION_MNIST:
        loaded = _load_fashion_mnist(offline)
    elif data == "sample":
        loaded = _load_sample()
    else:
        loaded = _load_path(data)
    return _divide(loaded, validation_fraction, seed, limit)


def fingerprint(split: Split) -> str:
    """Returns the SHA-256, 64 hexadecimal digits, of a split's images and labels, in order.

    For arrays it covers shape, pixels and labels. For image files it covers each file's path
    relative to the data set's root, its size in bytes and its label, not its content: reading
    every file only for this would cost as much as an epoch.

    Raises:
        InputError: an image file is gone.
    """
    digest = hashlib.sha256()
    if split.are_files:
        for path, label in zip(split.images, split.labels, strict=True):
            name = Path(os.path.relpath(path, split.root)).as_posix()
            try:
                size = os.path.getsize(path)
            except OSError as error:
                raise InputError(f"{path} cannot be read: {error.strerror}.") from error
            digest.update(f"{name}\0{size}\0{label}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()
    digest.update(f"{split.images.shape}\n".encode())
    for start in range(0, split.num_images, 4096):  # a memory-mapped array stays on the disk
        digest.update(np.ascontiguousarray(split.images[start : start + 4096], np.uint8).data)
    digest.update(np.ascontiguousarray(split.labels, "<i8").data)
    return digest.hexdigest()


# --- Dividing -------------------------------------------------------------------------------


def _divide(loaded: Loaded, validation_fraction: float, seed: int, limit: int | None) -> Splits:
    train, validation, test = loaded.train, loaded.validation, loaded.test
    notes = [loaded.checked]
    missing = [part for part in ("test", "validation") if getattr(loaded, part) is None]
    _check_class_sizes(train, loaded, missing)
    if test is None:
        train, test = _hold_out(train, _TEST_FRACTION, _FIXED_SEED)
        notes.append(f"{_TEST_FRACTION:.0%} held out for the test, the same for every seed")
    if validation is None:
        train, validation = _hold_out(train, validation_fraction, seed)
    if limit is not None:
        train, validation, test = (_limit(part, limit) for part in (train, validation, test))
        notes.append(f"limited to at most {limit:,} of each split")
    name = _name(loaded)
    origin = loaded.origin or loaded.location
    provenance = (
        f"{name}: {train.num_images:,} training, {validation.num_images:,} validation and "
        f"{test.num_images:,} test images from {origin} ({'; '.join(notes)})"
    )
    return Splits(
        train, validation, test, loaded.class_names, name, _printable(provenance), loaded.location
    )


def _name(loaded: Loaded) -> str:
    # A folder that happens to be called fashion-mnist must not pass for the published data.
    if loaded.name:
        return loaded.name
    name = _printable(Path(loaded.location).name)
    return f"{name}-unverified" if name in (FASHION_MNIST, SAMPLE) else name


def _check_class_sizes(train: Split, loaded: Loaded, missing: list[str]) -> None:
    if len(loaded.class_names) < 2:
        raise InputError(
            f"{loaded.location} should have at least two classes. "
            f"Received: {len(loaded.class_names)}."
        )
    sizes = np.bincount(train.labels, minlength=len(loaded.class_names))
    smallest = int(sizes.argmin())
    needed = 1 + len(missing)
    if sizes[smallest] < needed:
        purpose = f", to hold out images for {' and '.join(missing)}" if missing else ""
        raise InputError(
            f"{loaded.location}: every class should have at least {needed} training "
            f"image{'s' * (needed > 1)}{purpose}. Received: {sizes[smallest]} of class "
            f"{loaded.class_names[smallest]!r}; add images or leave the class out."
        )


def _hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    # Returns (kept, held out), both with every class: the caller has seen to two images of each.
    from sklearn.model_selection import train_test_split  # half a second that --help need not pay

    num_classes = int(split.labels.max()) + 1
    count = round(fraction * split.num_images)
    count = min(max(count, num_classes), split.num_images - num_classes)
    kept, held = train_test_split(
        np.arange(split.num_images), test_size=count, stratify=split.labels, random_state=seed
    )
    # Stratification rounds a rare class down to nothing.
    kept, held = _complete(split.labels, kept, held)
    held, kept = _complete(split.labels, held, kept)
    return split.take(np.sort(kept)), split.take(np.sort(held))


def _complete(
    labels: np.ndarray, giver: np.ndarray, taker: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    # Moves one image of each class that `taker` lacks.
    lacking = np.setdiff1d(labels[giver], labels[taker])
    moved = np.array([np.flatnonzero(labels[giver] == label)[0] for label in lacking], dtype=int)
    return np.delete(giver, moved), np.concatenate([taker, giver[moved]])


def _limit(split: Split, limit: int) -> Split:
    # The r-th image of a class of n comes at (r + 0.5) / n of the way, the first of each class
    # before all: any beginning of this order is stratified, and a lower limit gives a part of
    # what a higher one gives. RandomState, because its numbers are the same in every numpy.
    shuffled = np.random.RandomState(_FIXED_SEED).permutation(split.num_images)
    labels = split.labels[shuffled]
    sizes = np.bincount(labels)
    by_class = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels), dtype=np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    position = np.where(rank == 0, -1.0, (rank + 0.5) / sizes[labels])
    return split.take(np.sort(shuffled[np.argsort(position, kind="stable")[:limit]]))


# --- Where Fashion-MNIST is -----------------------------------------------------------------


def _load_auto(offline: bool) -> Loaded:
    loaded, tried, broken = _find_fashion_mnist(offline)
    if loaded is None:
        return _noting(_load_sample(), [*broken, tried[-1]])  # the last one is the download
    return _noting(loaded, broken)


def _load_fashion_mnist(offline: bool) -> Loaded:
    loaded, tried, broken = _find_fashion_mnist(offline)
    if loaded is None:
        raise InputError(
            f"Fashion-MNIST was not found. Tried: $FASHION_MNIST_DIR: not set; {'; '.join(tried)}. "
            "Install it (Debian, Ubuntu: apt-get install dataset-fashion-mnist), or set "
            "FASHION_MNIST_DIR=FOLDER, or on another machine download "
            f"{', '.join(stem + '.gz' for stem in FASHION_MNIST_SHA256)} from {DOWNLOAD_URL} "
            f"and copy them into {_keras_cache()}."
        )
    return _noting(loaded, broken)


def _noting(loaded: Loaded, passed_over: list[str]) -> Loaded:
    notes = [loaded.checked, *(f"passed over {line}" for line in passed_over)]
    return dataclasses.replace(loaded, checked="; ".join(notes))


def _find_fashion_mnist(offline: bool) -> tuple[Loaded | None, list[str], list[str]]:
    # Returns the data or None, a line for each place without it, and those of damaged places.
    wish = os.environ.get("FASHION_MNIST_DIR")
    if wish:  # an explicit wish: that or an error
        return _load_wished(wish), [], []
    tried, broken = [], []
    cache = _keras_cache()
    for folder in (cache, SYSTEM_FOLDER):
        try:
            return load_published(folder), tried, broken
        except InputError as error:
            tried.append(_clause(error))
            if not isinstance(error, _MissingError):
                broken.append(_clause(error))
        if folder == cache:
            _set_aside_damaged(cache)
    if offline or os.environ.get("TRANSFER_OFFLINE", "0") not in ("", "0"):
        return None, [*tried, f"the download from {DOWNLOAD_URL}: not tried, offline"], broken
    try:
        return _download_published(cache), tried, broken
    except InputError as error:
        return None, [*tried, f"the download: {_clause(error)}"], broken


def _load_wished(wish: str) -> Loaded:
    try:
        return load_published(Path(os.path.abspath(os.path.expanduser(wish))))
    except InputError as error:
        raise InputError(f"$FASHION_MNIST_DIR: {error} Correct or unset this variable.") from error


def _clause(error: InputError) -> str:
    return str(error).rstrip(".")


def _keras_cache() -> Path:
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    return Path(os.path.abspath(home)) / "datasets" / "fashion-mnist"


def _set_aside_damaged(cache: Path) -> None:
    # Keras would read such a file without a word; under another name it is fetched again.
    for stem, expected in FASHION_MNIST_SHA256.items():
        try:
            path = _find_idx_file(cache, stem)
            damaged = hashlib.sha256(_read_bytes(path)).hexdigest() != expected
        except _MissingError:
            continue
        except InputError:
            damaged = True
        if damaged:
            try:
                path.replace(path.with_name(path.name + ".damaged"))
            except OSError:
                continue  # a cache that is read-only, or another process was faster


def _download_published(cache: Path) -> Loaded:
    for stem in FASHION_MNIST_SHA256:
        try:
            _find_idx_file(cache, stem)
        except _MissingError:
            download(f"{DOWNLOAD_URL}{stem}.gz", cache / f"{stem}.gz")
    try:
        return load_published(cache)
    except InputError as error:
        _set_aside_damaged(cache)
        raise DownloadError(f"what came from {DOWNLOAD_URL} is damaged: {error}") from error


def load_published(folder: Path) -> Loaded:
    """Reads the 60,000 training and 10,000 test images of Fashion-MNIST, checksums verified.

    Args:
        folder: holds the four IDX files, plain, .gz or .xz.

    Raises:
        InputError: a file is missing, damaged or not the published one.
    """
    loaded = _load_idx(folder)
    if loaded.name != FASHION_MNIST:
        raise InputError(
            f"{folder} should hold the published Fashion-MNIST. Received: {loaded.checked} "
            f"(to use it as a data set of its own: --data {folder})."
        )
    return loaded


def _load_sample() -> Loaded:
    train, test, digests = _read_idx_folder(SAMPLE_FOLDER)
    if _different(digests, SAMPLE_SHA256):
        raise InputError(
            f"the embedded sample in {SAMPLE_FOLDER} should have its own checksums. "
            f"Received: others for {', '.join(_different(digests, SAMPLE_SHA256))}; "
            "install the package again."
        )
    return Loaded(
        train,
        test,
        CLASS_NAMES,
        "sample",
        "not the full Fashion-MNIST; checksums verified",
        name=SAMPLE,
        origin="the sample embedded in the package",
    )


# --- IDX ------------------------------------------------------------------------------------


def _holds_idx(path: Path) -> bool:
    return path.is_dir() and any(_idx_candidates(path, stem) for stem in FASHION_MNIST_SHA256)


def _load_idx(folder: Path) -> Loaded:
    train, test, digests = _read_idx_folder(folder)
    different = _different(digests, FASHION_MNIST_SHA256)
    if not different:
        checked = "checksums verified"
        return Loaded(train, test, CLASS_NAMES, str(folder), checked, name=FASHION_MNIST)
    class_names = _number_classes(train, test, str(folder))
    checked = f"not the published Fashion-MNIST: another SHA-256 for {', '.join(different)}"
    return Loaded(train, test, class_names, str(folder), checked)


def _different(digests: dict[str, str], expected: dict[str, str]) -> list[str]:
    return [stem for stem, digest in digests.items() if digest != expected[stem]]


def _read_idx_folder(folder: Path) -> tuple[Split, Split, dict[str, str]]:
    # Returns training and test images and the SHA-256 of each decompressed file.
    arrays, digests = {}, {}
    for stem in FASHION_MNIST_SHA256:
        path = _find_idx_file(folder, stem)
        content = _read_bytes(path)
        digests[stem] = hashlib.sha256(content).hexdigest()
        arrays[stem] = _parse_idx(content, 3 if "idx3" in stem else 1, path)
    splits = []
    for part in ("train", "t10k"):
        images, labels = arrays[f"{part}-images-idx3-ubyte"], arrays[f"{part}-labels-idx1-ubyte"]
        splits.append(_make_split(images, labels, f"{folder}, {part}-* files"))
    _check_same_shape(*splits, str(folder))
    return *splits, digests


def _idx_candidates(folder: Path, stem: str) -> list[Path]:
    paths = [folder / f"{stem}{suffix}" for suffix in ("", ".gz", ".xz")]
    return [path for path in paths if os.path.exists(path)]  # False, too, where forbidden


def _find_idx_file(folder: Path, stem: str) -> Path:
    if found := _idx_candidates(folder, stem):
        return found[0]
    raise _MissingError(f"{folder} should hold {stem} or {stem}.gz. Received: no such file.")


def _read_bytes(path: Path) -> bytes:
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    try:
        with opener(path, "rb") as file:
            return file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        raise InputError(
            f"{path} should be a whole {path.suffix} file. Received: {error}; fetch it again."
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


def _parse_idx(content: bytes, num_dimensions: int, path: Path) -> np.ndarray:
    # The format is described at the foot of http://yann.lecun.com/exdb/mnist/.
    header_bytes = 4 + 4 * num_dimensions
    if len(content) < header_bytes:
        raise InputError(
            f"{path} should begin with {header_bytes} bytes of header. "
            f"Received: {len(content)} bytes in all; fetch it again."
        )
    magic, *shape = struct.unpack(f">{num_dimensions + 1}I", content[:header_bytes])
    if magic != 0x0800 + num_dimensions:
        raise InputError(
            f"{path} should begin with the magic number 0x{0x0800 + num_dimensions:08x} (unsigned "
            f"bytes in {num_dimensions} dimensions). Received: 0x{magic:08x}."
        )
    if len(content) - header_bytes != math.prod(shape):
        raise InputError(
            f"{path} should have {math.prod(shape):,} bytes after its header, for the shape "
            f"{tuple(shape)}. Received: {len(content) - header_bytes:,}; fetch it again."
        )
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)


# --- CSV ------------------------------------------------------------------------------------

_KAGGLE_CSV = ("fashion-mnist_train.csv", "fashion-mnist_test.csv")
_WHOLE_NUMBER = re.compile(rb"\s*([0-9]{1,9})(\.0*)?\s*")
_BLOCK_BYTES = 1 << 22


def _holds_csv(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).exists() for name in _KAGGLE_CSV)
    return path.suffix.lower() == ".csv"


def _load_csv(path: Path) -> Loaded:
    # Rows are counted as an editor counts lines: the header is row 1.
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
        with open(path, "rb") as file:
            columns = _read_csv_header(file.readline(), path)
            highest_label = 9 if _is_kaggle(path, len(columns) - 1) else 255
            blocks, row = [], 2
            while lines := file.readlines(_BLOCK_BYTES):
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
    if not blocks:
        raise InputError(f"{path} should have a row for each image. Received: only the header.")
    pixels = np.concatenate([pixels for _, pixels in blocks]).reshape(-1, side, side)
    return _make_split(pixels, np.concatenate([labels for labels, _ in blocks]), str(path))


def _read_csv_header(line: bytes, path: Path) -> list[str]:
    text = line.decode("utf-8-sig", "backslashreplace")
    columns = [field.strip().strip('"') for field in text.split(",")]
    if columns[0].lower() != "label":
        raise InputError(
            f"{path}, row 1: the first column should be called 'label' and the others be pixels. "
            f"Received: {columns[0][:40]!r}."
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
        fields = line.rstrip(b"\r\n").split(b",")
        if not line.strip():
            continue
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


def _load_npz(path: Path) -> Loaded:
    arrays = _read_npz(path)
    unit_range = _is_unit_range(arrays["x_train"], f"{path}, x_train")
    splits = []
    for part in ("train", "test"):
        images = _to_uint8(arrays[f"x_{part}"], unit_range, f"{path}, x_{part}")
        labels = _to_labels(arrays[f"y_{part}"], f"{path}, y_{part}")
        splits.append(_make_split(images, labels, f"{path}, {part} arrays"))
    _check_same_shape(*splits, str(path))
    if "class_names" in arrays:
        class_names = _to_class_names(arrays["class_names"], f"{path}, class_names")
        _check_labels(*splits, class_names, str(path))
    else:
        class_names = _number_classes(*splits, str(path))
    return Loaded(*splits, class_names, str(path), "no published checksum")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    # Not np.load: it does not read a member to its end, where the zip file's checksum is compared.
    arrays = {}
    key = "the archive"
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's remarks on headers from Python 2
            present = {name.removesuffix(".npy") for name in archive.namelist()}
            if absent := [key for key in _NPZ_KEYS if key not in present]:
                raise InputError(
                    f"{path} should hold {', '.join(_NPZ_KEYS)}. Received: no {', '.join(absent)}."
                )
            for key in (*_NPZ_KEYS, *present.intersection(["class_names"])):
                with archive.open(f"{key}.npy") as member:
                    arrays[key] = np.lib.format.read_array(member, allow_pickle=False)
                    if member.read(1):
                        raise ValueError("more bytes than the array's shape needs")
    except _NPZ_ERRORS as error:
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise InputError(
            f"{path}, {key}: should be a whole .npz of plain arrays. Received: {reason}."
        ) from error
    return arrays


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


def _to_class_names(names: np.ndarray, where: str) -> tuple[str, ...]:
    class_names = tuple(str(name) for name in names.ravel())
    if names.dtype.kind != "U" or names.ndim != 1 or len(set(class_names)) != names.size:
        raise InputError(
            f"{where} should hold texts (N,), all different. Received: {names.dtype} {names.shape}."
        )
    return class_names


# --- Folders of images ----------------------------------------------------------------------


def _load_image_folder(root: Path) -> Loaded:
    parts = {part: _list_classes(folder) for part, folder in _find_split_folders(root).items()}
    class_names = tuple(parts["train"])
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
        raise InputError(f"{folder} should be {_FORMATS}. Received: {_describe_folder(folder)}.")
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
    if len(images) != len(labels):
        raise InputError(
            f"{where} should have as many labels as images. "
            f"Received: {len(images):,} images, {len(labels):,} labels."
        )
    return Split(images, labels.astype(np.int64))


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


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


# --- Paths ----------------------------------------------------------------------------------

SOURCES = (
    Source("IDX files", _holds_idx, _load_idx),
    Source("CSV files", _holds_csv, _load_csv),
    Source("NPZ file", lambda path: path.suffix.lower() == ".npz", _load_npz),
    Source("folder of images", Path.is_dir, _load_image_folder),
)


def _load_path(data: str) -> Loaded:
    path = Path(os.path.abspath(os.path.expanduser(data)))
    try:
        if not data or not path.exists():
            raise InputError(
                "data should be auto, fashion-mnist, sample or the path of a file or folder. "
                f"Received: {data!r}, which does not exist."
            )
        for source in SOURCES:
            if source.recognise(path):
                return source.load(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit into memory.") from error
    raise InputError(f"{path} should be {_FORMATS}. Received: a file of another kind.")
