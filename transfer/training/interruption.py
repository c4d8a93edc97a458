"""Ctrl-C and SIGTERM while a model computes: the running step ends, then the program does."""

import signal
import threading

import keras

from transfer.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopAfterStep(keras.callbacks.Callback):
    """Raises `Interrupted` after the step in which Ctrl-C or SIGTERM came.

    Give it to `fit` or `predict`, and enter it as a context around the call. A second signal
    ends the process at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._received = None

    def __enter__(self) -> "StopAfterStep":
        self._before = {}
        # Python lets only the main thread listen to signals.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._received is not None and error[0] is None:
            raise Interrupted(self._received)

    def _receive(self, number: int, frame: object) -> None:
        self._received = number
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def _stop_if_received(self) -> None:
        if self._received is not None:
            raise Interrupted(self._received)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._stop_if_received()

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._stop_if_received()

    def on_predict_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._stop_if_received()
