"""Optimizers by name: Keras's own, Adam's step in one operation where that is to be had."""

import keras

from transfer.acceleration.doors import make_adam, make_adamw


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
    if name == "adam":
        return make_adam(learning_rate, **average)
    if name == "adamw":
        return make_adamw(learning_rate, **average)
    if name == "rmsprop":
        return keras.optimizers.RMSprop(learning_rate, **average)
    return keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True, **average)
