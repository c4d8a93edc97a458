"""A document as a list of blocks, made once and rendered three times.

In a terminal, as Markdown, and as one self-contained HTML page. `sections.py` says what stands in
a report; this module knows only how each block looks. Texts come as they are and are escaped
here, so that no name of a class or folder can break a page. HTML is made from the Markdown by
markdown-it, which lets no tag through.
"""

import base64
import functools
import html
import re
import string
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table as RichTable
from rich.text import Text as RichText

from transfer import console

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

NARROWEST = 12  # columns of a terminal that words are folded into at the least
LARGE_PICTURE = 1_000  # pixels; on a phone a wider one scrolls, for its words to be readable


@dataclass(frozen=True)
class Span:
    """A text that does not stand plain.

    Attributes:
        text: what is shown, not escaped.
        style: "bold" or "code"; "" for plain.
        url: where a click leads, "" for nowhere.
    """

    text: str
    style: str = ""
    url: str = ""

    def markdown(self) -> str:
        """Returns the span for Markdown, on one line."""
        # A backtick would end the code, and so would the end of a line.
        is_one_line = self.text.splitlines() == [self.text] and "`" not in self.text
        is_code = self.style == "code" and is_one_line
        text = f"`{self.text}`" if is_code else escape_markdown(self.text)
        text = f"**{text}**" if self.style == "bold" else text
        return f"[{text}]({self.url})" if self.url else text

    def terminal(self) -> RichText:
        """Returns the span for a terminal."""
        return RichText(self.text, style="bold" if self.style == "bold" else "")


Text = str | Span


def escape_markdown(text: str) -> str:
    """Returns the text such that Markdown shows it as it is, on one line and in one cell."""
    # Brackets are Markdown only where an address or a definition follows, and what begins an item
    # of a list, or a rule, only at the start.
    marks = r"[\\`*_|<>~&$#]|\](?=[(\[:])|^[-+](?= |$)|^-(?=[- ]*$)"
    text = re.sub(f"({marks})", r"\\\1", " ".join(text.split()))
    return re.sub(r"^(\d{1,9})([.)])(?= |$)", r"\1\\\2", text)


def span(text: Text) -> Span:
    """Returns a text as a span, plain where it is none yet."""
    return text if isinstance(text, Span) else Span(text)


@dataclass(frozen=True)
class Heading:
    """The title of a section."""

    text: str

    def markdown(self) -> str:
        """Returns the block for Markdown."""
        return f"## {escape_markdown(self.text)}"

    def html(self) -> str:
        """Returns the block for HTML, with what a link can lead to."""
        return f'<h2 id="{slug(self.text)}">{html.escape(self.text)}</h2>'

    def show(self) -> None:
        """Shows the block in the terminal."""
        console.say()
        console.show(RichText(self.text, style="bold"))


def slug(title: str) -> str:
    """Returns the end of an address that leads to a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@dataclass(frozen=True)
class Contents:
    """Links to the headings of a page; a terminal, where nothing leads anywhere, has none."""

    titles: Sequence[str]

    @classmethod
    def of(cls, blocks: "Sequence[Block]") -> "Contents":
        """Returns the contents of blocks."""
        return cls([block.text for block in blocks if isinstance(block, Heading)])

    def markdown(self) -> str:
        """Returns the block for Markdown."""
        links = (f"[{escape_markdown(title)}](#{slug(title)})" for title in self.titles)
        return f"On this page: {', '.join(links)}."

    def show(self) -> None:
        """Shows nothing."""


@dataclass(frozen=True)
class Paragraph:
    """One paragraph; an aside is shown faint in a terminal."""

    text: Text
    is_aside: bool = False

    def markdown(self) -> str:
        """Returns the block for Markdown."""
        return span(self.text).markdown()

    def show(self) -> None:
        """Shows the block in the terminal."""
        console.show(span(self.text).terminal(), style="dim" if self.is_aside else None)


@dataclass(frozen=True)
class Bullets:
    """A list of items, each with a name, which is "" where an item has none."""

    items: Sequence[tuple[str, Text]]

    def markdown(self) -> str:
        """Returns the block for Markdown."""
        return "\n".join(
            f"- **{escape_markdown(name)}:** {span(text).markdown()}"
            if name
            else f"- {span(text).markdown()}"
            for name, text in self.items
        )

    def show(self) -> None:
        """Shows the block in the terminal: names in a column of their own, where there are any."""
        list_ = RichTable.grid(padding=(0, 1, 0, 0))
        list_.add_column(no_wrap=True)
        list_.add_column(overflow="fold")
        for name, text in self.items:
            list_.add_row(RichText(name or "-"), span(text).terminal())
        console.show(list_)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header: a name for each column.
        numeric: which columns hold numbers, to be set to the right.
        rows: cells of each row.
        shown: how many of the rows a terminal shows, the first ones; None for all.
        left_out: what a terminal says where it shows not all.
    """

    header: Sequence[str]
    numeric: Sequence[bool]
    rows: Sequence[Sequence[Text]]
    shown: int | None = None
    left_out: str = ""

    def markdown(self) -> str:
        """Returns the block for Markdown."""
        lines = [
            f"| {' | '.join(map(escape_markdown, self.header))} |",
            "|" + "|".join("--:" if is_number else ":--" for is_number in self.numeric) + "|",
        ]
        for row in self.rows:
            lines.append(f"| {' | '.join(span(cell).markdown() for cell in row)} |")
        return "\n".join(lines)

    def show(self) -> None:
        """Shows the block in the terminal; words are folded, numbers are never cut."""
        rows = [[span(cell) for cell in row] for row in self.rows[: self.shown]]
        least, whole = [], []  # columns that each needs, its header folded or not
        for i, (name, is_number) in enumerate(zip(self.header, self.numeric, strict=True)):
            longest = max((len(row[i].text) for row in rows), default=0)
            least.append(max(longest, *map(len, name.split())))
            if not is_number:
                least[-1] = min(least[-1], NARROWEST)
            whole.append(max(longest, len(name)) + 1)
        folds = sum(whole) > console.get().width
        table = empty_table(sum(least) + len(least))
        for name, is_number, width in zip(self.header, self.numeric, least, strict=True):
            table.add_column(
                textwrap.fill(name, width) if is_number and folds else name,
                justify="right" if is_number else "left",
                no_wrap=is_number,
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(cell.terminal() for cell in row))
        console.show(table, crop=False)
        if self.shown is not None and self.shown < len(self.rows):
            console.show(RichText(self.left_out, style="dim"))


def empty_table(narrowest: int = 0) -> RichTable:
    """Returns a table in the style of all tables on a terminal, at least so many columns wide."""
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    if console.get().width < narrowest:
        table.width = narrowest
    return table


@dataclass(frozen=True)
class Picture:
    """A picture: a file beside the Markdown, inline in the HTML, not in a terminal.

    Attributes:
        name: of the file, without its ".png".
        caption: what is seen.
        png: content of the file.
    """

    name: str
    caption: str
    png: bytes

    def markdown(self) -> str:
        """Returns the block for Markdown."""
        return f"![{escape_markdown(self.caption)}]({self.name}.png)"

    def html(self) -> str:
        """Returns the block for HTML."""
        caption = html.escape(self.caption)
        data = base64.b64encode(self.png).decode("ascii")
        width = int.from_bytes(self.png[16:20], "big")  # as the PNG's header has it
        size = ' class="large"' if width > LARGE_PICTURE else ""
        return (
            f'<figure><img{size} alt="{caption}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )

    def show(self) -> None:
        """Shows nothing: a terminal has no pictures."""


@dataclass(frozen=True)
class Code:
    """Lines of Python."""

    text: str

    def markdown(self) -> str:
        """Returns the block for Markdown."""
        return f"```python\n{self.text.rstrip()}\n```"

    def show(self) -> None:
        """Shows the block in the terminal."""
        console.say(self.text.rstrip())


Block = Heading | Contents | Paragraph | Bullets | Table | Picture | Code

# The policy forbids whatever the page does not hold itself: no script, no font, no tracker.
_PAGE = string.Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
body { max-width: 60rem; margin: 0 auto; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif;
  color: #1a1a1a; background: #fff; overflow-wrap: anywhere; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
a { color: #0072b2; }
.wide { overflow-x: auto; scrollbar-width: thin;
  /* A shadow at the side on which there is more. */
  background: linear-gradient(to right, #fff 30%, #fff0) left / 3rem 100%,
    linear-gradient(to left, #fff 30%, #fff0) right / 3rem 100%,
    linear-gradient(to right, #0004, #0000) left / .8rem 100%,
    linear-gradient(to left, #0004, #0000) right / .8rem 100%;
  background-attachment: local, local, scroll, scroll; background-repeat: no-repeat; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #ddd; overflow-wrap: normal; }
:is(td:first-child, td:first-child[style*="right"] + td, td:last-child):not([style*="right"]) {
  min-width: 7rem; }
[style*="right"] { font-variant-numeric: tabular-nums; }
td[style*="right"] { white-space: nowrap; }
figure { margin: 2rem 0; }
img { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: .9rem; }
@media screen and (max-width: 44rem) {  /* a phone */
  table { font-size: .8rem; }
  th, td { padding-right: .5rem; }
  td[style*="right"] { white-space: normal; }
  figure { overflow-x: auto; }
  img.large { max-width: none; width: 50rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  a { color: inherit; text-decoration: none; }
  .wide { overflow: visible; }
  table { width: 100%; font-size: 8pt; }
  figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  img { max-height: 24cm; }
}
</style>
</head>
<body>
<h1>$title</h1>
$body
</body>
</html>
""")


def show(blocks: Sequence[Block]) -> None:
    """Shows a document in the terminal."""
    for block in blocks:
        block.show()


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """Returns a document of GitHub's Markdown; pictures are links to files beside it."""
    parts = [f"# {escape_markdown(title)}", *(block.markdown() for block in blocks)]
    return "\n\n".join(parts) + "\n"


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """Returns one HTML page that holds its pictures and needs nothing else."""
    body = "\n".join(map(block_to_html, blocks))
    return _PAGE.substitute(title=html.escape(title), body=body)


def block_to_html(block: Block) -> str:
    """Returns one block of HTML; a table wider than the screen scrolls by itself."""
    if isinstance(block, Picture | Heading):
        return block.html()
    text: str = _markdown().render(block.markdown()).rstrip()
    return f'<div class="wide">{text}</div>' if isinstance(block, Table) else text


@functools.cache
def _markdown() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table")
