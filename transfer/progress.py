"""What a person sees while a phase runs: a bar on a terminal, and a line for each epoch."""

import time
from collections.abc import Callable
from typing import Any

import keras
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from transfer import console
from transfer.formatting import format_percent, format_seconds

# Of a line an epoch; with --verbose there is more, and the first line names them.
_COLUMNS = ("    loss", "accuracy", "validation loss", "accuracy", "time")
_MORE = ("learning rate", "speed")
FORETOLD_AFTER = 3.0  # seconds of a phase, after its first step
_BESIDE_BAR = 42  # columns of a terminal: percentage, images/s and time left
_LONGEST_BAR, _SHORTEST_BAR = 40, 4


class PhaseProgress(keras.callbacks.Callback):
    """Shows images/s and time left of a `fit` or `predict`, and a line for each epoch.

    Args:
        title: name of the phase.
        num_images: images in an epoch.
        steps: batches in an epoch.
        epochs: epochs of the phase.
        first_epoch: of them that is trained now, from 0.
        foretell: given the seconds an image takes and the images left in the phase, returns a
            line on when all will be done, or ""; called after the first seconds and each epoch.
    """

    def __init__(
        self,
        title: str,
        *,
        num_images: int,
        steps: int,
        epochs: int = 1,
        first_epoch: int = 0,
        foretell: Callable[[float, float], str] | None = None,
    ) -> None:
        super().__init__()
        self.title, self.epochs = title, epochs
        self.num_images, self.steps = num_images, steps
        self._foretell, self._is_foretold = foretell, False
        self._compiled: tuple[float, int] | None = None  # when the first step had ended, and which
        self._first_step = self._step = first_epoch * steps
        self._label_width = len(self._label(epochs))
        room = console.get().width - _BESIDE_BAR - self._label_width
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=max(_SHORTEST_BAR, min(room, _LONGEST_BAR))),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[rate]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console.get(),
            transient=True,
            disable=not console.get().is_terminal,
        )
        self._task = self._bar.add_task(title, total=steps * epochs, completed=self._step, rate="")

    def _label(self, epoch: int) -> str:
        return f"{self.title} {epoch}/{self.epochs}"

    def _begin(self) -> None:
        self._bar.start()
        if self._step == self._first_step:  # `predict` may be called once a part
            self._started = time.perf_counter()

    def _advance_to(self, step: int) -> None:
        self._step = step
        seconds = time.perf_counter() - self._started
        images = (self._step - self._first_step) * self.num_images / self.steps
        self._bar.update(self._task, completed=self._step, rate=f"{images / seconds:,.0f} images/s")
        self._look_ahead()

    def _look_ahead(self) -> None:
        # The first step, in which TensorFlow compiles, says nothing of the others.
        now = time.perf_counter()
        self._compiled = self._compiled or (now, self._step)
        since, first = self._compiled
        if not self._is_foretold and now - since > FORETOLD_AFTER and self._step > first:
            self._is_foretold = True
            self._say_forecast((now - since) / (self._step - first))

    def _say_forecast(self, seconds_a_step: float) -> None:
        images = self.num_images / self.steps
        left = (self.steps * self.epochs - self._step) * images
        line = self._foretell(seconds_a_step / images, left) if self._foretell else ""
        if line:
            console.say(line)

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
        """Shows the bar, and what the numbers of an epoch's line are."""
        names = [f"{'':{self._label_width}}", *_COLUMNS, *(_MORE if console.is_verbose() else ())]
        console.say("  ".join(names))
        self._begin()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Names the epoch beside the bar."""
        self._bar.update(self._task, description=self._label(epoch + 1))
        self._epoch, self._epoch_started = epoch, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the bar to the end of a batch."""
        # Of several steps at a time it is the last, which may lie beyond the end of the epoch.
        self._advance_to(self._epoch * self.steps + min(batch + 1, self.steps))
        self._epoch_trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Says what the epoch came to, in a line."""
        cells = [
            f"{logs['loss']:.4f}",
            format_percent(logs["accuracy"]),
            f"{logs['val_loss']:.4f}",
            format_percent(logs["val_accuracy"]),
        ]
        line = [f"{self._label(epoch + 1):<{self._label_width}}"]
        line += [f"{cell:>{len(name)}}" for cell, name in zip(cells, _COLUMNS, strict=False)]
        line.append(format_seconds(time.perf_counter() - self._epoch_started))
        if console.is_verbose():
            rate = self.num_images / (self._epoch_trained - self._epoch_started)
            line += [f"{logs['learning_rate']:.2g}", f"{rate:,.0f} images/s"]
        console.say("  ".join(line))
        if self._is_foretold and epoch + 1 < self.epochs:
            self._say_forecast((self._epoch_trained - self._epoch_started) / self.steps)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Takes the bar off the terminal."""
        self.close()
