"""BatchNorm that costs a training step less than Keras's own, and computes the same.

Where it trains: Keras computes its step from separate operations, each a pass over memory;
TensorFlow has one operation for it. Where it is frozen: its scale goes into the kernel before it,
so that no pass is left but the addition of its offset. In both cases convolutions add the zeros
that a layer before them would, a copy of their input less to make and to keep for the gradients
(`python -m benchmarks` measures the gain).
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from transfer.acceleration.convolutions import Conv2D
from transfer.models.batch_norm import MOMENTUM
from transfer.models.folding import foldable_pairs, replaceable_paddings


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """The same layer with the same weights, computed by TensorFlow's fused operation.

    Differs from Keras in one detail: the moving variance follows the unbiased variance of
    the batch (n - 1), as PyTorch's does, not the biased one (n). With momentum 0, as
    `make_recalibration` pools batches, it is the biased one too.
    """

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the inputs (B, H, W, channels) normalised; arguments as of Keras's layer."""
        fused = (
            training and self.trainable and self.scale and self.center and len(inputs.shape) == 4
        )
        if not fused or self.axis not in (-1, 3):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.cast(self.gamma, tf.float32),
            offset=tf.cast(self.beta, tf.float32),
            mean=tf.zeros((0,)),
            variance=tf.zeros((0,)),
            epsilon=self.epsilon,
            is_training=True,
        )
        if not self.momentum:  # asked for the statistics of this batch, as Keras has them
            variance *= _biased_share(inputs)
        for statistic, batch_value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            statistic.assign(statistic * self.momentum + batch_value * (1.0 - self.momentum))
        return outputs


def _biased_share(inputs: tf.Tensor) -> tf.Tensor:
    # (n - 1) / n of the n values of a channel; of a single one TensorFlow's variance is 0.
    count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
    return (count - 1.0) / count


def fuse_batch_norm(
    model: keras.Model, momentum: float = MOMENTUM, gradient_dtype: str = "float32"
) -> keras.Model:
    """Returns a copy of a model, weights included, whose BatchNorm layers train fused.

    Args:
        model: a functional model; its layers keep their names and the order of their weights.
        momentum: of the moving statistics.
        gradient_dtype: what the gradients of 1x1 convolutions are computed from, as `Conv2D` has
            it.
    """
    clone_as = _make_clone(model, gradient_dtype)

    def clone(layer: keras.Layer) -> keras.Layer:
        if isinstance(layer, keras.layers.BatchNormalization):
            config = layer.get_config() | {"momentum": momentum}
            return FusedBatchNormalization.from_config(config)
        return clone_as(layer, _fast_kind(layer))

    fused = keras.models.clone_model(model, clone_function=clone)
    fused.set_weights(model.get_weights())
    return fused


class OffsetBatchNormalization(keras.layers.BatchNormalization):
    """A frozen BatchNorm whose scale is in the convolution before it: it adds its offset."""

    def factor(self) -> tf.Tensor:
        """Returns float32 (channels,): what inference multiplies by."""
        gamma = self.gamma if self.scale else 1.0
        return gamma * tf.math.rsqrt(self.moving_variance + self.epsilon)

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the inputs (B, H, W, channels) plus the offset of each channel."""
        beta = self.beta if self.center else 0.0
        offset = beta - self.moving_mean * self.factor()
        return tf.nn.bias_add(inputs, tf.cast(offset, inputs.dtype))


class ScaledConv2D(Conv2D):
    """A convolution that computes with its kernel times a factor for each channel it puts out."""

    factor = staticmethod(lambda: tf.ones(()))  # that of the BatchNorm behind it, once known

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Returns the convolution with the scaled kernel, (B, h, w, filters)."""
        return super().convolution_op(inputs, kernel * tf.cast(self.factor(), kernel.dtype))


class ScaledDepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """The same for a depthwise convolution that puts out one channel for each it takes."""

    factor = staticmethod(lambda: tf.ones((1,)))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the convolution with the scaled kernel, (B, h, w, channels)."""
        factor = tf.cast(self.factor(), self.compute_dtype)[:, tf.newaxis]
        outputs = keras.ops.depthwise_conv(
            inputs,
            self.kernel * factor,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        return outputs + self.bias if self.use_bias else outputs


_SCALED = {
    keras.layers.Conv2D: ScaledConv2D,
    keras.layers.DepthwiseConv2D: ScaledDepthwiseConv2D,
}


def freeze_batch_norm(model: keras.Model, gradient_dtype: str = "float32") -> keras.Model:
    """Returns a copy of a model, weights included, for training with BatchNorm as in inference.

    It computes what the model computes with `training=False`, and so do its gradients; a
    BatchNorm that follows anything but a convolution without a bias stays as it is.

    Args:
        model: a functional model; its layers keep their names and the order of their weights.
        gradient_dtype: as of `fuse_batch_norm`.
    """
    before = {
        norm.name: layer.name
        for norm, layer in foldable_pairs(model)
        if type(layer) in _SCALED
        and not layer.use_bias
        and getattr(layer, "depth_multiplier", 1) == 1
    }
    convolutions = set(before.values())
    clone_as = _make_clone(model, gradient_dtype)

    def clone(layer: keras.Layer) -> keras.Layer:
        kind = _fast_kind(layer)
        if layer.name in before:
            kind = OffsetBatchNormalization
        elif layer.name in convolutions:
            kind = _SCALED[type(layer)]
        return clone_as(layer, kind)

    frozen = keras.models.clone_model(model, clone_function=clone)
    frozen.set_weights(model.get_weights())
    for norm_name, name in before.items():
        frozen.get_layer(name).factor = frozen.get_layer(norm_name).factor
    return frozen


def _fast_kind(layer: keras.Layer) -> type[keras.Layer]:
    return Conv2D if type(layer) is keras.layers.Conv2D else type(layer)


def _make_clone(
    model: keras.Model, gradient_dtype: str
) -> Callable[[keras.Layer, type[keras.Layer]], keras.Layer]:
    # Returns what makes a layer of a kind, without weights, that stands for one of the model.
    paddings = replaceable_paddings(model)

    def clone(layer: keras.Layer, kind: type[keras.Layer]) -> keras.Layer:
        if layer.name in paddings.values():
            return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy.name)
        same = {"padding": "same"} if layer.name in paddings else {}
        made = kind.from_config(layer.get_config() | same)
        if isinstance(made, Conv2D):
            made.gradient_dtype = gradient_dtype
        return made

    return clone
