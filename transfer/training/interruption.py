"""Ctrl-C and SIGTERM while a model computes: the running step ends, then the program does."""

import contextlib
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import keras
import tensorflow as tf

from transfer import console, workers
from transfer.config import Config
from transfer.errors import (
    HOW_TO_GO_ON,
    DiskError,
    InputError,
    Interrupted,
    LostProcess,
    disk_error,
)
from transfer.runs import files
from transfer.signals import noting
from transfer.training.checkpoint import list_checkpoints
from transfer.training.distribution import lost_others

# What was raised while a batch was gathered: TensorFlow tells it in words alone.
_FROM_DATA = re.compile(r"\bInputError: (.+)")


class StopAfterStep(keras.callbacks.Callback):
    """Raises `Interrupted` after the step in which Ctrl-C or SIGTERM came.

    Give it to `fit` or `predict`, and enter it as a context around the call. A second signal
    ends the process at once.
    """

    def __enter__(self) -> Self:
        self._context = noting()
        self._noted = self._context.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)
        if error[0] is None:
            self._noted.raise_if_any()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stops where a signal has come."""
        self._noted.raise_if_any()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stops where a signal has come."""
        self._noted.raise_if_any()

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stops where a signal has come."""
        self._noted.raise_if_any()


@contextlib.contextmanager
def one_line_for_every_end(run_dir: Path, config: Config) -> Iterator[None]:
    """However a run ends before its end: tells what happened, what is kept, how to go on.

    Raises:
        DiskError: the disk is full, or the folder cannot be written.
        InputError: there is not enough memory.
        Interrupted: Ctrl-C or SIGTERM came.
        LostProcess: another process that trains with this one is gone.
    """
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        number = getattr(error, "number", signal.SIGINT)
        raise Interrupted(number, f"Stopped. {how_to_go_on(run_dir)}") from error
    except InputError:
        raise
    except Exception as error:
        if lost_others(error):
            raise LostProcess(how_to_go_on(run_dir)) from error
        if told := disk_error(
            error, run_dir
        ):  # before the memory: TensorFlow has one word for both
            raise DiskError(f"{told}; mend that. {how_to_go_on(run_dir)}") from error
        if isinstance(error, tf.errors.OpError) and (found := _FROM_DATA.search(str(error))):
            raise InputError(f"{found[1]} {how_to_go_on(run_dir)}") from error
        if isinstance(error, MemoryError | tf.errors.ResourceExhaustedError):
            raise InputError(
                f"{too_large(config)}; begin again with --batch-size "
                f"{max(1, config.batch_size // 2)}. {_kept(run_dir)}."
            ) from error
        raise


def too_large(config: Config) -> str:
    """Returns the beginning of an error: what does not fit into the memory."""
    return (
        f"there is not enough memory for batches of {config.batch_size} images of "
        f"{config.image_size} pixels"
    )


def how_to_go_on(run_dir: Path) -> str:
    """Returns what is kept of a run that has not ended, and what to type."""
    if not (run_dir / files.CONFIG).is_file():
        return "The run had not begun."
    command = console.how_to("train", "--resume", run_dir, *workers.options_again())
    return f"{_kept(run_dir)}. {HOW_TO_GO_ON}{command}"


def _kept(run_dir: Path) -> str:
    checkpoints = list_checkpoints(run_dir / files.CHECKPOINTS)
    if not checkpoints:
        return "No epoch had finished"
    return f"All finished epochs are in {checkpoints[-1]}"
