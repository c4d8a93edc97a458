"""What lies in a folder: all of its files, once, in an order that is the same on any disk.

What file managers, archives and disks leave behind is known by name, so that it becomes neither
a class nor an image, and is counted.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transfer.errors import InputError

_LEFTOVERS = (
    "__macosx",
    "@eadir",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "__pycache__",
)
_LEFTOVER_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "zbthumbnail.info")
_MOST_DEPTH = 40  # folders within folders


@dataclass(frozen=True)
class Folder:
    """A folder with what is in it.

    Attributes:
        path: its path.
        files: paths of the files right in it, sorted.
        folders: those right in it, sorted, links followed once.
        is_leftover: it is of a file manager, an archive or a disk, or hidden; with all in it.
    """

    path: str
    files: list[str] = field(default_factory=list)
    folders: list["Folder"] = field(default_factory=list)
    is_leftover: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return os.path.basename(self.path)

    def all_files(self) -> Iterator[str]:
        """Yields the paths of all files in it and below, leftovers included."""
        yield from self.files
        for folder in self.folders:
            yield from folder.all_files()

    def own_folders(self) -> list["Folder"]:
        """Returns the folders right in it that are no leftovers."""
        return [folder for folder in self.folders if not folder.is_leftover]


def list_tree(path: Path) -> Folder:
    """Lists a folder with all below.

    Raises:
        InputError: folders stand within each other too deep.
        OSError: a folder cannot be read; a leftover that cannot be read counts as one file.
    """
    return _list(str(path), False, set(), 0)


def _list(path: str, is_leftover: bool, seen: set[tuple[int, int]], depth: int) -> Folder:
    if depth > _MOST_DEPTH:
        raise InputError(
            f"{path} should stand within at most {_MOST_DEPTH} folders. Received: more; name "
            "the folder with the images."
        )
    folder = Folder(path, is_leftover=is_leftover)
    facts = os.stat(path)
    seen.add((facts.st_dev, facts.st_ino))
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError:
        if not is_leftover:
            raise
        folder.files.append(path)
        return folder
    for entry in entries:
        if not _is_folder(entry):
            folder.files.append(entry.path)
        elif not entry.is_symlink() or _is_new(entry, seen):
            leftover = is_leftover or is_leftover_folder(entry.name)
            folder.folders.append(_list(entry.path, leftover, seen, depth + 1))
        else:
            folder.files.append(entry.path)  # a link to a folder that is listed already
    return folder


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _is_new(entry: os.DirEntry, seen: set[tuple[int, int]]) -> bool:
    facts = entry.stat()
    return (facts.st_dev, facts.st_ino) not in seen


def is_leftover_folder(name: str) -> bool:
    """Returns whether a folder of this name is no class and no part."""
    return name.startswith(".") or name.lower() in _LEFTOVERS


def reason_of_leftover(path: str) -> str | None:
    """Returns why a file is none of the user's, None where it may be: "hidden files"."""
    name = os.path.basename(path)
    if name.lower() in _LEFTOVER_FILES:
        return name.strip()
    return "hidden files" if name.startswith(".") else None
