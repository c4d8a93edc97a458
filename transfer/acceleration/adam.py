"""Adam's step in one operation."""

import keras
import tensorflow as tf


class _OneOperation(keras.optimizers.Optimizer):
    # Comes before Keras's class in the list of bases. What comes out differs from Keras's by
    # rounding alone. Slots, learning rate, weight decay and averages stay Keras's.

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        number = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[number].value.handle,
            v=self._velocities[number].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )


class Adam(_OneOperation, keras.optimizers.Adam):
    """Keras's Adam with its defaults (Kingma and Ba, arXiv:1412.6980)."""


class AdamW(_OneOperation, keras.optimizers.AdamW):
    """Keras's AdamW with its defaults (Loshchilov and Hutter, arXiv:1711.05101)."""
