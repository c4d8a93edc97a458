"""A network's outputs for many images, each run through it once: the plain way of Keras."""

from collections.abc import Iterable, Iterator, Sequence

import keras
import numpy as np

from transfer.data.pipeline import make_evaluation_dataset
from transfer.data.splits import Split


def predict_batches(
    model: keras.Model,
    split: Split,
    image_size: int,
    batch_size: int,
    *,
    flipped: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Iterator[np.ndarray]:
    """Yields a network's outputs batch by batch; arguments as of `acceleration.doors`."""
    batches = make_evaluation_dataset(split, image_size, batch_size, num_classes=1, flipped=flipped)
    images = batches.map(lambda images, labels: images).as_numpy_iterator()
    return told(model, map(model.predict_on_batch, images), callbacks)


def told(
    model: keras.Model,
    batches: Iterable[np.ndarray],
    callbacks: Sequence[keras.callbacks.Callback],
) -> Iterator[np.ndarray]:
    """Yields the outputs of batches and tells callbacks of each, as Keras's `predict` does."""
    listeners = keras.callbacks.CallbackList(list(callbacks), model=model)
    listeners.on_predict_begin()
    for number, outputs in enumerate(batches):
        listeners.on_predict_batch_end(number)
        yield outputs
    listeners.on_predict_end()
