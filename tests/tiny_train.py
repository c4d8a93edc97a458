"""`train.py` with the backbone "tiny", for trainings in processes of their own on any backend."""

import dataclasses
import math
import os

import numpy as np

from transfer import workers
from transfer.backend import load_keras
from transfer.commands.main import run_script
from transfer.models.backbones import BACKBONES


def add_tiny_backbone():
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend == "jax":
        load_keras()
    from tests.conftest import tiny_row

    os.environ["KERAS_BACKEND"] = backend  # which the tests' own settings have changed
    BACKBONES["tiny"] = tiny_row()


def start_alike_on_all_backends():
    """Lets a head's first weights be drawn by NumPy: each backend has random numbers of its own."""
    import keras

    def draw(self, shape, dtype=None, **options):
        limit = math.sqrt(6 / sum(shape))
        drawn = np.random.default_rng(0).uniform(-limit, limit, shape)
        return keras.ops.convert_to_tensor(drawn, dtype)

    keras.initializers.GlorotUniform.__call__ = draw


if __name__ == "__main__":
    if workers.is_worker() or "KERAS_BACKEND" in os.environ:
        add_tiny_backbone()
        if "START_ALIKE" in os.environ:
            start_alike_on_all_backends()
    else:  # who only watches others needs its name alone
        BACKBONES["tiny"] = dataclasses.replace(BACKBONES["mobilenetv2"])
    run_script("train")
