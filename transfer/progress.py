"""What a person sees while a phase runs: a bar on a terminal, one line an epoch elsewhere."""

import time
from typing import Any

import keras
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from transfer import console
from transfer.formatting import format_percent, format_seconds


class PhaseProgress(keras.callbacks.Callback):
    """Shows images/s and time left of a `fit` or `predict`, and a line for each epoch.

    Args:
        title: name of the phase.
        num_images: images in an epoch.
        steps: batches in an epoch.
        epochs: epochs of the phase.
        first_epoch: of them that is trained now, from 0.
    """

    def __init__(
        self,
        title: str,
        *,
        num_images: int,
        steps: int,
        epochs: int = 1,
        first_epoch: int = 0,
    ) -> None:
        super().__init__()
        self.title, self.epochs = title, epochs
        self.num_images, self.steps = num_images, steps
        self._first_step = self._step = first_epoch * steps
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console.get(),
            transient=True,
            disable=not console.get().is_terminal,
        )
        self._task = self._bar.add_task(title, total=steps * epochs, completed=self._step, rate="")

    def _begin(self) -> None:
        self._bar.start()
        if self._step == self._first_step:  # `predict` may be called once a part
            self._started = time.perf_counter()

    def _advance_to(self, step: int) -> None:
        self._step = step
        seconds = time.perf_counter() - self._started
        images = (self._step - self._first_step) * self.num_images / self.steps
        self._bar.update(self._task, completed=self._step, rate=f"{images / seconds:,.0f} images/s")

    def close(self) -> None:
        """Takes the bar off the terminal, also after an error; may be called twice."""
        self._bar.stop()

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Shows the bar."""
        self._begin()

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the bar on by a batch."""
        self._advance_to(self._step + 1)

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        """Says how long it took, once all images have been seen."""
        if self._step < self.steps:
            return
        seconds = time.perf_counter() - self._started
        self.close()
        console.show(
            f"{self.title}: {self.num_images:,} images, {self.num_images / seconds:,.0f} images/s, "
            f"{format_seconds(seconds)}",
        )

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Shows the bar."""
        self._begin()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Names the epoch beside the bar."""
        self._bar.update(self._task, description=f"{self.title} {epoch + 1}/{self.epochs}")
        self._epoch, self._epoch_started = epoch, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the bar to the end of a batch."""
        # Of several steps at a time it is the last, which may lie beyond the end of the epoch.
        self._advance_to(self._epoch * self.steps + min(batch + 1, self.steps))
        self._epoch_trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Says what the epoch came to, in a line."""
        rate = self.num_images / (self._epoch_trained - self._epoch_started)
        seconds = time.perf_counter() - self._epoch_started
        console.say(
            f"{self.title} {epoch + 1}/{self.epochs}: "
            f"loss {logs['loss']:.4f}, accuracy {format_percent(logs['accuracy'])}; "
            f"validation loss {logs['val_loss']:.4f}, "
            f"accuracy {format_percent(logs['val_accuracy'])}; "
            f"learning rate {logs['learning_rate']:.2g}; "
            f"{rate:,.0f} images/s, {format_seconds(seconds)}",
        )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Takes the bar off the terminal."""
        self.close()
