"""A time limit that ends the running training step, as Ctrl-C does."""

import math
import threading
import time

from transfer.signals import send_to_main_thread


class Deadline:
    """Begins when it is made; as a context it stops the main thread when the time is up.

    Args:
        seconds: from now, or infinity.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._timer: threading.Timer | None = None

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._end

    def __enter__(self) -> "Deadline":
        if math.isfinite(self._end):
            self._timer = send_to_main_thread(max(0.0, self._end - time.monotonic()))
        return self

    def __exit__(self, *error: object) -> None:
        if self._timer:
            self._timer.cancel()
