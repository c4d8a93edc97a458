"""PyTorch as a contender, in a process of its own that waits until it is its turn.

TensorFlow and PyTorch cannot share one: each brings an LLVM, and a second one ends the process.
"""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import numpy as np


@contextlib.contextmanager
def torch_training(
    images: np.ndarray, labels: np.ndarray, *, channels_last: bool
) -> Iterator[Callable[[], None]]:
    """Yields a function that trains PyTorch's MobileNetV2 by one step on a batch.

    Args:
        images: float32 (B, S, S, 3) in [0, 255].
        labels: one-hot (B, num_classes).
        channels_last: the memory format, as PyTorch recommends for convolutions on a CPU.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(theirs, images, labels, channels_last), daemon=True
    )
    process.start()
    theirs.close()  # so that the end of the process is the end of the pipe

    def step() -> None:
        ours.send(True)
        ours.recv()

    try:
        yield step
    finally:
        with contextlib.suppress(OSError):
            ours.send(False)
        process.join()


def _work(pipe: Connection, images: np.ndarray, labels: np.ndarray, channels_last: bool) -> None:
    from benchmarks.torch_mobilenet import make_training_step

    step = make_training_step(images, labels, channels_last)
    while pipe.recv():
        step()
        pipe.send(True)
