"""Test images that training has as good as seen: those with a near duplicate among its images.

A report shows the accuracy with and without them. Looking for them takes seconds to a minute, so
what was found is kept beside Keras's caches, under the fingerprints of the images.
"""

from typing import Any

import numpy as np

from transfer.data.descriptors import shrink
from transfer.data.duplicates import find_near_duplicates
from transfer.evaluation.metrics import wilson_interval
from transfer.runs.finished import FinishedRun
from transfer.storage.cache import FolderCache

CACHE = FolderCache("duplicates", ".json")
_FORMAT = 2  # part of a file's name; raise it when the same images would give other duplicates


def find_leaked_images(run: FinishedRun) -> np.ndarray:
    """Returns the test images with a near duplicate among training and validation images.

    Args:
        run: a finished run.

    Returns:
        int (L,), indices into the decoded test images, sorted; from the cache or found now.

    Raises:
        InputError: image files are gone or do not decode.
    """
    fingerprints = [run.fingerprint(part) for part in ("test", "train", "validation")]
    path = CACHE.path(_FORMAT, run.settings.skip_bad_images, run.geometry, fingerprints)
    kept = CACHE.read_json(path)
    if kept is not None:
        return np.array(kept["leaked"], dtype=int)
    parts = [shrink(run.images(part).images) for part in ("train", "validation")]
    leaked = np.unique(find_near_duplicates(run.images("test").images, np.concatenate(parts)).first)
    CACHE.keep_json(path, {"leaked": leaked.tolist()})
    return leaked


def measure_without_leaks(
    leaked: np.ndarray, y_true: np.ndarray, y_prob: np.ndarray
) -> dict[str, Any]:
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
