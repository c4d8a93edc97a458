"""What happens at the edges of a phase's epochs: history, schedules, stopping, statistics."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from transfer.config import Config
from transfer.models.batch_norm import RECALIBRATION_IMAGES, make_recalibration
from transfer.models.classifier import feature_extractor
from transfer.runs import files
from transfer.training.distribution import is_first
from transfer.training.optimizers import PLATEAU

# In their order; the second trains the whole network on smaller images, where that is asked for.
HEAD, SMALL, FINETUNE = "head", "small images", "fine-tune"

# In an epoch shorter than this, BatchNorm's moving average (momentum 0.9) is not left to itself:
# the weights move faster than it follows.
SHORT_EPOCH_STEPS = 200


def keras_callbacks(
    phase: str, config: Config, run_dir: Path
) -> Iterator[keras.callbacks.Callback]:
    """Yields Keras's own callbacks for a phase, as the settings want them.

    The learning rate falls on a plateau of the validation loss, unless it follows a schedule by
    the step; training stops early, and the weights of the best epoch are put back; TensorBoard
    gets its log. With `ema_momentum` it is the average of the weights that is validated and kept.
    """
    callbacks = keras.callbacks
    yield callbacks.TerminateOnNaN()
    if config.ema_momentum and phase != HEAD:
        # Before those that look at the weights, at the end of an epoch, to judge or to keep them.
        yield callbacks.SwapEMAWeights(swap_on_epoch=True)
    if is_first():
        yield EpochTensorBoard(run_dir / files.LOGS / phase, write_graph=False)
    yield callbacks.EarlyStopping(
        "val_loss", patience=config.early_stopping_patience, restore_best_weights=True
    )
    if config.schedule == PLATEAU:
        yield callbacks.ReduceLROnPlateau(
            "val_loss",
            patience=config.plateau_patience,
            factor=config.plateau_factor,
            min_lr=config.minimum_learning_rate,
        )


class EpochTensorBoard(keras.callbacks.TensorBoard):
    """Keras's log for TensorBoard, without what Keras prepares for it after each step.

    With `update_freq="epoch"`, the default, none of that is written, and in the head phase it takes
    a noticeable part of a step.
    """

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Does nothing."""


class HistoryRecorder(keras.callbacks.Callback):
    """Keeps one row an epoch over both phases, the rows of history.csv.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.run_dir, self.phase = run_dir, ""
        self.rows: list[dict[str, Any]] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock of a row."""
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Adds a row, and the learning rate to `logs`, for the callbacks behind this one."""
        # The rate this epoch was trained with: ReduceLROnPlateau stands later in the list.
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)
        numbers = {
            name: float(logs[name])
            for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
        }
        seconds = round(time.perf_counter() - self._started, 3)
        self.rows.append({"phase": self.phase, "epoch": epoch + 1} | numbers | {"seconds": seconds})


class BatchNormRecalibration(keras.callbacks.Callback):
    """Recomputes BatchNorm's statistics before each validation.

    It stands behind `SwapEMAWeights`: the statistics are those of the weights that are validated.

    Args:
        classifier: with BatchNorm layers that train.
        batches: of training images and labels; the first `RECALIBRATION_IMAGES` are used.
        batch_size: images in a batch.
    """

    def __init__(self, classifier: keras.Model, batches: tf.data.Dataset, batch_size: int) -> None:
        super().__init__()
        self._recalibrate = make_recalibration(feature_extractor(classifier))
        steps = math.ceil(RECALIBRATION_IMAGES / batch_size)
        self._images = batches.take(steps).map(lambda images, labels: images)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Recomputes the statistics."""
        self._recalibrate(self._images)
