"""Ctrl-C and SIGTERM, the only code that listens to them: noted and obeyed at a good moment.

Where nobody notes them, `raise_on_stop` makes both an `Interrupted`, which no handler of failures
catches. A library that swallows it nevertheless does not make it unheard: `obey` raises it again.
"""

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

from transfer.errors import Interrupted

NUMBERS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_SECONDS = 0.05

_came = 0  # the signal that `raise_on_stop` made an exception of


class Noted:
    """What came while a context of `noting` lasted."""

    def __init__(self) -> None:
        self.number: int | None = None

    def raise_if_any(self) -> None:
        """Raises `Interrupted` where a signal has come."""
        if self.number is not None:
            raise Interrupted(self.number)


def forget() -> None:
    """Takes up again what `raise_on_stop` did, where what came was no stop but a time limit's."""
    if _came:
        raise_on_stop()


@contextlib.contextmanager
def noting() -> Iterator[Noted]:
    """Notes the first Ctrl-C or SIGTERM instead of obeying it; a second one ends the process.

    Python lets only the main thread listen; in another one nothing is noted.
    """
    noted, before = Noted(), {}

    def note(number: int, frame: object) -> None:
        noted.number = number
        obey_the_system()

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, note) for number in NUMBERS}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_on_stop() -> None:
    """Makes the first Ctrl-C or SIGTERM raise `Interrupted`; a second one ends the process."""
    global _came
    _came = 0

    def stop(number: int, frame: object) -> None:
        global _came
        _came = number
        obey_the_system()
        raise Interrupted(number)

    def listen() -> None:
        for number in NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and a shell's & want it
                signal.signal(number, stop)

    def raise_again(swallowed: "sys.UnraisableHookArgs") -> None:
        # Python swallows what a finalizer raises, and says so: the stop comes again after it.
        if not isinstance(swallowed.exc_value, Interrupted):
            return sys.__unraisablehook__(swallowed)
        listen()
        send_to_main_thread(_AGAIN_SECONDS, swallowed.exc_value.number)

    sys.unraisablehook = raise_again
    listen()


def obey_the_system() -> None:
    """Lets both end the process at once, without a word, unless they are ignored."""
    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def came() -> int:
    """Returns the number of the signal that ended what was running, 0 where none came."""
    return _came


def obey() -> None:
    """Raises `Interrupted` where a signal came and a library went on all the same."""
    if _came:
        raise Interrupted(_came)


def ignore() -> None:
    """Leaves Ctrl-C and SIGTERM to another process, which decides what they mean."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def _send(number: int) -> None:
    if not callable(signal.getsignal(number)):  # nobody listens any more
        return
    if hasattr(signal, "pthread_kill"):  # which ends a call of the system's that waits, too
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        _thread.interrupt_main(signal.Signals(number))


def send_to_main_thread(seconds: float, number: int = signal.SIGTERM) -> threading.Timer:
    """Acts, after a while, as if a signal had come: whoever listens to it ends what is running.

    Returns:
        A timer that has been started; `cancel` it.
    """
    timer = threading.Timer(seconds, _send, [number])
    timer.daemon = True
    timer.start()
    return timer
