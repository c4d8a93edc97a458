import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from transfer.acceleration.batch_norm import freeze_batch_norm, fuse_batch_norm
from transfer.config import Config
from transfer.errors import InputError
from transfer.models import classifier as classifiers
from transfer.models.backbones import build_backbone
from transfer.models.classifier import (
    build_classifier,
    count_numbers,
    count_unfrozen,
    decay_by_block,
    feature_extractor,
    unfreeze_backbone,
)
from transfer.models.counts import count_network
from transfer.models.folding import fold_classifier
from transfer.models.head import build_head, measure_features, standardize_features
from transfer.models.precision import dtype_policy
from transfer.models.saving import restore_classifier, save_classifier


@pytest.fixture
def config(tiny_backbone):
    return Config(backbone=tiny_backbone, image_size=32, dropout=0.5)


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(0, 255, (6, 32, 32, 3)).astype(np.float32)


def make_classifier(config, num_classes=3, train_batch_norm=False):
    backbone = build_backbone(config.backbone, config.image_size)
    return build_classifier(config, backbone, num_classes, train_batch_norm=train_batch_norm)


def test_a_network_is_counted_as_its_authors_do():
    backbone = build_backbone("mobilenetv2", 32)
    counts = count_network(backbone)
    # 300 million at 224 pixels (Sandler et al. 2018, Table 4), 49 times the cells of 32, of which
    # the classifier of 1,280 x 1,000 is none of ours.
    assert counts.multiply_adds == pytest.approx((300e6 - 1.28e6) / 49, rel=0.01)
    assert counts.parameters == 2_257_984 and counts.layers == 2 * 52
    assert "2.26 million parameters (9.0 MB), 6.11 million multiply-adds" in counts.tell()
    config = Config(image_size=32, hidden_units=0, head_features="last")
    whole = build_classifier(config, backbone, 10, train_batch_norm=False)
    more = count_network(whole)  # the dense layer, and nothing else
    assert more.multiply_adds - counts.multiply_adds == 1280 * 10


def test_probabilities_are_scaling_backbone_pooling_head(config, images):
    classifier = make_classifier(config)
    scaled = keras.applications.mobilenet_v2.preprocess_input(images.copy())
    features = classifier.get_layer("backbone")(scaled).numpy().mean(axis=(1, 2))
    expected = classifier.get_layer("head")(features)
    probabilities = classifier(images).numpy()
    assert probabilities.shape == (6, 3) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(feature_extractor(classifier)(images), features, atol=1e-5)


def test_backbone_starts_frozen_and_head_does_not(config):
    classifier = make_classifier(config)
    assert classifier.get_layer("backbone").trainable_variables == []
    assert len(classifier.trainable_variables) == 2  # kernel and bias of the last layer


def test_rates_fall_from_the_top_block_to_the_bottom_and_the_head_has_the_whole(config):
    classifier = make_classifier(config)
    factors = decay_by_block(config.backbone, classifier.get_layer("backbone"), 0.5)
    kernels = {path: factor for path, factor in factors.items() if path.endswith("conv/kernel")}
    assert kernels == {f"block{n}_conv/kernel": 0.5 ** (5 - n) for n in range(1, 5)}
    assert set(factors) == {weight.path for weight in classifier.get_layer("backbone").weights}


def test_no_random_layer_outside_the_head(config):
    classifier = make_classifier(config)
    kinds = {type(layer).__name__ for layer in classifier.layers}
    assert not any("Random" in kind or kind == "Lambda" for kind in kinds)


@pytest.mark.parametrize(
    ("unfreeze", "blocks"), [("all", 4), (1.0, 4), (0.5, 2), (0.25, 1), (0.26, 2), (0.01, 1)]
)
@pytest.mark.parametrize("train_batch_norm", [False, True])
def test_unfreeze_counts_blocks_from_the_top(config, unfreeze, blocks, train_batch_norm):
    backbone = make_classifier(config).get_layer("backbone")
    count = unfreeze_backbone(
        config.backbone, backbone, unfreeze, train_batch_norm=train_batch_norm
    )
    assert count == blocks
    trainable = {variable.path for variable in backbone.trainable_variables}
    expected = {f"block{number}_conv/kernel" for number in range(5 - blocks, 5)}
    if train_batch_norm:
        expected |= {
            f"block{number}_bn/{name}"
            for number in range(5 - blocks, 5)
            for name in ("gamma", "beta")
        }
    assert trainable == expected
    counted = make_classifier(config, train_batch_norm=train_batch_norm)
    counted_config = dataclasses.replace(config, unfreeze=unfreeze)
    found = count_unfrozen(counted_config, counted, train_batch_norm=train_batch_norm)
    assert found == count_numbers(
        backbone.trainable_variables + counted.get_layer("head").trainable_variables
    )
    assert counted.get_layer("backbone").trainable_variables == []  # as it was


@pytest.mark.parametrize("prepare", [lambda backbone: backbone, freeze_batch_norm])
def test_frozen_blocks_get_no_gradient_work(config, images, prepare):
    # The backward pass may reach the one unfrozen convolution and nothing below it. (TensorFlow
    # writes down that convolution's input gradient as well, and prunes it before it runs.)
    backbone = prepare(build_backbone(config.backbone, config.image_size))
    classifier = build_classifier(config, backbone, 3, train_batch_norm=False)
    unfreeze_backbone(
        config.backbone, classifier.get_layer("backbone"), 0.25, train_batch_norm=False
    )

    @tf.function
    def gradients(batch):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            variables = [variable.value for variable in classifier.trainable_variables]
            tape.watch(variables)
            loss = tf.reduce_sum(classifier(batch, training=True) ** 2)
        return tape.gradient(loss, variables)

    graph = gradients.get_concrete_function(tf.constant(images)).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("Conv2D") == 4
    assert kinds.count("Conv2DBackpropFilter") == 1
    assert kinds.count("Conv2DBackpropInput") <= 1


@pytest.mark.parametrize("train_batch_norm", [False, True])
def test_statistics_move_only_when_batch_norm_trains(config, images, train_batch_norm):
    classifier = make_classifier(config, train_batch_norm=train_batch_norm)
    backbone = classifier.get_layer("backbone")
    unfreeze_backbone(config.backbone, backbone, "all", train_batch_norm=train_batch_norm)
    before = backbone.get_layer("block4_bn").moving_mean.numpy()
    classifier(images, training=True)
    moved = not np.array_equal(before, backbone.get_layer("block4_bn").moving_mean.numpy())
    assert moved == train_batch_norm


def test_a_saved_classifier_predicts_the_same_after_loading(config, images, tmp_path):
    backbone = fuse_batch_norm(build_backbone(config.backbone, 32))
    classifier = build_classifier(config, backbone, 3, train_batch_norm=True)
    generator = np.random.default_rng(0)
    classifier.set_weights(
        [generator.uniform(0.1, 1, weight.shape) for weight in classifier.get_weights()]
    )
    path = tmp_path / "model.keras"
    save_classifier(classifier, config, "float32", path)
    expected = classifier(images).numpy()
    restored = restore_classifier(config, 3, "float32", path)
    np.testing.assert_allclose(restored(images), expected, atol=1e-6)
    # Anyone with Keras alone can load it, too: no class of ours, no Lambda.
    np.testing.assert_allclose(keras.models.load_model(path)(images), expected, atol=1e-6)
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]


@pytest.mark.parametrize("name", ["mobilenetv2", "vgg16"])
def test_main_backbones_save_and_load(name, images, tmp_path):
    config = Config(backbone=name, image_size=32)
    classifier = make_classifier(config)
    path = tmp_path / "model.keras"
    save_classifier(classifier, config, "float32", path)
    restored = restore_classifier(config, 3, "float32", path)
    np.testing.assert_allclose(restored(images), classifier(images), atol=1e-6)
    np.testing.assert_allclose(keras.models.load_model(path)(images), classifier(images), atol=1e-6)


def test_a_damaged_or_foreign_file_is_one_line(config, tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(InputError, match="model.keras"):
        restore_classifier(config, 3, "float32", path)
    path.write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(InputError, match="model.keras"):
        restore_classifier(config, 3, "float32", path)
    path.unlink()
    save_classifier(make_classifier(config, 3), config, "float32", path)
    with pytest.raises(InputError) as caught:
        restore_classifier(config, 7, "float32", path)
    assert "\n" not in str(caught.value)


def test_bfloat16_keeps_float32_weights_and_probabilities(config, images):
    with dtype_policy("mixed_bfloat16"):
        classifier = make_classifier(config)
    assert keras.config.dtype_policy().name == "float32"
    assert {weight.dtype for weight in classifier.weights} == {"float32"}
    assert classifier.get_layer("backbone").compute_dtype == "bfloat16"
    probabilities = classifier(images).numpy()
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_policy_is_put_back_after_an_error():
    with pytest.raises(RuntimeError), dtype_policy("mixed_bfloat16"):
        raise RuntimeError
    assert keras.config.dtype_policy().name == "float32"


def test_head_options():
    head = build_head(Config(hidden_units=5, dropout=0.3, l2=0.01), 8, 4)
    kinds = [type(layer).__name__ for layer in head.layers]
    assert kinds == ["Dense", "Dropout", "Dense"]
    assert [layer.units for layer in head.layers if hasattr(layer, "units")] == [5, 4]
    assert head.layers[1].rate == 0.3
    kernels = [layer.kernel.numpy() for layer in (head.layers[0], head.layers[2])]
    expected = 0.01 * sum((kernel**2).sum() for kernel in kernels)
    np.testing.assert_allclose(sum(head.losses), expected, rtol=1e-5)
    assert [type(layer).__name__ for layer in build_head(Config(dropout=0.0), 8, 4).layers] == [
        "Dense"
    ]


@pytest.fixture
def several(config):
    return dataclasses.replace(config, head_features="multi")


def test_a_head_at_several_depths_reads_each_resolution(several, images):
    classifier = make_classifier(several)
    backbone = classifier.get_layer("backbone")
    assert [output.shape[1:] for output in backbone.outputs] == [
        (8, 8, 8),
        (4, 4, 8),
        (2, 2, 8),
    ]
    # 8 channels in 4x4, 2x2 and 1 position: windows of two pixels.
    assert classifier.get_layer("pooling").output.shape == (None, 128 + 32 + 8)
    scaled = keras.applications.mobilenet_v2.preprocess_input(images.copy())
    first = backbone(scaled)[0].numpy().reshape(6, 4, 2, 4, 2, 8).mean((2, 4)).reshape(6, -1)
    np.testing.assert_allclose(feature_extractor(classifier)(images)[:, :128], first, atol=1e-5)


@pytest.mark.parametrize(
    "windows", [[(0, 6), (5, 11), (10, 16)], [(0, 6), (4, 10), (8, 14)], [(0, 2)]]
)
def test_a_grid_of_means_covers_the_whole_side(windows):
    side = windows[-1][1]
    inputs = keras.Input((side, side, 2))
    grid = keras.Model(inputs, classifiers._pool_to_grid(inputs, len(windows)))
    values = np.random.default_rng(0).normal(size=(3, side, side, 2)).astype(np.float32)
    expected = [[values[:, a:b, c:d].mean((1, 2)) for c, d in windows] for a, b in windows]
    np.testing.assert_allclose(grid(values), np.moveaxis(expected, 2, 0), atol=1e-6)


def test_features_of_several_depths_are_standardized(several):
    head = build_head(several, 5, 3)
    features = np.random.default_rng(0).normal(7, 3, (20_000, 5)).astype(np.float16)
    features[:, 2] = 1.5  # a dead one
    standardize_features(head, measure_features(features))
    outputs = head.layers[0](features.astype(np.float32), training=True).numpy()
    np.testing.assert_allclose(outputs.mean(0), 0, atol=1e-2)
    np.testing.assert_allclose(outputs.std(0), [1, 1, 0, 1, 1], atol=1e-2)
    # Nothing of the standardization trains.
    assert [tuple(v.shape) for v in head.trainable_variables] == [(5, 128), (128,), (128, 3), (3,)]


@pytest.mark.parametrize(("units", "sizes"), [("auto", [5, 128, 3]), (0, [5, 3]), (7, [5, 7, 3])])
def test_a_head_at_several_depths_has_a_hidden_layer_unless_told_otherwise(several, units, sizes):
    head = build_head(dataclasses.replace(several, hidden_units=units), 5, 3)
    kernels = [v for v in head.trainable_variables if v.name == "kernel"]
    assert [kernels[0].shape[0], *(kernel.shape[1] for kernel in kernels)] == sizes


def test_a_classifier_with_several_depths_is_saved_folded_and_restored(several, images, tmp_path):
    classifier = make_classifier(several)
    features = feature_extractor(classifier)(images).numpy()
    standardize_features(classifier.get_layer("head"), measure_features(features))
    expected = classifier(images).numpy()
    save_classifier(classifier, several, "float32", tmp_path / "model.keras")
    restored = restore_classifier(several, 3, "float32", tmp_path / "model.keras")
    np.testing.assert_allclose(restored(images), expected, atol=1e-5)
    np.testing.assert_allclose(fold_classifier(restored)(images), expected, atol=1e-4)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(images), expected, atol=1e-5)
