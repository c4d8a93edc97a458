"""The exception that every stage raises for what a user gave: told in one line, never traced."""


class InputError(Exception):
    """Something the user gave cannot be used: a file, a setting, a download.

    `str(error)` is one printable line: what was expected, what came, how to mend it. Line
    breaks and control characters (a file may be named with them) are shown as escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in message))
