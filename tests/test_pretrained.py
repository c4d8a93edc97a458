import hashlib
import json

import h5py
import keras
import numpy as np
import pytest

from tools import pack_weights
from transfer.errors import InputError
from transfer.models import pretrained
from transfer.models.backbones import build_backbone
from transfer.models.weights import load_backbone


@pytest.fixture
def package(monkeypatch, tmp_path):
    """An empty folder in place of the package's own."""
    for module in (pretrained, pack_weights):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
        monkeypatch.setattr(module, "MANIFEST", tmp_path / "manifest.json")
    (tmp_path / "manifest.json").write_text("{}")
    return tmp_path


@pytest.fixture
def packed(package, tmp_path_factory):
    """MobileNetV2 with random weights and statistics, packed; returns the weights."""
    backbone = build_backbone("mobilenetv2", None)
    generator = np.random.default_rng(0)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(generator.uniform(1e-9, 1e5, layer.gamma.shape))
    source = tmp_path_factory.mktemp("source") / "backbone.weights.h5"
    backbone.save_weights(source)
    pack_weights.pack("bundled", source)
    return backbone.get_weights()


def test_every_file_of_the_package_is_whole_and_small():
    for kind, entries in json.loads(pretrained.MANIFEST.read_text()).items():
        assert kind in pretrained.MADE_FROM
        for backbone, entry in entries.items():
            path = pretrained.find(kind, backbone)
            assert path.stat().st_size == entry["bytes"] <= 5_000_000


def test_packed_weights_are_those_that_went_in(packed, package):
    assert pretrained.available("bundled") == ["mobilenetv2"]
    backbone, found = load_backbone("mobilenetv2", 64, "bundled", offline=True)
    assert found.name == "bundled" and found.pretrained
    assert "fractals" in found.provenance and "mobilenetv2_fractal" in found.provenance
    for actual, expected in zip(backbone.get_weights(), packed, strict=True):
        rounded = expected.astype(np.float16) if expected.ndim > 1 else expected
        np.testing.assert_array_equal(actual, rounded.astype(np.float32))


def test_a_packed_file_holds_half_precision_kernels_alone(packed, package):
    kinds = set()
    with h5py.File(package / "mobilenetv2_fractal.weights.h5") as file:
        file.visititems(
            lambda name, item: (
                kinds.add((item.ndim > 1, item.dtype.name))
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    assert kinds == {(True, "float16"), (False, "float32")}


def test_auto_falls_back_to_them_and_says_why(packed):
    _, found = load_backbone("mobilenetv2", 64, "auto", offline=True)
    assert found.name == "bundled"
    assert "because there are no ImageNet weights at" in found.provenance


def test_auto_of_another_backbone_says_what_it_lacks(packed):
    _, found = load_backbone("vgg16", 64, "auto", offline=True)
    assert found.name == "none" and "no ImageNet weights" in found.provenance
    with pytest.raises(InputError, match="bundled weights for mobilenetv2. Received: .*vgg16"):
        load_backbone("vgg16", 64, "bundled")


def test_a_damaged_file_is_refused(packed, package):
    path = package / "mobilenetv2_fractal.weights.h5"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    actual = hashlib.sha256(content).hexdigest()
    with pytest.raises(InputError, match=f"Received: {actual}; install the package again"):
        load_backbone("mobilenetv2", 64, "bundled")
    path.unlink()
    with pytest.raises(InputError, match="Received: no file"):
        load_backbone("mobilenetv2", 64, "bundled")


def test_the_manifest_remembers_checksums(packed, package):
    entry = json.loads((package / "manifest.json").read_text())["bundled"]["mobilenetv2"]
    content = (package / entry["file"]).read_bytes()
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["bytes"] == len(content)
