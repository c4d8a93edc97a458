"""Optimizers by name: Keras's own, Adam's step in one operation where that is to be had."""

from collections.abc import Mapping
from typing import Any

import keras

from transfer.acceleration.doors import make_adam, make_adamw
from transfer.config import Config

PLATEAU = "plateau"  # the schedule that looks at the validation loss; the other is a cosine


def make_optimizer(
    name: str,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    ema_momentum: float = 0.0,
    weight_decay: float = 0.004,
) -> keras.optimizers.Optimizer:
    """Returns a fresh optimizer.

    Args:
        name: adam, adamw, rmsprop or sgd (with Nesterov momentum 0.9).
        learning_rate: to begin with, or by the step.
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


def make_schedule(
    config: Config, learning_rate: float, steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Returns what an optimizer takes as the learning rate of a phase.

    Args:
        config: uses `schedule`, `warm_up_fraction` and `minimum_learning_rate`.
        learning_rate: the highest.
        steps: of all epochs of the phase.

    Returns:
        The rate itself, which a plateau of the validation loss lowers; or Keras's cosine
        (Loshchilov and Hutter, arXiv:1608.03983) over all steps, after a straight rise from 0.
    """
    if config.schedule == PLATEAU:
        return learning_rate
    rising = min(round(config.warm_up_fraction * steps), steps - 1)  # the last one falls
    return keras.optimizers.schedules.CosineDecay(
        0.0 if rising else learning_rate,
        steps - rising,
        alpha=min(1.0, config.minimum_learning_rate / learning_rate),
        warmup_target=learning_rate if rising else None,
        warmup_steps=rising,
    )


def scale_steps(
    optimizer: keras.optimizers.Optimizer, factors: Mapping[str, float]
) -> keras.optimizers.Optimizer:
    """Gives variables learning rates of their own, each the optimizer's times a factor.

    Args:
        optimizer: not yet built; changed in place.
        factors: by the path of a variable; 1 for what is missing.

    Returns:
        The optimizer.
    """
    update = optimizer.update_step

    def update_scaled(gradient: Any, variable: Any, learning_rate: Any) -> None:
        path = optimizer._trainable_variables[optimizer._get_variable_index(variable)].path
        update(gradient, variable, learning_rate * factors.get(path, 1.0))

    optimizer.update_step = update_scaled
    return optimizer
