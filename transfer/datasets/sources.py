"""The start of the walk: a data set, wherever it lies, becomes `Splits` of images and labels.

Nothing later knows where images come from. Every file is checked as it is read (published
checksum where there is one, header, counts, ranges). a new format is one file in `formats/`
and one row in `SOURCES`.
"""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transfer.data.division import data_name, divide
from transfer.data.fashion_mnist import FASHION_MNIST
from transfer.data.splits import Loaded, Splits
from transfer.datasets.formats import checks, csv_files, idx, image_folder, npz, record_files
from transfer.datasets.places import load_auto, load_fashion_mnist, load_sample
from transfer.errors import InputError, printable
from transfer.storage.remote import is_url


@dataclass(frozen=True)
class Source:
    """A data format: whether a path holds it, and how it is read."""

    name: str
    recognise: Callable[[Path], bool]
    load: Callable[[Path], Loaded]


def load_splits(
    data: str | Loaded = "auto",
    *,
    validation_fraction: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
    offline: bool = False,
    keeps_duplicates_together: bool = True,
) -> Splits:
    """Loads a data set and divides it into training, validation and test images.

    Data without a validation part gives up a stratified share of its training images, chosen
    by `seed`; the test images are never touched. Data without a test part gives up a
    stratified 20 %, chosen by a fixed seed, so that all runs report on the same images.

    Args:
        data: "auto" (the first of $FASHION_MNIST_DIR, Keras's cache, the system package's
            folder, the download, the embedded sample), "fashion-mnist" (the same without the
            sample), "sample", or the path of a file or folder, or the URL of files of records; or
            what is in memory already.
        validation_fraction: share of the training images, between 0 and 1.
        seed: chooses the validation images, 0 to 2**32 - 1.
        limit: at most this many images of each split, stratified, always the same ones; every
            class keeps at least one where `limit` is at least the number of classes.
        offline: no download; the environment variable TRANSFER_OFFLINE=1 says the same.
        keeps_duplicates_together: near duplicates of small data are held out all or none; False
            for a run that did not know them yet.

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
    return divide(
        load_undivided(data, offline=offline),
        validation_fraction,
        seed,
        limit,
        keeps_duplicates_together=keeps_duplicates_together,
    )


def load_undivided(data: str | Loaded = "auto", *, offline: bool = False) -> Loaded:
    """Loads a data set with the parts that it has of its own, nothing held out.

    Arguments and errors as `load_splits`.
    """
    if isinstance(data, Loaded):
        return data
    if data == "auto":
        return load_auto(offline)
    if data == FASHION_MNIST:
        return load_fashion_mnist(offline)
    return load_sample() if data == "sample" else _load_path(data)


def describe_origin(loaded: Loaded) -> str:
    """Returns one printable line: the name of the data, from where, whether verified."""
    remarks = "; ".join(loaded.remarks())
    return printable(f"{data_name(loaded)} from {loaded.origin or loaded.location} ({remarks})")


# --- Paths ----------------------------------------------------------------------------------

SOURCES = (
    Source("IDX files", idx.holds_idx, idx.load_idx),
    Source("CSV files", csv_files.holds_csv, csv_files.load_csv),
    Source("NPZ file", lambda path: path.suffix.lower() == ".npz", npz.load_npz),
    Source("files of records", record_files.holds_records, record_files.load_records),
    Source("folder of images", Path.is_dir, image_folder.load_image_folder),
)


def _tell_meant(data: str) -> str:
    """Returns what a word that names no file probably means, as the end of a sentence."""
    word = data.lower()
    if word == "mnist":
        return f"; of clothes it is {FASHION_MNIST}, for handwritten digits name their files"
    close = difflib.get_close_matches(word, ("auto", FASHION_MNIST, "sample"), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _load_path(data: str) -> Loaded:
    if is_url(data):
        return record_files.load_records(data)
    path = Path(os.path.abspath(os.path.expanduser(data)))
    try:
        if not data or not path.exists():
            raise InputError(
                "--data should be auto, fashion-mnist, sample or the path of a file or folder. "
                f"Received: {data!r}, which does not exist{_tell_meant(data)}."
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
    raise InputError(f"{path} should be {checks.EXPECTED}. Received: a file of another kind.")
