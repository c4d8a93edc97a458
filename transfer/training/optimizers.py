"""Optimizers by name: Keras's own, Adam's step in one operation.

Keras computes Adam's step from a dozen operations, each a pass over all weights through memory,
which for a head takes nearly as long as its gradients. TensorFlow has one operation for it.
"""

import keras
import tensorflow as tf


class _OneOperation:
    # What comes out differs from Keras's by rounding alone. Slots, learning rate, weight decay and
    # averages stay Keras's.

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


def make_optimizer(
    name: str, learning_rate: float, ema_momentum: float = 0.0
) -> keras.optimizers.Optimizer:
    """Returns a fresh optimizer.

    Args:
        name: adam, adamw, rmsprop or sgd (with Nesterov momentum 0.9).
        learning_rate: to begin with.
        ema_momentum: of the moving average of the weights that it keeps; 0 for none.
    """
    average = {"use_ema": ema_momentum > 0, "ema_momentum": ema_momentum}
    return {
        "adam": lambda: Adam(learning_rate, **average),
        "adamw": lambda: AdamW(learning_rate, **average),
        "rmsprop": lambda: keras.optimizers.RMSprop(learning_rate, **average),
        "sgd": lambda: keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True, **average),
    }[name]()
