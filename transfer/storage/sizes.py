"""How much a folder holds, also while others write in it."""

import contextlib
import os
from pathlib import Path


def folder_bytes(folder: Path) -> int:
    """Returns the bytes of all files in a folder and below; what goes meanwhile counts nothing.

    Links are neither counted nor followed.
    """
    # Path.rglob of Python 3.11 raises where a folder goes between being listed and being read.
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            with contextlib.suppress(OSError):
                total += 0 if os.path.islink(path) else os.lstat(path).st_size
    return total
