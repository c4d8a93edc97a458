"""Folders of what took long to compute: each file under a key of all that it depends on.

They lie beside what Keras keeps. A file is read only where its checksum is that of what was
written; of a folder with a limit the files used longest ago make room. Nothing is removed but
names that are made here, and no link is followed.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from transfer.errors import InputError
from transfer.storage.atomic import (
    is_temporary,
    read_json,
    remove_leftovers,
    whole_file,
    write_atomically,
)
from transfer.storage.locks import locked
from transfer.storage.untrusted import open_regular, read_regular

CHECKSUM = ".sha256"  # beside each file


def keras_home() -> Path:
    """Returns the folder in which Keras keeps downloads: $KERAS_HOME or ~/.keras, absolute."""
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    return Path(os.path.abspath(home))


class Checked:
    """A file to write whose content is hashed on its way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def write(self, content: bytes | memoryview) -> int:
        """Writes and counts into the checksum."""
        self._digest.update(content)
        return self._file.write(content)

    def hexdigest(self) -> str:
        """Returns the SHA-256 of all that was written."""
        return self._digest.hexdigest()


@dataclass(frozen=True)
class FolderCache:
    """One folder of computed files.

    Attributes:
        name: of the folder, within `transfer` in Keras's home.
        suffix: of its files.
        most_bytes: of all its files together; the newest one stays in any case.
    """

    name: str
    suffix: str
    most_bytes: int | None = None

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return cache_home() / self.name

    def path(self, *key: Any) -> Path:
        """Returns the file that belongs to a key: all that its content depends on."""
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
        return self.folder / f"{digest}{self.suffix}"

    @contextlib.contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        """Waits until no other process is making this file, and keeps others waiting.

        Raises:
            OSError: there is no place for a cache.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            self.remove_leftovers()
            yield

    def remove_leftovers(self) -> None:
        """Removes what processes that are gone left half written."""
        remove_leftovers(self.folder, f"{self._name}(?:{re.escape(CHECKSUM)})?")

    @property
    def _name(self) -> str:
        return "[0-9a-f]{32}" + re.escape(self.suffix)

    def holds(self, path: Path) -> bool:
        """Returns whether the file is there as it was written; it then counts as used now."""
        is_whole = is_as_written(path)
        if is_whole:
            with contextlib.suppress(OSError):  # another user's
                os.utime(path)
        return is_whole

    @contextlib.contextmanager
    def keep(self, path: Path) -> Iterator[Checked]:
        """Yields a file to write; when the context ends well it is kept, and others make room.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        with checked_file(path) as file:
            yield file
        self._make_room(path)

    def read_json(self, path: Path) -> dict[str, Any] | None:
        """Returns the object kept in a file, None where there is none or it is damaged."""
        if not self.holds(path):
            return None
        try:
            return read_json(path)
        except InputError:
            return None

    def keep_json(self, path: Path, values: Mapping[str, Any]) -> None:
        """Keeps an object where there is a place for it; else goes on without."""
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with self.keep(path) as file:
                file.write(json.dumps(values).encode())

    def _make_room(self, newest: Path) -> None:
        # A file that another process reads stays readable for it after its name is gone.
        self.remove_leftovers()
        if self.most_bytes is None:
            return
        found = []  # what others are writing takes room too
        for entry in os.scandir(self.folder):
            with contextlib.suppress(OSError):  # it went while we looked
                is_own = re.fullmatch(self._name, entry.name) is not None
                if entry.is_file(follow_symlinks=False) and (
                    is_own or is_temporary(entry.name, self._name)
                ):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime_ns, status.st_size, Path(entry.path), is_own))
        total = sum(size for _, size, _, _ in found)
        for _, size, path, is_own in sorted(found):
            if total > self.most_bytes and is_own and path.name != newest.name:
                total -= size
                for each in (path, _checksum(path)):
                    with contextlib.suppress(OSError):
                        each.unlink()


def is_as_written(path: Path) -> bool:
    """Returns whether a file is there and is what `checked_file` wrote."""
    try:
        with open_regular(path) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return read_regular(_checksum(path), 64).decode("ascii") == found
    except (OSError, ValueError, InputError):
        return False


@contextlib.contextmanager
def checked_file(path: Path) -> Iterator[Checked]:
    """Yields a file to write; when the context ends well it is there, its checksum beside it.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    with whole_file(path) as file:
        checked = Checked(file)
        yield checked
    write_atomically(_checksum(path), checked.hexdigest())


def _checksum(path: Path) -> Path:
    return path.with_name(path.name + CHECKSUM)


# --- What lies there ------------------------------------------------------------------------

LARGE = 10**9  # bytes of all folders together, from which a command says so
KINDS = {
    "features": "what frozen backbones make of images; computed again in a pass",
    "weights": "pretrained weights out of packages; fetched again from the index",
    "baselines": "results of classic classifiers; measured again in minutes",
    "duplicates": "which test images are near others; found again in seconds",
}
_ANY_FILE = re.compile(rf"[0-9a-f]{{32}}\.\w+({re.escape(CHECKSUM)})?")


def cache_home() -> Path:
    """Returns the folder of all `FolderCache`s."""
    return keras_home() / "transfer"


def list_caches() -> dict[str, tuple[int, int]]:
    """Returns the number of files and of bytes of each folder in `KINDS`, checksums included."""
    found = {}
    for name in KINDS:
        sizes = [path.lstat().st_size for path in _files_of(name)]
        found[name] = (len(sizes), sum(sizes))
    return found


def clear_cache(name: str) -> int:
    """Removes the files of a folder, nobody else's and none that is being written.

    Args:
        name: one of `KINDS`.

    Returns:
        The number of bytes.
    """
    freed = 0
    for path in _files_of(name):
        with contextlib.suppress(OSError):  # it went while we looked, or is not ours to remove
            size = path.lstat().st_size
            path.unlink()
            freed += size
    return freed


def _files_of(name: str) -> list[Path]:
    folder = cache_home() / name
    try:
        entries = [entry for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []  # there is none
    return [Path(entry.path) for entry in entries if _ANY_FILE.fullmatch(entry.name)]
