"""A finished run's predictions on its images: `y_true` and `y_prob`, made once and kept.

Only a model that has not predicted yet needs TensorFlow; every metric, plot and table reads
the two arrays alone.
"""

import csv
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from transfer import runs
from transfer.config import Config
from transfer.data.decode import decode_split
from transfer.data.formats import read_arrays
from transfer.data.sources import Split, Splits, fingerprint, load_splits
from transfer.errors import InputError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of each image of a split, in the order of the split."""

    y_true: np.ndarray  # int64 (N,)
    y_prob: np.ndarray  # float32 (N, num_classes), rows sum to 1


TEST, VALIDATION, FLIPPED = "test", "validation", "flipped"
_FILES = {
    TEST: runs.PREDICTIONS,
    VALIDATION: runs.VALIDATION_PREDICTIONS,
    FLIPPED: runs.FLIPPED_PREDICTIONS,
}


def load_predictions(run_dir: Path, part: str = TEST) -> Predictions | None:
    """Returns the predictions kept in a run, or None where there are none of this model."""
    path = run_dir / _FILES[part]
    if not path.is_file():
        return None
    try:
        return Predictions(**read_arrays(path, ("y_true", "y_prob")))
    except InputError as error:
        raise InputError(f"{error} Delete it and evaluate again.") from error


def predict_run(run_dir: Path, console: Console, part: str = TEST) -> Predictions:
    """Predicts each image of a part of a run's data once and keeps the result in the run folder.

    Args:
        run_dir: a finished run.
        console: where progress is told.
        part: "test", "validation", or "flipped" for the test images mirrored left to right.

    Returns:
        The predictions, read back or made now.

    Raises:
        InputError: the data is gone or has changed, or the model file does not fit the run.
    """
    kept = load_predictions(run_dir, part)
    if kept is not None:
        return kept
    facts = runs.read_facts(run_dir)
    config = Config.from_dict(facts["settings"])
    source = VALIDATION if part == VALIDATION else TEST
    split = decode_run_split(getattr(load_run_splits(facts, source), source), config)
    y_prob = _predict(run_dir, facts, split, part, console)
    predictions = Predictions(split.labels, y_prob)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, y_true=predictions.y_true, y_prob=predictions.y_prob)
    runs.write_atomically(run_dir / _FILES[part], buffer.getvalue())
    return predictions


def _predict(run_dir: Path, facts: dict, split: Split, part: str, console: Console) -> np.ndarray:
    from transfer.data.pipeline import steps_per_epoch
    from transfer.progress import PhaseProgress

    config = Config.from_dict(facts["settings"])
    progress = PhaseProgress(
        console,
        f"{part} predictions of {run_dir.name}",
        num_images=split.num_images,
        steps=steps_per_epoch(split.num_images, config.batch_size),
    )
    return predict_split(
        load_classifier(run_dir), split, config, flipped=part == FLIPPED, callbacks=[progress]
    )


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
    from transfer.models.inference import predict_batches

    batches = predict_batches(
        classifier,
        split,
        config.image_size,
        config.batch_size,
        flipped=flipped,
        callbacks=callbacks,
    )
    return np.concatenate(list(batches)).astype(np.float32)


@functools.lru_cache(maxsize=1)  # a report predicts with the same model two or three times
def load_classifier(run_dir: Path, *, to_predict: bool = True) -> "keras.Model":
    """Returns the trained classifier of a run, BatchNorm folded.

    Args:
        run_dir: a finished run.
        to_predict: in the number format that predicts fastest here; else in that of the training,
            for gradients.
    """
    from transfer.models.classifier import restore_classifier
    from transfer.models.folding import fold_classifier
    from transfer.models.precision import choose_inference_precision

    facts = runs.read_facts(run_dir)
    config, num_classes = Config.from_dict(facts["settled"]), len(facts["data"]["class_names"])
    classifier = restore_classifier(config, num_classes, facts["precision"], run_dir / runs.MODEL)
    policy, _ = choose_inference_precision(config.backbone, config.precision)
    return fold_classifier(classifier, policy if to_predict else None)


def mean_predictions(several: Sequence[Predictions]) -> Predictions:
    """Returns the mean of the probabilities of several models, or views, on the same images.

    Raises:
        ValueError: their labels differ.
    """
    first, *others = several
    if not all(np.array_equal(first.y_true, other.y_true) for other in others):
        raise ValueError("Expected predictions of the same images. Received: other labels.")
    y_prob = np.mean([one.y_prob for one in several], axis=0, dtype=np.float64)
    return Predictions(first.y_true, y_prob.astype(np.float32))


def predictions_csv(y_true: np.ndarray, y_prob: np.ndarray, class_names: Sequence[str]) -> str:
    """Returns predictions as CSV: a line for each image, every number in full precision.

    The columns are index, true, predicted (names of classes), confidence (probability of the
    predicted class), and for each class "p " and its name.

    Args:
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1].
        class_names: C names.
    """
    rows = np.asarray(y_prob, dtype=np.float64).tolist()  # floats, written with all their digits
    predicted = np.argmax(y_prob, axis=1).tolist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = (f"p {name}" for name in class_names)
    writer.writerow(["index", "true", "predicted", "confidence", *columns])
    for index, (true, best, row) in enumerate(zip(y_true, predicted, rows, strict=True)):
        writer.writerow([index, class_names[true], class_names[best], row[best], *row])
    return text.getvalue()


def load_run_splits(facts: dict, part: str = TEST) -> Splits:
    """Loads the very data a run was trained on and checks that the images of a part are the same.

    Args:
        facts: the content of the run's config.json.
        part: "test" or "validation".

    Returns:
        The splits, image files not yet decoded.

    Raises:
        InputError: the data is gone, or the images of the part are not those of the run.
    """
    config = Config.from_dict(facts["settings"])
    splits = load_splits(
        facts["data"]["location"],
        validation_fraction=config.validation_fraction,
        seed=config.seed,
        limit=config.limit,
        offline=True,
    )
    if fingerprint(getattr(splits, part)) != facts["data"]["fingerprints"][part]:
        raise InputError(
            f"the {part} images in {facts['data']['location']} are not those of this run; "
            "they have changed since it was trained."
        )
    return splits


def decode_run_split(split: Split, config: Config) -> Split:
    """Returns a split, or a part of one, with its images decoded as for training."""
    return decode_split(split, config.image_size, skip_bad_images=config.skip_bad_images)
