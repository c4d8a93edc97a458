"""Draws what a terminal shows of a command, once it has ended.

    python -m tools.draw_terminal --output docs/terminal.png python train.py --run-dir runs/first

The command runs in a terminal of its own (pyte, which `pip install pyte` brings): bars come and go
as a person sees them.
"""

import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import click
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

ROWS = 400  # more than a command says: nothing scrolls away
FONT_SIZE, MARGIN = 14, 12
INK, PAPER = "#f0f0f0", "#18181b"


def show_in_terminal(words: list[str], columns: int) -> list[str]:
    """Returns the lines that a terminal shows of a command at its end.

    Args:
        words: of the command.
        columns: of the terminal.
    """
    import pyte

    screen = pyte.Screen(columns, ROWS)
    stream = pyte.ByteStream(screen)
    for part in _run(words, columns):
        stream.feed(part)
    return "\n".join(line.rstrip() for line in screen.display).rstrip().split("\n")


def _run(words: list[str], columns: int) -> Iterator[bytes]:
    process, terminal = pty.fork()
    if process == 0:
        os.environ.pop("COLUMNS", None)
        os.execvp(words[0], words)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    try:
        while part := os.read(terminal, 65_536):
            yield part
    except OSError:  # as Linux tells the end
        pass
    if code := os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]):
        sys.exit(f"The command ended with {code}.")


def draw(lines: list[str], columns: int) -> Image.Image:
    """Returns a picture of lines in a font of fixed width."""
    path = font_manager.findfont("DejaVu Sans Mono")
    font = ImageFont.truetype(path, FONT_SIZE)
    width, height = round(columns * font.getlength("m")), round(1.3 * FONT_SIZE)
    size = (width + 2 * MARGIN, height * len(lines) + 2 * MARGIN)
    image = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        pen.text((MARGIN, MARGIN + number * height), line, INK, font)
    return image.quantize(16)


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The picture.")
@click.option("--columns", default=80, show_default=True, help="Width of the terminal.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
def main(output: Path, columns: int, words: tuple[str, ...]) -> None:
    """Run a command in a terminal of its own and draw what it shows at its end."""
    lines = show_in_terminal(list(words), columns)
    click.echo("\n".join(lines))
    draw(lines, columns).save(output, optimize=True)


if __name__ == "__main__":
    main()
