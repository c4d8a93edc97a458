import keras
import numpy as np

from transfer.config import Config
from transfer.data.sources import Split
from transfer.training.features import compute_features


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
