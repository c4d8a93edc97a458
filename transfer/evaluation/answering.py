"""When a run answers and when it had better say "unknown": fitted once, kept in the run.

Temperature and threshold come from the validation images, the distance of known images from
training and validation images; report, predict, export and app all use what is kept here.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transfer import console
from transfer.data.splits import Split
from transfer.errors import InputError, disk_error
from transfer.evaluation.calibration import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, fit_calibration
from transfer.evaluation.outliers import KnownImages, border_levels, fit_known, read_known
from transfer.evaluation.predictions import predict_run, predict_split
from transfer.runs import files
from transfer.runs.finished import FinishedRun
from transfer.runs.predictions import VALIDATION
from transfer.storage.atomic import read_json, write_json
from transfer.storage.untrusted import open_regular

_BINDING = "sha256"
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
        InputError: it has to be fitted and the run's data or model cannot be used.
    """
    calibration = read_calibration(run) or keep_calibration(run)
    path, model = run.run_dir / files.KNOWN_IMAGES, _model_sha256(run)
    known = read_known(path, len(run.class_names), model)
    if known is None:
        known = _fit_known(run)
        _keep(functools.partial(known.write, path, model), path)
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
    path = run.run_dir / files.CALIBRATION
    _keep(functools.partial(write_json, path, fitted | {_BINDING: _binding(run, fitted)}), path)
    return fitted


def _keep(write: Callable[[], None], path: Path) -> None:
    try:
        write()
    except OSError as error:  # what cannot be kept serves all the same
        console.say(f"{path.name} is not kept: {disk_error(error, path)}")


def read_calibration(run: FinishedRun) -> dict[str, Any] | None:
    """Returns what a run keeps of its calibration, as `keep_calibration`.

    None where there is none, or one that was damaged, or made with another model or of other
    images: what stands in it is not believed.
    """
    path = run.run_dir / files.CALIBRATION
    if not os.path.lexists(path):
        return None
    values, is_bound = {}, False
    with contextlib.suppress(InputError, OSError):
        values = read_json(path)
        is_bound = values.pop(_BINDING, None) == _binding(run, values)
    temperature, threshold = values.get("temperature"), values.get("threshold")
    is_good = _is_between(temperature, LOWEST_TEMPERATURE / 2, HIGHEST_TEMPERATURE * 2)
    if is_bound and (is_good or temperature is None):
        if threshold is None or _is_between(threshold, 0, 1):
            return values
    console.say(f"{path} is damaged or not of this model and these images: fitted again")
    return None


def _binding(run: FinishedRun, fitted: Mapping[str, Any]) -> str:
    # SHA-256 of the model's file, of the validation images and of what was fitted on them.
    digest = hashlib.sha256(_model_sha256(run))
    digest.update(run.facts.data.fingerprints[VALIDATION].encode())
    digest.update(json.dumps(fitted, sort_keys=True).encode())
    return digest.hexdigest()


def _model_sha256(run: FinishedRun) -> bytes:
    with open_regular(run.run_dir / files.MODEL) as file:
        return hashlib.file_digest(file, "sha256").digest()


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
