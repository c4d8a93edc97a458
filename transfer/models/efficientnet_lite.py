"""EfficientNet-Lite0, which Keras has not.

The network of efficientnet_lite_builder.py in https://github.com/tensorflow/tpu
(models/official/efficientnet/lite), in Keras layers: EfficientNet (Tan and Le 2019,
https://arxiv.org/abs/1905.11946) without squeeze-and-excitation and with ReLU6 in place of swish,
for phones and quantization. Input is (x - 127) / 128.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

_EPSILON, _MOMENTUM = 1e-3, 0.99


@dataclass(frozen=True)
class _Stage:
    """Blocks of one width; the first of them has the stride and the width of the stage before."""

    num_blocks: int
    filters: int
    expansion: int
    kernel_size: int
    strides: int


_STAGES = (
    _Stage(1, 16, 1, 3, 1),
    _Stage(2, 24, 6, 3, 2),
    _Stage(2, 40, 6, 5, 2),
    _Stage(3, 80, 6, 3, 2),
    _Stage(3, 112, 6, 5, 1),
    _Stage(4, 192, 6, 5, 2),
    _Stage(1, 320, 6, 3, 1),
)


def build_efficientnet_lite0(
    include_top: bool, weights: None, input_shape: tuple[int | None, int | None, int]
) -> "keras.Model":
    """Builds the network with random weights, as the builders of `keras.applications`.

    Args:
        include_top: add pooling and ImageNet's classifier of 1,000 classes.
        weights: None; `models/packages.py` has some.
        input_shape: (height, width, 3).

    Returns:
        (B, height, width, 3), float32 in about [-1, 1], to (B, h, w, 1280), or to probabilities
        (B, 1000).
    """
    import keras

    inputs = keras.Input(input_shape)
    x = _convolve(inputs, "stem", 32, 3, 2)
    for number, stage in enumerate(_STAGES, 1):
        for index in range(stage.num_blocks):
            block = stage if index == 0 else dataclasses.replace(stage, strides=1)
            x = _add_block(x, f"block{number}{'abcd'[index]}", block)
    x = _convolve(x, "top", 1280, 1, 1)
    if include_top:
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = keras.layers.Dense(1000, "softmax", name="predictions")(x)
    return keras.Model(inputs, x, name="efficientnetlite0")


def _add_block(inputs: "keras.KerasTensor", name: str, block: _Stage) -> "keras.KerasTensor":
    # An inverted residual: wider, filtered channel by channel, narrow again (MobileNetV2's).
    import keras

    x, channels = inputs, inputs.shape[-1]
    if block.expansion > 1:
        x = _convolve(x, f"{name}_expand", channels * block.expansion, 1, 1)
    x = keras.layers.DepthwiseConv2D(
        block.kernel_size, block.strides, "same", use_bias=False, name=f"{name}_dwconv"
    )(x)
    x = _normalize(x, f"{name}_dwconv")
    x = keras.layers.ReLU(6.0, name=f"{name}_dwconv_relu")(x)
    x = keras.layers.Conv2D(block.filters, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = _normalize(x, f"{name}_project")
    if block.strides == 1 and channels == block.filters:
        x = keras.layers.Add(name=f"{name}_add")([x, inputs])
    return x


def _convolve(
    x: "keras.KerasTensor", name: str, filters: int, kernel_size: int, strides: int
) -> "keras.KerasTensor":
    import keras

    x = keras.layers.Conv2D(
        filters, kernel_size, strides, "same", use_bias=False, name=f"{name}_conv"
    )(x)
    return keras.layers.ReLU(6.0, name=f"{name}_relu")(_normalize(x, name))


def _normalize(x: "keras.KerasTensor", name: str) -> "keras.KerasTensor":
    import keras

    return keras.layers.BatchNormalization(momentum=_MOMENTUM, epsilon=_EPSILON, name=f"{name}_bn")(
        x
    )
