"""Files that are whole or not at all: the only code that writes one beside its place.

A temporary file is written, brought to the disk and renamed, so that a reader never sees half a
file and a kill or a power cut leaves what was there before.
"""

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from transfer.errors import InputError

_STALE_SECONDS = 3600  # a file that is being written is written to far more often than this


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Yields a file to write; when the context ends well, `path` holds all that was written.

    Raises:
        OSError: the disk is full, or the folder cannot be written; `path` is as before.
    """
    with whole_path(path) as temporary, open(temporary, "xb") as file:
        yield file


@contextlib.contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """Yields the name of a file to be made; when the context ends well, it becomes `path`.

    The name ends as that of `path` does, for libraries that look at the ending.
    """
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # on the disk before it gets its name
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    flush_folder(path.parent)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes `content` so that `path` holds all of it or what it held before."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def flush_folder(folder: Path) -> None:
    """Waits until a folder's entries are on the disk: a rename may else be lost with the power."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes `values` as indented JSON, atomically."""
    write_atomically(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        InputError: the file is missing, unreadable, or holds no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read as JSON: {reason}.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} should hold a JSON object. Received: {type(values).__name__}.")
    return values


def remove_leftovers(folder: Path, name: str) -> None:
    """Removes what killed processes left half written of files in a folder.

    Args:
        folder: where they are; no link in it is followed.
        name: regular expression of the whole files' names.
    """
    leftover = re.compile(rf"\.[0-9a-f]{{8}}\.(?:{name})")
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # another process was faster, or it is not ours
            age = time.time() - entry.stat(follow_symlinks=False).st_mtime
            if leftover.fullmatch(entry.name) and age > _STALE_SECONDS:
                os.unlink(entry.path)
