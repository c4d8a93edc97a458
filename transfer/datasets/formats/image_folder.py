"""Folders of images, one sub-folder a class, perhaps within folders for train and test.

Every file below the root is looked at: it becomes an image of a class, or is counted among those
passed over. Which of the two is decided by its content where its name says nothing.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from transfer.data.decode import is_image_file
from transfer.data.splits import Loaded, PassedOver, Split
from transfer.datasets.formats.checks import EXPECTED, check_printable
from transfer.datasets.formats.listing import Folder, list_tree, reason_of_leftover
from transfer.datasets.formats.part_names import TEST, TRAIN, VALIDATION, find_part, is_plain
from transfer.errors import InputError

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif"),
)
_COPIES = (".part", ".partial", ".crdownload", ".download", ".tmp", ".temp", ".bak", ".orig", "~")
_EVAL = ("eval", "evaluation")


# --- Folders of images ----------------------------------------------------------------------


def load_image_folder(root: Path) -> Loaded:
    """Lists the image files of a folder with one sub-folder a class, without decoding them.

    The class folders may lie under train/, validation/ (val/, valid/, dev/) and test/ (testing/,
    eval/); folders within a class folder belong to the class.

    Raises:
        InputError: a class has no images, or the parts do not have the same classes, or it cannot
            be told which folders are classes.
    """
    found = _Found(str(root))
    parts = _find_parts(found.unwrap(list_tree(root)), found)
    classes = {part: _list_classes(folder, found) for part, folder in parts.items()}
    found.tell_nested()
    class_names = tuple(classes[TRAIN])
    check_printable(class_names, str(root))
    for part, of_part in classes.items():
        if tuple(of_part) != class_names:
            odd = sorted(set(of_part) ^ set(class_names))
            raise InputError(
                f"{root}: train and {part} should have the same class folders. "
                f"Received: {', '.join(map(repr, odd[:10]))} in only one of them."
            )
    splits = {part: _make_file_split(of_part, root) for part, of_part in classes.items()}
    return Loaded(
        splits[TRAIN],
        splits.get(TEST),
        class_names,
        str(root),
        "image files, no published checksum",
        splits.get(VALIDATION),
        notes=tuple(found.notes),
        passed_over=tuple(found.passed_over),
    )


def has_class_folders(root: Path) -> bool:
    """Returns whether a folder seems to have a sub-folder for each class, or for each part."""
    folders = [folder for folder in list_tree(root).own_folders() if any(folder.all_files())]
    if any(find_part(folder.name) and folder.own_folders() for folder in folders):
        return True
    return len([folder for folder in folders if not find_part(folder.name)]) > 1


@dataclass
class _Found:
    """What was decided on the way, and the files that were not used.

    Attributes:
        root: path that others are told relative to.
        notes: what was guessed.
        passed_over: files.
        nested: images in folders within class folders.
    """

    root: str
    notes: list[str] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)

    def tell_nested(self) -> None:
        """Notes such images: what is in their folders may be classes, or parts."""
        if self.nested:
            folder = os.path.relpath(os.path.dirname(self.nested[0]), self.root)
            self.notes.append(
                f"{len(self.nested):,} images in folders within class folders, as {folder}"
            )

    def pass_over(self, files: Iterator[str] | list[str], reason: str | None = None) -> None:
        """Counts files as not used; for their own reasons where none is given."""
        self.passed_over += [
            PassedOver(os.path.relpath(path, self.root), reason or reason_of(path))
            for path in files
        ]

    def unwrap(self, folder: Folder, *, is_part: bool = False) -> Folder:
        """Returns the folder that is alone in this one, where it has the classes."""
        inner = [one for one in folder.own_folders() if any(one.all_files())]
        images = [path for path in folder.files if is_image(path)]
        if len(inner) != 1 or images or not _holds_classes(inner[0]):
            return folder
        if find_part(inner[0].name) and not is_part:
            return folder
        self.notes.append(f"from its folder {inner[0].name}")
        self.pass_over_rest(folder, inner)
        return self.unwrap(inner[0], is_part=is_part)

    def pass_over_rest(self, folder: Folder, used: list[Folder]) -> None:
        """Counts all in a folder but some of its folders."""
        for path in folder.files:
            self.pass_over([path], "images outside of class folders" if is_image(path) else None)
        for one in folder.folders:
            if all(one is not other for other in used):
                self.pass_over(one.all_files(), f"in {one.name}")


def _holds_classes(folder: Folder) -> bool:
    # Its folders are classes or parts, and no images lie beside them.
    inner = [one for one in folder.own_folders() if _holds_images(one)]
    if len(inner) == 1:
        return bool(find_part(inner[0].name)) or _holds_classes(inner[0])
    return len(inner) > 1 and not any(map(is_image, folder.files))


def _holds_images(folder: Folder) -> bool:
    return any(is_image(path) for path in folder.files) or any(
        _holds_images(one) for one in folder.own_folders()
    )


# --- Parts ----------------------------------------------------------------------------------


def _find_parts(root: Folder, found: _Found) -> dict[str, Folder]:
    # Returns {"train": root} for class folders right under the root.
    named: dict[str, list[Folder]] = {TRAIN: [], VALIDATION: [], TEST: []}
    others: list[Folder] = []
    for folder in root.own_folders():
        part = find_part(folder.name)
        (named[part] if part else others).append(folder)
    flat = [x for folders in named.values() for x in folders if not _has_folders(x)]
    nested = [x for folders in named.values() for x in folders if _has_folders(x)]
    if not nested:
        return _without_parts(root, flat, others, found)
    if any(_holds_images(x) for x in others) and len(nested) + len(flat) == 1:
        raise InputError(
            f"{root.path} should have class folders, or folders for train and test with the "
            f"classes in them. Received: {nested[0].name} with folders in it beside "
            f"{others[0].name}, which may mean either; rename {nested[0].name} or move the others."
        )
    parts = _choose_parts(root, nested, found)
    found.pass_over_rest(root, [*parts.values(), *flat])
    for folder in flat:
        found.pass_over(folder.all_files(), f"in {folder.name}, which has no class folders")
    return {part: found.unwrap(folder, is_part=True) for part, folder in parts.items()}


def _has_folders(folder: Folder) -> bool:
    return any(any(one.all_files()) for one in folder.own_folders())


def _without_parts(
    root: Folder, flat: list[Folder], others: list[Folder], found: _Found
) -> dict[str, Folder]:
    # A folder called train that holds images is a class where there are others (of vehicles).
    flat = [folder for folder in flat if _holds_images(folder)]
    parts = {find_part(folder.name) for folder in flat}
    if flat and (len(parts) > 1 or not any(map(_holds_images, others))):
        names = ", ".join(folder.name for folder in flat)
        raise InputError(
            f"{root.path}: {names} should hold one folder for each class, as "
            f"{flat[0].name}/cat/1.jpg. Received: images without classes; sort them into folders, "
            "or name a CSV of paths and labels: --data labels.csv."
        )
    found.notes += [f"the folder {folder.name} is taken for a class" for folder in flat]
    return {TRAIN: root}


def _choose_parts(root: Folder, nested: list[Folder], found: _Found) -> dict[str, Folder]:
    parts: dict[str, list[Folder]] = {}
    for folder in nested:
        parts.setdefault(find_part(folder.name) or "", []).append(folder)
    evals = [x for x in parts.get(TEST, []) if x.name.lower() in _EVAL]
    if len(parts.get(TEST, [])) == 2 and len(evals) == 1 and VALIDATION not in parts:
        parts[TEST].remove(evals[0])  # beside a test, it is what models are chosen by
        parts[VALIDATION] = evals
    for part, folders in parts.items():
        if len(folders) > 1:
            names = ", ".join(folder.name for folder in folders)
            raise InputError(f"{root.path} should have one folder for {part}. Received: {names}.")
    if TRAIN not in parts:
        raise InputError(
            f"{root.path} should have a folder train with one sub-folder a class. "
            f"Received: only {', '.join(parts)}."
        )
    chosen = {part: folders[0] for part, folders in parts.items()}
    found.notes += [
        f"the folder {folder.name} is taken for {part}"
        for part, folder in chosen.items()
        if not is_plain(folder.name) or folder in evals
    ]
    return chosen


# --- Classes --------------------------------------------------------------------------------


def _list_classes(folder: Folder, found: _Found) -> dict[str, list[str]]:
    # Returns the image files of each class, both sorted: the order is the same on any disk.
    own = folder.own_folders()
    found.pass_over_rest(folder, own)
    if not own:
        raise InputError(f"{folder.path} should be {EXPECTED}. Received: {_describe(folder)}.")
    classes = {}
    for one in own:
        images = sorted(_take_images(one, found))
        if not images:
            raise InputError(
                f"{one.path} should hold the images of a class ({', '.join(IMAGE_SUFFIXES)}). "
                f"Received: {_describe(one)}; if it is no class, move it elsewhere."
            )
        found.nested += [path for path in images if os.path.dirname(path) != one.path]
        classes[one.name] = images
    return classes


def _take_images(folder: Folder, found: _Found) -> Iterator[str]:
    # Yields the images of a class, those in its sub-folders too, and counts the rest.
    for path in folder.files:
        if is_image(path):
            yield path
        else:
            found.pass_over([path])
    for one in folder.folders:
        if one.is_leftover:
            found.pass_over(one.all_files(), f"in {one.name}")
        else:
            yield from _take_images(one, found)


def _describe(folder: Folder) -> str:
    names = [os.path.basename(path) for path in folder.files]
    names = sorted(name for name in names + [x.name for x in folder.folders] if name[0] != ".")
    if not names:
        return "an empty folder"
    return f"a folder with {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}"


# --- Files ----------------------------------------------------------------------------------


def is_image(path: str) -> bool:
    """Returns whether a file is taken for an image, by its suffix or by its content."""
    if reason_of_leftover(path) or _is_copy(path):
        return False
    return _suffix(path) in IMAGE_SUFFIXES or is_image_file(path)


def reason_of(path: str) -> str:
    """Returns why a file that is no image is passed over, in words that follow a number."""
    if leftover := reason_of_leftover(path):
        return leftover
    if os.path.isdir(path):
        return "links to folders used already"
    if _is_copy(path):
        return "unfinished or backup copies"
    return f"{_suffix(path)} files" if _suffix(path) else "files that are no images"


def _is_copy(path: str) -> bool:
    return path.lower().endswith(_COPIES)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _make_file_split(classes: dict[str, list[str]], root: Path) -> Split:
    paths = np.array([path for files in classes.values() for path in files], dtype=object)
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    return Split(paths, labels.astype(np.int64), str(root))
