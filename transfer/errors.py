"""The exceptions that end a command: told in one line, never traced."""

import errno
import os
import re
import reprlib
import signal
from collections.abc import Container
from typing import Any

_LONGEST = 2_000  # characters of an error; whoever reads one wants no whole file
_JOINERS = "\u200c\u200d"  # without them emoji fall apart, and words of Persian and Hindi
_REPR = reprlib.Repr()  # of nested values from anywhere: neither long nor deep
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 150
_OPTION = re.compile(r"--(?:no-)?([a-z]\w*(?:-\w+)*)")


def printable(text: str) -> str:
    """Returns the text on one line, line breaks and control characters as escapes.

    So are those that turn the direction of what follows. Nothing of it moves a terminal's cursor.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _JOINERS else ascii(c)[1:-1] for c in text)


def shortened(value: Any) -> str:
    """Returns a value of any kind and size in at most 200 characters, for an error."""
    told = value if isinstance(value, str) else _REPR.repr(value)
    return told if len(told) <= 200 else f"{told[:199]}…"


class InputError(Exception):
    """Something the user gave cannot be used: a file, a setting, a download.

    `str(error)` is one printable line: what was expected, what came, how to mend it. It names a
    setting as the command line does, `--batch-size`; the Python door translates (`as_arguments`).
    """

    def __init__(self, message: str) -> None:
        if len(message) > _LONGEST:
            message = f"{message[:_LONGEST]}…"
        super().__init__(printable(message))


class DiskError(InputError):
    """The disk is full, or a place cannot be read or written: no fault of what was asked for."""


_FULL = (errno.ENOSPC, errno.EDQUOT)
# NumPy, HDF5 and TensorFlow tell a full disk in words alone.
_FULL_IN_WORDS = re.compile(r"No space left on device|quota exceeded|\d+ requested and \d+ written")


def is_disk_full(error: BaseException) -> bool:
    """Returns whether an error says that there is no room on a disk, whichever library's it is."""
    return getattr(error, "errno", None) in _FULL or bool(_FULL_IN_WORDS.search(str(error)))


def disk_error(error: BaseException, place: object = None) -> DiskError | None:
    """Returns what the system says of a file as an error in one line, None where it is no such.

    Args:
        error: an OSError, or what a library made of one.
        place: the file or folder at fault, where the error does not know it.
    """
    is_full = is_disk_full(error)
    if not isinstance(error, OSError) and not is_full:
        return None
    reason = os.strerror(errno.ENOSPC) if is_full else getattr(error, "strerror", None)
    where = getattr(error, "filename", None) or place
    where = os.fsdecode(where) if isinstance(where, bytes) else where
    told = (str(reason or error) or type(error).__name__).splitlines()[0].rstrip(".")
    return DiskError(f"{where}: {told}" if where else told)


HOW_TO_GO_ON = "To go on: "  # starts the command at the end of what a stop says


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM came; `str(error)` says in one line how to go on.

    No `Exception`, as KeyboardInterrupt is none: whoever mends a failure must not catch a stop.

    Args:
        number: of the signal; the exit code is 128 more, as shells have it.
        message: for the user.
    """

    def __init__(self, number: int = signal.SIGINT, message: str = "Stopped.") -> None:
        super().__init__(message)
        self.number = number


class LostProcess(Exception):
    """Another process that trains with this one is gone; who watches them says the rest."""


def as_options(text: str, names: Container[str]) -> str:
    """Returns an error's text with settings as the command line names them.

    Args:
        text: names settings as Python does, `batch_size`.
        names: of the settings.
    """

    def translate(word: re.Match[str]) -> str:
        known = word[0] in names and "_" in word[0]
        return "--" + word[0].replace("_", "-") if known else word[0]

    return re.sub(r"\b[a-z]+(?:_[a-z0-9]+)+\b", translate, text)


def as_arguments(text: str) -> str:
    """Returns an error's text with options as a Python function names its arguments."""
    return _OPTION.sub(lambda option: option[1].replace("-", "_"), text)
