"""Folders of images, one sub-folder a class."""

from pathlib import Path

import numpy as np

from transfer.data.formats.checks import EXPECTED, check_printable
from transfer.data.splits import Loaded, Split
from transfer.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
_SPLIT_FOLDERS = {
    "train": ("train",),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}


# --- Folders of images ----------------------------------------------------------------------


def load_image_folder(root: Path) -> Loaded:
    """Lists the image files of a folder with one sub-folder a class, without decoding them.

    The class folders may lie under train/, validation/ (val/, valid/) and test/.

    Raises:
        InputError: a class has no images, or the splits do not have the same classes.
    """
    parts = {part: _list_classes(folder) for part, folder in _find_split_folders(root).items()}
    class_names = tuple(parts["train"])
    check_printable(class_names, str(root))
    for part, classes in parts.items():
        if tuple(classes) != class_names:
            odd = sorted(set(classes) ^ set(class_names))
            raise InputError(
                f"{root}: train and {part} should have the same class folders. "
                f"Received: {', '.join(map(repr, odd[:10]))} in only one of them."
            )
    splits = {part: _make_file_split(classes, root) for part, classes in parts.items()}
    return Loaded(
        splits["train"],
        splits.get("test"),
        class_names,
        str(root),
        "image files, no published checksum",
        splits.get("validation"),
    )


def _find_split_folders(root: Path) -> dict[str, Path]:
    # Returns {"train": root} for class folders right under the root. A folder called train that
    # holds images, not folders, is a class (of vehicles, say).
    folders = {path.name.lower(): path for path in _list_folders(root)}
    found = {}
    for part, names in _SPLIT_FOLDERS.items():
        present = [name for name in names if name in folders and _list_folders(folders[name])]
        if len(present) > 1:
            raise InputError(
                f"{root} should have one folder for {part}. Received: {', '.join(present)}."
            )
        if present:
            found[part] = folders[present[0]]
    if found and "train" not in found:
        raise InputError(
            f"{root} should have a folder train with one sub-folder a class. "
            f"Received: only {', '.join(found)}."
        )
    return found or {"train": root}


def _list_folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _list_classes(folder: Path) -> dict[str, list[str]]:
    # Returns the image files of each class, both sorted: the order is the same on any disk.
    classes = {path.name: _list_images(path) for path in _list_folders(folder)}
    if not classes:
        raise InputError(f"{folder} should be {EXPECTED}. Received: {_describe_folder(folder)}.")
    for name, files in classes.items():
        if not files:
            raise InputError(
                f"{folder / name} should hold the images of a class ({', '.join(IMAGE_SUFFIXES)}). "
                f"Received: {_describe_folder(folder / name)}."
            )
    return classes


def _describe_folder(folder: Path) -> str:
    names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if not names:
        return "an empty folder"
    shown = ", ".join(sorted(names)[:3])
    return f"a folder with {shown}{' and others' if len(names) > 3 else ''}"


def _list_images(folder: Path) -> list[str]:
    return sorted(
        str(path)
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and not path.is_dir()
    )


def _make_file_split(classes: dict[str, list[str]], root: Path) -> Split:
    paths = np.array([path for files in classes.values() for path in files], dtype=object)
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    return Split(paths, labels.astype(np.int64), str(root))
