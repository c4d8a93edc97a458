import re
import warnings

import keras
import numpy as np
import pytest

from transfer.errors import InputError
from transfer.models import classifier as classifiers
from transfer.models.backbones import (
    BACKBONES,
    build_backbone,
    get_backbone,
    outputs_by_depth,
    scale,
    split_blocks,
)
from transfer.models.weights import imagenet_url


@pytest.fixture(scope="module")
def built():
    """Every backbone as Keras builds it for ImageNet, and the file that it asks for, once each."""
    backbones = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, row in BACKBONES.items():
            if row.weights_url is None:  # not one of Keras's
                backbones[name] = build_backbone(name, 96), {}
                continue
            asked = {}

            def get_file(fname, origin, file_hash=None, asked=asked, **others):
                asked.update(file=fname, url=origin, checksum=file_hash)
                return fname

            patch.setattr("keras.src.utils.file_utils.get_file", get_file)
            patch.setattr(keras.Model, "load_weights", lambda self, path: None)
            builder = getattr(keras.applications, row.builder)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Keras's, on sizes without weights of their own
                model = builder(include_top=False, weights="imagenet", input_shape=(96, 96, 3))
            backbones[name] = model, asked
    return backbones


@pytest.mark.parametrize("name", BACKBONES)
def test_scaling_equals_the_familys_preprocess_input(name):
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    inputs = keras.Input((8, 8, 3))
    # Adding 0 makes a model of the rows whose scaling is inside the network, too.
    model = keras.Model(inputs, scale(name, inputs) + 0.0)
    if BACKBONES[name].channels == 1:
        expected = images.mean(axis=-1, keepdims=True) / 127.5 - 1
    elif BACKBONES[name].scaling == "lite":
        expected = (images - 127) / 128
    else:
        family = getattr(keras.applications, BACKBONES[name].family)
        expected = family.preprocess_input(images.copy())
    np.testing.assert_allclose(model(images), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_rows_that_scale_nothing_scale_inside(name, built):
    # A network fed [0, 255] must rescale by itself, or its row forgot to.
    kinds = {type(layer).__name__ for layer in built[name][0].layers}
    inside = bool(kinds & {"Rescaling", "Normalization"})
    assert inside == (BACKBONES[name].scaling == "none")


@pytest.mark.parametrize("name", BACKBONES)
def test_blocks_cover_every_layer_with_weights_once_in_order(name, built):
    layers = [layer for layer in built[name][0].layers if layer.weights]
    blocks = split_blocks(name, built[name][0])
    assert [layer for block in blocks for layer in block] == layers
    if BACKBONES[name].channels == 3:  # those that are fine-tuned
        assert len(blocks) >= 5
        assert max(len(block) for block in blocks) < len(layers) / 2


@pytest.mark.parametrize(
    "name", [name for name, row in BACKBONES.items() if row.bfloat16_gradients]
)
def test_networks_whose_1x1_convolutions_gain_by_bfloat16_are_mostly_those(name, built):
    model, _ = built[name]
    kernels = [layer.kernel for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    pointwise = [kernel for kernel in kernels if kernel.shape[:2] == (1, 1)]
    assert len(pointwise) > len(kernels) / 3
    assert not get_backbone(name).bfloat16_training  # which has them in it already


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_has_several_depths(name, built):
    backbone = built[name][0]
    outputs = outputs_by_depth(name, backbone)
    sides = [output.shape[1] for output in outputs]
    assert sides == sorted(sides, reverse=True) and outputs[-1] is backbone.output
    assert len(sides) >= 4 or BACKBONES[name].channels == 1
    pooled = classifiers._pool(outputs)
    assert pooled.shape[1] <= classifiers.MOST_FEATURES * len(outputs)
    # Files of weights know layers by their order.
    several = keras.Model(backbone.input, outputs)
    assert [layer.name for layer in several.layers] == [layer.name for layer in backbone.layers]


@pytest.mark.parametrize("name", [name for name, row in BACKBONES.items() if row.weights_url])
def test_weights_address_and_checksum_are_those_in_keras(name, built):
    asked = built[name][1]
    assert imagenet_url(name, 96) == asked["url"]
    assert imagenet_url(name, 96).endswith("/" + asked["file"])
    assert BACKBONES[name].weights_checksum == asked["checksum"]


def test_build_backbone_is_the_builder_of_its_row(built):
    backbone = build_backbone("mobilenetv2", 96)
    expected = built["mobilenetv2"][0]
    assert backbone.name == "backbone"
    assert backbone.output_shape == (None, 3, 3, 1280)
    assert [w.shape for w in backbone.weights] == [w.shape for w in expected.weights]


def test_unknown_name_is_told_with_the_known_ones():
    with pytest.raises(InputError, match=re.escape("Received: backbone='mobilnet'")):
        get_backbone("mobilnet")
