"""The learning-rate finder: a few steps along rates that rise, and the loss at each of them.

Smith, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186, section 3.3: the
loss falls, or stays, up to the highest rate at which a network learns, and rises from there; a
third of that rate is one to begin with.
"""

import dataclasses
import time
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy.ndimage import gaussian_filter1d

from transfer import console
from transfer.config import Config
from transfer.data.pipeline import (
    make_feature_dataset,
    make_training_dataset,
    steps_per_epoch,
)
from transfer.errors import InputError
from transfer.runs.folder import check_new
from transfer.storage.atomic import scratch_folder
from transfer.training.callbacks import FINETUNE, HEAD, HistoryRecorder
from transfer.training.interruption import StopAfterStep, one_line_for_every_end
from transfer.training.optimizers import PLATEAU
from transfer.training.phases import (
    HeadFeatures,
    Run,
    compile_head,
    compile_unfrozen,
    fit_head,
    load_head_features,
)
from transfer.training.run import Start, build, prepare

STEPS = 100
LOWEST, HIGHEST = 1e-6, 1.0
_NEIGHBOURS = 3.0  # steps, the deviation of the average's weights
_BEGINNING = 10  # steps, whose rates change nothing yet
_FALLS = 0.5  # of the loss of the beginning: then there was something to learn
_RISES = 1.1  # times the least loss; what is less than that is noise
_TOO_HIGH = 3.0  # times the loss of the beginning: the rest need not be seen


@dataclass(frozen=True)
class RateTest:
    """What one phase came to at rates that rise."""

    phase: str
    rates: np.ndarray  # float (steps,)
    losses: np.ndarray  # float (steps,), each of one batch
    now: float  # what the settings have

    @property
    def option(self) -> str:
        """What sets the rate."""
        return f"--{'head' if self.phase == HEAD else 'finetune'}-learning-rate"

    @property
    def smoothed(self) -> np.ndarray:
        """The losses, each averaged with its neighbours: each is of another batch."""
        return gaussian_filter1d(self.losses, _NEIGHBOURS, mode="nearest")

    @property
    def highest(self) -> float | None:
        """The highest rate that does not yet raise the loss; None where even the last did not."""
        smoothed, beginning = self.smoothed, float(np.mean(self.losses[:_BEGINNING]))
        least = float(smoothed.min())
        # What a network has learnt already, as a head before it is fine-tuned, falls little.
        lowest = least if least < _FALLS * beginning else beginning
        step = int(np.flatnonzero(smoothed <= _RISES * lowest)[-1])
        return float(self.rates[step]) if step < len(smoothed) - 1 else None

    @property
    def suggested(self) -> float | None:
        """A rate to begin with, to two digits: a third of `highest`."""
        return None if self.highest is None else float(f"{self.highest / 3:.1e}")


class _RisingRate(keras.callbacks.Callback):
    """Raises the learning rate with each step and keeps the loss of each."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = np.geomspace(LOWEST, HIGHEST, STEPS)
        self.losses: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.model.reset_metrics()  # so that the loss is this batch's alone
        self.model.optimizer.learning_rate = self.rates[batch]

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        loss = float(logs["loss"])
        beginning = np.mean(self.losses[:_BEGINNING]) if self.losses else np.inf
        if np.isfinite(loss):
            self.losses.append(loss)
        if not np.isfinite(loss) or np.mean(self.losses[-5:]) > _TOO_HIGH * beginning:
            self.model.stop_training = True


def find_learning_rates(
    config: Config,
    *,
    run_dir: Path | None = None,
    offline: bool = False,
    given: Container[str] | None = None,
) -> list[RateTest]:
    """Tries rising rates in each phase that the settings have.

    The fine-tune phase is tried from where a whole head phase ends. No run is made.

    Args:
        config: the settings; their rates are what is told beside those suggested.
        run_dir: a folder that must not be there yet; None for any.
        offline: never use the network.
        given: as `train` takes it.

    Returns:
        The tests of the phases, in order.

    Raises:
        InputError: as `train`.
        Interrupted: Ctrl-C or SIGTERM came.
    """
    check_new(run_dir)
    start = prepare(config, data=None, given=given, offline=offline)
    with scratch_folder() as scratch, one_line_for_every_end(scratch, config):
        run = Run(start.settled, HistoryRecorder(scratch), time.perf_counter())
        return _try_phases(start, run)


def _try_phases(start: Start, run: Run) -> list[RateTest]:
    config, splits, tests = start.settled, start.data.splits, []
    classifier = build(config, start.backbone, splits, start.policy)
    # Rates that no schedule moves but this one.
    flat = dataclasses.replace(config, schedule=PLATEAU, warm_up_fraction=0.0)
    if config.head_epochs:
        head, features = classifier.get_layer("head"), load_head_features(classifier, splits, run)
        before = head.get_weights()
        compile_head(head, features, splits, flat, steps_at_a_time=1)
        batches = _head_batches(features, start).repeat()
        tests.append(_try(head, HEAD, batches, config.head_learning_rate))
        head.set_weights(before)
        if config.finetune_epochs:
            fit_head(head, features, splits, run)
    if config.finetune_epochs:
        compile_unfrozen(classifier, flat, splits)
        epochs = range(-(-STEPS // steps_per_epoch(splits.train.num_images, config.batch_size)))
        batches = make_training_dataset(splits.train, config, len(splits.class_names), epochs)
        tests.append(_try(classifier, FINETUNE, batches, float(config.finetune_learning_rate)))
    return tests


def _head_batches(features: HeadFeatures, start: Start) -> tf.data.Dataset:
    splits, epoch = start.data.splits, tf.Variable(0, dtype=tf.int64, trainable=False)
    labels, num_classes = splits.train.labels, len(splits.class_names)
    return make_feature_dataset(features.views, labels, start.settled, num_classes, epoch)


def _try(model: keras.Model, phase: str, batches: tf.data.Dataset, now: float) -> RateTest:
    rising = _RisingRate()
    with console.status(f"Rates of the {phase} phase"), StopAfterStep() as stop:
        model.fit(
            batches, steps_per_epoch=STEPS, callbacks=[rising, stop], shuffle=False, verbose=0
        )
    losses = np.array(rising.losses)
    if not len(losses):
        raise InputError(
            f"the loss of the {phase} phase is no number at its first step, at a rate of "
            f"{LOWEST:g}: take other --weights, or look at the images (transfer look)."
        )
    return RateTest(phase, rising.rates[: len(losses)], losses, now)
