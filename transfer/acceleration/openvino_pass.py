"""The pass of the head phase and of evaluation in OpenVINO, an optional package, on a CPU.

The network becomes one graph from raw images to outputs, resizing included, in float32 with its
weights as constants; OpenVINO computes it in bfloat16 where the pass is to be in that format. Small
parts of a batch are computed side by side, one by each core: so what a layer puts out is still in
the core's cache when the next one reads it.
"""

import importlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from transfer.acceleration.openvino_core import installed_openvino, openvino_core
from transfer.data.augment import resize
from transfer.data.splits import Split
from transfer.errors import InputError
from transfer.models.inference import told

AT_A_TIME = 16  # images that a core computes together
AT_A_TIME_HEAVY = 64  # of networks whose weights, read anew for each part, fill no core's cache
_HEAVY = 8_000_000  # weights


def predict_batches(
    model: keras.Model,
    split: Split,
    image_size: int,
    batch_size: int,
    *,
    flipped: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Iterator[np.ndarray]:
    """Yields a network's outputs batch by batch; arguments as of `acceleration.doors`."""
    shape = (*split.images.shape[1:], image_size)
    network = _compiled(model, shape)
    part_size = AT_A_TIME_HEAVY if model.count_params() > _HEAVY else AT_A_TIME
    parts = _compute(network, _parts(split.images, batch_size, part_size, flipped))
    return told(model, _whole(parts, batch_size), callbacks)


def forget_networks() -> None:
    """Frees the networks that were compiled last."""
    _kept.clear()


class _Kept(NamedTuple):
    model: keras.Model
    shape: tuple[int, ...]
    weights: list[np.ndarray]  # which its graph has as constants
    network: Any


_kept: deque[_Kept] = deque(maxlen=2)  # one of a run, one for photos of another size


def _compiled(model: keras.Model, shape: tuple[int, ...]) -> Any:
    # Compared, not hashed: that took a tenth of a pass over 400 images.
    weights = [np.asarray(value) for value in model.weights]
    for kept in list(_kept):
        if kept.model is model and kept.shape == shape:
            if all(map(np.array_equal, kept.weights, weights)):
                return kept.network
            _kept.remove(kept)
    network = _compile(model, shape)
    _kept.append(_Kept(model, shape, [each.copy() for each in weights], network))
    return network


def _parts(images: Any, batch_size: int, part_size: int, flipped: bool) -> Iterator[np.ndarray]:
    # Whatever the batch size, as many as are fast; read, or decoded, a batch at a time.
    size = max(batch_size // part_size, 1) * part_size
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        batch = batch[:, :, ::-1] if flipped else batch
        for first in range(0, len(batch), part_size):
            yield np.ascontiguousarray(batch[first : first + part_size])


def _compute(network: Any, parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    # In order; one part more than is computed at a time waits, so that no core does.
    ahead = network.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") + 1
    idle, running = [network.create_infer_request() for _ in range(ahead)], deque[Any]()
    try:
        for part in parts:
            request = idle.pop()
            request.start_async(part, share_inputs=True)
            running.append((request, part))  # which must stay where it is
            if not idle:
                yield _take(running, idle)
        while running:
            yield _take(running, idle)
    finally:  # left early: nothing is freed that is still read
        for request, _ in running:
            request.wait()


def _take(running: deque[Any], idle: list[Any]) -> np.ndarray:
    request, _ = running[0]
    request.wait()
    running.popleft()
    idle.append(request)
    return np.array(request.get_output_tensor(0).data)


def _whole(parts: Iterable[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
    rows: list[np.ndarray] = []
    for part in parts:
        rows.append(part)
        while sum(map(len, rows)) >= batch_size:
            joined = np.concatenate(rows)
            yield joined[:batch_size]
            rows = [joined[batch_size:]]
    if any(map(len, rows)):
        yield np.concatenate(rows)


def _compile(model: keras.Model, shape: tuple[int, ...]) -> Any:
    *image_shape, image_size = shape
    network, is_half = _in_float32(model), _computes_in_bfloat16(model)

    def forward(images: tf.Tensor) -> tf.Tensor:
        return network(resize(images, image_size), training=False)

    signature = [tf.TensorSpec((None, *image_shape), tf.uint8)]
    traced = tf.function(forward, input_signature=signature, autograph=False)
    how = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": "bf16" if is_half else "f32",
        "ENABLE_CPU_PINNING": False,  # others may compute on the same cores
    }
    try:
        openvino = importlib.import_module("openvino")
        graph = openvino.convert_model(traced.get_concrete_function(), share_weights=False)
        return openvino_core().compile_model(graph, "CPU", how)
    except Exception as error:  # it has errors of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"OpenVINO {installed_openvino()} should run {model.name}. Received: {reason[:200]}; "
            "install another version of it, or none: then TensorFlow does."
        ) from error


def _in_float32(model: keras.Model) -> keras.Model:
    # A copy: OpenVINO reads no graph in bfloat16, and decides the format of each operation itself.
    def clone(layer: keras.Layer) -> keras.Layer:
        if isinstance(layer, keras.Model):
            return _in_float32(layer)
        config = layer.get_config()
        if isinstance(layer, keras.Layer):
            config["dtype"] = "float32"
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights([np.asarray(value, np.float32) for value in model.get_weights()])
    return copy


def _computes_in_bfloat16(model: keras.Model) -> bool:
    return any(
        _computes_in_bfloat16(layer)
        if isinstance(layer, keras.Model)
        else isinstance(layer, keras.Layer) and layer.compute_dtype == "bfloat16"
        for layer in model.layers
    )
