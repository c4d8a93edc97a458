"""What is particular to EMNIST, as IDX or as CSV: images that lie, names in a file of their own.

Its images are stored transposed, column by column, and `emnist-letters-mapping.txt` says for each
label which characters it stands for: "1 65 97", A and a. https://arxiv.org/abs/1702.05373
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from transfer.data.splits import Loaded
from transfer.datasets.formats.arrays import Part
from transfer.errors import InputError
from transfer.storage.untrusted import read_regular

_NAME = re.compile(r"(emnist[-_].+?[-_])(?:train|test)[-_.].*", re.IGNORECASE)
_MAPPING = "mapping.txt"
_MOST_BYTES = 1 << 16  # the largest has 62 lines
_PRINTABLE = range(33, 127)  # ASCII without the blank
UPRIGHT = "images transposed to be upright, as EMNIST stores them lying"


def split_name(name: str) -> str | None:
    """Returns what the files of one of EMNIST's six sets begin with, None of another data set.

    Args:
        name: of a file of images, of labels or of both: "emnist-letters-" of
            `emnist-letters-train.csv`.
    """
    found = _NAME.fullmatch(name)
    return found and found[1]


def stand_upright(parts: Mapping[str, Part]) -> dict[str, Part]:
    """Returns the parts with images (N, W, H) transposed to (N, H, W)."""
    return {
        part: dataclasses.replace(one, images=one.images.transpose(0, 2, 1))
        for part, one in parts.items()
    }


def find_mapping(folder: Path, split: str) -> Path | None:
    """Returns the file that names the labels of a set, in upper or lower case, None without one."""
    wanted = f"{split}{_MAPPING}".lower()
    found = sorted(path for path in folder.iterdir() if path.name.lower() == wanted)
    return found[0] if found else None


def name_classes(loaded: Loaded, mapping: Path | None) -> Loaded:
    """Returns a data set whose classes are called as a mapping says, "A" or "Aa".

    Args:
        loaded: its classes are called by EMNIST's own labels, "0" or "1" on.
        mapping: as `find_mapping` returns it.

    Raises:
        InputError: the file is no mapping.
    """
    if mapping is None:
        note = f"no *-{_MAPPING} beside them, so classes are called by their numbers"
        return dataclasses.replace(loaded, notes=(*loaded.notes, note))
    known = _read_mapping(mapping)
    if unknown := [name for name in loaded.class_names if name not in known]:
        note = f"{mapping.name} has no name for {unknown[0]}, so classes are called by numbers"
        return dataclasses.replace(loaded, notes=(*loaded.notes, note))
    names = tuple(known[name] for name in loaded.class_names)
    note = f"names of classes from {mapping.name}"
    return dataclasses.replace(loaded, class_names=names, notes=(*loaded.notes, note))


def _read_mapping(path: Path) -> dict[str, str]:
    # Returns the characters of each label: {"1": "Aa"}.
    try:
        lines = read_regular(path, _MOST_BYTES).decode("ascii", "replace").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    known: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        codes = [int(field) for field in fields if field.isdecimal() and len(field) <= 3]
        name = "".join(chr(code) for code in codes[1:] if code in _PRINTABLE)
        is_whole = len(codes) == len(fields) and len(name) == len(codes) - 1 > 0
        if not is_whole or str(codes[0]) in known or name in known.values():
            raise InputError(
                f"{path}, line {number}: should be a label and the ASCII codes of its characters, "
                f"as 1 65 97, each once. Received: {line[:40]!r}; mend it or take it away."
            )
        known[str(codes[0])] = name
    return known
