"""Whether a classifier knows when it is wrong: beside `metrics.py`, from the same two arrays.

A temperature is fitted on the validation images and a threshold is chosen there, below which
a prediction had better be "unknown"; both are then measured on the test images. Nothing is
chosen on the test images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from transfer.evaluation.metrics import mean_cross_entropy, wilson_interval
from transfer.evaluation.temperature import apply_temperature, log_probabilities

NUM_BINS = 15  # as in Guo et al. 2017
TARGET_ACCURACY = 0.99
# Of fewer images a threshold for 99 % hangs on a single mistake, or on none at all.
LEAST_IMAGES = 100
CALIBRATED = "calibrated_confidence"  # what the threshold is of, a column of predictions.csv
# A validation set without a mistake would call for a temperature of 0, that is for certainty.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 10.0


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """Images by confidence, in bins of equal width from 0 to 1.

    Attributes:
        confidence: (B,) floats, mean confidence of the images of a bin, NaN where it is empty.
        accuracy: (B,) floats, share of them that is right, NaN where it is empty.
        count: (B,) ints, how many they are.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def reliability_bins(
    y_true: np.ndarray, y_prob: np.ndarray, num_bins: int = NUM_BINS
) -> ReliabilityBins:
    """Sorts images into bins by the probability of their predicted class.

    Args:
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1], each row sums to 1.
        num_bins: B.
    """
    confidence, is_right = _confidence(y_true, y_prob)
    # (0, 1/B], (1/B, 2/B], ...
    number = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    count = np.bincount(number, minlength=num_bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        mean_confidence, accuracy = (
            np.bincount(number, weights=values, minlength=num_bins) / count
            for values in (confidence, is_right)
        )
    return ReliabilityBins(mean_confidence, accuracy, count)


def expected_calibration_error(
    y_true: np.ndarray, y_prob: np.ndarray, num_bins: int = NUM_BINS
) -> float:
    """Returns the mean distance, over the images, between confidence and accuracy of their bin.

    Source: C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On Calibration of Modern Neural
    Networks", ICML 2017, https://arxiv.org/abs/1706.04599.

    Args:
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1], each row sums to 1.
        num_bins: bins of equal width.

    Returns:
        A share in [0, 1]; 0 where, of the images with confidence c, the share c is right.
    """
    bins = reliability_bins(y_true, y_prob, num_bins)
    distances = np.abs(bins.confidence - bins.accuracy)
    return float(np.nansum(distances * bins.count) / bins.count.sum())


def _confidence(y_true: np.ndarray, y_prob: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (N,) float64 probabilities of the predicted class, and (N,) bool: is it right."""
    y_prob = np.asarray(y_prob, dtype=np.float64)
    return y_prob.max(axis=1), y_prob.argmax(axis=1) == np.asarray(y_true)


def fit_temperature(y_true: np.ndarray, y_prob: np.ndarray) -> float:
    """Returns the temperature that makes the loss on validation images smallest.

    Source: Guo et al. 2017 (see `expected_calibration_error`), section 4.2. Logarithms of
    probabilities serve as logits: they differ by a constant in each row.

    Args:
        y_true: (N,) integers in [0, C), of validation images.
        y_prob: (N, C) floats in [0, 1], each row sums to 1.

    Returns:
        A number from 0.1 to 10; above 1 where the classifier is too sure of itself.
    """
    logits, images = log_probabilities(y_prob), np.arange(len(y_true))  # (N, C), (N,)

    def loss(log_temperature: float) -> float:
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[images, y_true].mean()

    bounds = np.log([LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE])
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


class RejectCurve(NamedTuple):
    """What is gained by leaving the least certain images unanswered.

    Attributes:
        threshold: (K,) floats, falling: images of at least this confidence are answered.
        share_answered: (K,) floats in (0, 1], rising to 1.
        accuracy: (K,) floats in [0, 1], share of the answered images that is right.
    """

    threshold: np.ndarray
    share_answered: np.ndarray
    accuracy: np.ndarray


def reject_curve(y_true: np.ndarray, y_prob: np.ndarray) -> RejectCurve:
    """Returns accuracy against the share answered, for each confidence that occurs.

    Args:
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1], each row sums to 1.
    """
    confidence, is_right = _confidence(y_true, y_prob)
    order = np.argsort(-confidence, kind="stable")
    confidence, num_right = confidence[order], np.cumsum(is_right[order])
    # Images of one confidence are answered together: only the last of them is a point.
    last = np.flatnonzero(np.append(np.diff(confidence) != 0, True))
    answered = last + 1
    return RejectCurve(confidence[last], answered / len(confidence), num_right[last] / answered)


def threshold_for_accuracy(
    y_true: np.ndarray, y_prob: np.ndarray, accuracy: float = TARGET_ACCURACY
) -> float | None:
    """Returns the lowest confidence at which answers reach an accuracy, None where none does.

    Args:
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1], each row sums to 1.
        accuracy: share of the answered images that should be right, in (0, 1].
    """
    curve = reject_curve(y_true, y_prob)
    reached = np.flatnonzero(curve.accuracy >= accuracy)
    return float(curve.threshold[reached[-1]]) if len(reached) else None


def fit_calibration(y_true: np.ndarray, y_prob: np.ndarray) -> dict[str, Any]:
    """Fits what a run keeps for prediction, on its validation images.

    Args:
        y_true: (N,) integers in [0, C), of validation images.
        y_prob: (N, C) floats in [0, 1], each row sums to 1.

    Returns:
        A dict of plain Python values:
        temperature: what `apply_temperature` takes; None of fewer than `LEAST_IMAGES` images.
        threshold: a prediction whose calibrated confidence is below it should be "unknown"; None
            where none reaches `target_accuracy`, or there is no temperature.
        threshold_of: "calibrated_confidence": the largest probability after the temperature.
        target_accuracy: share of the answered validation images that is right, at least.
        num_validation_images: N.
    """
    fitted = {
        "temperature": None,
        "threshold": None,
        "threshold_of": CALIBRATED,
        "target_accuracy": TARGET_ACCURACY,
        "num_validation_images": len(y_true),
    }
    if len(y_true) < LEAST_IMAGES:
        return fitted
    temperature = fit_temperature(y_true, y_prob)
    calibrated = apply_temperature(y_prob, temperature)
    threshold = threshold_for_accuracy(y_true, calibrated)
    return fitted | {"temperature": temperature, "threshold": threshold}


def measure_calibration(
    fitted: Mapping[str, Any], y_true: np.ndarray, y_prob: np.ndarray
) -> dict[str, Any]:
    """Measures on test images what `fit_calibration` returned for validation images.

    Args:
        fitted: its return value.
        y_true: (N,) integers in [0, C), of test images.
        y_prob: (N, C) floats in [0, 1], each row sums to 1, without the temperature.

    Returns:
        `fitted` and, as plain Python values:
        before, after: without and with the temperature, a dict each of
            expected_calibration_error, mean_confidence (shares) and loss (nats); `after` is None
            without a temperature.
        answered: num_images, share, accuracy and accuracy_interval of the test images whose
            confidence reaches the threshold; accuracy is None where there are none, and all
            of it is None without a threshold.
    """
    before = _measure(y_true, y_prob)
    if fitted["temperature"] is None:
        return dict(fitted) | {"before": before, "after": None, "answered": None}
    calibrated = apply_temperature(y_prob, fitted["temperature"])
    return dict(fitted) | {
        "before": before,
        "after": _measure(y_true, calibrated),
        "answered": _measure_answered(fitted["threshold"], y_true, calibrated),
    }


def _measure(y_true: np.ndarray, y_prob: np.ndarray) -> dict[str, float]:
    return {
        "expected_calibration_error": expected_calibration_error(y_true, y_prob),
        "mean_confidence": float(np.max(y_prob, axis=1).astype(np.float64).mean()),
        "loss": mean_cross_entropy(y_true, y_prob),
    }


def _measure_answered(
    threshold: float | None, y_true: np.ndarray, calibrated: np.ndarray
) -> dict[str, Any] | None:
    if threshold is None:
        return None
    confidence, is_right = _confidence(y_true, calibrated)
    answered = confidence >= threshold
    correct, total = int(is_right[answered].sum()), int(answered.sum())
    return {
        "num_images": total,
        "share": total / len(confidence),
        "accuracy": correct / total if total else None,
        "accuracy_interval": list(wilson_interval(correct, total)) if total else None,
    }
