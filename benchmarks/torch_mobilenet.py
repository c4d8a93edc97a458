"""MobileNetV2 in PyTorch, and its training step as PyTorch users write it.

Sandler et al., arXiv:1801.04381; the layers of torchvision's `mobilenet_v2`, which need not be
installed.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

# Expansion, channels, how many, stride of the first: Table 2 of the paper.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1):
    return [
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class InvertedResidual(nn.Module):
    """A block: widen, filter each channel, narrow; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        layers = [*_convolution(inputs, width, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        layers += [*_convolution(width, width, 3, stride, groups=width), nn.ReLU6(inplace=True)]
        self.layers = nn.Sequential(*layers, *_convolution(width, outputs, 1))
        self.is_added = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.is_added else self.layers(x)


def build_mobilenet(num_classes: int) -> nn.Module:
    """Returns images (B, 3, S, S) -> logits (B, num_classes)."""
    layers = [*_convolution(3, 32, 3, stride=2), nn.ReLU6(inplace=True)]
    channels = 32
    for expansion, outputs, count, first_stride in _STAGES:
        for number in range(count):
            stride = first_stride if number == 0 else 1
            layers.append(InvertedResidual(channels, outputs, stride, expansion))
            channels = outputs
    layers += [*_convolution(channels, 1280, 1), nn.ReLU6(inplace=True)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, num_classes)]
    return nn.Sequential(*layers)


def make_training_step(
    images: np.ndarray, labels: np.ndarray, channels_last: bool
) -> Callable[[], None]:
    """Returns a function that fine-tunes a MobileNetV2 by one step: all layers, BatchNorm too.

    Args:
        images: float32 (B, S, S, 3) in [0, 255].
        labels: one-hot (B, num_classes).
        channels_last: the memory format, as PyTorch recommends for convolutions on a CPU.
    """
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    batch = torch.from_numpy(images / 127.5 - 1).permute(0, 3, 1, 2)
    batch = batch.contiguous(memory_format=memory_format)
    targets = torch.from_numpy(labels.argmax(axis=1))
    model = build_mobilenet(labels.shape[1]).to(memory_format=memory_format).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch), targets).backward()
        optimizer.step()

    return step
