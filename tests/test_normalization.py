import keras
import numpy as np
import pytest
import tensorflow as tf

from transfer.models.normalization import FusedBatchNormalization, fuse_batch_norm


def make_model():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.999, name="bn")(x)
    return keras.Model(inputs, keras.layers.ReLU()(x))


@pytest.fixture
def pair():
    model = make_model()
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model, fuse_batch_norm(model)


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(16, 8, 8, 3)).astype(np.float32)


def test_outputs_equal_kerass_in_training_and_inference(pair, images):
    model, fused = pair
    for training in (False, True):
        np.testing.assert_allclose(
            fused(images, training=training), model(images, training=training), atol=1e-4
        )


def test_gradients_equal_kerass(pair, images):
    gradients = []
    for model in pair:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(images, training=True) ** 2)
        variables = [weight.value for weight in model.trainable_variables]
        gradients.append(tape.gradient(loss, variables))
    for ours, keras_own in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=1e-3, atol=1e-5)


def test_statistics_follow_the_batch_with_the_given_momentum(pair, images):
    _, fused = pair
    layer = fused.get_layer("bn")
    assert isinstance(layer, FusedBatchNormalization)
    before = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    values = keras.Model(fused.input, fused.get_layer("conv").output)(images).numpy()
    values = values.reshape(-1, 4)
    fused(images, training=True)
    mean = 0.9 * before[0] + 0.1 * values.mean(axis=0)
    variance = 0.9 * before[1] + 0.1 * values.var(axis=0, ddof=1)
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-4)


def test_a_frozen_layer_keeps_its_statistics(pair, images):
    _, fused = pair
    fused.get_layer("bn").trainable = False
    before = fused.get_weights()
    fused(images, training=True)
    for weight, value in zip(fused.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_names_and_order_of_weights_stay(pair):
    model, fused = pair
    assert [w.path for w in fused.weights] == [w.path for w in model.weights]
    for ours, original in zip(fused.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, original)


def test_bfloat16_inputs_work(images):
    layer = FusedBatchNormalization(dtype="mixed_bfloat16")
    outputs = layer(images, training=True)
    assert outputs.dtype == "bfloat16"
    expected = (images - images.mean((0, 1, 2))) / images.std((0, 1, 2))
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), expected, atol=0.05)
