"""Loss and accuracy of epochs with repeated batches: each image counts once in them.

A batch that several devices cannot divide is repeated (data/share.py), and Keras weighs a batch's
loss by its size. By that size it is known how many images are in it.
"""

from collections.abc import Mapping
from typing import Any

import keras


class CountedAccuracy(keras.metrics.CategoricalAccuracy):
    """Keras's accuracy, where a repeated batch counts once.

    Args:
        images_in: number of images in a repeated batch, by the size it was repeated to.
        name: of the metric.
    """

    def __init__(self, images_in: Mapping[int, int], name: str) -> None:
        super().__init__(name=name)
        self._images_in = images_in

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch; arguments as Keras's."""
        size = y_true.shape[0]
        if size in self._images_in:
            sample_weight = keras.ops.full((size,), self._images_in[size] / size)
        return super().update_state(y_true, y_pred, sample_weight)


def count_repeated(model: keras.Model, images_in: Mapping[int, int]) -> None:
    """Makes the mean loss of a compiled model's epochs weigh repeated batches by their images.

    Args:
        model: as it was compiled.
        images_in: as of `CountedAccuracy`; empty changes nothing.
    """
    if not images_in:
        return
    mean_loss = model.metrics[0]
    plain = mean_loss.update_state

    def update_state(values: Any, sample_weight: Any = None) -> Any:
        return plain(values, images_in.get(sample_weight, sample_weight))

    mean_loss.update_state = update_state
