"""A process of its own for each trial: what a trial leaves in memory goes with it.

TensorFlow keeps some megabytes of every model that was ever trained in a process, and a system
that runs out of memory kills the process without a word. So a server is forked from the search
before TensorFlow computes anything, and forks again for each call; the search itself stays small.
Where the system has no fork, or TensorFlow has computed before, as in a notebook, calls run in the
search itself: its threads would not be there after a fork, and what waits for them waits for ever.
"""

import contextlib
import gc
import importlib
import multiprocessing
import pickle
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Self

import keras

from transfer import signals
from transfer.backend import has_computed
from transfer.errors import Interrupted

_POLL_SECONDS = 0.2  # after which a signal is noticed at the latest
# macOS has one, after which its own libraries may wait for ever.
_HAS_FORK = "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin"

# What a trial would otherwise import anew: they write its log for TensorBoard.
_OF_EVERY_TRIAL = ("tensorflow.summary", "tensorboard.summary.writer.event_file_writer")

shared: Any = None  # what `Processes.share` was given, in the process of a call


class Died(Exception):
    """The process of a call was killed; `str(error)` says by which signal."""


class Processes:
    """Runs functions in processes of their own, one at a time; use it as a context.

    Enter it before TensorFlow computes anything. When the context is left, also by a signal, what
    runs is killed; when the search itself is killed, likewise.
    """

    def __enter__(self) -> Self:
        self._connection: Connection | None = None
        if _HAS_FORK and not has_computed():
            for name in _OF_EVERY_TRIAL:
                with contextlib.suppress(ImportError):  # which is told where it is needed
                    importlib.import_module(name)
            self._connection, theirs = multiprocessing.Pipe()
            self._server = _fork(_serve, theirs, self._connection)
            theirs.close()
        return self

    def __exit__(self, *error: object) -> None:
        if self._connection is not None:
            self._connection.close()
            self._server.join()

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
        self._connection.send((function, arguments))
        while not self._connection.poll(_POLL_SECONDS):
            pass
        succeeded, value = self._connection.recv()
        if succeeded:
            return value
        raise value


def _fork(function: Callable, *arguments: Any) -> BaseProcess:
    # Not a daemon: those may have no children.
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def _serve(connection: Connection, others: Connection) -> None:
    """Waits, forks, passes on; ends with the search."""
    global shared
    others.close()  # else the end of the search would not be heard
    signals.ignore()  # the search decides what they mean
    gc.freeze()  # no child looks through what it has from here
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, value = connection.recv()
            if function == "share":
                shared = value
            else:
                connection.send_bytes(_call(connection, function, value))


def _call(connection: Connection, function: Callable, arguments: tuple) -> bytes:
    """Returns what came of a call in a new process, pickled."""
    answer, inner = multiprocessing.Pipe(duplex=False)
    child = _fork(_run, inner, (answer, connection), function, arguments)
    inner.close()
    try:
        if answer not in wait([answer, connection]):
            raise EOFError("the search is gone")
        try:
            return answer.recv_bytes()
        except EOFError:
            child.join()
            code = child.exitcode or 0
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return pickle.dumps((False, Died(f"its process died ({name})")))
    except EOFError:
        child.kill()
        raise
    finally:
        child.join()
        answer.close()


def _run(
    answer: Connection, others: tuple[Connection, ...], function: Callable, arguments: tuple
) -> None:
    """Computes one call, in a process of its own."""
    for other in others:
        other.close()
    try:
        content = pickle.dumps((True, function(*arguments)))
    except (Interrupted, KeyboardInterrupt):
        content = pickle.dumps((False, KeyboardInterrupt()))
    except BaseException as error:
        content = _pickled(error)
    answer.send_bytes(content)


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
