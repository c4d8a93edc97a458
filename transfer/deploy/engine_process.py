"""A process that runs one exported file, within bounds of memory and time.

The file may come from a stranger, and runtimes are large programs in C++: whatever it makes one
of them do, a crash included, ends here and is told in one line there (`exported.py`).

Frames go over stdin and stdout: eight bytes of length, then JSON or arrays as `np.save` has them.
"""

import contextlib
import io
import json
import os
import signal
import struct
import sys
from pathlib import Path
from typing import IO

import numpy as np

from transfer.data.splits import MOST_CLASSES

SECONDS = 120  # to load, and for each batch
MOST_NUMBERS = MOST_CLASSES + 1  # that it gives for a photo: probabilities and the distance
_LEAST_MEMORY = 5 << 28  # 1.25 GB, of what it computes in
_LEAST_ADDRESSES = 4 << 30  # with its libraries, and what they only reserve
_TIMES_FILE = 8


def write_frame(file: IO[bytes], content: bytes) -> None:
    """Writes a frame."""
    file.write(struct.pack("<Q", len(content)) + content)
    file.flush()


def read_frame(file: IO[bytes], most: int) -> bytes | None:
    """Reads a frame; None where the other side has ended, or promises more than `most` bytes."""
    head = file.read(8)
    if len(head) < 8:
        return None
    (length,) = struct.unpack("<Q", head)
    content = file.read(length) if length <= most else b""
    return content if len(content) == length else None


def to_bytes(array: np.ndarray) -> bytes:
    """Returns an array as `np.save` writes it, no pickle."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _bound(path: Path) -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on Windows; not allowed
        import resource

        from transfer.machine import usable_memory

        of_file, machine = _TIMES_FILE * path.stat().st_size, usable_memory()
        for kind, least in (
            (resource.RLIMIT_DATA, _LEAST_MEMORY),
            (resource.RLIMIT_AS, _LEAST_ADDRESSES),
        ):
            most = min(machine, least + of_file)
            resource.setrlimit(kind, (most, most))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it writes into pipes alone


def _bound_time(seconds: int) -> None:
    if hasattr(signal, "alarm"):  # its default ends the process, also inside of C++
        signal.alarm(seconds)


def main() -> None:
    """Loads the file named and answers batches until stdin ends; each within so many seconds."""
    path, seconds = Path(sys.argv[1]), int(sys.argv[2])
    taken, given = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # runtimes may print
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other side ends it
    _bound(path)
    _bound_time(seconds)
    from transfer.deploy.engines import load_engine
    from transfer.errors import InputError

    try:
        engine = load_engine(path)
    except InputError as error:
        write_frame(given, json.dumps({"error": str(error)}).encode())
        return
    head = {"facts": engine.facts, "input_shape": engine.input_shape}
    write_frame(given, json.dumps(head).encode())
    while (frame := read_frame(taken, 1 << 32)) is not None:
        _bound_time(seconds)
        images = np.load(io.BytesIO(frame), allow_pickle=False)
        outputs = [output.reshape(len(images), -1) for output in engine.run(images)]
        if sum(output.shape[1] for output in outputs) > MOST_NUMBERS:
            return
        write_frame(given, to_bytes(np.concatenate(outputs, axis=1).astype(np.float32)))


if __name__ == "__main__":
    main()
