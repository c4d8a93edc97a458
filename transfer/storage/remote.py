"""Files wherever they are: a path of this machine, or a URL that fsspec knows (s3://, gs://, ...).

Paths need no fsspec. A file is opened once and read by any thread, in blocks where it is far away.
"""

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

from transfer.errors import InputError
from transfer.storage.untrusted import open_regular

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?:::|://)")  # of two letters at least: C:\ is a disk
_MOST_OPEN = 16
_BLOCK_BYTES = 4 << 20  # read at a time of a file that is far away
_BLOCKS_KEPT = 8  # of each such file
NEEDS = "pip install 'transfer[shards]'"

T = TypeVar("T")


def is_url(name: str) -> bool:
    """Returns whether a name is a URL, and not a path of this machine."""
    return _URL.match(name) is not None


def open_stored(name: str) -> IO[bytes]:
    """Opens a path or URL to read, from any place.

    Raises:
        InputError: it is a folder, a pipe or a device; or fsspec is needed, or cannot open it.
        OSError: a path is not there, or cannot be read.
    """
    if not is_url(name):
        return open_regular(Path(name))
    system, path = _find(name)
    options = {"maxblocks": _BLOCKS_KEPT}
    return _told(
        name,
        lambda: system.open(
            path, "rb", block_size=_BLOCK_BYTES, cache_type="blockcache", cache_options=options
        ),
    )


def list_stored(name: str) -> list[str]:
    """Returns the files that a path or URL stands for, sorted: itself, or all below a folder.

    Raises:
        InputError: fsspec is needed or cannot list it, or nothing is there.
    """
    if not is_url(name):
        if not os.path.isdir(name):
            return [name]
        below = [os.path.join(where, file) for where, _, files in os.walk(name) for file in files]
        return sorted(below)
    system, path = _find(name)
    found = _told(name, lambda: [path] if system.isfile(path) else sorted(system.find(path)))
    if not found:
        raise InputError(f"{name} should be a file or a folder with files. Received: nothing.")
    return [system.unstrip_protocol(one) for one in found]


def _find(name: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise InputError(f"{name}: URLs need fsspec; run `{NEEDS}`.") from error
    system, path = _told(name, lambda: fsspec.core.url_to_fs(name))
    return system, path


def _told(name: str, call: Callable[[], T]) -> T:
    # Each storage has errors of its own, and names the package that it lacks.
    try:
        return call()
    except InputError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{name} cannot be read: {reason[:300].rstrip('.')}.") from error


class _Handle:
    def __init__(self, opened: Any) -> None:
        self.opened, self.lock = opened, threading.Lock()


_handles: OrderedDict[tuple[str, Callable], _Handle] = OrderedDict()
_choosing = threading.Lock()


def with_open(name: str, read: Callable[[Any], T], prepare: Callable[[str], Any]) -> T:
    """Calls a function with an open file, which stays open for the next one; one call at a time.

    Args:
        name: path or URL.
        read: what is to be done with what `prepare` made.
        prepare: opens the file; the same function for the same kind of file.

    Raises:
        InputError: it cannot be read.
    """
    key = (name, prepare)
    with _choosing:
        handle = _handles.pop(key, None) or _Handle(prepare(name))
        _handles[key] = handle
        while len(_handles) > _MOST_OPEN:
            _handles.popitem(last=False)  # closed when the last reader lets it go
    with handle.lock:
        return _told(name, lambda: read(handle.opened)) if is_url(name) else read(handle.opened)


def read_span(name: str, start: int, size: int) -> bytes:
    """Returns some bytes of a path or URL.

    Raises:
        InputError: the file ends before, or cannot be read.
    """

    def read(file: IO[bytes]) -> bytes:
        file.seek(start)
        return file.read(size)

    content = with_open(name, read, open_stored)
    if len(content) < size:
        raise InputError(f"{name} ends at byte {start + len(content):,}: it has become shorter.")
    return content
