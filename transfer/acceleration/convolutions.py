"""Convolutions whose gradients cost less than TensorFlow's own.

The gradients of a 1x1 convolution are two products of matrices. Computed as such they take less
time than as gradients of a convolution, and less again where the processor multiplies bfloat16
(`python -m benchmarks --only steps` measures the gain).
"""

from collections.abc import Callable

import keras
import tensorflow as tf

# With fewer filters than that, and than channels, what the products save is less than what it
# takes to bring inputs to bfloat16 and their gradient back: for 144 channels and 24 filters they
# took 1.3 times as long as in float32, for 384 and 64 channels 0.8 times (two Zen 4 cores).
_WIDE = 64


class Conv2D(keras.layers.Conv2D):
    """The same layer with the same weights; gradients of 1x1 convolutions as matrix products.

    Attributes:
        gradient_dtype: what both products are computed from where that pays, "float32" or
            "bfloat16"; what comes of them is float32, as the forward pass is.
    """

    gradient_dtype = "float32"

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Returns the convolution (B, h, w, filters) of inputs (B, H, W, channels)."""
        if not self._is_pointwise() or inputs.dtype != tf.float32:
            return super().convolution_op(inputs, kernel)
        pays = self.filters >= min(inputs.shape[-1], _WIDE)
        return _convolve(inputs, kernel, self.gradient_dtype if pays else "float32")

    def _is_pointwise(self) -> bool:
        ones = {*self.kernel_size, *self.strides, *self.dilation_rate, self.groups}
        return ones == {1} and self.data_format == "channels_last"


def _convolve(inputs: tf.Tensor, kernel: tf.Tensor, gradient_dtype: str) -> tf.Tensor:
    # (B, H, W, channels) and (1, 1, channels, filters) -> (B, H, W, filters)
    @tf.custom_gradient
    def convolve(
        inputs: tf.Tensor, kernel: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        def gradients(outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            pixels, theirs, matrix = (
                tf.cast(tf.reshape(each, (-1, each.shape[-1])), gradient_dtype)
                for each in (inputs, outputs, kernel)
            )
            # By these names a profile tells them apart.
            of_inputs = tf.matmul(theirs, matrix, transpose_b=True, name="gradient_of_input")
            of_kernel = tf.matmul(pixels, theirs, transpose_a=True, name="gradient_of_kernel")
            return (
                tf.reshape(tf.cast(of_inputs, tf.float32), tf.shape(inputs)),
                tf.reshape(tf.cast(of_kernel, tf.float32), kernel.shape),
            )

        return tf.nn.conv2d(inputs, kernel, strides=1, padding="VALID"), gradients

    return convolve(inputs, tf.convert_to_tensor(kernel))  # of a variable TensorFlow wants more
