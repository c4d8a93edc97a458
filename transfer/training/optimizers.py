"""Optimizers by name: Keras's own, Adam's step in one operation where that is to be had."""

import keras

from transfer.acceleration.doors import make_adam, make_adamw


def make_optimizer(
    name: str, learning_rate: float, ema_momentum: float = 0.0, weight_decay: float = 0.004
) -> keras.optimizers.Optimizer:
    """Returns a fresh optimizer.

    Args:
        name: adam, adamw, rmsprop or sgd (with Nesterov momentum 0.9).
        learning_rate: to begin with.
        ema_momentum: of the moving average of the weights that it keeps; 0 for none.
        weight_decay: AdamW's, of kernels alone: biases and BatchNorm keep their size, as in
            big_vision and timm.
    """
    average = {"use_ema": ema_momentum > 0, "ema_momentum": ema_momentum}
    if name == "adam":
        return make_adam(learning_rate, **average)
    if name == "adamw":
        adamw = make_adamw(learning_rate, weight_decay=weight_decay, **average)
        adamw.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return adamw
    if name == "rmsprop":
        return keras.optimizers.RMSprop(learning_rate, **average)
    return keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True, **average)
