"""Answers as a table, as CSV, and as photos sorted into a folder for each class."""

import contextlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from transfer.deploy.predict import Answer
from transfer.errors import InputError, printable
from transfer.report.document import Table
from transfer.storage.atomic import write_output
from transfer.storage.csv_text import csv_text

UNKNOWN = "unknown"
MOST_SHOWN = 40  # photos in a terminal
MOST_NAME_BYTES = 255  # of a file's name, on nearly every disk
COLUMNS = (
    "path",
    "predicted",
    "confidence",
    "answered",
    "second",
    "second_confidence",
    "unknown_because",
    "distance",
    "inverted",
    "error",
)


def answers_table(answers: Sequence[Answer], top: int) -> Table:
    """Returns a table for the terminal, a row for each photo that could be read.

    Args:
        answers: in order.
        top: classes named of each, from 1.
    """
    places = range(top)
    header = ["photo", "answer", "confidence"]
    for place in places[1:]:
        header += [f"{place + 1}.", "confidence"]
    rows = []
    for answer in answers:
        if answer.error:
            continue
        row = [printable(answer.path), _tell(answer), f"{answer.confidence:.3f}"]
        for place in places[1:]:
            named = answer.ranked[place : place + 1]
            row += [named[0][0], f"{named[0][1]:.3f}"] if named else ["", ""]
        rows.append(row)
    numeric = [False, *[False, True] * top]
    left_out = f"the first {MOST_SHOWN} of {len(rows):,}; --csv FILE writes all"
    return Table(header, numeric, rows, MOST_SHOWN, left_out)


def unreadable_lines(answers: Sequence[Answer]) -> list[str]:
    """Returns a line for each photo that could not be read: which, and why."""
    return [
        f"Not readable: {printable(answer.path)}: {answer.error}"
        for answer in answers
        if answer.error
    ]


def _tell(answer: Answer) -> str:
    if answer.answered:
        return answer.predicted
    return f"{UNKNOWN}: {answer.unknown_because} ({answer.predicted}?)"


def answers_csv(answers: Sequence[Answer]) -> str:
    """Returns answers as CSV, a line for each photo, with the columns of `COLUMNS`."""
    return csv_text(COLUMNS, map(csv_row, answers))


def csv_row(answer: Answer) -> list[str | float]:
    """Returns the cells of `COLUMNS` for a photo."""
    (best, confidence), (second, less) = answer.ranked[:2] or (("", ""), ("", ""))
    return [
        answer.path,
        best,
        confidence,
        "yes" if answer.answered else "no",
        second,
        less,
        answer.unknown_because,
        "" if answer.distance is None else round(answer.distance, 3),
        "yes" if answer.inverted else "no",
        answer.error,
    ]


def write_csv(answers: Sequence[Answer], path: Path) -> None:
    """Writes `answers_csv`, whole or not at all; a name that is no Unicode keeps its bytes.

    Raises:
        DiskError: the file cannot be written.
    """
    write_output(path, answers_csv(answers).encode("utf-8", "surrogateescape"))


def sort_photos(
    answers: Sequence[Answer], class_names: Sequence[str], folder: Path, *, link: bool
) -> int:
    """Copies photos into a folder for each class, those without an answer into unknown/.

    Nothing that is there is overwritten: of two photos of one name the second gets a number.

    Args:
        answers: those that were not read are left out.
        class_names: of the classifier.
        folder: made where it is missing.
        link: make symbolic links to the originals, no copies.

    Returns:
        How many photos were sorted.

    Raises:
        InputError: a file cannot be written.
    """
    names = folder_names(class_names)
    read = [answer for answer in answers if not answer.error]
    try:
        for answer in read:
            place = folder / (names[answer.predicted] if answer.answered else UNKNOWN)
            place.mkdir(parents=True, exist_ok=True)
            _place(Path(answer.path), place, link)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}.") from error
    return len(read)


def folder_names(class_names: Sequence[str]) -> dict[str, str]:
    """Returns a folder's name for each class: no path, none twice, never "unknown"."""
    names: dict[str, str] = {}
    taken = {UNKNOWN}
    for class_name in class_names:
        plain = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", class_name)[:100].strip(". ") or "_"
        name, number = fit_name(plain), 2
        while name.lower() in taken:
            name, number = fit_name(plain, f"-{number}"), number + 1
        taken.add(name.lower())
        names[class_name] = name
    return names


def fit_name(stem: str, ending: str = "") -> str:
    """Returns a file's name, of whose stem so much is left that a disk takes it."""
    while stem and len(os.fsencode(stem + ending)) > MOST_NAME_BYTES:
        stem = stem[:-1]
    return stem + ending


def _place(photo: Path, folder: Path, link: bool) -> None:
    number = 1
    while True:
        name = photo.name if number == 1 else fit_name(photo.stem, f"-{number}{photo.suffix}")
        with contextlib.suppress(FileExistsError):
            if link:
                (folder / name).symlink_to(photo.resolve())
            else:
                _copy(photo, folder / name)
            return
        number += 1


def _copy(photo: Path, target: Path) -> None:
    with open(photo, "rb") as source, open(target, "xb") as copy:
        try:
            shutil.copyfileobj(source, copy)
        except OSError:
            os.unlink(target)  # half a photo is worse than none
            raise
    with contextlib.suppress(OSError):  # the time it was taken, where the disk keeps one
        shutil.copystat(photo, target)
