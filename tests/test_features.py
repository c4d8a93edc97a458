import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import keras
import numpy as np
import pytest

from transfer.config import Config
from transfer.data.splits import Split
from transfer.training import features as cache
from transfer.training.features import CACHE, compute_features, load_features


def make_split(num_images=1001):
    images = np.zeros((num_images, 8, 8, 1), np.uint8)
    images[:, :, :4] = (np.arange(num_images) % 251)[:, None, None, None]  # left half bright
    return Split(images, np.zeros(num_images, np.int64))


def make_extractor():
    inputs = keras.Input((32, 32, 3))
    left = keras.layers.Cropping2D(((0, 0), (0, 24)))(inputs)  # the leftmost quarter
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(left))


def test_each_image_once_in_order_in_float16():
    split = make_split()
    features = compute_features(make_extractor(), split, Config(image_size=32, batch_size=64))
    assert features.shape == (1001, 3) and features.dtype == np.float16
    np.testing.assert_allclose(features[:, 0], np.arange(1001) % 251, rtol=1e-3)


def test_flipped_sees_the_mirror_image():
    config = Config(image_size=32, batch_size=64)
    features = compute_features(make_extractor(), make_split(70), config, flipped=True)
    np.testing.assert_array_equal(features, 0)  # the dark right half is now on the left


def test_values_beyond_float16_are_clipped_not_infinite():
    inputs = keras.Input((32, 32, 3))
    scaled = keras.layers.Rescaling(1e6)(inputs)
    extractor = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(scaled))
    features = compute_features(extractor, make_split(9), Config(image_size=32))
    assert np.isfinite(features).all()


CONFIG = Config(image_size=32, batch_size=64)


@pytest.fixture
def computed(monkeypatch):
    """Counts the images that go through the network."""
    seen = []
    batches = cache._batches

    def count(extractor, split, *arguments):
        seen.append(split.num_images)
        return batches(extractor, split, *arguments)

    monkeypatch.setattr(cache, "_batches", count)
    return seen


def test_a_second_run_reads_what_the_first_computed_and_says_so(computed):
    told = []
    first = load_features(make_extractor(), make_split(70), CONFIG, tell=told.append)
    assert told == []
    second = load_features(make_extractor(), make_split(70), CONFIG, tell=told.append)
    assert computed == [70] and told == ["kept from an earlier run"]
    np.testing.assert_array_equal(first, second)
    assert second.dtype == np.float16
    np.testing.assert_array_equal(first, compute_features(make_extractor(), make_split(70), CONFIG))


def with_other_weights():
    extractor = make_extractor()
    layer = keras.layers.Dense(2)
    return keras.Model(extractor.input, layer(extractor.output))


def in_bfloat16():
    inputs = keras.Input((32, 32, 3))
    left = keras.layers.Cropping2D(((0, 0), (0, 24)), dtype="bfloat16")
    nested = keras.Model(inputs, left(inputs))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(nested(inputs)))


def by_another_engine():
    with mock.patch.object(cache, "pass_libraries", lambda: {"openvino": "1.0"}):
        return load_features(make_extractor(), make_split(70), CONFIG)


OTHERS = {
    "engine": by_another_engine,
    "number format": lambda: load_features(in_bfloat16(), make_split(70), CONFIG),
    "images": lambda: load_features(make_extractor(), make_split(71), CONFIG),
    "mirror images": lambda: load_features(make_extractor(), make_split(70), CONFIG, flipped=True),
    "weights": lambda: load_features(with_other_weights(), make_split(70), CONFIG),
    "backbone": lambda: load_features(
        make_extractor(), make_split(70), Config(image_size=32, batch_size=64, backbone="vgg16")
    ),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_features_of_another_kind_are_not_taken_for_them(computed, other):
    load_features(make_extractor(), make_split(70), CONFIG)
    other()
    assert len(computed) == 2


def test_large_features_stay_on_the_disk(monkeypatch):
    monkeypatch.setattr(cache, "usable_memory", lambda: 1000)
    assert isinstance(load_features(make_extractor(), make_split(70), CONFIG), np.memmap)


def test_a_byte_that_has_changed_is_not_read(computed):
    # Of the right size and a good header: only the checksum tells.
    first = load_features(make_extractor(), make_split(70), CONFIG)
    [path] = CACHE.folder.glob("*.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    np.testing.assert_array_equal(load_features(make_extractor(), make_split(70), CONFIG), first)
    assert len(computed) == 2
    np.testing.assert_array_equal(load_features(make_extractor(), make_split(70), CONFIG), first)
    assert len(computed) == 2


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"junk" * 100])
def test_a_damaged_file_is_computed_again(computed, content):
    first = load_features(make_extractor(), make_split(70), CONFIG)
    [path] = CACHE.folder.glob("*.npy")
    path.write_bytes(content)
    np.testing.assert_array_equal(load_features(make_extractor(), make_split(70), CONFIG), first)
    assert len(computed) == 2


def test_what_was_used_longest_ago_makes_room(monkeypatch):
    for number in (70, 71, 72):
        load_features(make_extractor(), make_split(number), CONFIG)
        newest = max(CACHE.folder.glob("*.npy"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (number, number))
    load_features(make_extractor(), make_split(70), CONFIG)  # used again
    monkeypatch.setattr(
        cache, "CACHE", dataclasses.replace(CACHE, most_bytes=1700)
    )  # three files of some 550 bytes
    load_features(make_extractor(), make_split(73), CONFIG)
    rows = sorted(len(np.load(path)) for path in CACHE.folder.glob("*.npy"))
    assert rows == [70, 72, 73]


def test_of_two_at_once_one_computes(computed):
    with ThreadPoolExecutor(2) as pool:
        made = pool.map(lambda _: load_features(make_extractor(), make_split(70), CONFIG), range(2))
        first, second = made
    np.testing.assert_array_equal(first, second)
    assert computed == [70]
    assert sorted(path.suffix for path in CACHE.folder.iterdir()) == [".npy", ".sha256"]


def test_without_a_place_for_the_cache_the_features_are_computed(monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("KERAS_HOME", str(blocked))
    assert load_features(make_extractor(), make_split(70), CONFIG).shape == (70, 3)
