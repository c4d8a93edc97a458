import keras
import numpy as np
import tensorflow as tf

from transfer.models.backbones import build_backbone
from transfer.models.recalibration import batch_norm_layers, recalibrate


def test_the_statistics_become_those_of_all_the_images():
    backbone = keras.Sequential([keras.Input((None, None, 2)), keras.layers.BatchNormalization()])
    batches = np.random.default_rng(0).normal(3, 2, (5, 8, 4, 4, 2)).astype("float32")
    recalibrate(backbone, batches)
    _, _, mean, variance = backbone.get_weights()
    np.testing.assert_allclose(mean, batches.mean((0, 1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(variance, batches.var((0, 1, 2, 3)), rtol=1e-4)


def test_nothing_else_moves(tiny_backbone):
    backbone = build_backbone(tiny_backbone, 32)
    layers = batch_norm_layers(backbone)
    statistics = {id(v) for layer in layers for v in (layer.moving_mean, layer.moving_variance)}
    before = [(v, v.numpy()) for v in backbone.weights]
    momenta = [layer.momentum for layer in layers]
    recalibrate(backbone, np.random.default_rng(0).uniform(-1, 1, (2, 8, 32, 32, 3)))
    for variable, value in before:
        assert np.array_equal(variable.numpy(), value) == (id(variable) not in statistics)
    assert [layer.momentum for layer in layers] == momenta
    assert len(layers) == 4


def test_the_graph_gives_the_bits_of_keras_called_directly():
    # What was trained and published with one must come out of the other.
    network = build_backbone("mobilenetv2", 32)
    direct = keras.models.clone_model(network)
    direct.set_weights(network.get_weights())
    images = np.random.default_rng(0).uniform(-1, 1, (12, 32, 32, 3)).astype(np.float32)
    options = tf.config.optimizer.get_experimental_options()
    recalibrate(network, [images[:8], images[8:]])  # a batch of another size
    assert tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer") in (
        options.get("disable_meta_optimizer"),
        False,
    )
    sums = []
    for part in (images[:8], images[8:]):
        for layer in batch_norm_layers(direct):
            layer.momentum = 0.0
        direct(part, training=True)
        sums.append([layer.moving_mean.numpy() for layer in batch_norm_layers(direct)])
    for layer, *means in zip(batch_norm_layers(network), *sums, strict=True):
        expected = np.mean(np.array(means, np.float64), axis=0).astype(np.float32)
        np.testing.assert_array_equal(layer.moving_mean.numpy(), expected)
