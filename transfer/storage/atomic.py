"""Files that are whole or not at all: the only code that writes one beside its place.

A temporary file is written, brought to the disk and renamed, so that a reader never sees half a
file and a kill or a power cut leaves what was there before.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from transfer.errors import DiskError, InputError
from transfer.storage.untrusted import read_regular

# 100 times what the run of a data set with hundreds of classes writes; parsed it is 50 times as
# large at the worst.
MOST_JSON_BYTES = 8 << 20
_STALE_SECONDS = 3600  # a file that is being written is written to far more often than this
_SCRATCH = "transfer"  # what temporary folders are called
# Machine and process that write it, and a number of its own.
_TEMPORARY = re.compile(r"\.([0-9a-f]{8})-([0-9]{1,10})-[0-9a-f]{8}\.(.+)", re.DOTALL)


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
    temporary = path.with_name(f".{_own_mark()}.{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # on the disk before it gets its name
        os.replace(temporary, path)
    except OSError as error:
        if error.filename == str(temporary):  # told by the name that the user knows
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    flush_folder(path.parent)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes `content` so that `path` holds all of it or what it held before.

    Bytes of a path that are no UTF-8 are written as the escapes of JSON.
    """
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    with whole_file(path) as file:
        file.write(content)


def write_output(path: Path, content: str | bytes) -> None:
    """Writes a file that the user named, as `write_atomically`; a link stays a link to it.

    A pipe or a device, as `/dev/stdout` or a shell's `>(...)`, is written into, never replaced.

    Raises:
        DiskError: it cannot be written.
    """
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    try:
        if path.exists() and not path.is_file():
            with open(path, "wb") as file:
                file.write(content)
        else:
            write_atomically(path.resolve(), content)
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself
        reason = getattr(error, "strerror", None) or error
        raise DiskError(f"{path} cannot be written: {reason}.") from error


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
    """Reads a JSON object, also from a stranger: a plain file of at most `MOST_JSON_BYTES`.

    Raises:
        InputError: the file is missing, unreadable, or holds no JSON object; or one with a key
            twice.
    """
    try:
        text = read_regular(path, MOST_JSON_BYTES).decode("utf-8-sig")  # Windows marks UTF-8
        values = json.loads(text, object_pairs_hook=_unique)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read as JSON: {reason}.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} should hold a JSON object. Received: {type(values).__name__}.")
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return values


def remove_leftovers(folder: Path, name: str, *, alone: bool = False) -> None:
    """Removes what killed processes left half written of files in a folder.

    Args:
        folder: where they are; may be missing. No link in it is followed.
        name: regular expression of the whole files' names.
        alone: whether it is known, by a lock, that no other process writes such files there.
    """
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):  # another process was faster, or it is not ours
                if is_temporary(entry.name, name) and (alone or _is_abandoned(entry)):
                    os.unlink(entry.path)


def is_temporary(found: str, name: str = ".+") -> bool:
    """Returns whether a file's name is one that is made here while a file is being written.

    Args:
        found: the file's name.
        name: regular expression of the whole file's name.
    """
    parts = _TEMPORARY.fullmatch(found)
    return parts is not None and re.fullmatch(name, parts[3], re.DOTALL) is not None


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a folder to fill; when the context ends well, it becomes `path`, which is not there.

    What killed processes left of such folders goes with it.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned_folders(path.parent, re.escape(path.name))
    temporary = path.with_name(f".{_own_mark()}.{path.name}")
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(path)
        flush_folder(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yields a folder among the system's temporary files, gone when the context ends.

    Those of processes that were killed go with it.

    Raises:
        OSError: there is no place for it.
    """
    place = tempfile.gettempdir()
    name = f".{_own_mark()}.{_SCRATCH}"
    _remove_abandoned_folders(Path(place), _SCRATCH)
    folder = Path(place, name)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned_folders(place: Path, name: str) -> None:
    with contextlib.suppress(OSError):
        for entry in os.scandir(place):
            is_ours = is_temporary(entry.name, name) and entry.is_dir(follow_symlinks=False)
            # Of a folder in use for hours the time of change says nothing.
            if is_ours and not _is_in_use(entry.name) and _is_abandoned(entry):
                shutil.rmtree(entry.path, ignore_errors=True)


def _own_mark() -> str:
    return f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"


def _is_in_use(name: str) -> bool:
    parts = _TEMPORARY.fullmatch(name)
    return parts is not None and parts[1] == _machine() and _is_running(int(parts[2]))


def _is_abandoned(entry: os.DirEntry) -> bool:
    parts = _TEMPORARY.fullmatch(entry.name)
    if parts and parts[1] == _machine() and not _is_running(int(parts[2])):
        return True
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > _STALE_SECONDS


@functools.cache
def _machine() -> str:
    # Numbers of processes mean the same within one start of a system, and of a container in it.
    marks = [os.name, getattr(os, "uname", lambda: ("", ""))()[1]]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        with contextlib.suppress(OSError):
            marks.append(read())
    return hashlib.sha256(repr(marks).encode()).hexdigest()[:8]


def _is_running(number: int) -> bool:
    if os.name != "posix":  # where signal 0 would end it
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True
