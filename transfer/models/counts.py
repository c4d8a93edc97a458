"""How large a network is: its layers, parameters, and what one image costs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transfer.formatting import format_bytes, format_large

if TYPE_CHECKING:
    import keras

FLOAT_BYTES = 4


@dataclass(frozen=True)
class NetworkCounts:
    """What a network consists of.

    Attributes:
        layers: those that have weights.
        parameters: of all of them.
        multiply_adds: of convolutions and dense layers, for one image.
    """

    layers: int
    parameters: int
    multiply_adds: int

    @property
    def size(self) -> str:
        """The parameters as float32: "9.0 MB"."""
        return format_bytes(FLOAT_BYTES * self.parameters)

    def tell(self) -> str:
        """Returns it in words: "104 layers, 2.26 million parameters (9.0 MB), 56 million ..."."""
        return (
            f"{self.layers:,} layers, {format_large(self.parameters)} parameters "
            f"({self.size}), {format_large(self.multiply_adds)} multiply-adds an image"
        )


@dataclass(frozen=True)
class ClassifierCounts:
    """What a classifier consists of, and how much of it each phase trains.

    Attributes:
        backbone: its backbone.
        head: its head.
        trained: parameters that a phase trains, by its name.
    """

    backbone: NetworkCounts
    head: NetworkCounts
    trained: Mapping[str, int]

    @property
    def whole(self) -> NetworkCounts:
        """Both together."""
        return NetworkCounts(
            self.backbone.layers + self.head.layers,
            self.backbone.parameters + self.head.parameters,
            self.backbone.multiply_adds + self.head.multiply_adds,
        )


def count_network(model: "keras.Model") -> NetworkCounts:
    """Counts a functional model of fixed image size; models within it count too."""
    layers = [layer for layer in _leaves(model) if layer.weights]
    return NetworkCounts(len(layers), model.count_params(), sum(map(_multiply_adds, layers)))


def _leaves(model: "keras.Model") -> "list[keras.Layer]":
    found: list[keras.Layer] = []
    for layer in model.layers:
        found += _leaves(layer) if hasattr(layer, "layers") else [layer]
    return found


def _multiply_adds(layer: "keras.Layer") -> int:
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0
    # Each weight of a kernel is used once for each cell of the output's map.
    return math.prod(layer.output.shape[1:-1]) * math.prod(kernel.shape)
