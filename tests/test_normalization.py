import keras
import numpy as np
import pytest
import tensorflow as tf

from transfer.acceleration.batch_norm import (
    FusedBatchNormalization,
    freeze_batch_norm,
    fuse_batch_norm,
)
from transfer.models.folding import fold_batch_norm
from transfer.models.precision import dtype_policy


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


def make_deep_model():
    """Everything that stands before a BatchNorm: convolutions with and without bias, a sum."""
    inputs = x = keras.Input((8, 8, 3))
    layers = keras.layers
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, use_bias=False, name="conv")(x))
    x = layers.ReLU()(x)
    depthwise = layers.DepthwiseConv2D(3, 2, "same", use_bias=False, name="depthwise")
    x = y = layers.BatchNormalization(scale=False)(depthwise(x))
    x = layers.BatchNormalization(center=False)(layers.Conv2D(6, 1, name="biased")(x))
    x = layers.BatchNormalization()(layers.Add()([x, y]))
    return keras.Model(inputs, x)


@pytest.fixture(params=["float32", "mixed_bfloat16"])
def frozen_pair(request):
    with dtype_policy(request.param):
        model = make_deep_model()
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model, freeze_batch_norm(model), {"float32": 1e-4, "mixed_bfloat16": 0.1}[request.param]


def test_frozen_outputs_and_gradients_equal_kerass(frozen_pair, images):
    model, frozen, tolerance = frozen_pair
    for layer in (*model.layers, *frozen.layers):
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    results = []
    for one in (model, frozen):
        with tf.GradientTape() as tape:
            outputs = one(images, training=False)
            loss = tf.reduce_mean(tf.cast(outputs, tf.float32) ** 2)
        variables = [weight.value for weight in one.trainable_variables]
        results.append([outputs, *tape.gradient(loss, variables)])
    assert len(results[0]) == 5
    for ours, keras_own in zip(*results, strict=True):
        ours, keras_own = np.float32(ours), np.float32(keras_own)
        assert np.abs(ours - keras_own).max() <= tolerance * np.abs(keras_own).max()


def test_freezing_keeps_names_and_weights_and_takes_a_pass_away(frozen_pair, images):
    model, frozen, _ = frozen_pair
    assert [layer.name for layer in frozen.layers[1:]] == [layer.name for layer in model.layers[1:]]
    for ours, keras_own in zip(frozen.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, keras_own)
    kinds = [type(layer).__name__ for layer in frozen.layers]
    assert kinds.count("OffsetBatchNormalization") == 2  # not behind a bias, not behind the sum
    assert kinds.count("BatchNormalization") == 2


def test_a_frozen_model_follows_its_statistics_and_folds(frozen_pair, images):
    model, frozen, tolerance = frozen_pair
    for one in (model, frozen):
        one.layers[2].moving_variance.assign(np.full(6, 3.0))
        one.layers[2].moving_mean.assign(np.full(6, -1.0))
    expected = np.float32(model(images, training=False))
    for one in (frozen, fold_batch_norm(frozen)):
        actual = np.float32(one(images, training=False))
        assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()
