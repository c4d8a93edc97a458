"""Depthwise convolutions that JAX computes fast on a CPU, and divides among processes.

XLA has no depthwise convolution of its own for CPUs: it takes that of many groups, several times
slower than the sum, written out, of the shifted images times the kernel's numbers. Nor can it
divide the gradients of one by images: then each process computes those of all
(`python -m benchmarks.distribution --only depthwise`).
"""

import keras
from keras import ops


class ShiftedDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """The same layer with the same weights, as a sum over the places of its kernel."""

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Returns the convolution (B, h, w, channels) of inputs (B, H, W, channels)."""
        sizes = list(zip(inputs.shape[1:3], self.kernel_size, self.strides, strict=True))
        if self.padding == "same":
            inputs = ops.pad(inputs, ((0, 0), *(_same_padding(*size) for size in sizes), (0, 0)))
            sizes = list(zip(inputs.shape[1:3], self.kernel_size, self.strides, strict=True))
        rows, columns = (
            [slice(first, size - kernel + first + 1, stride) for first in range(kernel)]
            for size, kernel, stride in sizes
        )
        outputs = 0.0
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                outputs = outputs + inputs[:, row, column] * self.kernel[i, j, :, 0]
        return outputs + self.bias if self.use_bias else outputs


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    # Before and behind, as TensorFlow's "SAME" has it.
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def with_shifted_depthwise(model: keras.Model) -> keras.Model:
    """Returns a model that computes the same, weights included; itself where nothing would differ.

    Args:
        model: a functional model; its layers keep their names and the order of their weights.
    """
    if not _has_depthwise(model):
        return model

    def clone(layer: keras.Layer) -> keras.Layer:
        made = ShiftedDepthwiseConv2D if _can_shift(layer) else type(layer)
        return made.from_config(layer.get_config())

    shifted = keras.models.clone_model(model, clone_function=clone, recursive=True)
    shifted.set_weights(model.get_weights())
    return shifted


def _has_depthwise(model: keras.Model) -> bool:
    return any(
        _has_depthwise(layer) if isinstance(layer, keras.Model) else _can_shift(layer)
        for layer in model.layers
    )


def _can_shift(layer: keras.Layer) -> bool:
    return (
        type(layer) is keras.layers.DepthwiseConv2D
        and layer.depth_multiplier == 1
        and layer.data_format == "channels_last"
        and layer.padding in ("same", "valid")
        and layer.dilation_rate in (1, (1, 1))
        and layer.activation is keras.activations.linear
    )
