"""What all tests share: no network, an empty Keras cache, a backbone small enough to train."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses  # noqa: E402
import gc  # noqa: E402
import io  # noqa: E402
import signal  # noqa: E402
from pathlib import Path  # noqa: E402

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from PIL import Image  # noqa: E402
from rich.console import Console  # noqa: E402

from transfer import console  # noqa: E402
from transfer.config import Config  # noqa: E402
from transfer.datasets.places import SYSTEM_FOLDER  # noqa: E402
from transfer.models.backbones import BACKBONES, build_backbone  # noqa: E402
from transfer.runs.facts import DataFacts, Facts, WeightsFacts  # noqa: E402

# The first example may import TensorFlow, and any machine may be busy.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def pytest_collection_modifyitems(items):
    # The longest tests first, so that none of the processes waits for another at the end.
    longest = ("test_docs.py", "test_end_to_end.py")
    items.sort(key=lambda item: item.path.name not in longest)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    # What the modules import, TensorFlow above all, stays: nothing of it need be looked through.
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    return result


def pytest_runtest_setup(item):
    if item.get_closest_marker("real_data") and not SYSTEM_FOLDER.is_dir():
        pytest.skip(f"real data missing: {SYSTEM_FOLDER} (apt-get install dataset-fashion-mnist)")


def close_network(monkeypatch, keras_home):
    monkeypatch.setenv("TRANSFER_OFFLINE", "1")
    monkeypatch.setenv(
        "PIP_NO_INDEX", "1"
    )  # nor from those tests that allow a network of their own
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("KERAS_HOME", str(keras_home))
    monkeypatch.delenv("FASHION_MNIST_DIR", raising=False)


@pytest.fixture(autouse=True, scope="session")
def no_network_in_fixtures(tmp_path_factory):
    """Keeps what a whole module shares off the network and out of the user's own caches."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        close_network(monkeypatch, tmp_path_factory.mktemp("keras_home"))
        yield


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path_factory):
    """Keeps every test off the network and out of the user's own caches."""
    close_network(monkeypatch, tmp_path_factory.mktemp("keras_home"))


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk():
    """Takes what is written as written: no test cuts the power, and a run waits a hundred times.

    The commands that run in processes of their own do wait.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "fsync", lambda descriptor: os.fstat(descriptor) and None)
        yield


@pytest.fixture(autouse=True)
def no_voice(monkeypatch):
    """Makes a test silent again that let the process speak, as every command does."""
    monkeypatch.setattr(console, "_current", None)
    monkeypatch.setattr(console, "_verbose", False)


@pytest.fixture(autouse=True)
def own_signals():
    """Puts back what a command does to Ctrl-C and SIGTERM."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # Also where the tests run in the background of a shell, which ignores Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def build_tiny(include_top, weights, input_shape):
    """Builds four blocks of convolution and BatchNorm, as a builder of `keras.applications`."""
    import keras

    assert not include_top and weights is None
    inputs = x = keras.Input(input_shape)
    for number in range(1, 5):
        x = keras.layers.Conv2D(8, 3, 2, "same", use_bias=False, name=f"block{number}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"block{number}_bn")(x)
        x = keras.layers.ReLU(name=f"block{number}_relu")(x)
    return keras.Model(inputs, x)


def tiny_row():
    """Returns a row of `BACKBONES` that trains in a second, its builder added to Keras's."""
    import keras

    keras.applications.Tiny = build_tiny
    return dataclasses.replace(
        BACKBONES["mobilenetv2"], builder="Tiny", block=r"^block\d", scratch_learning_rate=1e-2
    )


@pytest.fixture
def tiny_backbone(monkeypatch):
    """Adds the row "tiny" to BACKBONES."""
    monkeypatch.setitem(BACKBONES, "tiny", tiny_row())
    return "tiny"


def make_stripes(num_images, seed=0, size=28):
    """Returns images of horizontal or vertical stripes, uint8 (N, size, size, 1), and labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num_images) % 2
    images = generator.integers(0, 60, (num_images, size, size, 1), np.uint8)
    for image, label in zip(images, labels, strict=True):
        offset = generator.integers(4)
        if label:
            image[offset::4] += 150
        else:
            image[:, offset::4] += 150
    return images, labels.astype(np.int64)


def write_stripes(folder):
    """Writes a data set of two learnable classes as .npz and returns its path."""
    x_train, y_train = make_stripes(240)
    x_test, y_test = make_stripes(61, seed=1)
    path = folder / "stripes.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


@pytest.fixture
def stripes_npz(tmp_path):
    """Writes that data set for one test and returns its path."""
    return write_stripes(tmp_path)


@pytest.fixture(scope="module")
def tiny_inputs(tmp_path_factory):
    """Yields settings that all tests of a module share: the backbone "tiny", weights, stripes."""
    import keras

    folder = tmp_path_factory.mktemp("inputs")
    weights = folder / "tiny.weights.h5"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(BACKBONES, "tiny", tiny_row())
        keras.utils.set_random_seed(7)
        build_backbone("tiny", 32).save_weights(weights)
        yield {"backbone": "tiny", "data": str(write_stripes(folder)), "weights": str(weights)}


@pytest.fixture(scope="session")
def command_inputs(tmp_path_factory):
    """Returns a folder with what the small commands of `tools.kill_training` start from."""
    from tools.kill_training import write_inputs

    folder = tmp_path_factory.mktemp("command_inputs")
    write_inputs(folder)
    return folder


def write_copies(folder, as_files):
    """Writes 40 pictures of two classes, each three times: as it is, brighter, shifted by a pixel.

    Returns the path, and a function from a part to the numbers of the pictures in it.
    """
    generator = np.random.default_rng(0)
    pictures = [
        Image.fromarray(generator.integers(40, 200, (6, 6), np.uint8)).resize((24, 24))
        for _ in range(40)
    ]
    copies = [
        copy
        for pixels in map(np.asarray, pictures)
        for copy in (pixels, np.uint8(pixels * 1.1), np.pad(pixels, ((1, 0), (0, 0)), "edge")[:-1])
    ]
    if as_files:
        for number, copy in enumerate(copies):
            path = folder / f"class{number // 60}" / f"{number // 3}-{number % 3}.png"
            path.parent.mkdir(exist_ok=True, parents=True)
            Image.fromarray(copy).save(path)
        return str(folder), lambda part: [int(Path(p).stem.split("-")[0]) for p in part.images]
    numbers = {copy.tobytes(): number // 3 for number, copy in enumerate(copies)}
    np.savez(folder.with_suffix(".npz"), x_train=np.stack(copies), y_train=np.arange(120) // 60)
    found = lambda part: [numbers[image.tobytes()] for image in part.images]  # noqa: E731
    return str(folder.with_suffix(".npz")), found


def make_framed(num_images, seed=0):
    """Returns stripes as `make_stripes` makes them, on a black ground."""
    images, labels = make_stripes(num_images, seed)
    framed = np.zeros_like(images)
    framed[:, 3:-3, 3:-3] = images[:, 3:-3, 3:-3]
    return framed, labels


def save_photos(folder, images):
    """Writes images uint8 (N, H, W, C) as PNG into a folder and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)
    return [str(path) for path in paths]


@pytest.fixture(scope="session")
def framed_run(tmp_path_factory):
    """A finished run of stripes on black, of the backbone "tiny"; ask for `tiny_backbone` too."""
    from transfer.training.run import train

    folder = tmp_path_factory.mktemp("framed")
    x_train, y_train = make_framed(320)
    x_test, y_test = make_framed(101, seed=1)
    names = np.array(["level", "upright"])
    path = folder / "stripes.npz"
    np.savez(
        path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, class_names=names
    )
    config = Config(
        backbone="tiny",
        data=str(path),
        weights="none",
        image_size=32,
        batch_size=32,
        finetune_epochs=4,
        precision="float32",
        rotation_degrees=0,
        validation_fraction=0.35,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", tiny_row())
        return train(config, run_dir=folder / "run").run_dir


def make_facts(config, **values):
    """Returns what a run with these settings knows of itself."""
    images = dict.fromkeys(("train", "validation", "test"), 2)
    data = DataFacts("stripes", "", "", ("a", "b"), images, dict.fromkeys(images, ""))
    weights = WeightsFacts("none", "random")
    chosen = {"finetune_learning_rate": 1e-4, "hidden_units": 0, "head_features": "last"}
    settled = {name: new for name, new in chosen.items() if getattr(config, name) == "auto"}
    settled = dataclasses.replace(config, **settled)
    return Facts(config, settled, data, weights, "float32", {}, **values)


def printed(show, *args, width=80, **options):
    """Returns what `show` prints where the output is no terminal."""
    buffer = io.StringIO()
    with console.voice(Console(file=buffer, width=width)):
        show(*args, **options)
    return buffer.getvalue()
