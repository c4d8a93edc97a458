"""The temperature of `calibration.py`, applied: all that a prediction needs of it, NumPy alone."""

import numpy as np

_TINY = float(np.finfo(np.float32).tiny)  # softmax in float32 rounds to 0 below this


def apply_temperature(y_prob: np.ndarray, temperature: float) -> np.ndarray:
    """Returns softmax(log(y_prob) / temperature), float64 (N, C): the order in a row stays.

    Args:
        y_prob: (N, C) floats in [0, 1], each row sums to 1.
        temperature: above 0; 1 changes nothing.
    """
    logits = log_probabilities(y_prob) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def log_probabilities(y_prob: np.ndarray) -> np.ndarray:
    """Returns natural logarithms of probabilities, float64, finite also where one is 0."""
    return np.log(np.maximum(np.asarray(y_prob, dtype=np.float64), _TINY))
