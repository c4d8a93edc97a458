"""Loss and accuracy of batches that are repeated for several devices: each image counts once.

A batch that cannot be divided is repeated (data/share.py), and by its size it is known how many
images are in it. Its first copy counts, which dropout treats as it would the batch alone; the other
copies are there for BatchNorm, whose mean and variance they do not change.
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops


class CountedCrossentropy(keras.losses.CategoricalCrossentropy):
    """Keras's loss; of a repeated batch that of its first copy.

    Args:
        images_in: number of images in a repeated batch, by the size it was repeated to.
        label_smoothing: as Keras's.
    """

    def __init__(self, images_in: Mapping[int, int], label_smoothing: float) -> None:
        super().__init__(label_smoothing=label_smoothing)
        self._images_in = images_in

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each image; their mean is taken over all copies."""
        losses, size = super().call(y_true, y_pred), y_true.shape[0]
        if size not in self._images_in:
            return losses
        return losses * _first_copy(size, self._images_in) * (size / self._images_in[size])


class CountedAccuracy(keras.metrics.CategoricalAccuracy):
    """Keras's accuracy; of a repeated batch that of its first copy.

    Args:
        images_in: as above.
    """

    def __init__(self, images_in: Mapping[int, int]) -> None:
        super().__init__(name="accuracy")
        self._images_in = images_in

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Adds a batch; arguments as Keras's."""
        if y_true.shape[0] in self._images_in:
            sample_weight = _first_copy(y_true.shape[0], self._images_in)
        return super().update_state(y_true, y_pred, sample_weight)


def _first_copy(size: int, images_in: Mapping[int, int]) -> Any:
    return ops.cast(ops.arange(size) < images_in[size], "float32")  # (size,)


def count_repeated(model: keras.Model, images_in: Mapping[int, int]) -> None:
    """Makes the mean loss of a compiled model's epochs weigh repeated batches by their images.

    Keras weighs each by its size, and has no argument for it.

    Args:
        model: as it was compiled.
        images_in: as above; empty changes nothing.
    """
    if not images_in:
        return
    mean_loss = model.metrics[0]
    plain = mean_loss.update_state

    def update_state(values: Any, sample_weight: Any = None) -> Any:
        return plain(values, images_in.get(sample_weight, sample_weight))

    mean_loss.update_state = update_state
