"""The one voice: all that this process says to a person goes through here.

Commands let it speak; used from Python it is silent until asked. Of several processes that train
one run only the first speaks. Without a terminal it writes plain whole lines, as a log wants them.
"""

import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from transfer.errors import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderHook, RenderResult

COMMAND_FOLLOWS = "Next: "  # starts a line that holds a command to copy
LOG_WIDTH = 160  # columns where there is no terminal: rich would fold tables at 80

_current: "Console | None" = None
_verbose = False


def get() -> "Console":
    """Returns the console that speaks now, quiet where nobody let it speak."""
    global _current
    if _current is None:
        _current = _make(quiet=True)
    return _current


def speak(quiet: bool = False, verbose: bool = False) -> None:
    """Lets this process speak from here on, or keeps it silent.

    Args:
        quiet: say nothing.
        verbose: say also what `is_verbose` asks for.
    """
    global _current, _verbose
    _verbose = verbose
    _current = _make(quiet=quiet or not _is_first_process())


@contextlib.contextmanager
def voice(console: "Console") -> Iterator["Console"]:
    """Speaks through another console of rich's, as long as the context lasts."""
    global _current
    before, _current = _current, console
    try:
        yield console
    finally:
        _current = before


def speaking(quiet: bool = False) -> "contextlib.AbstractContextManager[Console]":
    """Returns a context in which this process speaks as after `speak`."""
    return voice(_make(quiet=quiet or not _is_first_process()))


def is_verbose() -> bool:
    """Returns whether reasons and measurements are said that few want to read."""
    return _verbose


def say(text: Any = "") -> None:
    """Prints one line; a terminal gets it folded between words, a log whole, however long.

    A command to copy keeps its one line, and so does a path.
    """
    speaker = get()
    if speaker.is_terminal:
        text = "\n".join(_fold(line, speaker.width) for line in str(text).split("\n"))
    speaker.print(text, soft_wrap=True)


def _fold(line: str, width: int) -> str:
    if len(line) <= width or line.startswith(COMMAND_FOLLOWS):
        return line
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)


def show(renderable: Any, **options: Any) -> None:
    """Prints a table, a text or anything else that rich can draw; options as rich's `print`."""
    get().print(renderable, **options)


def status(text: str) -> contextlib.AbstractContextManager:
    """Returns a context that shows on a terminal what is being done."""
    return get().status(printable(text))


def _make(quiet: bool) -> "Console":
    from rich.console import Console

    width = None if sys.stdout.isatty() else LOG_WIDTH
    # Brackets in a path or a class's name are that, not rich's markup.
    console = Console(quiet=quiet, width=width, markup=False, highlight=False)
    console.push_render_hook(cast("RenderHook", _WithoutControls()))
    return console


# All but the end of a line: what would move a cursor, or turn the direction of what follows.
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class _WithoutControls:
    """A hook of rich's: no text that comes from a file speaks to the terminal."""

    def process_renderables(self, renderables: "list[RenderableType]") -> "list[RenderableType]":
        """Returns the same, to be shown without them."""
        return [_Plain(renderable) for renderable in renderables]


@dataclasses.dataclass
class _Plain:
    """Shows something without the control characters in its texts; rich's own stay."""

    inner: "RenderableType"

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.segment import Segment

        for segment in console.render(self.inner, options):
            text = segment.text if segment.control else _CONTROLS.sub("", segment.text)
            yield Segment(text, segment.style, segment.control)


def _is_first_process() -> bool:
    # As `keras.distribution.initialize` reads it.
    return os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", "0") in ("", "0")


# --- How this user calls the commands -------------------------------------------------------

_SCRIPTS = ("train", "evaluate", "tune")  # that stand at the top of the repository


def command_line() -> str:
    """Returns the command as the user typed it."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        words = ["python", "-m", "transfer"]
    else:
        words = ["python", sys.argv[0]] if program.suffix == ".py" else [program.name]
    return shlex.join([*words, *sys.argv[1:]])


def how_to(command: str, *words: object) -> str:
    """Returns a command to type, in the way this user calls them.

    Args:
        command: its name.
        words: what follows it.
    """
    program = Path(sys.argv[0])
    is_script = program.suffix == ".py" and program.stem in _SCRIPTS
    if is_script and command in _SCRIPTS:
        start = ["python", str(program.with_name(f"{command}.py"))]
    # Whoever runs the scripts may not have installed the command.
    elif program.name == "__main__.py" or (is_script and not shutil.which("transfer")):
        start = ["python", "-m", "transfer", command]
    else:
        start = ["transfer", command]
    return shlex.join([*start, *map(str, words)])
