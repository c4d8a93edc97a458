"""A lock beside a file that several processes may want to make at the same time."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other process is making this file, and keeps others waiting.

    The operating system takes the lock from a process that dies. In a rare race over its removal
    two processes may both go on; what they make should therefore be renamed into its place.

    Raises:
        OSError: the folder is missing or cannot be written.
    """
    lock = path.with_name(f"{path.name}.lock")
    with FileLock(lock):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()
