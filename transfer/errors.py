"""The exceptions that end a command: told in one line, never traced."""

import signal


class InputError(Exception):
    """Something the user gave cannot be used: a file, a setting, a download.

    `str(error)` is one printable line: what was expected, what came, how to mend it. Line
    breaks and control characters (a file may be named with them) are shown as escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in message))


class Interrupted(Exception):
    """Ctrl-C or SIGTERM came; `str(error)` says in one line how to go on.

    Args:
        number: of the signal; the exit code is 128 more, as shells have it.
        message: for the user.
    """

    def __init__(self, number: int = signal.SIGINT, message: str = "Stopped.") -> None:
        super().__init__(message)
        self.number = number
