"""Optimizers: each name makes its own."""

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
