"""A finished run's predictions on its images: `y_true` and `y_prob`, made once and kept.

Only a model that has not predicted yet needs Keras; every metric, plot and table reads the two
arrays alone.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from transfer import console
from transfer.backend import load_keras
from transfer.config import Config
from transfer.data.splits import Split
from transfer.errors import InputError, disk_error, printable
from transfer.evaluation.metrics import check_predictions
from transfer.evaluation.temperature import apply_temperature
from transfer.runs.finished import FinishedRun
from transfer.runs.predictions import (
    FILES,
    FLIPPED,
    TEST,
    VALIDATION,
    Predictions,
    keep_predictions,
    load_predictions,
)
from transfer.storage.csv_text import csv_text

if TYPE_CHECKING:
    import keras

MOST_PIXELS = 128 * 224 * 224  # of a batch to predict


def prediction_batch_size(config: Config) -> int:
    """Returns how many images are predicted at a time.

    As many as the run trained at a time, fewer where so many of this size would fill the memory:
    what a run folder asks for may come from a stranger.
    """
    return max(1, min(config.batch_size, MOST_PIXELS // config.image_size**2))


def predict_first(run: FinishedRun, count: int | None) -> Predictions:
    """Predicts the first test images of a run, or reads them back; of some nothing is kept.

    Args:
        run: a finished run.
        count: of the images; None for all.

    Raises:
        InputError: as `predict_run`.
    """
    test = run.images(TEST)
    is_kept = load_predictions(run.run_dir, run.facts) is not None
    if count is None or count >= test.num_images or is_kept:
        whole = predict_run(run)
        return Predictions(whole.y_true[:count], whole.y_prob[:count], whole.engine)
    some = test.take(np.arange(count))
    return _predict(run, some, TEST)


def predict_run(run: FinishedRun, part: str = TEST) -> Predictions:
    """Predicts each image of a part of a run's data once and keeps the result in the run folder.

    Args:
        run: a finished run.
        part: "test", "validation", or "flipped" for the test images mirrored left to right.

    Returns:
        The predictions, read back or made now.

    Raises:
        InputError: the data is gone or has changed, or the model file does not fit the run.
    """
    is_kept = part == VALIDATION or not run.has_other_test  # of other images nothing is kept
    kept = load_predictions(run.run_dir, run.facts, part) if is_kept else None
    if kept is not None:
        _check_kept(kept, run, part)
        return kept
    path = run.run_dir / FILES[part]
    if is_kept and path.exists():
        console.say(f"{path} is damaged or not of this model and these images: predicted again")
    split = run.images(VALIDATION if part == VALIDATION else TEST)
    predictions = _predict(run, split, part)
    if not is_kept:
        return predictions
    try:
        keep_predictions(run.run_dir, run.facts, predictions, part)
    except OSError as error:  # a result that cannot be kept is one all the same
        console.say(f"The predictions are not kept: {disk_error(error, path)}")
    return predictions


def _check_kept(kept: Predictions, run: FinishedRun, part: str) -> None:
    count = run.facts.data.num_images[VALIDATION if part == VALIDATION else TEST]
    try:
        check_predictions(kept.y_true, kept.y_prob, run.class_names)
        if len(kept.y_true) != count:
            raise ValueError(f"Expected {count:,} images. Received: {len(kept.y_true):,}")
    except (TypeError, ValueError) as error:
        path = run.run_dir / FILES[part]
        raise InputError(
            f"{path} should hold predictions of this run: {error}; delete it and evaluate again."
        ) from error


def _predict(run: FinishedRun, split: Split, part: str) -> Predictions:
    load_keras(console.is_verbose())
    from transfer.acceleration.doors import pass_engine
    from transfer.data.pipeline import steps_per_epoch
    from transfer.progress import PhaseProgress

    progress = PhaseProgress(
        f"{part} predictions of {run.name}",
        num_images=split.num_images,
        steps=steps_per_epoch(split.num_images, prediction_batch_size(run.settings)),
    )
    y_prob = predict_split(
        run.predictor, split, run.settings, flipped=part == FLIPPED, callbacks=[progress]
    )
    return Predictions(split.labels, y_prob, pass_engine())


def predict_split(
    classifier: "keras.Model",
    split: Split,
    config: Config,
    *,
    flipped: bool = False,
    callbacks: Sequence["keras.callbacks.Callback"] = (),
) -> np.ndarray:
    """Runs a classifier over each image of a split once, in order.

    Args:
        classifier: float (B, S, S, 3) in [0, 255] -> (B, num_classes) probabilities.
        split: N images as uint8 arrays.
        config: uses `image_size` and `batch_size`.
        flipped: mirror the images left to right.
        callbacks: for progress.

    Returns:
        float32 (N, num_classes), rows sum to 1.
    """
    from transfer.acceleration.doors import predict_batches

    batches = predict_batches(
        classifier,
        split,
        config.image_size,
        prediction_batch_size(config),
        flipped=flipped,
        callbacks=callbacks,
    )
    return np.concatenate(list(batches)).astype(np.float32)


def mean_predictions(several: Sequence[Predictions]) -> Predictions:
    """Returns the mean of the probabilities of several models, or views, on the same images.

    Raises:
        ValueError: their labels differ.
    """
    first, *others = several
    if not all(np.array_equal(first.y_true, other.y_true) for other in others):
        raise ValueError("Expected predictions of the same images. Received: other labels.")
    y_prob = np.mean([one.y_prob for one in several], axis=0, dtype=np.float64)
    return Predictions(first.y_true, np.asarray(y_prob, np.float32))


def predictions_csv(
    y_true: np.ndarray,
    y_prob: np.ndarray,
    class_names: Sequence[str],
    paths: Sequence[str] | np.ndarray | None = None,
    temperature: float | None = None,
) -> str:
    """Returns predictions as CSV: a line for each image, every number in full precision.

    The columns are index, image (of image files, their path), true, predicted (names of classes),
    confidence (probability of the predicted class, as the model says), calibrated_confidence (the
    same with the temperature, empty without one), and for each class "p " and its name.


    Args:
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1].
        class_names: C names.
        paths: of the N images, where they are files.
        temperature: as `fit_calibration` gives it.
    """
    rows = np.asarray(y_prob, dtype=np.float64).tolist()  # floats, written with all their digits
    predicted = np.argmax(y_prob, axis=1).tolist()
    calibrated: list[float | None] = [None] * len(rows)
    if temperature is not None:
        calibrated = apply_temperature(y_prob, temperature).max(axis=1).tolist()
    image = [] if paths is None else ["image"]
    columns = ["index", *image, "true", "predicted", "confidence", "calibrated_confidence"]
    lines = []
    for index, (true, best, row) in enumerate(zip(y_true, predicted, rows, strict=True)):
        path = [] if paths is None else [printable(paths[index])]
        names = (class_names[true], class_names[best])
        lines.append([index, *path, *names, row[best], calibrated[index], *row])
    return csv_text([*columns, *(f"p {name}" for name in class_names)], lines)
