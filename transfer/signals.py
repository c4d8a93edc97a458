"""Ctrl-C and SIGTERM, the only code that listens to them: noted and obeyed at a good moment.

Where nobody notes them, Python raises KeyboardInterrupt for the first, and `raise_on_sigterm`
makes the second an `Interrupted`, which no handler of failures catches.
"""

import _thread
import contextlib
import signal
import threading
from collections.abc import Iterator

from transfer.errors import Interrupted

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Noted:
    """What came while a context of `noting` lasted."""

    def __init__(self) -> None:
        self.number: int | None = None

    def raise_if_any(self) -> None:
        """Raises `Interrupted` where a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number)


@contextlib.contextmanager
def noting() -> Iterator[Noted]:
    """Notes the first Ctrl-C or SIGTERM instead of obeying it; a second one ends the process.

    Python lets only the main thread listen; in another one nothing is noted.
    """
    noted, before = Noted(), {}

    def note(number: int, frame: object) -> None:
        noted.number = number
        for each in NUMBERS:
            signal.signal(each, signal.SIG_DFL)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, note) for number in NUMBERS}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_on_sigterm() -> None:
    """Makes SIGTERM raise `Interrupted` from here on."""

    def stop(number: int, frame: object) -> None:
        raise Interrupted(number)

    signal.signal(signal.SIGTERM, stop)


def ignore() -> None:
    """Leaves Ctrl-C and SIGTERM to another process, which decides what they mean."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def send_to_main_thread(seconds: float) -> threading.Timer:
    """Acts, after a while, as if SIGTERM had come: whoever listens to it ends what is running.

    Returns:
        A timer that has been started; `cancel` it.
    """
    timer = threading.Timer(seconds, _thread.interrupt_main, [signal.SIGTERM])
    timer.daemon = True
    timer.start()
    return timer
