"""Runs the real commands in processes of their own, and notes when they said what."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from transfer.errors import InputError

REPOSITORY = Path(__file__).parent.parent
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Line:
    """A line that a command printed."""

    seconds: float  # since the command began
    memory_bytes: int  # resident then; 0 where the system does not say
    text: str


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    lines: list[Line]
    seconds: float
    peak_bytes: int  # resident at most, what it maps from files included
    peak_own_bytes: int  # of that, what is in no file and cannot be dropped; 0 if not known

    @property
    def text(self) -> str:
        """All that it printed."""
        return "\n".join(line.text for line in self.lines)

    def when(self, start: str) -> float:
        """Returns the seconds at which the first line that starts so was printed."""
        return next(line.seconds for line in self.lines if line.text.startswith(start))


def run_command(script: str, arguments: Iterable[object], folder: Path) -> Finished:
    """Runs `python <script>.py <arguments>` to its end.

    Args:
        script: path in the repository without its ending: "train", "benchmarks/stock_keras".
        arguments: the words after it.
        folder: its working folder; Keras's cache, and with it that of the features, is in it too.

    Raises:
        InputError: the command failed; with its last line.
    """
    words = [sys.executable, REPOSITORY / f"{script}.py", *arguments]
    environment = os.environ | {
        "KERAS_HOME": str(folder / "keras"),
        "TRANSFER_OFFLINE": "1",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
    }
    started, lines = time.perf_counter(), []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [str(word) for word in words],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        with _watched(process.pid) as statuses:
            for text in process.stdout:
                memory = _status(process.pid).get("VmRSS", 0)
                lines.append(Line(time.perf_counter() - started, memory, text.rstrip("\n")))
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        errors.seek(0)
        if process.returncode:
            last = (errors.read().strip().splitlines() or ["it said nothing"])[-1]
            raise InputError(f"{script}.py ended with {process.returncode}: {last}")

    def most(name: str) -> int:
        return max((status.get(name, 0) for status in statuses), default=0)

    # The system's own figure counts in what this process had when it began the other one.
    peak = most("VmHWM") or usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Finished(lines, seconds, peak, most("RssAnon"))


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[list[dict[str, int]]]:
    # Fills the list it yields with what the system says of the process, from time to time.
    found: list[dict[str, int]] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_POLL_SECONDS):
            found.append(_status(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _status(pid: int) -> dict[str, int]:
    # Bytes by name, of Linux's /proc; elsewhere nothing.
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    numbers = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(value) * 1024 for name, value, _ in numbers}
