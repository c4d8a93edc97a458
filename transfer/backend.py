"""Keras and its backend, imported when something computes, without their start-up noise."""

import contextlib
import gc
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

from transfer.errors import InputError

BACKENDS = ("tensorflow", "jax")
# What Keras and TensorFlow load where it is installed, for users who hand it to them: a quarter of
# their time, and nothing of it is used here before something is drawn.
_LOADED_FOR_OTHERS = ("jax", "pandas", "matplotlib")
INSTALL = 'run `pip install -r requirements.txt`, or `pip install "transfer[train]"`'


_process_is_ours = False


def claim_process() -> None:
    """Says that this process is a command of ours: nobody else uses its Keras."""
    global _process_is_ours
    _process_is_ours = True


def load_keras(verbose: bool = False) -> None:
    """Imports Keras on $KERAS_BACKEND, else on TensorFlow, else, where that is missing, on JAX.

    Whatever keras.json, the environment or code before this call says: nothing that lies about
    changes what a run computes.

    Args:
        verbose: let the libraries log and warn.

    Raises:
        InputError: it is another backend, or not installed, or keras.json keeps Keras from
            starting.
    """
    has_tensorflow = importlib.util.find_spec("tensorflow") is not None
    backend = os.environ.get("KERAS_BACKEND") or ("tensorflow" if has_tensorflow else "jax")
    if backend not in BACKENDS:
        raise InputError(
            f"$KERAS_BACKEND should be {' or '.join(BACKENDS)}. Received: {backend!r}."
        )
    os.environ["KERAS_BACKEND"] = backend
    if not verbose:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        with (
            contextlib.nullcontext() if verbose else _silent_stderr(),
            _no_collections(),
            _leaving_out(backend),
        ):
            keras = importlib.import_module("keras")
            # Whatever computes, the input pipeline is TensorFlow's.
            for name in {backend, "tensorflow"} if has_tensorflow else {backend}:
                importlib.import_module(name)
    except ImportError as error:
        install = INSTALL if backend != "jax" else "run `pip install 'transfer[distributed]'`"
        raise InputError(f"{error}; {install}.") from error
    except (ValueError, TypeError, AttributeError) as error:
        told = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"Keras does not start: {told}; mend ~/.keras/keras.json.") from error
    _check_backend(keras.backend.backend(), backend)
    _set_defaults(keras.config)


def _check_backend(there: str, wanted: str) -> None:
    # Imported before, as in a notebook, it stays on the backend that it had then.
    if there != wanted:
        raise InputError(
            f"Keras runs on {there} in this process already, and should on {wanted}: start Python "
            f"anew and set KERAS_BACKEND={wanted} before Keras is imported."
        )


def _set_defaults(config: Any) -> None:
    config.set_floatx("float32")
    config.set_epsilon(1e-7)
    config.set_image_data_format("channels_last")
    config.set_dtype_policy("float32")
    for limit in ("set_max_epochs", "set_max_steps_per_epoch"):  # not in every version
        getattr(config, limit, lambda most: None)(None)


def has_computed() -> bool:
    """Returns whether TensorFlow has begun to compute in this process: it has threads then."""
    from tensorflow.python.eager import context  # TensorFlow says so nowhere else

    return context.context()._context_handle is not None


@contextlib.contextmanager
def _leaving_out(backend: str) -> Iterator[None]:
    # To them it is as if these were not installed; whoever imports one later finds it.
    names = set(_LOADED_FOR_OTHERS) - {backend} - set(sys.modules) if _process_is_ours else set()
    sys.modules |= dict.fromkeys(names)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    # Hardly any of the million objects that the imports make goes away again, and to look through
    # them for those that do takes a quarter of the time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    # TensorFlow's C++ start-up lines obey no log level, so the file descriptor itself is turned.
    saved = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
