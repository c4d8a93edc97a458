"""When a run answers and when it had better say "unknown": fitted once, kept in the run.

Temperature and threshold come from the validation images, the distance of known images from
training and validation images; report, predict, export and app all use what is kept here.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from transfer.data.splits import Split
from transfer.errors import InputError
from transfer.evaluation.calibration import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, fit_calibration
from transfer.evaluation.outliers import KnownImages, border_levels, fit_known, read_known
from transfer.evaluation.predictions import predict_run, predict_split
from transfer.runs import files
from transfer.runs.finished import FinishedRun
from transfer.runs.predictions import VALIDATION
from transfer.storage.atomic import read_json, write_json

MOST_IMAGES = 5000  # of the training images, by whose features known images are told


@dataclass(frozen=True, eq=False)
class Answering:
    """What decides between an answer and "unknown".

    Attributes:
        temperature: what `apply_temperature` takes.
        threshold: confidence from which a prediction is an answer; None for any.
        known: tells images of none of the classes; None where that was not fitted.
    """

    temperature: float = 1.0
    threshold: float | None = None
    known: KnownImages | None = None


def settle_answering(run: FinishedRun) -> Answering:
    """Returns what a run keeps of this, fitted now where it has none yet.

    Raises:
        InputError: it has to be fitted and the run's data or model cannot be used, or what is
            kept is damaged.
    """
    calibration = read_calibration(run) or keep_calibration(run)
    path = run.run_dir / files.KNOWN_IMAGES
    with open(run.run_dir / files.MODEL, "rb") as file:
        model = hashlib.file_digest(file, "sha256").digest()
    known = read_known(path, len(run.class_names), model)
    if known is None:
        known = _fit_known(run)
        known.write(path, model)
    temperature = calibration["temperature"]
    return Answering(temperature or 1.0, calibration["threshold"], known)


def keep_calibration(run: FinishedRun) -> dict[str, Any]:
    """Fits temperature and threshold on a run's validation images and keeps them in the run.

    Returns:
        What `fit_calibration` returned.

    Raises:
        InputError: its validation images or its model cannot be used.
    """
    validation = predict_run(run, VALIDATION)
    fitted = fit_calibration(validation.y_true, validation.y_prob)
    write_json(run.run_dir / files.CALIBRATION, fitted)
    return fitted


def read_calibration(run: FinishedRun) -> dict[str, Any] | None:
    """Returns what a run keeps of its calibration, None where there is none yet.

    Raises:
        InputError: the file is damaged.
    """
    path = run.run_dir / files.CALIBRATION
    if not path.is_file():
        return None
    values = read_json(path)
    temperature, threshold = values.get("temperature"), values.get("threshold")
    is_good = _is_between(temperature, LOWEST_TEMPERATURE / 2, HIGHEST_TEMPERATURE * 2)
    if not (is_good or temperature is None) or not (
        threshold is None or _is_between(threshold, 0, 1)
    ):
        raise InputError(
            f"{path} should hold a temperature and a threshold. Received: {temperature!r}, "
            f"{threshold!r}; delete it."
        )
    return values


def _is_between(value: Any, least: float, most: float) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and least <= value <= most


def features_of(run: FinishedRun, split: Split) -> np.ndarray:
    """Returns the features that the head of a run's classifier reads, float32 (N, F).

    Args:
        run: a finished run.
        split: decoded images.
    """
    both = predict_split(run.predictor_with_features, split, run.settings)
    return both[:, len(run.class_names) :]


def _fit_known(run: FinishedRun) -> KnownImages:
    train, validation = run.images("train"), run.images("validation")
    some = train.take(_evenly(train.num_images))
    # A class may have so few images that none is among them.
    missing = np.setdiff1d(train.labels, some.labels)
    if missing.size:
        first = [int((train.labels == label).argmax()) for label in missing]
        some = train.take(np.sort([*_evenly(train.num_images), *first]))
    checked = validation.take(_evenly(validation.num_images))
    return fit_known(
        features_of(run, some),
        some.labels,
        features_of(run, checked),
        border_levels(some.images),
    )


def _evenly(count: int) -> np.ndarray:
    # Labels may lie in order: every k-th image.
    return np.unique(np.linspace(0, count - 1, min(count, MOST_IMAGES)).astype(int))
