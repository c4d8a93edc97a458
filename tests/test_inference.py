"""A network's outputs for many images: each once, in order, whatever computes them."""

import keras
import numpy as np
import pytest

from transfer.acceleration import inference
from transfer.acceleration.inference import predict_batches
from transfer.data.augment import resize
from transfer.data.splits import Split

NUM_IMAGES, SIZE, BATCH = 1001, 32, 64


@pytest.fixture(scope="module")
def split():
    images = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, 8, 8, 1), np.uint8)
    return Split(images, np.zeros(NUM_IMAGES, np.int64))


@pytest.fixture(scope="module")
def model():
    """Sees where in the image something is, and what."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(x)))


@pytest.fixture(params=["CPU", "accelerator"])
def device(request, monkeypatch):
    monkeypatch.setattr(inference, "has_accelerator", lambda: request.param == "accelerator")


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("flipped", [False, True])
def test_each_image_once_in_order(model, split, flipped):
    batches = list(predict_batches(model, split, SIZE, BATCH, flipped=flipped))
    assert [len(batch) for batch in batches] == [BATCH] * 15 + [41]
    expected = model.predict(resize(split.images, SIZE, flipped=flipped), verbose=0)
    assert batches[0].dtype == np.float32
    np.testing.assert_allclose(np.concatenate(batches), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.usefixtures("device")
def test_weights_that_changed_since_are_used(model, split):
    changing = keras.models.clone_model(model)
    few = Split(split.images[:9], split.labels[:9])
    for seed in range(2):
        keras.utils.set_random_seed(seed)
        changing.set_weights([np.random.normal(size=w.shape) for w in changing.get_weights()])
        [outputs] = predict_batches(changing, few, SIZE, BATCH)
        expected = changing(resize(few.images, SIZE))
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-2)


class Recorder(keras.callbacks.Callback):
    def __init__(self, stop_at=None):
        super().__init__()
        self.told, self.stop_at = [], stop_at

    def on_predict_begin(self, logs=None):
        self.told.append("begin")

    def on_predict_batch_end(self, batch, logs=None):
        self.told.append(batch)
        if batch == self.stop_at:
            raise KeyboardInterrupt

    def on_predict_end(self, logs=None):
        self.told.append("end")


@pytest.mark.usefixtures("device")
def test_callbacks_are_told_as_by_keras(model, split):
    told = Recorder()
    list(predict_batches(model, split, SIZE, BATCH, callbacks=[told]))
    assert told.told == ["begin", *range(16), "end"] and told.model is model


def test_a_callback_can_stop_it(model, split):
    told = Recorder(stop_at=2)
    with pytest.raises(KeyboardInterrupt):
        list(predict_batches(model, split, SIZE, BATCH, callbacks=[told]))
    assert told.told == ["begin", 0, 1, 2]


def test_on_a_cpu_batches_are_computed_side_by_side(split):
    """Each batch waits in the network until another one has come there too."""
    import threading

    import tensorflow as tf

    meeting = threading.Barrier(inference.AT_A_TIME, timeout=30)

    def meet(images):
        meeting.wait()
        return images

    class Meet(keras.layers.Layer):
        def call(self, images):
            return tf.ensure_shape(tf.numpy_function(meet, [images], tf.float32), images.shape)

    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(Meet()(inputs)))
    even = Split(split.images[: 4 * BATCH], split.labels[: 4 * BATCH])
    assert sum(len(batch) for batch in predict_batches(model, even, SIZE, BATCH)) == 4 * BATCH
