"""The start of the walk: a data set, wherever it lies, becomes `Splits` of images and labels.

Nothing later knows where images come from. Every file is checked as it is read (published
checksum where there is one, header, counts, ranges). A new format is one loader in `formats.py`
and one row in `SOURCES`.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transfer.data import formats
from transfer.data.formats import CLASS_NAMES, FASHION_MNIST, Loaded, Split
from transfer.downloads import DownloadError, download, is_offline, keras_home
from transfer.errors import InputError

SAMPLE = "fashion-mnist-sample"
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
SAMPLE_FOLDER = Path(__file__).parent / "sample"
DOWNLOAD_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"

SAMPLE_SHA256 = {
    "train-images-idx3-ubyte": "4f4f01b5da612a3a813bd074442e170529dcef734e6adf2afb15766746e27831",
    "train-labels-idx1-ubyte": "28a1f13b424a56c99d03b91c44a37c0839c02ac1e85437d7f948783457f0a5bf",
    "t10k-images-idx3-ubyte": "a7e6eef449f7c83f1c2dba6505b02224920e910b572485403a04ca12c4ec1385",
    "t10k-labels-idx1-ubyte": "7f263de4d84344d9534a9f13f13a926d204aa475c95f773dba10340a19799f69",
}

_TEST_FRACTION = 0.2
_FIXED_SEED = 1708_07747  # of the paper, arXiv:1708.07747; never the run's seed


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

    def parts(self) -> dict[str, Split]:
        """Returns the splits by their names: train, validation, test."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


@dataclass(frozen=True)
class Source:
    """A data format: whether a path holds it, and how it is read."""

    name: str
    recognise: Callable[[Path], bool]
    load: Callable[[Path], Loaded]


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
    return _divide(load_undivided(data, offline=offline), validation_fraction, seed, limit)


def load_undivided(data: str = "auto", *, offline: bool = False) -> Loaded:
    """Loads a data set with the parts that it has of its own, nothing held out.

    Arguments and errors as `load_splits`.
    """
    if data == "auto":
        return _load_auto(offline)
    if data == FASHION_MNIST:
        return _load_fashion_mnist(offline)
    return _load_sample() if data == "sample" else _load_path(data)


def describe_origin(loaded: Loaded) -> str:
    """Returns one printable line: the name of the data, from where, whether verified."""
    return _printable(f"{_name(loaded)} from {loaded.origin or loaded.location} ({loaded.checked})")


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
    return split.take(limited_indices(split.labels, limit))


def limited_indices(labels: np.ndarray, limit: int) -> np.ndarray:
    """Returns the indices, sorted, of the images that `limit` leaves; see `load_splits`."""
    # The r-th image of a class of n comes at (r + 0.5) / n of the way, the first of each class
    # before all: any beginning of this order is stratified, and a lower limit gives a part of
    # what a higher one gives. RandomState, because its numbers are the same in every numpy.
    shuffled = np.random.RandomState(_FIXED_SEED).permutation(len(labels))
    labels = labels[shuffled]
    sizes = np.bincount(labels)
    by_class = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels), dtype=np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    position = np.where(rank == 0, -1.0, (rank + 0.5) / sizes[labels])
    return np.sort(shuffled[np.argsort(position, kind="stable")[:limit]])


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
            f"{', '.join(stem + '.gz' for stem in formats.FASHION_MNIST_SHA256)} "
            f"from {DOWNLOAD_URL} and copy them into {_keras_cache()}."
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
            if not isinstance(error, formats.MissingFileError):
                broken.append(_clause(error))
        if folder == cache:
            _set_aside_damaged(cache)
    if is_offline(offline):
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
    return keras_home() / "datasets" / "fashion-mnist"


def _set_aside_damaged(cache: Path) -> None:
    # Keras would read such a file without a word; under another name it is fetched again.
    for stem, expected in formats.FASHION_MNIST_SHA256.items():
        try:
            path = formats.find_idx_file(cache, stem)
            damaged = hashlib.sha256(formats.read_bytes(path)).hexdigest() != expected
        except formats.MissingFileError:
            continue
        except InputError:
            damaged = True
        if damaged:
            try:
                path.replace(path.with_name(path.name + ".damaged"))
            except OSError:
                continue  # a cache that is read-only, or another process was faster


def _download_published(cache: Path) -> Loaded:
    for stem in formats.FASHION_MNIST_SHA256:
        try:
            formats.find_idx_file(cache, stem)
        except formats.MissingFileError:
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
    loaded = formats.load_idx(folder)
    if loaded.name != FASHION_MNIST:
        raise InputError(
            f"{folder} should hold the published Fashion-MNIST. Received: {loaded.checked} "
            f"(to use it as a data set of its own: --data {folder})."
        )
    return loaded


def _load_sample() -> Loaded:
    train, test, digests = formats.read_idx_folder(SAMPLE_FOLDER)
    if formats.differing_files(digests, SAMPLE_SHA256):
        raise InputError(
            f"the embedded sample in {SAMPLE_FOLDER} should have its own checksums. "
            f"Received: others for {', '.join(formats.differing_files(digests, SAMPLE_SHA256))}; "
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


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


# --- Paths ----------------------------------------------------------------------------------

SOURCES = (
    Source("IDX files", formats.holds_idx, formats.load_idx),
    Source("CSV files", formats.holds_csv, formats.load_csv),
    Source("NPZ file", lambda path: path.suffix.lower() == ".npz", formats.load_npz),
    Source("folder of images", Path.is_dir, formats.load_image_folder),
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
        raise InputError(
            f"{error.filename or path} cannot be read: {error.strerror or error}."
        ) from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit into memory.") from error
    raise InputError(f"{path} should be {formats.EXPECTED}. Received: a file of another kind.")
