"""Test images that training has as good as seen: those with a near duplicate among its images.

A report shows the accuracy with and without them. Looking for them takes seconds to a minute, so
what was found is kept beside Keras's caches, under the fingerprints of the images.
"""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from transfer import runs
from transfer.config import Config
from transfer.data.decode import decode_readable
from transfer.data.descriptors import COMPARED_SIZE
from transfer.data.duplicates import find_near_duplicates
from transfer.data.sources import Split, Splits, fingerprint
from transfer.downloads import keras_home
from transfer.errors import InputError
from transfer.evaluation.metrics import wilson_interval

_FORMAT = 1  # part of a file's name; raise it when the same images would give other duplicates


def find_leaked_images(splits: Splits, config: Config) -> np.ndarray:
    """Returns the test images with a near duplicate among training and validation images.

    Args:
        splits: the data of a run, image files not yet decoded.
        config: its settings; uses `skip_bad_images`.

    Returns:
        int (L,), indices into the decoded test images, sorted; from the cache or found now.

    Raises:
        InputError: image files are gone or do not decode.
    """
    parts = (splits.test, splits.train, splits.validation)
    key = repr((_FORMAT, config.skip_bad_images, [fingerprint(split) for split in parts]))
    path = leaks_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(InputError, KeyError):
        return np.array(runs.read_json(path)["leaked"], dtype=int)
    together = Split(
        np.concatenate([split.images for split in parts]),
        np.concatenate([split.labels for split in parts]),
        splits.test.root,
    )
    # Together, so that files of several sizes come out as one; unreadable ones were told before.
    pixels, kept, _ = decode_readable(together, COMPARED_SIZE)
    is_test = kept < splits.test.num_images
    leaked = np.unique(find_near_duplicates(pixels[is_test], pixels[~is_test]).first)
    with contextlib.suppress(OSError):  # no place for a cache: then without one
        path.parent.mkdir(parents=True, exist_ok=True)
        runs.write_atomically(path, json.dumps({"leaked": leaked.tolist()}))
    return leaked


def leaks_folder() -> Path:
    """Returns the folder of the cache, beside what Keras keeps."""
    return keras_home() / "transfer" / "duplicates"


def measure_without_leaks(leaked: np.ndarray, y_true: np.ndarray, y_prob: np.ndarray) -> dict:
    """Measures accuracy on the test images that have no near duplicate in training.

    Args:
        leaked: int (L,), the indices of those that have one.
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1].

    Returns:
        JSON values: `num_near_duplicates` (L), `num_images` (N - L), and of these `accuracy`
        and `accuracy_interval` (Wilson, 95 %), both None where there are none.
    """
    is_right = np.delete(y_prob.argmax(axis=1) == y_true, leaked)
    values: dict[str, Any] = {
        "num_near_duplicates": len(leaked),
        "num_images": len(is_right),
        "accuracy": None,
        "accuracy_interval": None,
    }
    if len(is_right):
        values["accuracy"] = float(is_right.mean())
        values["accuracy_interval"] = list(wilson_interval(int(is_right.sum()), len(is_right)))
    return values
