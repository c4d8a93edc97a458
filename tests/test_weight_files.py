"""Hostile model files, each made here; and what honest people send, which still loads."""

import contextlib
import dataclasses
import errno
import io
import json
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from transfer import signals
from transfer.config import Config
from transfer.datasets.formats.npz import read_arrays
from transfer.errors import DiskError, InputError, Interrupted
from transfer.models import weight_files, weights
from transfer.models.backbones import BACKBONES, build_backbone
from transfer.models.classifier import build_classifier
from transfer.models.precision import dtype_policy
from transfer.models.saving import restore_classifier
from transfer.models.weight_files import check_architecture, read_weights
from transfer.models.weights import load_backbone
from transfer.storage import atomic

GROWTH_MB = 200
KERNEL = "layers/conv2d/vars/0"  # of the model below, in the file it is saved to
KERNEL_SHAPE = (3, 3, 3, 4)


def make_model(seed=0):
    keras.utils.set_random_seed(seed)
    images = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(4, 3, name="stem")(images)
    return keras.Model(images, keras.layers.BatchNormalization(name="norm")(features), name="body")


@pytest.fixture(scope="module")
def model():
    """What every file is loaded into."""
    return make_model()


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """The members of a good archive, by name; hostile ones are made from it."""
    path = tmp_path_factory.mktemp("honest") / "model.keras"
    make_model(seed=1).save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


class Payload:
    """Runs code when it is unpickled: makes the marker."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


# --- Archives: each function writes one hostile file into a folder and returns its path ---------


def write_archive(folder, members, name="hostile.keras"):
    with zipfile.ZipFile(folder / name, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return folder / name


def with_layer(layer, **outer):
    """An archive whose description has one more layer, or other entries at the top."""

    def write(folder, honest, marker):
        config = json.loads(honest["config.json"])
        if layer is not None:
            text = json.dumps(layer).replace("MARKER", str(marker))
            config["config"]["layers"].append(json.loads(text))
        return write_archive(folder, honest | {"config.json": json.dumps(config | outer)})

    return write


def called(module, name, *arguments, **entries):
    """A layer that is a function, called as the model is built (CVE-2025-1550)."""
    node = {"args": list(arguments), "kwargs": {}}
    return {
        "module": module,
        "class_name": "function",
        "config": name,
        "registered_name": name,
        "name": name,
        "inbound_nodes": [node],
    } | entries


def with_lambda(folder, honest, marker, name="hostile.keras"):
    folder_to_make = str(marker)

    def run(inputs):
        import os

        os.makedirs(folder_to_make, exist_ok=True)
        return inputs

    images = keras.Input((8, 8, 3))
    run.__name__ = "<lambda>"  # or Keras would write its name, not its code
    hostile = keras.Model(images, keras.layers.Lambda(run, name="lambda")(images))
    hostile.save(folder / name)
    if marker.exists():
        marker.rmdir()  # Keras ran it once while it was built here
    return folder / name


def with_member(name, content=b"x"):
    def write(folder, honest, marker):
        return write_archive(folder, honest | {name: content})

    return write


def without(name):
    def write(folder, honest, marker):
        return write_archive(folder, {k: v for k, v in honest.items() if k != name})

    return write


def as_link(folder, honest, marker):
    path = write_archive(folder, {k: v for k, v in honest.items() if k != "model.weights.h5"})
    info = zipfile.ZipInfo("model.weights.h5")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    return path


def twice(folder, honest, marker):
    path = write_archive(folder, honest)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("config.json", "{}")
    return path


def archive_bomb(folder, honest, marker):
    path = write_archive(folder, {k: v for k, v in honest.items() if k != "model.weights.h5"})
    info = zipfile.ZipInfo("model.weights.h5")
    info.compress_type, info._compresslevel = zipfile.ZIP_DEFLATED, 1
    with zipfile.ZipFile(path, "a") as archive, archive.open(info, "w") as member:
        for _ in range(300):
            member.write(bytes(1 << 20))
    assert path.stat().st_size < 3 << 20
    return path


def claimed_size(folder, honest, marker):
    # 4 GB in the directory, some KB in the file.
    path = write_archive(folder, honest)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"model.weights.h5") - 46
    for offset in (20, 24):  # compressed and uncompressed
        content[entry + offset : entry + offset + 4] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(content)
    return path


def as_pickle(name):
    def write(folder, honest, marker):
        (folder / name).write_bytes(pickle.dumps(Payload(marker)))
        return folder / name

    return write


# --- HDF5: `change` gets the open file of good weights, and runs once inside an archive too ------


def with_weights(change, name="hostile.weights.h5"):
    def write(folder, honest, marker):
        path = folder / name
        path.write_bytes(honest["model.weights.h5"])
        with h5py.File(path, "a") as file:
            change(file, folder)
        return path

    return write


def in_archive(change):
    def write(folder, honest, marker):
        weights = with_weights(change)(folder, honest, marker).read_bytes()
        return write_archive(folder, honest | {"model.weights.h5": weights})

    return write


def replace_kernel(file, **options):
    del file[KERNEL]
    return file.create_dataset(KERNEL, **options)


def external_link(file, folder):
    with h5py.File(folder / "secret.h5", "w") as secret:
        secret["0"] = np.ones(KERNEL_SHAPE, np.float32)
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink(str(folder / "secret.h5"), "/0")


def external_group(file, folder):
    del file["layers"]
    file["layers"] = h5py.ExternalLink("/etc/secret.h5", "/layers")


def soft_link(file, folder):
    file["layers/other"] = h5py.SoftLink("/layers/conv2d")


def virtual(file, folder):
    layout = h5py.VirtualLayout(KERNEL_SHAPE, np.float32)
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "0", KERNEL_SHAPE)
    del file[KERNEL]
    file.create_virtual_dataset(KERNEL, layout)


def external_storage(file, folder):
    replace_kernel(
        file, shape=KERNEL_SHAPE, dtype="f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    )


def shape_bomb(file, folder):
    replace_kernel(file, shape=(1 << 20, 1 << 20), dtype="f4")  # 4 TB, none of it written


def chunked_shape_bomb(file, folder):
    replace_kernel(file, shape=(1 << 16, 1 << 16), dtype="f4", chunks=(64, 64), fillvalue=1.0)


def deflated_chunk(file, folder):
    # One chunk of 1 GB of zeros in 1 MB: HDF5 would unpack it whole, whatever the shape says.
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    kernel = replace_kernel(
        file, shape=KERNEL_SHAPE, dtype="f4", chunks=KERNEL_SHAPE, compression="gzip"
    )
    kernel.id.write_direct_chunk((0, 0, 0, 0), b"\x78\x01" + block * 1024)


def one_array_many_names(file, folder):
    for number in range(1000):
        file[f"layers/conv2d/vars/copy{number}"] = file[KERNEL]


def circle(file, folder):
    file["layers/conv2d/again"] = file["layers"]


def overlapping(folder, honest, marker):
    # 20 arrays that all lie in the same 100 kB, in a file that ends after them.
    path = folder / "hostile.weights.h5"
    with h5py.File(path, "w") as file:
        arrays = [file.create_dataset(f"layers/{i}", (25_000,), "f4") for i in range(20)]
        file.flush()
        for array in arrays:
            array[:] = 1.0
        starts = [array.id.get_offset().to_bytes(8, "little") for array in arrays]
    content = path.read_bytes()
    for start in starts[1:]:
        assert content.count(start) == 1
        content = content.replace(start, starts[0])
    end = int.from_bytes(starts[0], "little") + 100_000
    path.write_bytes(content[:40] + end.to_bytes(8, "little") + content[48:end])
    return path


def deep_groups(file, folder):
    file.create_group("/".join(["layers"] * 100))


def texts(file, folder):
    replace_kernel(file, data=["a", "b"], dtype=h5py.string_dtype())


def pickled_object(file, folder):
    code = pickle.dumps(Payload(folder / "marker"))
    replace_kernel(file, data=np.void(code))


def references(file, folder):
    replace_kernel(file, data=np.array([file.ref], dtype=h5py.ref_dtype))


def nothing(file, folder):
    replace_kernel(file, data=h5py.Empty("f4"))


def named_type(file, folder):
    file["layers/type"] = np.dtype("f8")


def legacy(change):
    """Keras 2's layout, in which attributes name layers and weights."""

    def write(folder, honest, marker):
        with h5py.File(folder / "hostile.h5", "w") as file:
            save_weights_to_hdf5_group(file, make_model(seed=1))
            change(file, folder, marker)
        return folder / "hostile.h5"

    return write


def legacy_lambda(file, folder, marker):
    # CVE-2025-9905: load_model would unmarshal this code, safe_mode or not.
    path = with_lambda(folder, None, marker, "lambda.keras")
    with zipfile.ZipFile(path) as archive:
        file.attrs["model_config"] = archive.read("config.json").decode()


def legacy_without_module(file, folder, marker):
    layer = {"class_name": "TFOpLambda", "config": {"function": "io.write_file"}}
    file.attrs["model_config"] = json.dumps({"config": {"layers": [layer]}})


def legacy_long_config(file, folder, marker):
    file.attrs["model_config"] = "[%s0]" % ("[]," * (5 << 19))


def legacy_config_of_numbers(file, folder, marker):
    file.attrs["model_config"] = np.zeros(3)


def legacy_names_of_numbers(file, folder, marker):
    file.attrs["layer_names"] = np.zeros(3)


def legacy_external_link(file, folder, marker):
    del file["stem"]
    file["stem"] = h5py.ExternalLink("/etc/secret.h5", "/stem")


def legacy_long_names(file, folder, marker):
    # All 4,000 could be the one text of 1 MB in the file: 4 GB.
    file.attrs["layer_names"] = ["x"] * 4000
    file.attrs["note"] = "x" * (1 << 20)


def legacy_many_names(file, folder, marker):
    file.attrs["layer_names"] = ["stem"] * 900


TFSM = {"module": "keras.layers", "class_name": "TFSMLayer", "registered_name": None}
LOOKUP = {"module": "keras.layers", "class_name": "StringLookup", "registered_name": None}
FUNCTION = {"module": "builtins", "class_name": "function", "config": "exec"}
DENSE = {"module": "keras.layers", "class_name": "Dense", "registered_name": None}

HOSTILE = {
    # Code and paths in the description of the model
    "CVE-2024-3660 Lambda": (with_lambda, "'Lambda' of 'keras.layers'"),
    "CVE-2025-1550 function of os": (
        with_layer(called("os", "mkdir", "MARKER")),
        "'function' of 'os'",
    ),
    "CVE-2025-1550 function of Python": (
        with_layer(called("builtins", "exec", "open('MARKER', 'w')")),
        "'function' of 'builtins'",
    ),
    "CVE-2025-8747 get_file": (
        with_layer(called("keras.utils", "get_file", "x", "https://example.org/x")),
        "'function' of 'keras.utils'",
    ),
    "CVE-2025-9905 Lambda in .h5": (legacy(legacy_lambda), "'Lambda'"),
    "CVE-2025-9905 TFOpLambda in .h5": (legacy(legacy_without_module), "'TFOpLambda'"),
    "CVE-2025-9906 unsafe deserialization": (
        with_layer(called("keras.config", "enable_unsafe_deserialization")),
        "'function' of 'keras.config'",
    ),
    "CVE-2025-12058 vocabulary from a file": (
        with_layer(LOOKUP | {"config": {"vocabulary": "/etc/passwd"}}),
        "'StringLookup'",
    ),
    "CVE-2025-12058 vocabulary from the network": (
        with_layer(DENSE | {"config": {"vocabulary": "gs://bucket/words.txt"}}),
        "the path 'gs://bucket/words.txt'",
    ),
    "CVE-2025-12060 unpacked tar": (
        with_layer(called("keras.utils", "get_file", "x", kwargs={"untar": True})),
        "'function' of 'keras.utils'",
    ),
    "CVE-2026-1462 TFSMLayer": (with_layer(TFSM | {"config": {"filepath": "x"}}), "'TFSMLayer'"),
    "function as an activation": (
        with_layer(DENSE | {"config": {"activation": FUNCTION}}),
        "'function' of 'builtins'",
    ),
    "lambda as an initializer": (
        with_layer(DENSE | {"config": {"x": [{"class_name": "__lambda__", "config": {}}]}}),
        "'__lambda__'",
    ),
    "class of another package": (with_layer(DENSE | {"module": "evil"}), "'Dense' of 'evil'"),
    "class of Keras that is no layer": (
        with_layer(DENSE | {"module": "keras.src.saving.saving_lib", "class_name": "H5IOStore"}),
        "'H5IOStore'",
    ),
    "name that somebody registered": (
        with_layer(DENSE | {"registered_name": "evil>Dense"}),
        "registered as 'evil>Dense'",
    ),
    "class that is no text": (with_layer(DENSE | {"class_name": [["Dense"]]}), "[['Dense']]"),
    "module that is no text": (with_layer(DENSE | {"module": {"keras": 1}}), "{'keras': 1}"),
    "type specification": (
        with_layer({"class_name": "__typespec__", "spec_name": "x", "config": []}),
        "'__typespec__'",
    ),
    "function in compile_config": (
        with_layer(None, compile_config={"loss": FUNCTION}),
        "'function'",
    ),
    "layer in build_config": (with_layer(None, build_config=TFSM), "'TFSMLayer'"),
    "layer named ..": (with_layer(DENSE | {"config": {"name": "../x"}}), "the path '../x'"),
    # Archives
    "absolute member": (with_member("/tmp/marker"), "the member '/tmp/marker'"),
    "member in ..": (with_member("../marker"), "the member '../marker'"),
    "member of Windows": (with_member("C:/marker"), "the member 'C:/marker'"),
    "asset": (with_member("assets/words.txt"), "the member 'assets/words.txt'"),
    "weights as .npz": (with_member("model.weights.npz"), "the member 'model.weights.npz'"),
    "pickle beside": (with_member("model.pkl"), "the member 'model.pkl'"),
    "link as member": (as_link, "a link as model.weights.h5"),
    "member twice": (twice, "the member 'config.json'"),
    "no description": (without("config.json"), "no config.json"),
    "no weights": (without("model.weights.h5"), "no model.weights.h5"),
    "archive bomb": (archive_bomb, "compressed, of 314,572,800 bytes"),
    "size that is not there": (claimed_size, "bytes of members in a file of"),
    "description of 7 MB": (
        with_member("config.json", b"[%s0]" % (b"[]," * (5 << 19))),
        "config.json of 7,864,323 bytes",
    ),
    "description 100,000 deep": (with_member("config.json", b"[" * 100_000), "RecursionError"),
    "description that is no JSON": (with_member("config.json", b"\xff\xfe"), "JSONDecodeError"),
    "pickle as .keras": (as_pickle("hostile.keras"), "not a zip file"),
    # HDF5
    "pickle as .h5": (as_pickle("hostile.h5"), "file signature not found"),
    "CVE-2026-0897 shape bomb": (in_archive(shape_bomb), "without its numbers"),
    "CVE-2026-0897 in .weights.h5": (with_weights(shape_bomb), "without its numbers"),
    "CVE-2026-1669 external storage": (in_archive(external_storage), "lies in another file"),
    "CVE-2026-1669 in .weights.h5": (with_weights(external_storage), "lies in another file"),
    "chunked shape bomb": (with_weights(chunked_shape_bomb), "in chunks"),
    "deflated chunk": (with_weights(deflated_chunk), "in chunks"),
    "overlapping arrays": (overlapping, "arrays of 2,000,000 bytes in a file of"),
    "external link": (with_weights(external_link), "ExternalLink"),
    "external link to a group": (in_archive(external_group), "ExternalLink"),
    "soft link": (with_weights(soft_link), "SoftLink"),
    "virtual data set": (in_archive(virtual), "lies in another file"),
    "one array by many names": (with_weights(one_array_many_names), "a second name"),
    "group inside itself": (with_weights(circle), "a second name"),
    "groups 100 deep": (with_weights(deep_groups), "more than 32 deep"),
    "array of texts": (with_weights(texts), "not of numbers"),
    "pickle in an array": (with_weights(pickled_object), "not of numbers"),
    "array of references": (with_weights(references), "not of numbers"),
    "array of nothing": (with_weights(nothing), "not of numbers"),
    "named type": (with_weights(named_type), "neither a group nor an array"),
    "external link in Keras 2's layout": (legacy(legacy_external_link), "ExternalLink"),
    "names that are numbers": (legacy(legacy_names_of_numbers), "float64 as layer_names"),
    "description that is numbers": (legacy(legacy_config_of_numbers), "float64 as model_config"),
    "description of 7 MB in .h5": (legacy(legacy_long_config), "7,864,323 bytes"),
    "names that may unpack to 4 GB": (legacy(legacy_long_names), "up to 4,194,432,000 bytes"),
    "more names than objects": (legacy(legacy_many_names), "more or longer names than objects"),
}


@pytest.fixture
def growth():
    """Fails a test in which the memory of the process grew too far, be it for a moment."""
    status = Path("/proc/self/status")

    def peak_mb():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024

    if not status.exists():
        yield  # not Linux
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget earlier peaks
    before = peak_mb()
    yield
    assert peak_mb() - before < GROWTH_MB


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_before_anything_runs(kind, model, honest, tmp_path, growth):
    make, found = HOSTILE[kind]
    marker = tmp_path / "marker"
    path = make(tmp_path, honest, marker)
    before, there = model.get_weights(), sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as caught:
        read_weights(model, path, "weights of this model")
    message = str(caught.value)
    assert message.startswith(f"{path} should hold ") and f"{found}" in message
    assert "Received: " in message and ("ask its author" in message or "copy it" in message)
    assert "\n" not in message and len(message) < 500 + len(str(path))
    assert sorted(tmp_path.rglob("*")) == there and not marker.exists()
    for value, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_the_code_in_these_files_is_live(honest, tmp_path):
    # Else the tests above could not fail.
    marker = tmp_path / "marker"
    keras.models.load_model(with_lambda(tmp_path, honest, marker), safe_mode=False)
    assert marker.is_dir()
    marker.rmdir()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.is_dir()


def test_too_many_objects_are_refused(model, tmp_path, monkeypatch):
    model.save_weights(tmp_path / "crowd.weights.h5")
    monkeypatch.setattr(weight_files, "_MAX_OBJECTS", 5)
    with pytest.raises(InputError, match="more than 5 objects"):
        read_weights(model, tmp_path / "crowd.weights.h5", "weights")


@pytest.mark.parametrize(
    "name",
    ["https://example.org/x.keras", "hf://author/x", "gs://bucket/x.h5", "folder.keras", "pipe.h5"],
)
def test_what_is_no_file_here_is_refused_without_waiting(
    name, model, tiny_backbone, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("folder.keras").mkdir()
    os.mkfifo("pipe.h5")
    with pytest.raises(InputError, match="Received: no file"):
        read_weights(model, Path(name), "weights")
    with pytest.raises(InputError, match="not there"):
        load_backbone(tiny_backbone, 32, name)


@pytest.mark.parametrize("name", ["x.ckpt", "x.weights.json", "x.npz", "x.pkl"])
def test_other_kinds_of_files_are_refused(name, model, tmp_path):
    (tmp_path / name).write_bytes(pickle.dumps(Payload(tmp_path / "marker")))
    with pytest.raises(InputError, match="another kind of file"):
        read_weights(model, tmp_path / name, "weights")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("kind", ["object array", "pickle", "shape bomb"])
def test_hostile_npz_files_are_refused(kind, tmp_path, growth):
    marker, path = tmp_path / "marker", tmp_path / "hostile.npz"
    if kind == "object array":
        np.savez(path, x=np.array([Payload(marker)], dtype=object))
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Payload(marker)))
    else:
        header = io.BytesIO()
        shape = {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)}
        np.lib.format.write_array_header_1_0(header, shape)
        write_archive(tmp_path, {"x.npy": header.getvalue()}, path.name)
    with pytest.raises(InputError, match="hostile.npz"):
        read_arrays(path, ("x",))
    assert not marker.exists()


def test_every_way_to_load_is_guarded(tiny_backbone, honest, tmp_path):
    path = with_lambda(tmp_path, honest, tmp_path / "marker")
    config = Config(backbone=tiny_backbone, image_size=32)
    with pytest.raises(InputError, match="'Lambda'"):
        load_backbone(tiny_backbone, 32, str(path))
    with pytest.raises(InputError, match="'Lambda'"):
        restore_classifier(config, 3, "float32", path)
    assert not (tmp_path / "marker").exists()


# --- What honest people send --------------------------------------------------------------------


def save_archive(model, folder):
    model.save(folder / "model.keras")
    return folder / "model.keras"


def save_weights(model, folder):
    model.save_weights(folder / "model.weights.h5")
    return folder / "model.weights.h5"


def save_legacy_weights(model, folder):
    with h5py.File(folder / "weights.h5", "w") as file:
        save_weights_to_hdf5_group(file, model)
    return folder / "weights.h5"


def save_legacy_weights_as_h5py_2_did(model, folder):
    path = save_legacy_weights(model, folder)
    with h5py.File(path, "a") as file:
        for group in (file, *file.values()):
            for key in ("layer_names", "weight_names"):
                if key in group.attrs:
                    group.attrs[key] = np.array(list(group.attrs[key]), dtype="S")
    return path


def save_legacy_model(model, folder):
    model.save(folder / "model.h5")
    return folder / "model.h5"


def save_nested(model, folder):
    images = keras.Input((8, 8, 3))
    features = keras.layers.GlobalAveragePooling2D()(model(images))
    classifier = keras.Model(images, keras.layers.Dense(10, "softmax")(features))
    return save_archive(classifier, folder)


def save_with_head(model, folder):
    # Compiled, so that the optimizer's variables are in the file, too.
    features = keras.layers.GlobalAveragePooling2D()(model.output)
    outputs = keras.layers.Dense(10, "softmax")(features)
    classifier = keras.Model(model.input, outputs)
    classifier.compile("adam", keras.losses.CategoricalCrossentropy(), metrics=["accuracy"])
    classifier.optimizer.build(classifier.trainable_variables)
    return save_archive(classifier, folder)


def save_sequential(model, folder):
    flip = keras.layers.RandomFlip("horizontal")
    return save_archive(keras.Sequential([keras.Input((8, 8, 3)), flip, model]), folder)


def nest(model):
    images = keras.Input((8, 8, 3))
    features = keras.layers.GlobalAveragePooling2D()(model(images))
    return keras.Model(images, keras.layers.Dense(10, "softmax")(features))


def save_nested_legacy_model(model, folder):
    classifier = nest(model)
    classifier.compile("adam", "categorical_crossentropy")
    return save_legacy_model(classifier, folder)


def save_nested_half_frozen_legacy_model(model, folder):
    # What trains stands first in the file: the order of the layers is lost.
    model.get_layer("stem").trainable = False
    return save_legacy_model(nest(model), folder)


def save_nested_legacy_weights(model, folder):
    return save_legacy_weights(nest(model), folder)


def save_legacy_model_with_head(model, folder):
    outputs = keras.layers.GlobalAveragePooling2D()(model.output)
    return save_legacy_model(
        keras.Model(model.input, keras.layers.Dense(10, name="top")(outputs)), folder
    )


def write_keras_2(folder, layers, *, root="model_weights", operation="math.truediv"):
    """Writes a file as Keras 2 did: {layer of the classifier: [(name of a weight, value)]}."""
    path = folder / "keras2.h5"
    scaling = {"class_name": "TFOpLambda", "config": {"name": "div", "function": operation}}
    backbone = {"class_name": "Functional", "config": {"name": "body", "layers": [scaling]}}
    config = {"class_name": "Functional", "config": {"layers": [scaling, backbone]}}
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = b"2.4.0", b"tensorflow"
        file.attrs["model_config"] = json.dumps(config).encode()
        group = file.create_group(root)
        group.attrs["layer_names"] = [name.encode() for name in layers]
        for name, weights in layers.items():
            layer = group.create_group(name)
            layer.attrs["weight_names"] = [weight.encode() for weight, _ in weights]
            for weight, value in weights:
                layer.create_dataset(weight, data=value)
    return path


def as_keras_2(model, prefix="", renamed=None):
    def name_of(path):
        owner, name = path.split("/")[-2:]
        return f"{prefix}{(renamed or {}).get(owner, owner)}/{name}:0"

    return [
        (name_of(each.path), value)
        for each, value in zip(model.weights, model.get_weights(), strict=True)
    ]


DENSE = [("dense/kernel:0", np.zeros((4, 10), "f")), ("dense/bias:0", np.zeros(10, "f"))]


def save_keras_2_nested(model, folder):
    layers = {"input_2": [], "tf.math.truediv": [], "body": as_keras_2(model), "dense": DENSE}
    return write_keras_2(folder, layers)


def save_keras_2_nested_with_other_names(model, folder):
    names = {"stem": "conv2d_7", "norm": "batch_normalization_v1"}
    return write_keras_2(folder, {"dense": DENSE, "body": as_keras_2(model, "body/", names)})


def save_keras_2_flat(model, folder):
    weights = as_keras_2(model)
    layers = {"stem": weights[:2], "norm": weights[2:], "pool": [], "dense": DENSE}
    return write_keras_2(folder, layers)


@pytest.mark.parametrize(
    "save",
    [
        save_nested_legacy_model,
        save_nested_half_frozen_legacy_model,
        save_nested_legacy_weights,
        save_legacy_model_with_head,
        save_keras_2_nested,
        save_keras_2_nested_with_other_names,
        save_keras_2_flat,
        save_archive,
        save_weights,
        save_legacy_weights,
        save_legacy_weights_as_h5py_2_did,
        save_legacy_model,
        save_nested,
        save_with_head,
        save_sequential,
    ],
)
def test_honest_files_load(save, model, tmp_path, growth):
    source = make_model(seed=2)
    generator = np.random.default_rng(2)
    # Positive, as a variance is.
    source.set_weights([generator.uniform(0.1, 1, w.shape) for w in source.get_weights()])
    expected = source.get_weights()
    read_weights(model, save(source, tmp_path), "weights of this model")
    for value, wanted in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(value, wanted)


def test_a_depthwise_kernel_of_keras_2_is_found(tmp_path):
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.DepthwiseConv2D(3, name="deep")(images))
    kernel, bias = np.arange(27.0).reshape(3, 3, 3, 1), np.arange(3.0)
    weights = [("deep/depthwise_kernel:0", kernel), ("deep/bias:0", bias)]
    read_weights(model, write_keras_2(tmp_path, {"net": weights, "dense": DENSE}), "weights")
    np.testing.assert_array_equal(model.get_weights()[0], kernel)


def test_a_classifier_with_no_such_part_or_an_odd_operation_is_told(model, tmp_path):
    weights = as_keras_2(make_model(seed=3))
    for layers in ({"body": weights[:-1], "dense": DENSE}, {"dense": DENSE}):
        with pytest.raises(InputError, match="not an array of its shape"):
            read_weights(model, write_keras_2(tmp_path, layers), "weights")
    for operation in ("io.read_file", "py_function", ["math.truediv"], None, "math.x y"):
        path = write_keras_2(tmp_path, {"body": weights}, operation=operation)
        with pytest.raises(InputError, match="TFOpLambda"):
            read_weights(model, path, "weights")
    for operation in ("nn.relu6", "math.reduce_mean", "image.per_image_standardization"):
        read_weights(model, write_keras_2(tmp_path, {"body": weights}, operation=operation), "")


@pytest.mark.parametrize(
    ("layer", "refused"),
    [
        # As 2.0 to 2.3 kept an operation, mixed precision, and what TF_USE_LEGACY_KERAS=1 writes.
        ({"class_name": "TensorFlowOpLayer", "config": {"node_def": {"op": "Relu6"}}}, ""),
        ({"class_name": "TensorFlowOpLayer", "config": {"node_def": {"op": "PyFunc"}}}, "PyFunc"),
        ({"class_name": "TensorFlowOpLayer", "config": {"node_def": "Relu6"}}, "TensorFlowOpLayer"),
        ({"class_name": "Policy", "module": "keras.mixed_precision", "config": {}}, ""),
        ({"class_name": "Functional", "module": "tf_keras.src.engine.functional"}, ""),
        ({"class_name": "Functional", "module": "tf_keras.os"}, "tf_keras.os"),
        ({"class_name": "TFOpLambda", "config": {"function": "nn.conv.\x1b[2J"}}, "TFOpLambda"),
    ],
)
def test_what_keras_2_wrote_beside_layers_is_known(layer, refused):
    text = json.dumps({"class_name": "Functional", "config": {"layers": [layer]}})
    if not refused:
        check_architecture(text, Path("x.h5"))
        return
    with pytest.raises(InputError, match=refused):
        check_architecture(text, Path("x.h5"))


@pytest.mark.parametrize("name", BACKBONES)
def test_the_description_of_every_backbone_is_accepted(name, tmp_path):
    policy = "mixed_bfloat16" if BACKBONES[name].bfloat16_training else "float32"
    config = Config(backbone=name, image_size=32, hidden_units=8, l2=0.01)
    with dtype_policy(policy):
        backbone = build_backbone(name, 32)
        classifier = build_classifier(config, backbone, 3, train_batch_norm=False)
    check_architecture(classifier.to_json(), tmp_path)


def test_a_file_of_another_model_is_told(model, honest, tmp_path):
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    for save in (save_archive, save_weights, save_legacy_weights, save_legacy_model):
        with pytest.raises(InputError, match="not an array of its shape for each weight"):
            read_weights(model, save(other, tmp_path), "weights of this model")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("save", [save_archive, save_weights, save_legacy_weights])
def test_half_a_file_is_told(share, save, model, tmp_path):
    path = save(model, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="should hold weights of this model"):
        read_weights(model, path, "weights of this model")


def test_a_changed_byte_in_an_archive_is_told(model, tmp_path):
    path = save_archive(model, tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(b"\x89HDF") + 4000] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="Bad CRC-32"):
        read_weights(model, path, "weights")


HARMLESS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("abc_", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=10,
)
HARMFUL = st.sampled_from([TFSM, LOOKUP, FUNCTION, "https://x", "/etc", "a/../b", "~/x", "C:\\x"])


@given(HARMLESS)
@settings(deadline=None)
def test_harmless_descriptions_are_accepted(value):
    check_architecture(json.dumps(value), Path("x.keras"))


@given(HARMLESS, HARMFUL, st.lists(st.booleans(), max_size=20))
@settings(deadline=None)
def test_harm_is_found_however_deep_it_lies(beside, harm, path):
    for is_list in path:
        harm = [beside, harm] if is_list else {"config": harm, "x": beside}
    with pytest.raises(InputError, match="only compute"):
        check_architecture(json.dumps(harm), Path("x.keras"))


@given(st.binary(max_size=50) | st.text(max_size=50))
@settings(deadline=None)
def test_any_text_is_accepted_or_refused_in_one_line(text):
    with contextlib.suppress(InputError):
        check_architecture(text, Path("x.keras"))


# --- Numbers that are none, places at fault, and stops --------------------------------------------


@pytest.fixture
def cached_file(tiny_backbone, tmp_path, monkeypatch):
    """The "ImageNet" weights of the tiny backbone, where Keras keeps such files."""
    place = weights.keras_cache() / weights.imagenet_url(tiny_backbone, 96).rsplit("/", 1)[1]
    place.parent.mkdir(parents=True)
    build_backbone(tiny_backbone, 96).save_weights(tmp_path / "tiny.weights.h5")
    shutil.copy(tmp_path / "tiny.weights.h5", place)
    row = dataclasses.replace(BACKBONES[tiny_backbone], weights_checksum=None)
    monkeypatch.setitem(BACKBONES, tiny_backbone, row)
    return place


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0])  # of a variance
@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.weights.h5"])
def test_weights_that_are_no_numbers_are_refused_by_name(value, name, model, tmp_path):
    bad = make_model(seed=1)
    values = bad.get_weights()
    values[-1][0] = value  # of BatchNorm's variance, the last
    bad.set_weights(values)
    (bad.save_weights if name.endswith(".weights.h5") else bad.save)(tmp_path / name)
    told = "a negative number" if value == -1 else "NaN or infinity"
    with pytest.raises(InputError, match=f"{told} in norm/moving_variance"):
        read_weights(model, tmp_path / name, "weights")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("Can't write data (errno = 28, error message = 'No space left on device')"),
        PermissionError(errno.EACCES, "Permission denied"),
        MemoryError(),
    ],
    ids=repr,
)
def test_a_full_disk_or_memory_does_not_set_a_good_file_aside(cached_file, monkeypatch, error):
    def fail(*args):
        raise error

    monkeypatch.setattr(weight_files, "_copy_plain", fail)
    with pytest.raises((DiskError, MemoryError)):
        load_backbone("tiny", 96, offline=True)
    assert [path.name for path in cached_file.parent.iterdir()] == [cached_file.name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("makes_of_it", [OSError("truncated file"), KeyError("x"), None])
def test_a_stop_while_weights_load_sets_nothing_aside_and_takes_no_others(
    cached_file, monkeypatch, number, makes_of_it
):
    copy = weight_files._copy_plain

    def swallow(*args):
        with contextlib.suppress(Interrupted):
            signal.raise_signal(number)
        if makes_of_it:
            raise makes_of_it
        return copy(*args)

    monkeypatch.setattr(weight_files, "_copy_plain", swallow)
    signals.raise_on_stop()
    try:
        with pytest.raises(Interrupted) as stopped:
            load_backbone("tiny", 96, offline=True)
    finally:
        signals.raise_on_stop()  # forgets it
    assert stopped.value.number == number
    assert [path.name for path in cached_file.parent.iterdir()] == [cached_file.name]


def test_a_stop_that_a_finalizer_swallows_comes_again(capfd):
    before = [signal.getsignal(number) for number in signals.NUMBERS]

    class Closing:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)  # where Python takes notice of the signal

    signals.raise_on_stop()
    try:
        with pytest.raises(Interrupted) as stopped:
            Closing()
            time.sleep(60)
        assert stopped.value.number == signal.SIGTERM
        assert "Exception ignored" not in capfd.readouterr().err
    finally:
        signals.raise_on_stop()  # forgets it
        sys.unraisablehook = sys.__unraisablehook__
        for number, handler in zip(signals.NUMBERS, before, strict=True):
            signal.signal(number, handler)


def test_scratch_files_of_killed_processes_go_with_the_next(model, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make_model(seed=1).save_weights(tmp_path / "model.weights.h5")
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    for number in (ended.pid, os.getpid()):
        folder = tmp_path / f".{atomic._machine()}-{number}-0123abcd.transfer"
        folder.mkdir()
        (folder / "plain.h5").write_bytes(b"half")
    read_weights(model, tmp_path / "model.weights.h5", "weights")
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name, "model.weights.h5"]
