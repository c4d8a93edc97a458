"""Whether an exported file answers as the model that it was made from: on the whole test set."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transfer.deploy.classifiers import Outputs
from transfer.deploy.engines import load_engine
from transfer.deploy.exported import as_rgb, batched
from transfer.deploy.facts import ModelFacts
from transfer.deploy.formats import quietly
from transfer.evaluation.metrics import wilson_interval
from transfer.storage.sizes import folder_bytes

BATCHES = (1, 32)  # that are timed
_SECONDS = 1.0  # for each
_TIMED_IMAGES = 256


@dataclass(frozen=True)
class Verification:
    """What an exported file came to on the test images.

    Attributes:
        num_images: how many they are.
        accuracy: of the file, in [0, 1].
        accuracy_interval: 95 % Wilson interval.
        original_accuracy: of the run on the same images.
        agreement: share of the images with the same answer.
        largest_difference: of any probability of any image.
        images_per_second: on this machine, by images in a batch.
        num_bytes: size of the file, or of the files.
    """

    num_images: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    original_accuracy: float
    agreement: float
    largest_difference: float
    images_per_second: dict[int, float]
    num_bytes: int

    @property
    def loss(self) -> float:
        """How much accuracy was lost, in percentage points; negative where some was won."""
        return 100 * (self.original_accuracy - self.accuracy)


Run = Callable[[np.ndarray], np.ndarray]  # uint8 (B, H, W, 3) to (B, C) or (B, C + 1)


def load_own(path: Path) -> Run:
    """Loads what has just been exported into its runtime, in this process.

    Args:
        path: the file, or the folder of a SavedModel.
    """
    if path.is_dir():
        return _load_saved_model(path)
    with quietly():
        engine = load_engine(path)
        engine.run(np.zeros((1, *engine.input_shape), np.uint8))
    return lambda images: np.concatenate(
        [output.reshape(len(images), -1) for output in engine.run(images)], axis=1
    )


def _load_saved_model(path: Path) -> Run:
    import tensorflow as tf

    model = tf.saved_model.load(str(path))  # its variables live as long as it is held

    def run(images: np.ndarray) -> np.ndarray:
        outputs = model.serve(tf.constant(images))
        return np.concatenate([output.numpy() for output in outputs], axis=1)

    return run


def verify(
    run: Run,
    facts: ModelFacts,
    path: Path,
    images: np.ndarray,
    labels: np.ndarray,
    expected: np.ndarray,
) -> Verification:
    """Runs an exported file over test images, each once.

    Args:
        run: as `load_own` returns it.
        facts: of the model.
        path: the file.
        images: uint8 (N, H, W, 1 or 3).
        labels: (N,) integers in [0, C).
        expected: float (N, C), probabilities of the original.

    Raises:
        InputError: it gives no probabilities.
    """
    y_prob = outputs_of(run, facts, path, images).y_prob
    predicted, original = y_prob.argmax(axis=1), expected.argmax(axis=1)
    correct = int((predicted == labels).sum())
    return Verification(
        num_images=len(labels),
        accuracy=correct / len(labels),
        accuracy_interval=wilson_interval(correct, len(labels)),
        original_accuracy=float((original == labels).mean()),
        agreement=float((predicted == original).mean()),
        largest_difference=float(np.abs(y_prob - expected).max()),
        images_per_second={size: _time(run, images, size) for size in BATCHES},
        num_bytes=count_bytes(path),
    )


def outputs_of(run: Run, facts: ModelFacts, path: Path, images: np.ndarray) -> Outputs:
    """Returns what an exported file says of images, uint8 (N, H, W, 1 or 3)."""
    return batched(run, facts, str(path))(images)


def count_bytes(path: Path) -> int:
    """Returns the size of a model: of its file, of both of OpenVINO's, or of all in its folder."""
    if path.is_dir():
        return folder_bytes(path)
    others = [path.with_suffix(".bin")] if path.suffix == ".xml" else []
    return sum(file.stat().st_size for file in (path, *others))


def _time(run: Run, images: np.ndarray, size: int) -> float:
    some = as_rgb(np.resize(images[:_TIMED_IMAGES], (_TIMED_IMAGES, *images.shape[1:])))
    run(some[:size])  # memory is laid out
    seconds: list[float] = []
    while sum(seconds) < _SECONDS:
        start = len(seconds) * size % (_TIMED_IMAGES - size + 1)
        started = time.perf_counter()
        run(some[start : start + size])
        seconds.append(time.perf_counter() - started)
    return size / statistics.median(seconds)  # other work on the machine slows some batches


def to_json(verification: Verification) -> dict[str, Any]:
    """Returns it as plain JSON values."""
    return {**vars(verification), "loss_in_points": verification.loss}
