"""A finished run's predictions on its test images: `y_true` and `y_prob`, made once and kept.

Only a model that has not predicted yet needs TensorFlow; every metric, plot and table reads
the two arrays alone.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from transfer import runs
from transfer.config import Config
from transfer.data.decode import decode_split
from transfer.data.formats import read_arrays
from transfer.data.sources import Split, Splits, fingerprint, load_splits
from transfer.errors import InputError


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of each test image, in the order of the test set."""

    y_true: np.ndarray  # int64 (N,)
    y_prob: np.ndarray  # float32 (N, num_classes), rows sum to 1


def load_predictions(run_dir: Path) -> Predictions | None:
    """Returns the predictions kept in a run, or None where there are none of this model."""
    path = run_dir / runs.PREDICTIONS
    if not path.is_file():
        return None
    try:
        return Predictions(**read_arrays(path, ("y_true", "y_prob")))
    except InputError as error:
        raise InputError(f"{error} Delete it and evaluate again.") from error


def predict_run(run_dir: Path, console: Console) -> Predictions:
    """Predicts each test image of a run once and keeps the result in the run folder.

    Args:
        run_dir: a finished run.
        console: where progress is told.

    Returns:
        The predictions, read back or made now.

    Raises:
        InputError: the data is gone or has changed, or the model file does not fit the run.
    """
    kept = load_predictions(run_dir)
    if kept is not None:
        return kept
    facts = runs.read_facts(run_dir)
    config = Config.from_dict(facts["settings"])
    test = decode_run_split(load_run_splits(facts).test, config)
    y_prob = _predict(run_dir, facts, test, console)
    predictions = Predictions(test.labels, y_prob)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, y_true=predictions.y_true, y_prob=predictions.y_prob)
    runs.write_atomically(run_dir / runs.PREDICTIONS, buffer.getvalue())
    return predictions


def _predict(run_dir: Path, facts: dict, test: Split, console: Console) -> np.ndarray:
    from transfer.data.pipeline import make_evaluation_dataset, steps_per_epoch
    from transfer.models.classifier import restore_classifier
    from transfer.models.folding import fold_classifier
    from transfer.progress import PhaseProgress

    config = Config.from_dict(facts["settings"])
    num_classes = len(facts["data"]["class_names"])
    classifier = restore_classifier(config, num_classes, facts["precision"], run_dir / runs.MODEL)
    batches = make_evaluation_dataset(test, config.image_size, config.batch_size, num_classes)
    progress = PhaseProgress(
        console,
        f"predictions of {run_dir.name}",
        num_images=test.num_images,
        steps=steps_per_epoch(test.num_images, config.batch_size),
    )
    images_only = batches.map(lambda images, labels: images)
    return (
        fold_classifier(classifier)
        .predict(images_only, callbacks=[progress], verbose=0)
        .astype(np.float32)
    )


def load_run_splits(facts: dict) -> Splits:
    """Loads the very data a run was trained on and checks that its test images are the same.

    Args:
        facts: the content of the run's config.json.

    Returns:
        The splits, image files not yet decoded.

    Raises:
        InputError: the data is gone, or its test images are not those of the run.
    """
    config = Config.from_dict(facts["settings"])
    splits = load_splits(
        facts["data"]["location"],
        validation_fraction=config.validation_fraction,
        seed=config.seed,
        limit=config.limit,
        offline=True,
    )
    if fingerprint(splits.test) != facts["data"]["fingerprints"]["test"]:
        raise InputError(
            f"the test images in {facts['data']['location']} are not those of this run; "
            "they have changed since it was trained."
        )
    return splits


def decode_run_split(split: Split, config: Config) -> Split:
    """Returns a split, or a part of one, with its images decoded as for training."""
    return decode_split(split, config.image_size, skip_bad_images=config.skip_bad_images)
