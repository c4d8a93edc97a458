import keras
import numpy as np
import pytest

from transfer.acceleration.doors import with_frozen_batch_norm, with_trained_batch_norm
from transfer.config import Config
from transfer.models.backbones import BACKBONES, build_backbone
from transfer.models.classifier import build_classifier, feature_extractor
from transfer.models.folding import fold_batch_norm, fold_classifier


def randomise(model, seed=0):
    """Gives every BatchNorm statistics, scale and offset that change something."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(
                [
                    generator.uniform(0.5, 1.5, weight.shape)
                    if "gamma" in weight.path or "variance" in weight.path
                    else generator.normal(0, 0.2, weight.shape)
                    for weight in layer.weights
                ]
            )


def count_batch_norm(model):
    return sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


WITHOUT_BATCH_NORM = ("vgg16", "convnexttiny", "mlp", "cnn")


@pytest.mark.parametrize(
    "name", [name for name in BACKBONES if not name.startswith(WITHOUT_BATCH_NORM)]
)
def test_the_folded_backbone_computes_the_same(name):
    backbone = build_backbone(name, 32)
    randomise(backbone)
    shape = (4, *backbone.input_shape[1:])
    images = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    if BACKBONES[name].scaling == "none":
        images = (images + 1) * 127.5
    folded = fold_batch_norm(backbone)
    expected = backbone.predict(images, verbose=0)
    actual = folded.predict(images, verbose=0)
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error < 1e-4
    # Only BatchNorm that follows no convolution may remain.
    remaining = count_batch_norm(folded)
    assert remaining < count_batch_norm(backbone) / 2 or name == "densenet121"
    if name.startswith(("mobilenet", "efficientnet")):
        assert remaining == 0


@pytest.mark.parametrize("prepare", [with_frozen_batch_norm, with_trained_batch_norm])
def test_what_trains_in_another_way_is_folded_into_layers_of_keras_alone(prepare):
    prepared = prepare(build_backbone("mobilenetv2", 32))
    assert any(not type(layer).__module__.startswith("keras.") for layer in prepared.layers)
    for layer in fold_batch_norm(prepared).layers:
        assert type(layer).__module__.startswith("keras."), layer


def chain(*layers, shape=(8, 8, 3)):
    inputs = x = keras.Input(shape)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Conv2D(5, 3, use_bias=True, bias_initializer="random_normal"),
        keras.layers.Conv2D(6, 3, groups=3, use_bias=False),
        keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
        keras.layers.Dense(7),
    ],
)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}])
def test_each_kind_of_layer_folds(layer, options):
    layer = type(layer).from_config(layer.get_config())
    model = chain(layer, keras.layers.BatchNormalization(**options))
    randomise(model)
    images = np.random.default_rng(1).normal(size=(3, 8, 8, 3)).astype(np.float32)
    folded = fold_batch_norm(model)
    assert count_batch_norm(folded) == 0
    np.testing.assert_allclose(folded(images), model(images), rtol=1e-4, atol=1e-5)


def test_what_must_not_fold_stays():
    norm = keras.layers.BatchNormalization
    activated = chain(keras.layers.Conv2D(4, 3, activation="relu"), norm())
    after_sum = chain(keras.layers.ReLU(), norm())
    inputs = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(4, 3)(inputs)
    read_twice = keras.Model(inputs, keras.layers.Add()([norm()(shared), shared]))
    other_axis = chain(keras.layers.Conv2D(4, 3), norm(axis=1))
    images = np.random.default_rng(1).normal(size=(3, 8, 8, 3)).astype(np.float32)
    for model in (activated, after_sum, read_twice, other_axis):
        randomise(model)
        folded = fold_batch_norm(model)
        assert count_batch_norm(folded) == 1
        np.testing.assert_allclose(folded(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny", "vgg16"])
def test_a_folded_classifier_predicts_the_same_and_leaves_the_original_alone(tiny_backbone, name):
    config = Config(backbone=name, image_size=32)
    backbone = build_backbone(name, 32)
    randomise(backbone)
    classifier = build_classifier(config, backbone, 3, train_batch_norm=False)
    before = classifier.get_weights()
    images = np.random.default_rng(1).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    folded = fold_classifier(classifier)
    assert count_batch_norm(folded.get_layer("backbone")) == 0
    np.testing.assert_allclose(folded(images), classifier(images), atol=1e-5)
    np.testing.assert_allclose(
        feature_extractor(folded)(images), feature_extractor(classifier)(images), rtol=1e-3
    )
    for weight, value in zip(classifier.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


@pytest.mark.parametrize("side", [31, 32])
@pytest.mark.parametrize(
    "layer", [keras.layers.Conv2D(4, 3, 2), keras.layers.DepthwiseConv2D(3, 2)]
)
def test_padding_as_the_convolution_would_pad_is_left_to_it(layer, side):
    odd = side % 2
    layer = type(layer).from_config(layer.get_config())
    padding = keras.layers.ZeroPadding2D(((odd, 1), (odd, 1)))
    model = chain(padding, layer, shape=(side, side, 3))
    images = np.random.default_rng(1).normal(size=(3, side, side, 3)).astype(np.float32)
    folded = fold_batch_norm(model)
    assert not any(isinstance(kept, keras.layers.ZeroPadding2D) for kept in folded.layers)
    np.testing.assert_array_equal(folded(images), model(images))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (keras.layers.Conv2D(4, 3, 2), (33, 33, 3)),  # would pad by 1 before, too
        (keras.layers.Conv2D(4, 3, 2), (None, None, 3)),
        (keras.layers.Conv2D(4, 3, dilation_rate=2), (32, 32, 3)),
        (keras.layers.Conv2D(4, 5, 2), (32, 32, 3)),
        (keras.layers.Conv2D(4, 3, 2, padding="same"), (32, 32, 3)),
        (keras.layers.MaxPooling2D(3, 2), (32, 32, 3)),  # whose own padding is not of zeros
    ],
)
def test_other_padding_stays(layer, shape):
    layer = type(layer).from_config(layer.get_config())
    model = chain(keras.layers.ZeroPadding2D(((0, 1), (0, 1))), layer, shape=shape)
    side = shape[0] or 32
    images = np.random.default_rng(1).normal(size=(3, side, side, 3)).astype(np.float32)
    folded = fold_batch_norm(model)
    assert any(isinstance(kept, keras.layers.ZeroPadding2D) for kept in folded.layers)
    np.testing.assert_allclose(folded(images), model(images), rtol=1e-5, atol=1e-5)


def test_mobilenetv2_pads_within_its_convolutions():
    folded = fold_batch_norm(build_backbone("mobilenetv2", 96))
    assert not any(isinstance(layer, keras.layers.ZeroPadding2D) for layer in folded.layers)


@pytest.mark.parametrize("name", ["tiny", "mobilenetv2", "efficientnetv2b0"])
def test_folded_into_bfloat16_it_predicts_nearly_the_same(tiny_backbone, name):
    config = Config(backbone=name, image_size=32)
    classifier = build_classifier(config, build_backbone(name, 32), 3, train_batch_norm=False)
    images = np.random.default_rng(1).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    folded = fold_classifier(classifier, "mixed_bfloat16")
    convolutions = [
        layer
        for layer in folded.get_layer("backbone").layers
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D))
    ]
    assert {layer.compute_dtype for layer in convolutions} == {"bfloat16"}
    pooled = folded.get_layer("pooling")
    assert pooled.compute_dtype == "float32"  # a mean over bfloat16 would lose digits
    np.testing.assert_allclose(folded(images), classifier(images), atol=0.02)


def test_images_are_scaled_in_float32_before_bfloat16():
    scaling = keras.layers.Rescaling(1 / 127.5, -1)
    folded = fold_batch_norm(chain(scaling, keras.layers.Conv2D(4, 1)), "mixed_bfloat16")
    assert folded.get_layer(scaling.name).compute_dtype == "float32"


def test_folded_into_bfloat16_what_computes_in_it_also_keeps_its_weights_in_it():
    """BatchNorm that cannot fold keeps its statistics, of which it makes small differences."""
    norm, convolution = keras.layers.BatchNormalization(), keras.layers.Conv2D(4, 1)
    folded = fold_batch_norm(chain(norm, convolution), "mixed_bfloat16")
    kernel = folded.get_layer(convolution.name).kernel
    assert kernel.dtype == "bfloat16"
    np.testing.assert_array_equal(  # as mixed_bfloat16 would round it, batch after batch
        keras.ops.convert_to_numpy(kernel),
        keras.ops.convert_to_numpy(keras.ops.cast(convolution.kernel, "bfloat16")),
    )
    assert {weight.dtype for weight in folded.get_layer(norm.name).weights} == {"float32"}
