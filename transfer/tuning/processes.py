"""A process of its own for each trial: what a trial leaves in memory goes with it.

TensorFlow keeps some megabytes of every model that was ever trained in a process, and a system
that runs out of memory kills the process without a word. So a server is forked from the search
before TensorFlow computes anything, and forks again for each call; the search itself stays small.
Where the system has no fork, calls run in the search itself.
"""

import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import keras

from transfer.errors import Interrupted

_POLL_SECONDS = 0.2  # after which a signal is noticed at the latest

shared: Any = None  # what `Processes.share` was given, in the process of a call


class Died(Exception):
    """The process of a call was killed; `str(error)` says by which signal."""


class Processes:
    """Runs functions in processes of their own, one at a time; use it as a context.

    Enter it before TensorFlow computes anything. When the context is left, also by a signal, what
    runs is killed; when the search itself is killed, likewise.
    """

    def __enter__(self) -> "Processes":
        self._connection = None
        if not hasattr(os, "fork"):
            return self
        ours, theirs = multiprocessing.Pipe()
        _flush()
        self._server = os.fork()
        if self._server == 0:
            ours.close()
            _serve(theirs)
        theirs.close()
        self._connection = ours
        return self

    def __exit__(self, *error: object) -> None:
        if self._connection is not None:
            self._connection.close()
            os.waitpid(self._server, 0)

    def share(self, value: Any) -> None:
        """Gives `value` to all later calls, which find it in `processes.shared`."""
        global shared
        if self._connection is None:
            shared = value
            return
        self._connection.send(("share", value))

    def call(self, function: Callable, *arguments: Any) -> Any:
        """Returns `function(*arguments)`, computed in a new process.

        Raises:
            Died: the process was killed.
            Exception: what the function raised.
        """
        if self._connection is None:
            try:
                return function(*arguments)
            finally:
                _free_memory()
        _flush()
        self._connection.send((function, arguments))
        while not self._connection.poll(_POLL_SECONDS):
            pass
        succeeded, value = self._connection.recv()
        if succeeded:
            return value
        raise value


def _serve(connection: Connection) -> None:
    # The server: waits, forks, passes on; its end is that of the search. Never returns.
    global shared
    for number in (signal.SIGINT, signal.SIGTERM):  # the search decides what they mean
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, value = connection.recv()
            if function == "share":
                shared = value
            else:
                _fork(connection, function, value)
    os._exit(0)


def _fork(connection: Connection, function: Callable, arguments: tuple) -> None:
    answer, inner = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        answer.close()
        connection.close()
        _run(inner, function, arguments)
    inner.close()
    if answer not in wait([answer, connection]):  # the search is gone
        os.kill(child, signal.SIGKILL)
        os._exit(0)
    try:
        content = answer.recv_bytes()
    except EOFError:
        content = None
    answer.close()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if content is None:
        name = signal.Signals(-status).name if status < 0 else f"exit code {status}"
        content = pickle.dumps((False, Died(f"its process died ({name})")))
    connection.send_bytes(content)


def _run(answer: Connection, function: Callable, arguments: tuple) -> None:
    # The process of one call. Never returns.
    try:
        content = pickle.dumps((True, function(*arguments)))
    except (Interrupted, KeyboardInterrupt):
        content = pickle.dumps((False, KeyboardInterrupt()))
    except BaseException as error:
        content = _pickled(error)
    answer.send_bytes(content)
    _flush()
    os._exit(0)


def _pickled(error: BaseException) -> bytes:
    with contextlib.suppress(Exception):
        content = pickle.dumps((False, error))
        pickle.loads(content)
        return content
    return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))


def _free_memory() -> None:
    # As far as it goes: the end of a process does it better, and takes no time.
    keras.backend.clear_session()
    gc.collect()


def _flush() -> None:
    # What is still in a buffer would be written twice.
    sys.stdout.flush()
    sys.stderr.flush()
