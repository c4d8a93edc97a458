"""Blocks of a page: any text comes out as it went in, in Markdown and in HTML."""

import html
import re
from html.parser import HTMLParser

from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from transfer.plots import style
from transfer.report import document

NASTY = "<script>alert('x')</script> & $title `a` |b| [c](d) *e* _f_"


class Words(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words += data


@settings(max_examples=40, deadline=None)
@example("-")
@example("12) b")
@example("- - -")
@given(st.text(max_size=40))
def test_any_text_survives_html_as_text(text):
    read = Words(document.to_html("title", [document.Paragraph(text)]).split("</h1>")[1])
    assert set(read.tags) <= {"p"}
    # White space of any kind is one blank in Markdown and in HTML.
    assert read.words.split() == text.replace("\0", "\ufffd").split()


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_any_text_stays_in_its_cell_and_on_its_line(text):
    assert len(document.Bullets([(text, document.Span(text, "code"))]).markdown().splitlines()) == 1
    block = document.Table(
        ("a", "b"), (False, True), [(text, "1"), (document.Span(text, "bold"), "2")]
    )
    lines = block.markdown().splitlines()
    assert len(lines) == 4
    for line, number in zip(lines[2:], "12", strict=True):
        cells = re.split(r"(?<!\\)(?:\\\\)*\|", line)
        assert len(cells) == 4 and cells[2].strip() == number


def test_nothing_a_user_names_becomes_a_tag_or_a_template_word():
    blocks = [
        document.Heading(NASTY),
        document.Paragraph(NASTY),
        document.Bullets([(NASTY, NASTY), ("", document.Span(NASTY, "bold"))]),
        document.Table((NASTY,), (False,), [(document.Span(NASTY, url='https://x/"><script>'),)]),
        document.Picture("name", NASTY, b"png"),
        document.Code(NASTY),
    ]
    text = document.to_html(NASTY, blocks)
    assert "<script" not in text
    # Six blocks, twice more in the bullets, once more in the picture; the title apart.
    assert Words(text.split("</h1>")[1]).words.count(NASTY) == 6 + 2
    assert text.count(html.escape(NASTY)) >= 2 + 2  # the title twice, the picture twice
    assert Words(text).tags.count("a") == 1


def test_what_is_markdown_elsewhere_is_text_here():
    assert document.escape_markdown("a_b|c *d*\n<e> [f](g)") == r"a\_b\|c \*d\* \<e\> [f\](g)"
    assert document.escape_markdown("94.55 [94.09, 94.98]") == "94.55 [94.09, 94.98]"


def test_markdown_of_each_block():
    picture = document.Picture("curves", "The curves", b"")
    blocks = [
        document.Heading("Part"),
        document.Bullets([("name", document.Span("x y", "code")), ("", "plain")]),
        document.Table(
            ("a", "b"), (False, True), [(document.Span("c", "bold"), document.Span("d", url="u"))]
        ),
        picture,
        document.Code("x = 1\n"),
    ]
    assert document.to_markdown("Title", blocks) == (
        "# Title\n\n## Part\n\n- **name:** `x y`\n- plain\n\n"
        "| a | b |\n|:--|--:|\n| **c** | [d](u) |\n\n![The curves](curves.png)\n\n"
        "```python\nx = 1\n```\n"
    )
    assert '<img alt="The curves" src="data:image/png;base64,"' in picture.html()


def test_a_picture_with_small_words_scrolls_on_a_phone():
    def tag(width):
        return document.Picture("name", "Some", style.png(Figure(figsize=(width, 1)))).html()

    assert '<img class="large" alt="Some"' in tag(12) and '<img alt="Some"' in tag(8)
