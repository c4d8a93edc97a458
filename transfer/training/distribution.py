"""One training on several devices: those of this process, and those of the processes beside it.

Keras's own `DataParallel` on JAX does the work: every device has all weights and a part of each
batch, and what is averaged over the batch is averaged over all of them. What stands here is the
rest of it: how processes find each other, which images are whose, and that one of them keeps the
run. With one device, or on TensorFlow, all of it does nothing.
"""

import contextlib
import functools
import importlib
import math
import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from transfer.config import Config
from transfer.data.augment import mixes
from transfer.data.share import Share
from transfer.errors import InputError
from transfer.storage.atomic import scratch_folder
from transfer.workers import Place, read_place

# After so long without a sign of life a process counts as dead, and all others end.
HEARTBEAT_SECONDS = 20
START_SECONDS = 120  # in which all processes must have come


# What JAX passes on of Gloo, NCCL and its own service, as errors of many types.
_CONNECTION = re.compile("Gloo|NCCL|[Cc]oordination ?[Ss]ervice")


@dataclass
class _Joined:
    place: Place | None = None


_joined = _Joined()


def join_others() -> None:
    """Joins the processes that train together, where the environment says that there are some.

    Call it before anything computes; without them, or a second time, it does nothing.

    Raises:
        InputError: the environment contradicts itself, the backend is not JAX, or the first process
            is not to be reached.
    """
    place = read_place(os.environ)
    if place is None or _joined.place is not None:
        return
    if keras.backend.backend() != "jax":
        raise InputError(
            "several processes train together on JAX alone: leave KERAS_BACKEND out, or set it to "
            f"jax. Received: {keras.backend.backend()}."
        )
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        # As `keras.distribution.initialize` does, which passes on neither where to listen nor
        # after how long a process is dead, and draws a seed, which the settings have.
        jax.distributed.initialize(
            place.coordinator,
            place.num_processes,
            place.process,
            initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            coordinator_bind_address=place.coordinator,
            cluster_detection_method="deactivate",
        )
        with _gloo_listening_on(_own_address(place.coordinator)):
            jax.devices()
    except (RuntimeError, OSError) as error:  # of JAX's, in many lines
        raise InputError(
            f"process {place.process} of {place.num_processes} does not meet the others at "
            f"{place.coordinator}: {str(error).splitlines()[0]}; start all of them with the same "
            "--coordinator, a free port of the machine of process 0."
        ) from error
    _joined.place = place


def _own_address(coordinator: str) -> str:
    # That of the interface from which the first process is reached; nothing is sent.
    host, port = coordinator.rsplit(":", 1)
    family, kind, *_, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


@contextlib.contextmanager
def _gloo_listening_on(address: str) -> Iterator[None]:
    # JAX lets Gloo, which carries the gradients of CPUs, listen wherever this machine's name leads
    # to, and has no setting for it.
    _jax: Any = importlib.import_module("jax._src.lib")._jax
    plain = _jax.make_gloo_tcp_collectives
    _jax.make_gloo_tcp_collectives = functools.partial(plain, hostname=address)
    try:
        yield
    finally:
        _jax.make_gloo_tcp_collectives = plain


def num_processes() -> int:
    """Returns how many processes train together."""
    return _joined.place.num_processes if _joined.place else 1


def process_number() -> int:
    """Returns the number of this process, from 0."""
    return _joined.place.process if _joined.place else 0


def is_first() -> bool:
    """Returns whether this is the process that speaks and keeps the run."""
    return process_number() == 0


def num_devices() -> int:
    """Returns how many devices train together, of all processes."""
    if keras.backend.backend() != "jax":
        return 1
    import jax

    return int(jax.device_count())


def lost_others(error: BaseException) -> bool:
    """Returns whether an error is that of a process whose fellows are gone."""
    chain: BaseException | None = error if num_processes() > 1 else None
    while chain is not None:  # Keras meets others on its way out
        if type(chain).__name__ == "JaxRuntimeError" or _CONNECTION.search(str(chain)):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


# --- Models on all devices, and on one --------------------------------------------------------


@contextlib.contextmanager
def over_all_devices() -> Iterator[None]:
    """A context in which new models lie on all devices and `fit` divides each batch among them."""
    if num_devices() == 1:
        yield
        return
    # Each process divides its batches itself: the images of the others are not even read.
    with keras.distribution.DataParallel(auto_shard_dataset=False).scope():
        yield


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """A context within it in which new models lie on this process's own device, as they used to."""
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


# --- Whose is what ------------------------------------------------------------------------------


def own_share(config: Config) -> Share:
    """Returns which images of each batch are this process's."""
    together = 2 if mixes(config) else 1
    return Share(process_number(), num_processes(), num_devices(), images_together=together)


def check_batch_size(config: Config) -> None:
    """Refuses batches that cannot be divided among the devices.

    Raises:
        InputError: the batch size is no multiple of their number.
    """
    of_each = num_devices() * (2 if mixes(config) else 1)
    if num_devices() == 1 or config.batch_size % of_each == 0:
        return
    low = config.batch_size // of_each * of_each
    mend = f"{low} or {low + of_each}" if low else f"{of_each}"
    why = ", in pairs that are mixed" if mixes(config) else ""
    raise InputError(
        f"--batch-size should be a multiple of {of_each}, to be divided among {num_devices()} "
        f"devices{why}. Received: {config.batch_size}; take {mend}, or so many processes that it "
        "can be divided."
    )


def own_rows(num_images: int, batch_size: int) -> slice:
    """Returns which images of a split this process looks at, where each is looked at once.

    They begin with a batch, so that no batch differs from those of a single process.
    """
    return _rows_of(process_number(), num_images, batch_size)


def _rows_of(process: int, num_images: int, batch_size: int) -> slice:
    batches = math.ceil(num_images / batch_size)
    begin, end = (
        min(batches * number // num_processes() * batch_size, num_images)
        for number in (process, process + 1)
    )
    return slice(begin, end)


@contextlib.contextmanager
def folder_of_run(make: Callable[[], Path]) -> Iterator[Path]:
    """Yields the run folder that `make` returns; in all but the first process a scratch folder."""
    if is_first():
        yield make()
        return
    with scratch_folder() as folder:
        yield folder


# --- From one process to the others ------------------------------------------------------------


def gather_rows(rows: np.ndarray, num_rows: int, batch_size: int) -> np.ndarray:
    """Returns the rows of all processes, in order, in each of them.

    Args:
        rows: float16 (own rows, width), those of `own_rows`.
        num_rows: of all processes.
        batch_size: as `own_rows` had it.
    """
    from jax.experimental import multihost_utils

    parts = [_rows_of(process, num_rows, batch_size) for process in range(num_processes())]
    most = max(part.stop - part.start for part in parts)
    padded = np.zeros((most, *rows.shape[1:]), np.float32)  # Gloo knows no float16
    padded[: len(rows)] = rows
    gathered = np.asarray(multihost_utils.process_allgather(padded))
    of_each = [each[: part.stop - part.start] for each, part in zip(gathered, parts, strict=True)]
    return np.concatenate(of_each).astype(np.float16)


def all_see(value: int) -> bool:
    """Returns whether all processes have the same number."""
    return len(set(_numbers(value))) == 1


def any_says(value: bool) -> bool:
    """Returns whether one of the processes says yes."""
    return any(_numbers(int(value)))


def first_says(value: bool) -> bool:
    """Returns what the first process says, where others may see a folder earlier or later."""
    return any_says(value and is_first())


def _numbers(value: int) -> list[int]:
    if num_processes() == 1:
        return [value]
    from jax.experimental import multihost_utils

    gathered: Any = multihost_utils.process_allgather(np.int32(value))
    return [int(each) for each in np.asarray(gathered)]
