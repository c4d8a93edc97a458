"""The doors of the wall: each takes a fast way where the backend has one, else Keras's own.

What imports TensorFlow is imported here only when it is taken.
"""

import contextlib
import functools
import importlib.metadata
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np

from transfer.acceleration.depthwise import with_shifted_depthwise
from transfer.acceleration.openvino_core import installed_openvino
from transfer.data.splits import Split
from transfer.machine import has_accelerator
from transfer.models.batch_norm import MOMENTUM, with_momentum


def is_fast() -> bool:
    """Returns whether the backend is TensorFlow, which most of the fast ways are written in."""
    return keras.backend.backend() == "tensorflow"


def compiles_steps() -> bool:
    """Returns whether XLA shall compile the steps of a network.

    It makes depthwise convolutions several times slower on a CPU; but what other backends do
    without it is one operation at a time.
    """
    return not is_fast() or has_accelerator()


def with_trained_batch_norm(
    model: keras.Model, momentum: float = MOMENTUM, gradient_dtype: str = "float32"
) -> keras.Model:
    """Returns a model whose BatchNorm trains, its statistics following with this momentum.

    Args:
        model: a functional model; its layers keep their names and the order of their weights.
        momentum: of the moving statistics.
        gradient_dtype: what the gradients of 1x1 convolutions are computed from where there is a
            fast way, "float32" or "bfloat16".
    """
    if not is_fast():
        return _for_jax(with_momentum(model, momentum))
    from transfer.acceleration.batch_norm import fuse_batch_norm

    return fuse_batch_norm(model, momentum, gradient_dtype)


def with_frozen_batch_norm(model: keras.Model, gradient_dtype: str = "float32") -> keras.Model:
    """Returns a model for training with BatchNorm as in inference; arguments as above."""
    if not is_fast():
        return _for_jax(model)
    from transfer.acceleration.batch_norm import freeze_batch_norm

    return freeze_batch_norm(model, gradient_dtype)


def _for_jax(model: keras.Model) -> keras.Model:
    return model if has_accelerator() else with_shifted_depthwise(model)


def make_adam(learning_rate: float, **options: Any) -> keras.optimizers.Optimizer:
    """Returns Adam (Kingma and Ba, arXiv:1412.6980), options as of `keras.optimizers.Adam`."""
    if not is_fast():
        return keras.optimizers.Adam(learning_rate, **options)
    from transfer.acceleration.adam import Adam

    return Adam(learning_rate, **options)


def make_adamw(learning_rate: float, **options: Any) -> keras.optimizers.Optimizer:
    """Returns AdamW (Loshchilov and Hutter, arXiv:1711.05101), options likewise."""
    if not is_fast():
        return keras.optimizers.AdamW(learning_rate, **options)
    from transfer.acceleration.adam import AdamW

    return AdamW(learning_rate, **options)


def forget_networks() -> None:
    """Frees what passes keep of the networks they ran; a later pass prepares its own again."""
    for name in ("inference", "openvino_pass"):
        if module := sys.modules.get(f"transfer.acceleration.{name}"):
            module.forget_networks()
    _prepared.cache_clear()


@functools.lru_cache(maxsize=1)  # it is compiled when it is first called
def _prepared(model: keras.Model) -> keras.Model:
    return _for_jax(model)


OPENVINO = "openvino"
_may_take_openvino = ContextVar("may_take_openvino", default=True)


def pass_libraries() -> dict[str, str]:
    """Returns what computes passes besides the backend of Keras: nothing, or OpenVINO.

    One rule: OpenVINO, in the number format of the pass, where it is installed and TensorFlow
    would compute on a CPU (`python -m benchmarks --only engines`).

    Returns:
        Its version by name.
    """
    if not (_may_take_openvino.get() and installed_openvino()):
        return {}
    return {OPENVINO: installed_openvino()} if is_fast() and not has_accelerator() else {}


def pass_engine() -> str:
    """Returns what computes passes, and its version, such as "openvino 2026.4.1"."""
    backend = keras.backend.backend()
    engine = pass_libraries() or {backend: importlib.metadata.version(backend)}
    return " ".join(*engine.items())


@contextlib.contextmanager
def passes_as_with(versions: Mapping[str, str]) -> Iterator[None]:
    """Lets passes be computed as in a run that began with these versions of libraries."""
    before = _may_take_openvino.set(OPENVINO in versions)
    try:
        yield
    finally:
        _may_take_openvino.reset(before)


def predict_batches(
    model: keras.Model,
    split: Split,
    image_size: int,
    batch_size: int,
    *,
    flipped: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Iterator[np.ndarray]:
    """Yields a network's outputs batch by batch, in the order of the images.

    Args:
        model: float (B, S, S, 3) in [0, 255] -> (B, features).
        split: N images as uint8 arrays.
        image_size: S, in pixels.
        batch_size: images in memory at a time; the last batch holds the rest.
        flipped: mirror the images left to right.
        callbacks: called as by Keras's `predict`.
    """
    options: dict[str, Any] = {"flipped": flipped, "callbacks": callbacks}
    if not is_fast() or has_accelerator():  # a dataset's own operations are computed by the CPU
        from transfer.models.inference import predict_batches as predict_plainly

        if not is_fast():
            model, weights = _prepared(model), model.get_weights()
            model.set_weights(weights)  # which may have changed since
        return predict_plainly(model, split, image_size, batch_size, **options)
    if pass_libraries():
        from transfer.acceleration.openvino_pass import predict_batches as predict_by_openvino

        return predict_by_openvino(model, split, image_size, batch_size, **options)
    from transfer.acceleration.inference import predict_batches as predict_fast

    return predict_fast(model, split, image_size, batch_size, **options)
