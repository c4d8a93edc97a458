"""Files that may come from a stranger: opened where they are plain files, read up to a size.

A named pipe in a file's place would wait for ever, and a link to a device never ends.
"""

import os
import stat
from io import BufferedReader
from pathlib import Path

from transfer.errors import InputError


def open_regular(path: Path) -> BufferedReader:
    """Opens a file to read, without waiting for whoever might write into it.

    Raises:
        InputError: it is a folder, a pipe or a device.
        OSError: it is not there, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
    raise InputError(f"{path} cannot be read: it should be a file. Received: {kind}.")


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Reads a whole file of limited size.

    Raises:
        InputError: it is larger, or is a folder, a pipe or a device.
        OSError: it is not there, or cannot be read.
    """
    with open_regular(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise InputError(
            f"{path} should have at most {most_bytes:,} bytes. Received: "
            f"{path.stat().st_size:,} bytes."
        )
    return content
