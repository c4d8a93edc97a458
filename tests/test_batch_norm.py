"""BatchNorm's statistics: computed anew from images, each counted once, and nothing else moved."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from transfer.acceleration.batch_norm import FusedBatchNormalization, fuse_batch_norm
from transfer.models.backbones import build_backbone
from transfer.models.batch_norm import batch_norm_layers, make_recalibration, with_momentum


def test_the_statistics_become_those_of_all_the_images():
    backbone = keras.Sequential([keras.Input((None, None, 2)), keras.layers.BatchNormalization()])
    batches = np.random.default_rng(0).normal(3, 2, (5, 8, 4, 4, 2)).astype("float32")
    make_recalibration(backbone)(batches)
    _, _, mean, variance = backbone.get_weights()
    np.testing.assert_allclose(mean, batches.mean((0, 1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(variance, batches.var((0, 1, 2, 3)), rtol=1e-4)


def test_nothing_else_moves(tiny_backbone):
    backbone = build_backbone(tiny_backbone, 32)
    layers = list(batch_norm_layers(backbone))
    statistics = {id(v) for layer in layers for v in (layer.moving_mean, layer.moving_variance)}
    before = [(v, v.numpy()) for v in backbone.weights]
    momenta = [layer.momentum for layer in layers]
    make_recalibration(backbone)(np.random.default_rng(0).uniform(-1, 1, (2, 8, 32, 32, 3)))
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
    make_recalibration(network)([images[:8], images[8:]])  # a batch of another size
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
        expected = np.average(np.array(means, np.float64), axis=0, weights=[8, 4])
        expected = expected.astype(np.float32)
        np.testing.assert_array_equal(layer.moving_mean.numpy(), expected)


def make_network(fused):
    """Returns a network whose BatchNorm sees the images themselves, its statistics far off."""
    inputs = keras.Input((3, 3, 4))
    network = keras.Model(inputs, keras.layers.BatchNormalization(name="norm")(inputs))
    norm = network.get_layer("norm")
    norm.moving_mean.assign(np.full(4, 1e6))
    norm.moving_variance.assign(np.full(4, 1e6))
    return fuse_batch_norm(network) if fused else network


def statistics_after(network, batches):
    make_recalibration(network)(batches)
    norm = network.get_layer("norm")
    return norm.moving_mean.numpy(), norm.moving_variance.numpy()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("sizes", [(128, 1), (128, 128, 1), (1, 128), (5,), (1,)])
def test_an_image_counts_the_same_in_a_small_batch_as_in_a_large_one(fused, sizes):
    generator = np.random.default_rng(0)
    images = generator.normal(2, 1, (sum(sizes), 3, 3, 4)).astype(np.float32)
    images[-1] += 9  # the last batch is unlike the others
    batches = np.split(images, np.cumsum(sizes)[:-1])
    mean, variance = statistics_after(make_network(fused), batches)
    exact = images.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-5)


def test_fused_and_plain_layers_get_the_same_statistics(tiny_backbone):
    backbone = build_backbone(tiny_backbone, 32)
    fused = fuse_batch_norm(backbone)
    images = np.random.default_rng(0).uniform(-1, 1, (129, 32, 32, 3)).astype(np.float32)
    kinds = set()
    for network in (backbone, fused):
        make_recalibration(network)([images[:128], images[128:]])
        kinds.add(type(next(batch_norm_layers(network))))
    assert kinds == {keras.layers.BatchNormalization, FusedBatchNormalization}
    for ours, plain in zip(fused.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_it_may_be_called_again_with_other_weights_and_skips_what_is_frozen(fused):
    network = make_network(fused)
    recalibrate = make_recalibration(network)
    generator = np.random.default_rng(0)
    for shift in (0, 7):
        images = generator.normal(shift, 1, (20, 3, 3, 4)).astype(np.float32)
        recalibrate([images[:16], images[16:]])
        mean = network.get_layer("norm").moving_mean.numpy()
        np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    network.get_layer("norm").trainable = False
    make_recalibration(network)([images + 100])
    np.testing.assert_array_equal(network.get_layer("norm").moving_mean.numpy(), mean)


def test_layers_are_found_at_any_depth_and_take_another_momentum(tiny_backbone):
    inputs = keras.Input((32, 32, 3))
    nested = keras.Model(inputs, build_backbone(tiny_backbone, 32)(inputs))
    assert len(list(batch_norm_layers(nested))) == 4
    assert with_momentum(nested, 0.7) is nested
    assert [layer.momentum for layer in batch_norm_layers(nested)] == [0.7] * 4


def test_a_network_without_batch_norm_looks_at_no_image():
    def batches():
        raise AssertionError("looked at")
        yield

    inputs = keras.Input((32, 32, 3))
    recalibrate = make_recalibration(keras.Model(inputs, keras.layers.Dropout(0.5)(inputs)))
    recalibrate(batches())
