"""Optimizers: each name makes its own."""

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


def test_weight_decay_is_adamws_and_of_kernels_alone():
    kernel, bias = (keras.Variable([1.0], name=name) for name in ("kernel", "bias"))
    optimizer = make_optimizer("adamw", 0.1, weight_decay=0.5)
    optimizer.apply([np.zeros(1, np.float32)] * 2, [kernel, bias])
    assert float(kernel[0]) == pytest.approx(0.95) and float(bias[0]) == 1.0
    assert make_optimizer("adam", 0.1, weight_decay=0.5).weight_decay is None
