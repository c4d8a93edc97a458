"""A report as a list of blocks, written twice: as Markdown and as one self-contained HTML page.

`report.py` says what stands in a report; this module knows only how each block looks. Texts
come as they are and are escaped here, so that no name of a class or folder can break a page.
"""

import base64
import html
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

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

    def html(self) -> str:
        """Returns the span for HTML."""
        text = html.escape(self.text)
        tag = {"bold": "strong", "code": "code"}.get(self.style)
        text = f"<{tag}>{text}</{tag}>" if tag else text
        return f'<a href="{html.escape(self.url)}">{text}</a>' if self.url else text


Text = str | Span


def escape_markdown(text: str) -> str:
    """Returns the text such that Markdown shows it as it is, on one line and in one cell."""
    # Brackets are Markdown only where an address or a definition follows.
    return re.sub(r"([\\`*_|<>~&$#]|\](?=[(\[:]))", r"\\\1", " ".join(text.split()))


def _span(text: Text) -> Span:
    return text if isinstance(text, Span) else Span(text)


@dataclass(frozen=True)
class Heading:
    """The title of a section."""

    text: str

    def markdown(self) -> str:
        """Returns the block for Markdown."""
        return f"## {escape_markdown(self.text)}"

    def html(self) -> str:
        """Returns the block for HTML."""
        return f"<h2>{html.escape(self.text)}</h2>"


@dataclass(frozen=True)
class Paragraph:
    """One paragraph."""

    text: Text

    def markdown(self) -> str:
        """Returns the block for Markdown."""
        return _span(self.text).markdown()

    def html(self) -> str:
        """Returns the block for HTML."""
        return f"<p>{_span(self.text).html()}</p>"


@dataclass(frozen=True)
class Bullets:
    """A list of items, each with a name, which is "" where an item has none."""

    items: Sequence[tuple[str, Text]]

    def markdown(self) -> str:
        """Returns the block for Markdown."""
        return "\n".join(
            f"- **{escape_markdown(name)}:** {_span(text).markdown()}"
            if name
            else f"- {_span(text).markdown()}"
            for name, text in self.items
        )

    def html(self) -> str:
        """Returns the block for HTML."""
        items = [
            f"<strong>{html.escape(name)}:</strong> {_span(text).html()}"
            if name
            else _span(text).html()
            for name, text in self.items
        ]
        return "<ul>\n" + "\n".join(f"<li>{item}</li>" for item in items) + "\n</ul>"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        header: a name for each column.
        numeric: which columns hold numbers, to be set to the right.
        rows: cells of each row.
    """

    header: Sequence[str]
    numeric: Sequence[bool]
    rows: Sequence[Sequence[Text]]

    def markdown(self) -> str:
        """Returns the block for Markdown."""
        lines = [
            f"| {' | '.join(map(escape_markdown, self.header))} |",
            "|" + "|".join("--:" if is_number else ":--" for is_number in self.numeric) + "|",
        ]
        for row in self.rows:
            lines.append(f"| {' | '.join(_span(cell).markdown() for cell in row)} |")
        return "\n".join(lines)

    def html(self) -> str:
        """Returns the block for HTML; a table wider than the screen scrolls by itself."""
        rows = [self._row("th", self.header)] + [self._row("td", row) for row in self.rows]
        head, body = rows[0], "\n".join(rows[1:])
        return (
            '<div class="wide"><table>\n'
            f"<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
        )

    def _row(self, tag: str, cells: Sequence[Text]) -> str:
        classes = [' class="number"' if is_number else "" for is_number in self.numeric]
        parts = [
            f"<{tag}{name}>{_span(cell).html()}</{tag}>"
            for name, cell in zip(classes, cells, strict=True)
        ]
        return f"<tr>{''.join(parts)}</tr>"


@dataclass(frozen=True)
class Picture:
    """A picture: a file beside the Markdown, inline in the HTML.

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


@dataclass(frozen=True)
class Code:
    """Lines of Python."""

    text: str

    def markdown(self) -> str:
        """Returns the block for Markdown."""
        return f"```python\n{self.text.rstrip()}\n```"

    def html(self) -> str:
        """Returns the block for HTML."""
        return f"<pre><code>{html.escape(self.text.rstrip())}</code></pre>"


Block = Heading | Paragraph | Bullets | Table | Picture | Code

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
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #ddd; overflow-wrap: normal; }
td:first-child, td:last-child:not(.number) { min-width: 7rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
figure { margin: 2rem 0; }
img { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: .9rem; }
@media screen and (max-width: 44rem) {  /* a phone */
  table { font-size: .8rem; }
  th, td { padding-right: .5rem; }
  td.number { white-space: normal; }
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


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """Returns a document of GitHub's Markdown; pictures are links to files beside it."""
    parts = [f"# {escape_markdown(title)}", *(block.markdown() for block in blocks)]
    return "\n\n".join(parts) + "\n"


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """Returns one HTML page that holds its pictures and needs nothing else."""
    body = "\n".join(block.html() for block in blocks)
    return _PAGE.substitute(title=html.escape(title), body=body)
