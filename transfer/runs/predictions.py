"""The predictions that a run keeps, each file bound to the model and the images it was made from.

A file that was damaged, made by another model or of other images is none: what stands in it is not
believed, and evaluation predicts again. The binding tells damage and mix-ups; whoever can write it
anew can also write a folder of a run that never was.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transfer.datasets.formats.npz import read_arrays
from transfer.errors import InputError, printable
from transfer.runs import files
from transfer.runs.facts import Facts
from transfer.storage.atomic import whole_file
from transfer.storage.untrusted import open_regular

TEST, VALIDATION, FLIPPED = "test", "validation", "flipped"
FILES = {
    TEST: files.PREDICTIONS,
    VALIDATION: files.VALIDATION_PREDICTIONS,
    FLIPPED: files.FLIPPED_PREDICTIONS,
}
_BINDING, _ENGINE = "sha256", "engine"
_MOST_ENGINE = 100  # bytes of a name


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of each image of a split, in the order of the split."""

    y_true: np.ndarray  # int64 (N,)
    y_prob: np.ndarray  # float32 (N, num_classes), rows sum to 1
    engine: str = ""  # that computed them, and its version; "" of several, and where not known


def load_predictions(run_dir: Path, facts: Facts, part: str = TEST) -> Predictions | None:
    """Returns the predictions kept in a run, None where there are none of this model.

    Args:
        run_dir: the folder.
        facts: what the run knows of itself.
        part: "test", "validation", or "flipped" for the test images mirrored left to right.
    """
    try:
        required = ("y_true", "y_prob", _BINDING)
        arrays = read_arrays(run_dir / FILES[part], required, (_ENGINE,))
        name = arrays.get(_ENGINE, np.zeros(0, np.uint8))  # older versions kept none
        engine = name.tobytes()[:_MOST_ENGINE].decode("utf-8", "replace")
        kept = Predictions(arrays["y_true"], arrays["y_prob"], printable(engine))
        bound = arrays[_BINDING].tobytes() == _binding(run_dir, facts, part, kept).tobytes()
    except (InputError, OSError, TypeError, ValueError):  # texts, where numbers should stand
        return None
    return (
        kept if bound and kept.y_prob.shape == (len(kept.y_true), facts.data.num_classes) else None
    )


def keep_predictions(run_dir: Path, facts: Facts, predictions: Predictions, part: str) -> None:
    """Writes predictions into a run; arguments as `load_predictions`.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    arrays = {"y_true": predictions.y_true, "y_prob": predictions.y_prob}
    arrays[_ENGINE] = np.frombuffer(predictions.engine.encode(), np.uint8)
    arrays[_BINDING] = _binding(run_dir, facts, part, predictions)
    with whole_file(run_dir / FILES[part]) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _binding(run_dir: Path, facts: Facts, part: str, predictions: Predictions) -> np.ndarray:
    # uint8 (32,): SHA-256 of the model's file, of the images, of what was said of them
    # and of the engine that said it.
    with open_regular(run_dir / files.MODEL) as file:
        digest = hashlib.sha256(hashlib.file_digest(file, "sha256").digest())
    images = facts.data.fingerprints[VALIDATION if part == VALIDATION else TEST]
    engine = f" {predictions.engine}" if predictions.engine else ""
    digest.update(f"{part} {images} {predictions.y_prob.shape}{engine}\n".encode())
    digest.update(np.ascontiguousarray(predictions.y_true, np.int64).data)
    digest.update(np.ascontiguousarray(predictions.y_prob, np.float32).data)
    return np.frombuffer(digest.digest(), np.uint8)
