"""PyTorch, bare or under fastai, as a contender, in a process that waits until it is its turn.

TensorFlow and PyTorch cannot share one: each brings an LLVM, and a second one ends the process.
"""

import contextlib
import multiprocessing
import pkgutil
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import numpy as np

# Functions that make a step, and import PyTorch only where they run.
TORCH_STEP = "benchmarks.torch_mobilenet:make_training_step"
FASTAI_STEP = "benchmarks.fastai_learner:make_training_step"


@contextlib.contextmanager
def torch_training(
    source: str, images: np.ndarray, labels: np.ndarray, **options: bool
) -> Iterator[Callable[[], None]]:
    """Yields a function that trains PyTorch's MobileNetV2 by one step on a batch.

    Args:
        source: `TORCH_STEP` or `FASTAI_STEP`.
        images: float32 (B, S, S, 3) in [0, 255].
        labels: one-hot (B, num_classes).
        options: other arguments of the source.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(theirs, source, images, labels, options), daemon=True
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


def _work(
    pipe: Connection, source: str, images: np.ndarray, labels: np.ndarray, options: dict[str, bool]
) -> None:
    step = pkgutil.resolve_name(source)(images, labels, **options)
    while pipe.recv():
        step()
        pipe.send(True)
