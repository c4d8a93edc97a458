"""The exceptions that end a command: told in one line, never traced."""

import re
import signal
from collections.abc import Container

_OPTION = re.compile(r"--(?:no-)?([a-z]\w*(?:-\w+)*)")


def printable(text: str) -> str:
    """Returns the text on one line, line breaks and control characters as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class InputError(Exception):
    """Something the user gave cannot be used: a file, a setting, a download.

    `str(error)` is one printable line: what was expected, what came, how to mend it. It names a
    setting as the command line does, `--batch-size`; the Python door translates (`as_arguments`).
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


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
