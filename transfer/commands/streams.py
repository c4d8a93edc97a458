"""Standard output and error that never end a command: full, closed, or of another alphabet.

What cannot be written any more is lost, not the work: a training goes on when its pipe breaks.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any


class Steady:
    """A text stream that keeps the first error of writing instead of raising it.

    Args:
        stream: where the text goes; what it cannot encode is written as an escape.

    Attributes:
        error: the first error, None where there was none.
    """

    def __init__(self, stream: Any) -> None:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Writes, or does nothing where that is not possible any more."""
        with self._kept():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes line by line."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Brings what was written on its way, where that is possible."""
        with self._kept():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error
            # What waits in the buffer would be an error again, at the latest when Python ends.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextlib.contextmanager
def steady_streams() -> Iterator[Steady]:
    """Makes both streams steady while the context lasts; yields standard output."""
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    output = Steady(sys.stdout)
    sys.stdout, sys.stderr = output, Steady(sys.stderr)
    try:
        yield output
    finally:
        sys.stdout, sys.stderr = before


def _open_closed_descriptors() -> None:
    # Else the next file that is opened would get the number, and with it what others print.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # as Python leaves a descriptor that was closed
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
