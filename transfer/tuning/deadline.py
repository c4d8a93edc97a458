"""A time limit that ends the running training step, as Ctrl-C does."""

import _thread
import math
import signal
import threading
import time


class Deadline:
    """Begins when it is made; as a context it stops the main thread when the time is up.

    Args:
        seconds: from now, or infinity.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._timer = None

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._end

    def __enter__(self) -> "Deadline":
        if math.isfinite(self._end):
            # As if SIGTERM had come: whoever listens to it now ends what is running.
            self._timer = threading.Timer(
                max(0.0, self._end - time.monotonic()), _thread.interrupt_main, [signal.SIGTERM]
            )
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._timer:
            self._timer.cancel()
