"""Explanations: exact where they can be worked out, in the right place, gone with the weights."""

import keras
import numpy as np
import pytest
from scipy.stats import spearmanr

from transfer.config import Config
from transfer.evaluation import explain
from transfer.models.backbones import BACKBONES, build_backbone
from transfer.models.classifier import build_classifier, feature_extractor
from transfer.models.folding import fold_classifier
from transfer.models.head import build_head
from transfer.models.precision import dtype_policy

SIZE, CELLS = 64, 4  # pixels, and cells of the last map of the tiny network


@pytest.fixture(autouse=True, scope="module")
def coarse():
    """Maps of 4 x 4 cells, which can be worked out by hand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explain, "SMALLEST_SIDE", CELLS)
        yield


def make_classifier(config, num_classes=2, policy="float32"):
    with dtype_policy(policy):
        backbone = build_backbone(config.backbone, config.image_size)
        return build_classifier(config, backbone, num_classes, train_batch_norm=True)


def make_patches(num_images, seed=0):
    """Noise with one cell of stripes, level in class 0 and upright in class 1; and which cell."""
    generator = np.random.default_rng(seed)
    images = generator.uniform(0, 120, (num_images, SIZE, SIZE, 3)).astype(np.float32)
    labels = np.arange(num_images) % 2
    cells = generator.integers(0, CELLS, (num_images, 2))
    side = SIZE // CELLS
    for image, label, (row, column) in zip(images, labels, cells, strict=True):
        patch = image[row * side : (row + 1) * side, column * side : (column + 1) * side]
        (patch.swapaxes(0, 1) if label else patch)[::4] += 130
    return images, labels, cells


@pytest.fixture(scope="module")
def trained():
    """A small classifier that has learnt to find the stripes."""
    with pytest.MonkeyPatch.context() as patch:
        from tests.conftest import tiny_row

        patch.setitem(BACKBONES, "tiny", tiny_row())
        keras.utils.set_random_seed(0)
        classifier = make_classifier(Config(backbone="tiny", image_size=SIZE, dropout=0))
    classifier.get_layer("backbone").trainable = True
    classifier.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    images, labels, _ = make_patches(256)
    classifier.fit(images, labels, batch_size=32, epochs=8, verbose=0)
    return classifier


def test_maps_lie_where_the_class_is(trained):
    images, labels, cells = make_patches(60, seed=1)
    assert (trained.predict(images, verbose=0).argmax(axis=1) == labels).mean() > 0.95
    maps = explain.class_activation_maps(trained, images, labels)
    assert maps.shape == (60, CELLS, CELLS) and maps.dtype == np.float32
    assert maps.min() >= 0 and maps.max() == 1
    strongest = np.stack(np.unravel_index(maps.reshape(60, -1).argmax(axis=1), (CELLS, CELLS)), 1)
    assert (strongest == cells).all(axis=1).mean() > 0.9


def similarity(a, b):
    """Mean rank correlation of two sets of maps."""
    pairs = zip(a.reshape(len(a), -1), b.reshape(len(b), -1), strict=True)
    return np.mean([spearmanr(one, other).statistic for one, other in pairs])


def test_maps_are_gone_when_the_weights_are(trained):
    """The sanity check of Adebayo et al., https://arxiv.org/abs/1810.03292: maps that survive
    random weights would be pictures of the image's edges, not of what was learnt."""
    images, labels, cells = make_patches(60, seed=1)
    maps = explain.class_activation_maps(trained, images, labels)
    folded = explain.class_activation_maps(fold_classifier(trained), images, labels)
    assert similarity(maps, folded) > 0.99
    similarities = []
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        random = keras.models.clone_model(trained)
        random.get_layer("head").set_weights(trained.get_layer("head").get_weights())
        others = explain.class_activation_maps(random, images, labels)
        assert others.max() == 1
        similarities.append(similarity(maps, others))
    assert np.abs(similarities).max() < 0.3


def test_under_pooling_and_one_layer_a_map_is_the_weighted_sum_of_channels(trained):
    """Of such a network Grad-CAM is what Zhou et al. call CAM (https://arxiv.org/abs/1512.04150)."""
    images, labels, _ = make_patches(9, seed=2)
    scaled = images / 127.5 - 1
    activation = trained.get_layer("backbone")(scaled, training=False).numpy()  # (9, 4, 4, 8)
    kernel = trained.get_layer("head").layers[-1].kernel.numpy()  # (8, 2)
    expected = np.maximum(np.einsum("nhwk,nk->nhw", activation, kernel[:, labels].T), 0)
    expected /= expected.max(axis=(1, 2), keepdims=True)
    maps = explain.class_activation_maps(trained, images, labels)
    np.testing.assert_allclose(maps, expected, atol=1e-4)


def test_the_classifier_stays_as_it_is(trained):
    images, labels, _ = make_patches(4)
    before, weights = trained.predict(images, verbose=0), trained.get_weights()
    explain.class_activation_maps(trained, images, labels)
    feature_extractor(trained)  # its layers still have one place in one graph
    np.testing.assert_array_equal(trained.predict(images, verbose=0), before)
    assert all(map(np.array_equal, trained.get_weights(), weights))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("hidden_units", [0, 8])
def test_any_number_format_and_head(tiny_backbone, policy, hidden_units):
    config = Config(backbone=tiny_backbone, image_size=SIZE, hidden_units=hidden_units)
    classifier = fold_classifier(make_classifier(config, 3, policy))
    images, labels, _ = make_patches(9)
    maps = explain.class_activation_maps(classifier, images, labels)
    assert maps.dtype == np.float32 and np.isfinite(maps).all() and maps.max() == 1


# At 64 pixels the layer explained is the last in the trunk of 4 x 4 cells; its channels tell which.
CHANNELS = {
    "mobilenetv2": 576,  # block_13_expand_relu
    "vgg16": 512,  # block5_conv3
    "mobilenetv3small": 288,
    "mobilenetv3large": 672,
    "efficientnetv2b0": 672,  # block6a_expand_activation
    "resnet50v2": 1024,  # conv4_block5_out
    "densenet121": 512,  # pool4_conv
    "convnexttiny": 384,  # the sum that ends stage 2
    "efficientnetlite0": 672,  # block6a_expand_relu
}


@pytest.mark.parametrize("name", CHANNELS)
def test_every_backbone_can_be_explained(name):
    config = Config(backbone=name, image_size=SIZE)
    classifier = fold_classifier(make_classifier(config, 3))
    layer = explain.explained_layer(classifier.get_layer("backbone"))
    assert layer.output.shape[1:] == (4, 4, CHANNELS[name])
    images, labels, _ = make_patches(1)
    maps = explain.class_activation_maps(classifier, images, labels)
    assert maps.shape == (1, 4, 4) and np.isfinite(maps).all()


def test_a_map_has_seven_cells_or_more_where_the_network_has(trained, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(explain, "SMALLEST_SIDE", 7)
    layer = explain.explained_layer(trained.get_layer("backbone"))
    assert layer.name == "block3_relu" and layer.output.shape[1:3] == (8, 8)


def test_feature_maps_are_of_each_resolution(trained):
    images, _, _ = make_patches(1)
    found = explain.feature_maps(trained, images[0])
    assert [each.layer for each in found] == [f"block{number}_relu" for number in range(1, 5)]
    assert [each.maps.shape for each in found] == [(side, side, 8) for side in (32, 16, 8, 4)]
    expected = trained.get_layer("backbone")(images / 127.5 - 1, training=False)[0]
    np.testing.assert_allclose(found[-1].maps, expected, atol=1e-4)


def test_a_head_that_reads_two_depths_can_be_explained(tiny_backbone):
    config = Config(backbone=tiny_backbone, image_size=SIZE)
    whole = build_backbone(tiny_backbone, SIZE)
    outputs = [whole.get_layer("block2_relu").output, whole.output]
    backbone = keras.Model(whole.inputs, outputs, name="backbone")
    images = keras.Input((SIZE, SIZE, 3))
    pooled = [keras.layers.GlobalAveragePooling2D()(each) for each in backbone(images)]
    head = build_head(config, 16, 3)
    classifier = keras.Model(images, head(keras.layers.Concatenate()(pooled)))
    assert explain.explained_layer(backbone).name == "block4_relu"
    pictures, labels, _ = make_patches(4)
    maps = explain.class_activation_maps(classifier, pictures, labels)
    assert maps.shape == (4, CELLS, CELLS) and maps.max() == 1


def test_the_trunk_has_no_branch():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    branch = keras.layers.Conv2D(4, 3, padding="same", name="branch")(x)
    branch = keras.layers.ReLU(name="branch_relu")(branch)
    x = keras.layers.Add(name="sum")([x, branch])
    x = keras.layers.ZeroPadding2D(name="padding")(x)
    x = keras.layers.Conv2D(4, 3, 2, name="down")(x)
    x = x + keras.layers.ReLU(name="branch_2")(x)  # a sum that is no layer
    x = keras.layers.ReLU(name="last")(x)
    found = explain.trunk_layers(keras.Model(inputs, x))
    names = [layer.name for layer in found]
    assert names[:3] == ["stem", "sum", "down"] and names[4:] == ["last"]
    assert names[3].startswith("add")


def test_every_row_of_the_table_is_tested():
    gray = {name for name, row in BACKBONES.items() if row.channels == 1}  # test_networks.py
    assert set(CHANNELS) | gray == set(BACKBONES) - {"tiny"}
