"""What a phase lowers: the cross-entropy, as it is or adjusted to classes of unequal size."""

import keras
import numpy as np
from keras import ops

from transfer.config import Config


def make_loss(config: Config, labels: np.ndarray, num_classes: int) -> keras.losses.Loss:
    """Returns the loss of a phase.

    Args:
        config: uses `label_smoothing` and `logit_adjustment`.
        labels: int (N,), of the training images.
        num_classes: C, the width of probabilities and one-hot labels.
    """
    if not config.logit_adjustment:
        return keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing)
    shares = np.bincount(labels, minlength=num_classes) / len(labels)
    return LogitAdjustedCrossentropy(shares, config.label_smoothing)


class LogitAdjustedCrossentropy(keras.losses.CategoricalCrossentropy):
    """Cross-entropy of probabilities that are weighed by the classes' shares.

    Trained so, the unweighed probabilities are those of classes of equal size, and a rare class
    is no longer passed over: the logit-adjusted loss of Menon et al., arXiv:2007.07314, with
    tau = 1. A logit plus the logarithm of a share is a probability times the share, normalised.

    Args:
        shares: float (C,), of the training images.
        label_smoothing: as of Keras.
    """

    def __init__(self, shares: np.ndarray, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing=label_smoothing)
        self._shares = shares.astype(np.float32)

    def call(self, y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the loss of each image, (B,); both arguments float (B, C)."""
        weighed = y_pred * ops.cast(self._shares, y_pred.dtype)
        return super().call(y_true, weighed / ops.sum(weighed, axis=-1, keepdims=True))
