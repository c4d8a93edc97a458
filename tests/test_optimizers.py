"""Optimizers: each name makes its own; Adam in one operation takes the steps of Keras's Adam."""

import keras
import numpy as np
import pytest

from transfer.config import settings
from transfer.training.optimizers import make_optimizer


@pytest.mark.parametrize("name", settings()["optimizer"].choices)
def test_every_optimizer_is_made(name):
    optimizer = make_optimizer(name, 0.01)
    assert type(optimizer).__name__.lower() == name
    assert float(optimizer.learning_rate) == pytest.approx(0.01)
    assert not optimizer.use_ema
    assert make_optimizer(name, 0.01, 0.9).ema_momentum == 0.9


def fit(optimizer, policy="float32"):
    """Fits a small network, its learning rate changed on the way; returns what it ends with."""
    keras.utils.set_random_seed(3)
    dense = [keras.layers.Dense(7, "tanh", dtype=policy), keras.layers.Dense(3, dtype=policy)]
    model = keras.Sequential([keras.Input((5,)), *dense])
    model.compile(optimizer, "mse", jit_compile=False)
    generator = np.random.default_rng(0)
    inputs, targets = generator.normal(size=(96, 5)), generator.normal(size=(96, 3))
    rates = keras.callbacks.LearningRateScheduler(lambda epoch: 0.05 / (1 + epoch))
    model.fit(inputs, targets, batch_size=8, epochs=3, verbose=0, callbacks=[rates])
    return [*model.get_weights(), *(variable.numpy() for variable in optimizer.variables)]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize(
    ("name", "theirs"), [("adam", keras.optimizers.Adam), ("adamw", keras.optimizers.AdamW)]
)
def test_adam_in_one_operation_takes_the_steps_of_keras(name, theirs, average, policy):
    ours = fit(make_optimizer(name, 0.05, average), policy)
    expected = fit(theirs(0.05, use_ema=average > 0, ema_momentum=average), policy)
    tolerance = 1e-5 if policy == "float32" else 0.02  # a rounded bfloat16 changes those after it
    for mine, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance)


def test_adam_decays_no_weights_and_adamw_does():
    decayed, plain = (fit(make_optimizer(name, 0.05))[0] for name in ("adamw", "adam"))
    assert np.abs(decayed - plain).max() > 1e-3
