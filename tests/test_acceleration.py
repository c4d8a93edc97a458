"""The wall: every fast way beside its plain twin, and what a fast way promises by itself."""

import gc
import sys
import threading
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from transfer.acceleration import doors, inference
from transfer.acceleration.batch_norm import (
    FusedBatchNormalization,
    freeze_batch_norm,
    fuse_batch_norm,
)
from transfer.acceleration.depthwise import ShiftedDepthwiseConv2D, with_shifted_depthwise
from transfer.acceleration.doors import (
    forget_networks,
    make_adam,
    make_adamw,
    pass_engine,
    pass_libraries,
    passes_as_with,
    predict_batches,
    with_frozen_batch_norm,
    with_trained_batch_norm,
)
from transfer.acceleration.openvino_core import installed_openvino
from transfer.data.augment import resize
from transfer.data.splits import Split
from transfer.errors import InputError
from transfer.models.batch_norm import batch_norm_layers
from transfer.models.folding import fold_batch_norm
from transfer.models.precision import dtype_policy


@pytest.fixture
def plain(monkeypatch):
    """Returns a function that opens a door to the plain way."""

    def call(door, *arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr(doors, "is_fast", lambda: False)
            made = door(*arguments, **options)
            return list(made) if hasattr(made, "__next__") else made

    return call


def randomise(model, seed=0):
    generator = np.random.default_rng(seed)
    model.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(16, 8, 8, 3)).astype(np.float32)


def test_tensorflow_has_fast_ways_and_other_backends_have_not(monkeypatch):
    assert doors.is_fast()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert not doors.is_fast()
    assert type(make_adam(0.1)) is keras.optimizers.Adam
    assert type(make_adamw(0.1)) is keras.optimizers.AdamW
    model = make_model()
    assert with_frozen_batch_norm(model) is model and with_trained_batch_norm(model) is model


# --- Depthwise convolutions on JAX --------------------------------------------------------------


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("size", "kernel"), [((8, 9), 3), ((7, 7), (5, 2))])
def test_depthwise_as_a_sum_of_shifts_is_that_of_keras(size, kernel, stride, padding):
    inputs = keras.Input((*size, 4))
    depthwise = keras.layers.DepthwiseConv2D(
        kernel, stride, padding, use_bias=stride == 1, name="depthwise"
    )
    inner = keras.Model(inputs, keras.layers.ReLU()(depthwise(inputs)))
    outer = keras.Input((*size, 4))
    model = randomise(keras.Model(outer, inner(outer)))
    shifted = with_shifted_depthwise(model)
    assert type(shifted.layers[1].get_layer("depthwise")) is ShiftedDepthwiseConv2D
    assert [each.path for each in shifted.weights] == [each.path for each in model.weights]
    some = np.random.default_rng(2).normal(size=(3, *size, 4)).astype(np.float32)
    np.testing.assert_allclose(shifted(some), model(some), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"depth_multiplier": 2}, {"dilation_rate": 2}, {"activation": "relu"}],
)
def test_a_depthwise_of_another_kind_stays_keras_own(options):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.DepthwiseConv2D(3, **options)(inputs))
    assert with_shifted_depthwise(model) is model


def test_on_jax_networks_train_and_pass_with_shifts(monkeypatch, split):
    inputs = keras.Input((SIZE, SIZE, 3))
    depthwise = keras.layers.DepthwiseConv2D(3, name="depthwise")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(depthwise)
    model = randomise(keras.Model(inputs, pooled))
    expected = np.concatenate(list(predict_batches(model, split, SIZE, BATCH)))
    monkeypatch.setattr(doors, "is_fast", lambda: False)
    for prepare in (with_frozen_batch_norm, with_trained_batch_norm):
        assert type(prepare(model).get_layer("depthwise")) is ShiftedDepthwiseConv2D
    found = list(predict_batches(model, split, SIZE, BATCH))
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-5)
    randomise(model, seed=1)
    again = np.concatenate(list(predict_batches(model, split, SIZE, BATCH)))
    assert abs(again - expected).max() > 0.1  # the weights as they are now
    monkeypatch.setattr(doors, "has_accelerator", lambda: True)
    assert with_frozen_batch_norm(model) is model


# --- BatchNorm that trains --------------------------------------------------------------------


def to_floats(arrays):
    return [np.float32(array) for array in arrays]


def make_model():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.999, name="bn")(x)
    return keras.Model(inputs, keras.layers.ReLU()(x))


@pytest.fixture
def pair():
    model = make_model()
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model, fuse_batch_norm(model)


def test_outputs_equal_kerass_in_training_and_inference(pair, images):
    model, fused = pair
    for training in (False, True):
        np.testing.assert_allclose(
            fused(images, training=training), model(images, training=training), atol=1e-4
        )


def test_gradients_equal_kerass(pair, images):
    gradients = []
    for model in pair:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(images, training=True) ** 2)
        variables = [weight.value for weight in model.trainable_variables]
        gradients.append(tape.gradient(loss, variables))
    for ours, keras_own in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=1e-3, atol=1e-5)


def test_statistics_follow_the_batch_with_the_given_momentum(pair, images):
    _, fused = pair
    layer = fused.get_layer("bn")
    assert isinstance(layer, FusedBatchNormalization)
    before = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    values = keras.Model(fused.input, fused.get_layer("conv").output)(images).numpy()
    values = values.reshape(-1, 4)
    fused(images, training=True)
    mean = 0.9 * before[0] + 0.1 * values.mean(axis=0)
    variance = 0.9 * before[1] + 0.1 * values.var(axis=0, ddof=1)
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-4)


def test_a_frozen_layer_keeps_its_statistics(pair, images):
    _, fused = pair
    fused.get_layer("bn").trainable = False
    before = fused.get_weights()
    fused(images, training=True)
    for weight, value in zip(fused.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_names_and_order_of_weights_stay(pair):
    model, fused = pair
    assert [w.path for w in fused.weights] == [w.path for w in model.weights]
    for ours, original in zip(fused.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, original)


def test_bfloat16_inputs_work(images):
    layer = FusedBatchNormalization(dtype="mixed_bfloat16")
    outputs = layer(images, training=True)
    assert outputs.dtype == "bfloat16"
    expected = (images - images.mean((0, 1, 2))) / images.std((0, 1, 2))
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), expected, atol=0.05)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_trained_twins_agree(plain, images, policy):
    with dtype_policy(policy):
        models = [randomise(make_model()), randomise(make_model())]
    fast = with_trained_batch_norm(models[0], 0.8)
    slow = plain(with_trained_batch_norm, models[1], 0.8)
    assert [type(layer) for layer in batch_norm_layers(fast)] == [FusedBatchNormalization]
    assert [type(layer) for layer in batch_norm_layers(slow)] == [keras.layers.BatchNormalization]
    before = models[0].get_layer("bn").moving_variance.numpy()
    tolerance = 1e-4 if policy == "float32" else 0.1
    results = []
    for model in (fast, slow):
        with tf.GradientTape() as tape:
            outputs = tf.cast(model(images, training=True), tf.float32)
            loss = tf.reduce_mean(outputs**2)
        variables = [weight.value for weight in model.trainable_variables]
        [norm] = batch_norm_layers(model)
        assert norm.momentum == 0.8
        batch_variance = (norm.moving_variance.numpy() - 0.8 * before) / 0.2
        if model is fast:  # the one difference that is told: its variance is that of n - 1
            batch_variance *= 1 - 1 / (16 * 6 * 6)
        results.append([outputs, *tape.gradient(loss, variables), norm.moving_mean, batch_variance])
    for ours, theirs in zip(*map(to_floats, results), strict=True):
        assert np.abs(ours - theirs).max() <= tolerance * max(1, np.abs(theirs).max())


# --- Convolutions and their gradients -----------------------------------------------------------


def make_padded_model(kernel_size=1, **options):
    """Zeros before a depthwise convolution, and a 1x1 convolution behind it."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name="zeros")(inputs)
    x = keras.layers.DepthwiseConv2D(3, 2, use_bias=False, name="depthwise")(x)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.Conv2D(6, kernel_size, name="pointwise", **options)(x)
    return randomise(keras.Model(inputs, keras.layers.ReLU()(x)))


def gradients_of(model, images):
    """Those of inputs and kernels, BatchNorm frozen."""
    for layer in batch_norm_layers(model):
        layer.trainable = False
    values = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(values)
        loss = tf.reduce_mean(model(values, training=False) ** 2)
    variables = [weight.value for weight in model.trainable_variables]
    return to_floats(tape.gradient(loss, [values, *variables]))


def differ_by(ours, theirs):
    """The largest difference of each gradient, as a share of the largest of its numbers."""
    return [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize("prepare", [with_frozen_batch_norm, with_trained_batch_norm])
def test_gradients_of_1x1_convolutions_are_products_of_a_number_format(prepare, images):
    model = make_padded_model()
    exact, fast = prepare(model), prepare(model, gradient_dtype="bfloat16")
    assert [weight.path for weight in fast.weights] == [weight.path for weight in model.weights]
    np.testing.assert_array_equal(fast(images), exact(images))  # its forward pass is float32
    theirs = gradients_of(model, images)
    assert max(differ_by(gradients_of(exact, images), theirs)) < 1e-5
    assert 1e-4 < max(differ_by(gradients_of(fast, images), theirs)) < 0.02


@pytest.mark.parametrize(
    "options", [{"strides": 2}, {"groups": 3}, {"dtype": "mixed_bfloat16"}, {"kernel_size": 2}]
)
def test_gradients_of_other_convolutions_stay_tensorflows_own(options, images):
    model = make_padded_model(**options)
    plain, fast = (with_frozen_batch_norm(model, dtype) for dtype in ("float32", "bfloat16"))
    for ours, theirs in zip(*(gradients_of(one, images) for one in (plain, fast)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("prepare", [with_frozen_batch_norm, with_trained_batch_norm])
def test_a_convolution_pads_as_the_layer_before_it_would(prepare, images):
    model = make_padded_model()
    fast = prepare(model)
    assert type(fast.get_layer("zeros")) is keras.layers.Identity
    np.testing.assert_allclose(fast(images), model(images), rtol=1e-4, atol=1e-4)


# --- BatchNorm that is frozen -----------------------------------------------------------------


def make_deep_model():
    """Everything that stands before a BatchNorm: convolutions with and without bias, a sum."""
    inputs = x = keras.Input((8, 8, 3))
    layers = keras.layers
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, use_bias=False, name="conv")(x))
    x = layers.ReLU()(x)
    depthwise = layers.DepthwiseConv2D(3, 2, "same", use_bias=False, name="depthwise")
    x = y = layers.BatchNormalization(scale=False)(depthwise(x))
    x = layers.BatchNormalization(center=False)(layers.Conv2D(6, 1, name="biased")(x))
    x = layers.BatchNormalization()(layers.Add()([x, y]))
    return keras.Model(inputs, x)


@pytest.fixture(params=["float32", "mixed_bfloat16"])
def frozen_pair(request):
    with dtype_policy(request.param):
        model = make_deep_model()
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model, freeze_batch_norm(model), {"float32": 1e-4, "mixed_bfloat16": 0.1}[request.param]


def test_frozen_outputs_and_gradients_equal_kerass(frozen_pair, images):
    model, frozen, tolerance = frozen_pair
    for layer in (*model.layers, *frozen.layers):
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    results = []
    for one in (model, frozen):
        with tf.GradientTape() as tape:
            outputs = one(images, training=False)
            loss = tf.reduce_mean(tf.cast(outputs, tf.float32) ** 2)
        variables = [weight.value for weight in one.trainable_variables]
        results.append([outputs, *tape.gradient(loss, variables)])
    assert len(results[0]) == 5
    for ours, keras_own in zip(*results, strict=True):
        ours, keras_own = np.float32(ours), np.float32(keras_own)
        assert np.abs(ours - keras_own).max() <= tolerance * np.abs(keras_own).max()


def test_freezing_keeps_names_and_weights_and_takes_a_pass_away(frozen_pair, images):
    model, frozen, _ = frozen_pair
    assert [layer.name for layer in frozen.layers[1:]] == [layer.name for layer in model.layers[1:]]
    for ours, keras_own in zip(frozen.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, keras_own)
    kinds = [type(layer).__name__ for layer in frozen.layers]
    assert kinds.count("OffsetBatchNormalization") == 2  # not behind a bias, not behind the sum
    assert kinds.count("BatchNormalization") == 2


def test_a_frozen_model_follows_its_statistics_and_folds(frozen_pair, images):
    model, frozen, tolerance = frozen_pair
    for one in (model, frozen):
        one.layers[2].moving_variance.assign(np.full(6, 3.0))
        one.layers[2].moving_mean.assign(np.full(6, -1.0))
    expected = np.float32(model(images, training=False))
    for one in (frozen, fold_batch_norm(frozen)):
        actual = np.float32(one(images, training=False))
        assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def test_frozen_twins_agree(plain, frozen_pair, images):
    model, _, tolerance = frozen_pair
    fast, slow = with_frozen_batch_norm(model), plain(with_frozen_batch_norm, model)
    assert fast is not model and ShiftedDepthwiseConv2D in map(type, slow.layers)
    results = []
    for one in (fast, slow):
        for layer in one.layers:
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        with tf.GradientTape() as tape:
            outputs = one(images, training=False)
            loss = tf.reduce_mean(tf.cast(outputs, tf.float32) ** 2)
        variables = [weight.value for weight in one.trainable_variables]
        results.append([outputs, *tape.gradient(loss, variables)])
    for ours, theirs in zip(*map(to_floats, results), strict=True):
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


# --- Predictions ------------------------------------------------------------------------------

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


@pytest.fixture(params=["CPU", "OpenVINO", "accelerator", "another backend"])
def device(request, monkeypatch):
    if request.param == "OpenVINO":
        pytest.importorskip("openvino")
    monkeypatch.setattr(doors, "has_accelerator", lambda: request.param == "accelerator")
    monkeypatch.setattr(doors, "is_fast", lambda: request.param != "another backend")
    with passes_as_with({"openvino": ""} if request.param == "OpenVINO" else {}):
        yield


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


@pytest.mark.usefixtures("device")
def test_a_network_whose_passes_are_over_is_freed(model, split):
    copy = keras.models.clone_model(model)
    list(predict_batches(copy, split.take(np.arange(3)), SIZE, BATCH))
    ours = weakref.ref(copy)
    del copy
    forget_networks()
    gc.collect()
    assert ours() is None


@pytest.mark.parametrize("flipped", [False, True])
def test_predicting_twins_agree(plain, model, split, flipped, monkeypatch):
    taken, fast_way = [], inference.predict_batches
    monkeypatch.setattr(
        inference, "predict_batches", lambda *a, **o: taken.append(1) or fast_way(*a, **o)
    )
    monkeypatch.setattr(doors, "has_accelerator", lambda: False)
    with passes_as_with({}):
        fast = list(predict_batches(model, split, SIZE, BATCH, flipped=flipped))
    assert taken == [1]
    slow = plain(predict_batches, model, split, SIZE, BATCH, flipped=flipped)
    assert taken == [1] and len(fast) == len(slow) == 16
    for ours, theirs in zip(fast, slow, strict=True):
        assert ours.dtype == theirs.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


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
    with passes_as_with({}):
        assert sum(len(batch) for batch in predict_batches(model, even, SIZE, BATCH)) == 4 * BATCH


@pytest.fixture
def openvino(monkeypatch):
    monkeypatch.setattr(doors, "has_accelerator", lambda: False)
    return pytest.importorskip("openvino")


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_openvino_says_what_tensorflow_says_whatever_the_batch(model, split, policy):
    def clone(layer):
        return type(layer).from_config(layer.get_config() | {"dtype": policy})

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    few = split.take(np.arange(41))
    assert pass_libraries() and pass_engine().startswith("openvino ")
    batches = {size: list(predict_batches(copy, few, SIZE, size)) for size in (1, 16, 20)}
    assert [len(batch) for batch in batches[20]] == [20, 20, 1]
    first, *others = (np.concatenate(each) for each in batches.values())
    for other in others:  # to the last bit
        np.testing.assert_array_equal(first, other)
    with passes_as_with({}):
        assert not pass_libraries() and pass_engine().startswith("tensorflow ")
        expected = np.concatenate(list(predict_batches(model, few, SIZE, 20)))
    tolerance = 1e-5 if policy == "float32" else 0.02
    np.testing.assert_allclose(first, expected, atol=tolerance * np.abs(expected).max())


def test_a_network_that_openvino_does_not_take_is_told_in_one_line(openvino, split, monkeypatch):
    def fail(traced, **options):
        raise RuntimeError("no rule for this\nat some place")

    monkeypatch.setattr(openvino, "convert_model", fail)
    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    with pytest.raises(InputError, match="no rule for this; install another version") as told:
        list(predict_batches(model, split, SIZE, BATCH))
    assert installed_openvino() in str(told.value) and "\n" not in str(told.value)
    monkeypatch.setitem(sys.modules, "openvino", None)  # it is there, and cannot be imported
    with pytest.raises(InputError, match="import of openvino halted"):
        list(predict_batches(model, split, SIZE, BATCH))


# --- Adam -------------------------------------------------------------------------------------


def fit(optimizer, policy="float32"):
    """Fits a small network, its learning rate changed on the way; returns what it ends with."""
    keras.utils.set_random_seed(3)
    dense = [keras.layers.Dense(7, "tanh", dtype=policy), keras.layers.Dense(3, dtype=policy)]
    model = keras.Sequential([keras.Input((5,)), *dense])
    model.compile(optimizer, "mse", jit_compile=False)
    generator = np.random.default_rng(0)
    inputs, targets = generator.normal(size=(96, 5)), generator.normal(size=(96, 3))
    rates = keras.callbacks.LearningRateScheduler(lambda epoch: 0.05 / (1 + epoch))
    model.fit(inputs, targets, batch_size=8, epochs=3, verbose=0, callbacks=[rates])
    return [*model.get_weights(), *(variable.numpy() for variable in optimizer.variables)]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize(
    ("door", "theirs"), [(make_adam, keras.optimizers.Adam), (make_adamw, keras.optimizers.AdamW)]
)
def test_adam_in_one_operation_takes_the_steps_of_keras(plain, door, theirs, average, policy):
    options = {"use_ema": True, "ema_momentum": average} if average else {}
    fast, slow = door(0.05, **options), plain(door, 0.05, **options)
    assert type(slow) is theirs and isinstance(fast, theirs) and type(fast) is not theirs
    ours, expected = fit(fast, policy), fit(slow, policy)
    tolerance = 1e-5 if policy == "float32" else 0.02  # a rounded bfloat16 changes those after it
    for mine, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance)


def test_adam_decays_no_weights_and_adamw_does():
    decayed, plain = (fit(door(0.05))[0] for door in (make_adamw, make_adam))
    assert np.abs(decayed - plain).max() > 1e-3
