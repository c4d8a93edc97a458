"""BatchNorm's statistics, computed anew from other images with the weights as they are.

Works on every backend of Keras: pretraining makes its last statistics exact with it, and a run
gives pretrained weights the statistics of its own images before the head phase.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
from keras import ops

RECALIBRATION_IMAGES = 2560  # enough for statistics that hardly change with more


def recalibrate(backbone: keras.Model, batches: Iterable) -> None:
    """Replaces the moving statistics of BatchNorm by the mean over some batches.

    Sources: "precise BatchNorm", Wu and Johnson, arXiv:2105.07576; on the images of another
    task, "AdaBN", Li et al., arXiv:1603.04779.

    Args:
        backbone: of Keras's own layers, all trainable.
        batches: float32 (B, S, S, 3), scaled as the backbone wants it; at least one.
    """
    layers = batch_norm_layers(backbone)
    momenta = [layer.momentum for layer in layers]
    means, squares = [0.0] * len(layers), [0.0] * len(layers)
    for layer in layers:
        layer.momentum = 0.0  # the moving statistics are then those of the last batch
    with _forward_pass(backbone) as forward:
        for count, images in enumerate(batches, start=1):
            forward(images)
            for i, layer in enumerate(layers):
                mean = ops.convert_to_numpy(layer.moving_mean).astype(np.float64)
                square = ops.convert_to_numpy(layer.moving_variance) + mean**2
                means[i] += (mean - means[i]) / count
                squares[i] += (square - squares[i]) / count
    for layer, momentum, mean, square in zip(layers, momenta, means, squares, strict=True):
        layer.momentum = momentum
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(square - mean**2)


@contextlib.contextmanager
def _forward_pass(backbone: keras.Model) -> Iterator[Callable]:
    # Called layer by layer, Keras keeps all outputs to the end: 2.3 GB for 128 images of 96 pixels
    # in MobileNetV2, and TensorFlow never gives them back. As one graph it takes 0.4 GB and the
    # same time; without the graph's optimizer also the same bits come out.
    if keras.backend.backend() != "tensorflow":
        yield lambda images: backbone(images, training=True)
        return
    import tensorflow as tf

    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        signature = [tf.TensorSpec((None, *backbone.inputs[0].shape[1:]), tf.float32)]
        graph = tf.function(lambda images: backbone(images, training=True), signature)
        yield lambda images: graph(tf.cast(images, tf.float32))
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False} | before)


def batch_norm_layers(backbone: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Returns the BatchNorm layers of a backbone, in its order."""
    kind = keras.layers.BatchNormalization
    return [layer for layer in backbone.layers if isinstance(layer, kind)]
