"""BatchNorm's statistics, and the plain Keras way to train with them.

The moving average trails the weights, which in a short epoch of fast training is far: a network
that is right on 99 % of its training images can be at chance in inference. The mean over some
batches, at the weights as they are, has no such lag ("precise BatchNorm", Wu and Johnson,
arXiv:2105.07576); of the images of another task it is "AdaBN" (Li et al., arXiv:1603.04779).
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

RECALIBRATION_IMAGES = 2560  # enough for statistics that hardly change with more
# Of the moving statistics, PyTorch's default, there called 0.1: follows within tens of steps.
# keras.applications.MobileNetV2 sets 0.999, which lags by about 1,000 steps.
MOMENTUM = 0.9


def batch_norm_layers(model: keras.Model) -> Iterator[keras.layers.BatchNormalization]:
    """Yields the BatchNorm layers of a model, at any depth, in its order."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from batch_norm_layers(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            yield layer


def with_momentum(model: keras.Model, momentum: float = MOMENTUM) -> keras.Model:
    """Returns the model, its BatchNorm layers with another momentum."""
    for layer in batch_norm_layers(model):
        layer.momentum = momentum
    return model


def make_recalibration(model: keras.Model) -> Callable[[Iterable[Any]], None]:
    """Returns a function that replaces moving statistics by the statistics of some batches.

    Args:
        model: its BatchNorm layers that train get new statistics.

    Returns:
        A function of the model's inputs, batch by batch, at least one: float32 (B, S, S, 3). An
        image counts the same in a small batch as in a large one. It may be called again and again.
    """
    layers = [layer for layer in batch_norm_layers(model) if layer.trainable]
    if not layers:  # as of VGG16: nothing to look at the images for
        return lambda batches: None
    forward = _make_forward(model, layers)

    def recalibrate(batches: Iterable[Any]) -> None:
        num_images = 0
        means: list[Any] = [0.0] * len(layers)
        squares: list[Any] = [0.0] * len(layers)
        with _without_graph_optimizer():
            for images in batches:
                statistics = forward(images)
                num_images += len(images)
                share = len(images) / num_images
                for i, (mean, variance) in enumerate(statistics):
                    mean = mean.astype(np.float64)
                    square = variance + mean**2
                    means[i] += (mean - means[i]) * share
                    squares[i] += (square - squares[i]) * share
        for layer, mean, square in zip(layers, means, squares, strict=True):
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(np.maximum(square - mean**2, 0.0))  # rounding

    return recalibrate


Statistics = list[tuple[np.ndarray, np.ndarray]]  # mean and variance, layer by layer


def _make_forward(
    model: keras.Model, layers: list[keras.layers.BatchNormalization]
) -> Callable[[Any], Statistics]:
    """Returns a pass over one batch that returns the statistics of its layers."""

    def forward(call: Callable[[Any], Any], images: Any) -> Any:
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.momentum = 0.0
        try:
            return call(images)
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum

    if keras.backend.backend() == "jax":
        pure = _make_pure_pass(model, layers)
        return lambda images: forward(pure, np.asarray(images, np.float32))
    import tensorflow as tf

    # Called layer by layer, Keras keeps all outputs to the end: 2.3 GB for 128 images of 96 pixels
    # in MobileNetV2, and TensorFlow never gives them back. As one graph it takes 0.4 GB and the
    # same time; without the graph's optimizer also the same bits come out.
    signature = [tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32)]

    @tf.function(input_signature=signature, autograph=False)
    def graph(images: tf.Tensor) -> None:
        forward(lambda batch: model(batch, training=True), images)

    def read(images: Any) -> Statistics:
        graph(tf.cast(images, tf.float32))
        names = ("moving_mean", "moving_variance")
        return [tuple(ops.convert_to_numpy(getattr(each, n)) for n in names) for each in layers]

    return read


def _make_pure_pass(
    model: keras.Model, layers: list[keras.layers.BatchNormalization]
) -> Callable[[np.ndarray], Statistics]:
    """Returns the pass on JAX: nothing is assigned, and no other process takes part in it."""
    import jax

    places = {id(variable): i for i, variable in enumerate(model.non_trainable_variables)}
    own = [(places[id(each.moving_mean)], places[id(each.moving_variance)]) for each in layers]

    @jax.jit
    def step(trainable: list, fixed: list, images: Any) -> list:
        fixed = model.stateless_call(trainable, fixed, images, training=True)[1]
        return [(fixed[mean], fixed[variance]) for mean, variance in own]

    def read(images: np.ndarray) -> Statistics:
        values = [
            [ops.convert_to_numpy(each) for each in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        ]
        return [(np.asarray(mean), np.asarray(square)) for mean, square in step(*values, images)]

    return read


@contextlib.contextmanager
def _without_graph_optimizer() -> Iterator[None]:
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False} | before)
