"""Cross-validation of the head: what a small data set says of itself, not of one lucky part.

The frozen backbone has run once over all images; of their features each fold holds one part out
and trains a head of its own on the others. Near duplicates are never on both sides. The run's own
head, which is kept, has nothing to do with it.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from transfer import console
from transfer.data.duplicates import group_near_duplicates
from transfer.data.splits import Split, Splits
from transfer.errors import InputError
from transfer.models.head import MULTI, build_head, measure_features
from transfer.models.precision import dtype_policy
from transfer.runs.facts import FoldSummary
from transfer.storage.atomic import scratch_folder
from transfer.training.callbacks import HEAD, HistoryRecorder
from transfer.training.features import frozen_extractor, load_features
from transfer.training.phases import HeadFeatures, Run, fit_head
from transfer.training.scores import best_row


def cross_validate(
    classifier: keras.Model, features: HeadFeatures, splits: Splits, run: Run, policy: str
) -> dict[str, FoldSummary]:
    """Trains a head for each fold of the training and validation images together.

    Args:
        classifier: its backbone gave the features.
        features: of the training images and of the validation images.
        splits: the images.
        run: its settings say how many folds, and how a head is trained.
        policy: one of `POLICIES`.

    Returns:
        What each fold came to on the part it held out, by its number from "1".

    Raises:
        InputError: a class has fewer different images than there are folds.
    """
    config = run.config
    views = [np.concatenate([features.views[0], features.validation])]
    if config.flip:
        extractor = frozen_extractor(classifier, config)
        mirrored = load_features(extractor, splits.validation, config, flipped=True)
        views.append(np.concatenate([features.views[1], mirrored]))
    together = _together(splits.train, splits.validation)
    with console.status("Looking for near duplicates"):
        groups = group_near_duplicates(together.images)
    _check_classes(together.labels, groups, splits.class_names, config.folds)
    folds = {}
    for number, (learnt, held) in enumerate(_divide(together.labels, groups, run), 1):
        parts = dataclasses.replace(
            splits, train=together.take(learnt), validation=together.take(held)
        )
        with console.status(f"Fold {number} of {config.folds}"), console.speaking(quiet=True):
            of_fold = _features_of(views, learnt, held, config.head_features)
            folds[str(number)] = _fit_fold(of_fold, parts, run, policy)
    return folds


def _together(train: Split, validation: Split) -> Split:
    images = np.concatenate([train.images, validation.images])
    return Split(images, np.concatenate([train.labels, validation.labels]))


def _check_classes(
    labels: np.ndarray, groups: np.ndarray, class_names: tuple[str, ...], folds: int
) -> None:
    different = np.array([len(np.unique(groups[labels == c])) for c in range(len(class_names))])
    least = int(different.argmin())
    if different[least] < folds:
        raise InputError(
            f"--folds should be at most {different[least]}, which is how many different images of "
            f"class {class_names[least]!r} there are. Received: {folds}."
        )


def _divide(
    labels: np.ndarray, groups: np.ndarray, run: Run
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    # Yields the indices of those learnt from and of those held out.
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(run.config.folds, shuffle=True, random_state=run.config.seed)
    yield from folds.split(labels, labels, groups)


def _features_of(
    views: list[np.ndarray], learnt: np.ndarray, held: np.ndarray, head_features: str
) -> HeadFeatures:
    of_learnt = [view[learnt] for view in views]
    scaler = measure_features(of_learnt[0]) if head_features == MULTI else None
    return HeadFeatures(of_learnt, views[0][held], scaler)


def _fit_fold(features: HeadFeatures, splits: Splits, run: Run, policy: str) -> FoldSummary:
    num_features, num_classes = features.validation.shape[1], len(splits.class_names)
    keras.utils.set_random_seed(run.config.seed)
    with dtype_policy(policy):
        head = build_head(run.config, num_features, num_classes)
    with scratch_folder() as folder:
        own = Run(run.config, HistoryRecorder(Path(folder)), time.perf_counter())
        fit_head(head, features, splits, own)
    best = best_row(own.recorder.rows, HEAD)
    assert best is not None  # else `fit_head` has told that it diverged
    return FoldSummary(splits.validation.num_images, best["val_loss"], best["val_accuracy"])
