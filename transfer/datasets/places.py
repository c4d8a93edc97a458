"""Where Fashion-MNIST is."""

import dataclasses
import hashlib
import os
from pathlib import Path

from transfer.data.fashion_mnist import (
    CLASS_NAMES,
    FASHION_MNIST,
    FASHION_MNIST_SHA256,
    SAMPLE,
    SAMPLE_SHA256,
)
from transfer.data.splits import Loaded
from transfer.datasets.formats import checks, idx
from transfer.errors import InputError
from transfer.storage.cache import keras_home
from transfer.storage.downloads import DownloadError, download, is_offline

SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
SAMPLE_FOLDER = Path(__file__).parent / "sample"
DOWNLOAD_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"


# --- Where Fashion-MNIST is -----------------------------------------------------------------


def load_auto(offline: bool) -> Loaded:
    """Returns Fashion-MNIST from the first place that has it, else the embedded sample.

    Args:
        offline: never use the network.

    Raises:
        InputError: $FASHION_MNIST_DIR names a folder without it, or the sample is damaged.
    """
    loaded, tried, broken = _find_fashion_mnist(offline)
    if loaded is None:
        return _noting(load_sample(), [*broken, tried[-1]])  # the last one is the download
    return _noting(loaded, broken)


def load_fashion_mnist(offline: bool) -> Loaded:
    """Returns Fashion-MNIST, 60,000 training and 10,000 test images, checksums verified.

    Args:
        offline: never use the network.

    Raises:
        InputError: it is nowhere; tells every place that was tried.
    """
    loaded, tried, broken = _find_fashion_mnist(offline)
    if loaded is None:
        raise InputError(
            f"Fashion-MNIST was not found. Tried: $FASHION_MNIST_DIR: not set; {'; '.join(tried)}. "
            "Install it (Debian, Ubuntu: apt-get install dataset-fashion-mnist), or set "
            "FASHION_MNIST_DIR=FOLDER, or on another machine download "
            f"{', '.join(stem + '.gz' for stem in FASHION_MNIST_SHA256)} "
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
    tried: list[str] = []
    broken: list[str] = []
    cache = _keras_cache()
    for folder in (cache, SYSTEM_FOLDER):
        try:
            return load_published(folder), tried, broken
        except InputError as error:
            tried.append(_clause(error))
            if not isinstance(error, checks.MissingFileError):
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
    for stem, expected in FASHION_MNIST_SHA256.items():
        try:
            path = idx.find_idx_file(cache, stem)
            damaged = hashlib.sha256(idx.read_bytes(path)).hexdigest() != expected
        except checks.MissingFileError:
            continue
        except InputError as error:
            # With a number of the system's the place is at fault: a good file stays where it is.
            damaged = getattr(error.__cause__, "errno", None) is None
        if damaged:
            try:
                path.replace(path.with_name(path.name + ".damaged"))
            except OSError:
                continue  # a cache that is read-only, or another process was faster


def _download_published(cache: Path) -> Loaded:
    for stem in FASHION_MNIST_SHA256:
        try:
            idx.find_idx_file(cache, stem)
        except checks.MissingFileError:
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
    for stem in FASHION_MNIST_SHA256:
        idx.find_idx_file(folder, stem)  # nothing is wrong with a place that lacks one
    loaded = idx.load_idx(folder)
    if loaded.name != FASHION_MNIST:
        raise InputError(
            f"{folder} should hold the published Fashion-MNIST. Received: {loaded.checked} "
            f"(to use it as a data set of its own: --data {folder})."
        )
    return loaded


def load_sample() -> Loaded:
    """Reads the part of Fashion-MNIST that comes with the package, checksums verified.

    Raises:
        InputError: a file is missing, damaged or another.
    """
    train, test, digests = idx.read_idx_folder(SAMPLE_FOLDER)
    if idx.differing_files(digests, SAMPLE_SHA256):
        raise InputError(
            f"the embedded sample in {SAMPLE_FOLDER} should have its own checksums. "
            f"Received: others for {', '.join(idx.differing_files(digests, SAMPLE_SHA256))}; "
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
