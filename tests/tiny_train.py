"""`train.py` with the backbone "tiny", for trainings in processes of their own on any backend."""

import dataclasses
import os

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


if __name__ == "__main__":
    if workers.is_worker() or "KERAS_BACKEND" in os.environ:
        add_tiny_backbone()
    else:  # who only watches others needs its name alone
        BACKBONES["tiny"] = dataclasses.replace(BACKBONES["mobilenetv2"])
    run_script("train")
