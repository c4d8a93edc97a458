"""Locks beside what several processes may want to make at the same time.

The operating system takes a lock from a process that dies. Who waits says for whom, and waits for
a bounded time: a stopped process holds its locks for ever.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from transfer import console
from transfer.errors import DiskError

TELL_SECONDS = 1.5  # of waiting in silence
STOPPED_SECONDS = 20.0  # that a process which does not run is waited for
MOST_SECONDS = 3600.0  # that one which works is waited for
_POLL_SECONDS = 0.1


class StillLocked(DiskError, TimeoutError):
    """Another process holds a lock for too long."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other process is making this file, and keeps others waiting.

    In a rare race over the lock's removal two processes may both go on; what they make should
    therefore be renamed into its place.

    Raises:
        OSError: the folder is missing or cannot be written.
        StillLocked: another process has held the lock for too long.
    """
    lock = path.with_name(f"{path.name}.lock")
    with _acquired(lock, path):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()


@contextlib.contextmanager
def lock_at_once(lock: Path) -> Iterator[None]:
    """Takes a lock, or does not wait.

    Raises:
        OSError: the folder is missing or cannot be written.
        filelock.Timeout: another process holds it.
    """
    _refuse_link(lock)
    with FileLock(lock, timeout=0):
        yield


@contextlib.contextmanager
def _acquired(lock: Path, wanted: Path) -> Iterator[None]:
    _refuse_link(lock)
    held, started, told = FileLock(lock), time.monotonic(), False
    while True:
        try:
            held.acquire(timeout=_POLL_SECONDS)
            break
        except Timeout:
            waited, who, runs = time.monotonic() - started, *_holder(lock)
        if waited > (MOST_SECONDS if runs else STOPPED_SECONDS):
            raise StillLocked(f"{wanted}: {who} has held its lock for {waited:.0f} s")
        if waited > TELL_SECONDS and not told:
            console.say(f"Waiting for {who}, which is making {wanted}")
            told = True
    try:
        yield
    finally:
        held.release()


def _refuse_link(lock: Path) -> None:
    # To open a lock empties the file, which may be somebody's.
    if lock.is_symlink():
        raise DiskError(f"{lock} should be a lock of this program. Received: a link; remove it.")


def _holder(lock: Path) -> tuple[str, bool]:
    """Returns who holds a lock, in words, and whether it runs as far as the system says."""
    with contextlib.suppress(OSError, ValueError, IndexError):  # not Linux, or released meanwhile
        status = os.stat(lock)
        place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[5] == place and words[1] in ("FLOCK", "POSIX"):
                state = _state(int(words[4]))
                return (
                    f"process {words[4]}{', stopped' if state in 'Tt' else ''}",
                    state not in "Tt",
                )
    return "another process", True


def _state(number: int) -> str:
    # The letter behind the name, which may hold anything: proc(5).
    return Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
