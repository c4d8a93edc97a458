"""From predictions to numbers: the first stop after `predictions.py`.

Every number of a report is computed here from two arrays, `y_true` and `y_prob`, and nothing
else: no model, no data set, no TensorFlow. Each image is counted once (correct / seen, never
the mean of batch means), and what comes back is plain Python that `json.dumps` takes as it is.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix as count_confusions
from sklearn.metrics import precision_recall_fscore_support

from transfer.evaluation.significance import bootstrap_macro_f1, bootstrap_mean

# Keras clips probabilities at the same value, so this loss can be set beside its `val_loss`.
SMALLEST_PROBABILITY = 1e-7
# Wide enough for probabilities in half precision, narrow enough to refuse logits.
SUM_TOLERANCE = 0.01
MOST_CONFUSED_PAIRS = 10


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the Wilson score interval of the share `correct / total`.

    Unlike the normal approximation it stays within [0, 1] and keeps a width above zero when
    all images are right. Source: E. B. Wilson, "Probable Inference, the Law of Succession, and
    Statistical Inference", JASA 22 (1927), as implemented by `scipy.stats.binomtest`.

    Args:
        correct: number of images predicted rightly, 0 to `total`.
        total: number of images seen, at least 1.
        confidence: between 0 and 1, both excluded.

    Returns:
        (low, high), both floats in [0, 1], low <= correct / total <= high.

    Raises:
        ValueError: a number is out of its range.
    """
    if not (total >= 1 and 0 <= correct <= total):
        raise ValueError(
            "Expected at least one image, and 0 to `total` of them correct. "
            f"Received: correct={correct}, total={total}"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` should lie between 0 and 1. Received: {confidence}")
    interval = binomtest(int(correct), int(total)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def compute_metrics(
    y_true: np.ndarray, y_prob: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """Computes every number that a report shows.

    Args:
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1], each row sums to 1.
        class_names: C names, in the order of the columns of `y_prob`.

    Returns:
        A dict of plain Python values:
        accuracy: share of the N images whose most probable class is the true one.
        accuracy_interval: its 95 % Wilson interval, [low, high].
        loss: mean cross-entropy in nats, probabilities clipped at 1e-7.
        loss_interval, f1_macro_interval: their 95 % bootstrap intervals, [low, high].
        precision_macro, recall_macro, f1_macro: means over the classes that occur in `y_true`;
            a class without test images has no recall, and must not pull the mean down.
        per_class: for each class a dict of class_name, precision, recall, f1 and support. What
            cannot be divided (a class never predicted, or without test images) is 0.0.
        confusion_matrix: C lists of C counts, rows are true classes, columns predicted ones.
        most_confused: at most 10 dicts of true, predicted, count and share_of_true, the
            most frequent first.
        num_images: N.

    Raises:
        ValueError: an array has another shape, type or range than expected.
    """
    y_true, y_prob = check_predictions(y_true, y_prob, class_names)
    y_pred = y_prob.argmax(axis=1)
    correct, total = int(np.sum(y_pred == y_true)), len(y_true)
    labels = np.arange(len(class_names))
    counts = count_confusions(y_true, y_pred, labels=labels)  # (C, C)
    precision, recall, f1, _ = precision_recall_fscore_support(
        y_true, y_pred, labels=np.unique(y_true), average="macro", zero_division=0.0
    )
    return {
        "accuracy": correct / total,
        "accuracy_interval": list(wilson_interval(correct, total)),
        "loss": mean_cross_entropy(y_true, y_prob),
        "loss_interval": list(bootstrap_mean(cross_entropies(y_true, y_prob))),
        "precision_macro": float(precision),
        "recall_macro": float(recall),
        "f1_macro": float(f1),
        "f1_macro_interval": list(bootstrap_macro_f1(counts)),
        "per_class": _per_class(y_true, y_pred, class_names),
        "confusion_matrix": counts.tolist(),
        "most_confused": _most_confused(counts, class_names),
        "num_images": total,
    }


def check_predictions(
    y_true: np.ndarray, y_prob: np.ndarray, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns both as arrays (N,) int64 and (N, C) float64, or says what does not fit."""
    y_true, y_prob = np.asarray(y_true), np.asarray(y_prob)
    num_classes = len(class_names)
    if y_true.ndim != 1 or len(y_true) == 0 or not np.issubdtype(y_true.dtype, np.integer):
        raise ValueError(
            "`y_true` should be integers of shape (N,), with N at least 1. "
            f"Received: {y_true.dtype} of shape {y_true.shape}"
        )
    if y_prob.shape != (len(y_true), num_classes):
        raise ValueError(
            f"`y_prob` should have shape ({len(y_true)}, {num_classes}): a row for each label of "
            f"`y_true`, a column for each of `class_names`. Received: shape {y_prob.shape}"
        )
    if y_true.min() < 0 or y_true.max() >= num_classes:
        raise ValueError(
            f"`y_true` should lie in 0 to {num_classes - 1}. "
            f"Received: {y_true.min()} to {y_true.max()}"
        )
    y_prob = y_prob.astype(np.float64)
    sums_to_one = np.abs(y_prob.sum(axis=1) - 1.0) <= SUM_TOLERANCE  # false where NaN
    valid = sums_to_one & (y_prob.min(axis=1) >= 0.0)
    if not valid.all():
        row = int(np.argmin(valid))
        raise ValueError(
            "`y_prob` should hold probabilities in [0, 1] that sum to 1 in each row. "
            f"Received: row {row} from {y_prob[row].min()} to {y_prob[row].max()}, "
            f"sum {y_prob[row].sum()}"
        )
    return y_true.astype(np.int64), y_prob


def cross_entropies(y_true: np.ndarray, y_prob: np.ndarray) -> np.ndarray:
    """Returns the loss of each image in nats, float64 (N,), probabilities clipped at 1e-7.

    Args:
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1].
    """
    # sklearn's log_loss clips at another value, and warns of rows that sum to 1.0000001.
    of_true_class = y_prob[np.arange(len(y_true)), y_true].astype(np.float64)  # (N,)
    clipped = np.clip(of_true_class, SMALLEST_PROBABILITY, 1.0)
    # math.log and not np.log, whose last digit depends on the processor.
    return np.array([-math.log(probability) for probability in clipped.tolist()])


def mean_cross_entropy(y_true: np.ndarray, y_prob: np.ndarray) -> float:
    """Returns the mean of `cross_entropies`, rounded once: no order of the images changes it."""
    return math.fsum(cross_entropies(y_true, y_prob)) / len(y_true)


def _per_class(
    y_true: np.ndarray, y_pred: np.ndarray, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    columns = precision_recall_fscore_support(
        y_true, y_pred, labels=np.arange(len(class_names)), zero_division=0.0
    )
    return [
        {
            "class_name": str(name),
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "support": int(support),
        }
        for name, precision, recall, f1, support in zip(class_names, *columns, strict=True)
    ]


def _most_confused(counts: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    mistakes = counts - np.diag(np.diag(counts))  # (C, C)
    # Stable, so that equal counts stand in the order of the classes, on every machine.
    order = np.argsort(-mistakes, axis=None, kind="stable")[:MOST_CONFUSED_PAIRS]
    pairs = zip(*np.unravel_index(order, counts.shape), strict=True)
    return [
        {
            "true": str(class_names[i]),
            "predicted": str(class_names[j]),
            "count": int(counts[i, j]),
            "share_of_true": float(counts[i, j] / counts[i].sum()),
        }
        for i, j in pairs
        if mistakes[i, j] > 0
    ]
