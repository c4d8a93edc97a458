import functools
import http.server
import socket
import threading
import time

import h5py
import numpy as np
import pytest
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from transfer.config import Config
from transfer.errors import InputError
from transfer.models import pretrained, weights
from transfer.models.backbones import BACKBONES, build_backbone
from transfer.models.classifier import build_classifier
from transfer.models.saving import save_classifier
from transfer.models.weights import imagenet_url, keras_cache, load_backbone
from transfer.storage.downloads import download
from transfer.training.run import train


def write_as_keras_does(backbone, path):
    """Writes the HDF5 layout of Keras's published no-top files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, backbone)
    return path


@pytest.fixture(autouse=True)
def nothing_embedded(monkeypatch, tmp_path):
    """A package without weights of its own; test_pretrained.py is about those."""
    manifest = tmp_path / "manifest.json"
    manifest.write_text("{}")
    monkeypatch.setattr(pretrained, "MANIFEST", manifest)


@pytest.fixture(scope="module")
def mobilenetv2():
    backbone = build_backbone("mobilenetv2", 32)
    generator = np.random.default_rng(0)
    backbone.set_weights([generator.uniform(0.1, 1, w.shape) for w in backbone.get_weights()])
    return backbone


@pytest.fixture
def cached_file(mobilenetv2, no_network):
    name = imagenet_url("mobilenetv2", 32).rsplit("/", 1)[1]
    return write_as_keras_does(mobilenetv2, keras_cache() / name)


def assert_same_weights(backbone, expected):
    for actual, value in zip(backbone.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, value.astype(np.float32))


def test_auto_takes_the_file_in_keras_cache(cached_file, mobilenetv2):
    backbone, found = load_backbone("mobilenetv2", 32)
    assert found.name == "imagenet" and found.pretrained
    assert str(cached_file) in found.provenance
    assert_same_weights(backbone, mobilenetv2)


def test_explicit_imagenet_takes_it_too(cached_file, mobilenetv2):
    backbone, found = load_backbone("mobilenetv2", 32, "imagenet", offline=True)
    assert found.name == "imagenet"
    assert_same_weights(backbone, mobilenetv2)


@pytest.mark.parametrize(
    "asked, meant", [("imagnet", "imagenet"), ("fotos", "photos"), ("w.h5", "path of a file")]
)
def test_a_word_that_is_none_is_refused_before_anything_is_loaded(asked, meant):
    with pytest.raises(InputError, match=meant) as refused:
        train(Config(weights=asked, data="nowhere"))
    assert str(refused.value).startswith("--weights should be")


def test_imagenet_that_is_not_here_names_the_best_that_is(monkeypatch):
    monkeypatch.setattr(pretrained, "available", lambda kind: ["mobilenetv2"])
    with pytest.raises(InputError, match=r"or use --weights bundled\."):
        load_backbone("mobilenetv2", 32, "imagenet", offline=True)
    with pytest.raises(InputError, match=r"or use --weights none\."):
        load_backbone("vgg16", 32, "imagenet", offline=True)


def test_a_partial_file_is_set_aside_and_never_used(cached_file):
    content = cached_file.read_bytes()
    cached_file.write_bytes(content[: len(content) // 2])
    _, found = load_backbone("mobilenetv2", 32)
    assert found.name == "none" and not found.pretrained
    assert not cached_file.exists()
    assert cached_file.with_name(cached_file.name + ".damaged").exists()


def test_a_file_that_lacks_layers_is_refused(cached_file):
    with h5py.File(cached_file, "a") as file:
        file.attrs["layer_names"] = file.attrs["layer_names"][:-2]
    with pytest.raises(InputError, match="no ImageNet weights"):
        load_backbone("mobilenetv2", 32, "imagenet")


def test_a_wrong_checksum_is_refused_where_one_is_published(no_network):
    path = keras_cache() / imagenet_url("vgg16", 96).rsplit("/", 1)[1]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not the published weights")
    assert load_backbone("vgg16", 32)[1].name == "none"
    assert path.with_name(path.name + ".damaged").exists()


def test_explicit_imagenet_without_a_file_names_place_and_mend():
    with pytest.raises(InputError) as caught:
        load_backbone("mobilenetv2", 96, "imagenet", offline=True)
    message = str(caught.value)
    assert str(keras_cache()) in message and "--offline" in message and "\n" not in message


def test_none_is_random_weights():
    _, found = load_backbone("mobilenetv2", 32, "none")
    assert found.name == "none" and not found.pretrained


def test_a_path_is_loaded_or_refused(tmp_path, mobilenetv2):
    path = write_as_keras_does(mobilenetv2, tmp_path / "own.h5")
    backbone, found = load_backbone("mobilenetv2", 32, str(path))
    assert found.name == "file" and found.pretrained
    assert_same_weights(backbone, mobilenetv2)
    with pytest.raises(InputError, match="vgg16"):
        load_backbone("vgg16", 32, str(path))
    with pytest.raises(InputError, match="not there"):
        load_backbone("mobilenetv2", 32, str(tmp_path / "missing.h5"))


def test_kerass_own_format_is_loaded_from_a_path(tmp_path, mobilenetv2):
    path = tmp_path / "own.weights.h5"
    mobilenetv2.save_weights(path)
    assert_same_weights(load_backbone("mobilenetv2", 32, str(path))[0], mobilenetv2)


def test_the_backbone_of_a_trained_classifier_is_loaded(tmp_path, tiny_backbone):
    config = Config(backbone=tiny_backbone, image_size=32)
    trained = build_backbone(tiny_backbone, 32)
    path = tmp_path / "model.keras"
    classifier = build_classifier(config, trained, 3, train_batch_norm=False)
    save_classifier(classifier, config, "float32", path)
    backbone, found = load_backbone(tiny_backbone, 32, str(path))
    assert found.name == "file" and str(path) in found.provenance
    assert_same_weights(backbone, trained)


def serve(folder):
    handler = functools.partial(QuietHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def allow_network(monkeypatch, port, name):
    import dataclasses

    monkeypatch.delenv("TRANSFER_OFFLINE")
    row = dataclasses.replace(BACKBONES[name], weights_url=f"http://127.0.0.1:{port}/weights.h5")
    monkeypatch.setitem(BACKBONES, name, row)


def test_the_download_is_loaded_and_kept(tmp_path, monkeypatch, mobilenetv2):
    write_as_keras_does(mobilenetv2, tmp_path / "weights.h5")
    server = serve(tmp_path)
    allow_network(monkeypatch, server.server_port, "mobilenetv2")
    backbone, found = load_backbone("mobilenetv2", 32)
    server.shutdown()
    assert found.name == "imagenet"
    assert_same_weights(backbone, mobilenetv2)
    assert (keras_cache() / "weights.h5").exists()
    assert load_backbone("mobilenetv2", 32, "imagenet", offline=True)[1].name == "imagenet"


def test_a_server_that_does_not_answer_is_given_up(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        allow_network(monkeypatch, silent.getsockname()[1], "mobilenetv2")
        monkeypatch.setattr(weights, "download", functools.partial(download, answer_seconds=0.5))
        started = time.monotonic()
        _, found = load_backbone("mobilenetv2", 32)
        assert time.monotonic() - started < 8
        assert found.name == "none" and "no answer" in found.provenance
        with pytest.raises(InputError, match="no answer from .* or use --weights "):
            load_backbone("mobilenetv2", 32, "imagenet")


def test_offline_never_asks(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.delenv("TRANSFER_OFFLINE")
    monkeypatch.setattr(weights, "download", refuse)
    assert load_backbone("mobilenetv2", 32, offline=True)[1].name == "none"
