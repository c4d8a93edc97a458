"""Optimizers: each name makes its own; and how their rates go."""

import keras
import numpy as np
import pytest

from transfer.config import Config, settings
from transfer.training.optimizers import make_optimizer, make_schedule, scale_steps


@pytest.mark.parametrize("name", settings()["optimizer"].choices)
def test_every_optimizer_is_made(name):
    optimizer = make_optimizer(name, 0.01)
    assert type(optimizer).__name__.lower() == name
    assert float(optimizer.learning_rate) == pytest.approx(0.01)
    assert not optimizer.use_ema
    assert make_optimizer(name, 0.01, 0.9).ema_momentum == 0.9


def test_weight_decay_is_adamws_and_of_kernels_alone():
    kernel, bias = (keras.Variable([1.0], name=name) for name in ("kernel", "bias"))
    optimizer = make_optimizer("adamw", 0.1, weight_decay=0.5)
    optimizer.apply([np.zeros(1, np.float32)] * 2, [kernel, bias])
    assert float(kernel[0]) == pytest.approx(0.95) and float(bias[0]) == 1.0
    assert make_optimizer("adam", 0.1, weight_decay=0.5).weight_decay is None


def test_a_rate_rises_in_a_line_and_falls_along_a_cosine():
    assert make_schedule(Config(), 0.1, 100) == 0.1  # the plateau lowers it
    config = Config(schedule="cosine", warm_up_fraction=0.2, minimum_learning_rate=0.01)
    rate = make_schedule(config, 0.1, 100)
    assert [float(rate(step)) for step in (0, 10, 20)] == pytest.approx([0, 0.05, 0.1])
    assert [float(rate(step)) for step in (60, 100, 200)] == pytest.approx([0.055, 0.01, 0.01])
    short = make_schedule(Config(schedule="cosine", warm_up_fraction=0.9), 0.1, 1)
    assert float(short(0)) == pytest.approx(0.1)  # a single step is taken at the whole rate
    at_once = make_schedule(Config(schedule="cosine", minimum_learning_rate=1.0), 0.1, 100)
    assert [float(at_once(step)) for step in (0, 50, 100)] == pytest.approx([0.1, 0.1, 0.1])


@pytest.mark.parametrize("name", settings()["optimizer"].choices)
def test_a_variable_may_have_a_rate_of_its_own(name):
    slow, fast = keras.Variable(np.ones(3), name="slow"), keras.Variable(np.ones(3), name="fast")
    optimizer = scale_steps(make_optimizer(name, 0.01), {"slow": 0.25})
    optimizer.build([slow, fast])
    gradients = [keras.ops.convert_to_tensor([0.1, 0.2, -0.3])] * 2
    optimizer.apply([*gradients])
    moved = [1 - keras.ops.convert_to_numpy(variable) for variable in (slow, fast)]
    if name != "adamw":  # whose decay of the weights is not a step along the gradient
        np.testing.assert_allclose(moved[0], moved[1] / 4, rtol=1e-3)
    assert (np.abs(moved[0]) < np.abs(moved[1])).all()
