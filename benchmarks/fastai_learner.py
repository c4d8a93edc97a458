"""A training step of fastai's `Learner`, as its users have it: its loop, its callbacks, its Adam.

Howard and Gugger 2020, https://arxiv.org/abs/2002.04688. The network is `torch_mobilenet`'s, all
layers train, BatchNorm too.
"""

from collections.abc import Callable

import numpy as np
import torch
from fastai.callback.core import Callback, CancelValidException
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from torch import nn

from benchmarks.torch_mobilenet import build_mobilenet


class _TrainOnly(Callback):
    """An epoch ends where its validation would begin."""

    def before_validate(self) -> None:
        raise CancelValidException


class _OneBatch:
    """A loader whose epoch is one batch, which is there already."""

    device, bs = torch.device("cpu"), 1

    def __init__(self, *batch: torch.Tensor) -> None:
        self.batches = [batch]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def make_training_step(images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """Returns a function that trains a MobileNetV2 by one step.

    Args:
        images: float32 (B, S, S, 3) in [0, 255].
        labels: one-hot (B, num_classes).
    """
    batch = torch.from_numpy(images / 127.5 - 1).permute(0, 3, 1, 2).contiguous()
    loader = _OneBatch(batch, torch.from_numpy(labels.argmax(axis=1)))
    learner = Learner(
        DataLoaders(loader, loader),
        build_mobilenet(labels.shape[1]),
        nn.CrossEntropyLoss(),
        lr=1e-3,
        cbs=_TrainOnly(),
    )
    learner.remove_cb(ProgressCallback)

    def step() -> None:
        with learner.no_logging():
            learner.fit(1)

    return step
