"""Names of classes as they are, in every picture: no formula, and in a font that has them.

Matplotlib's own font has Latin, Greek, Cyrillic, Arabic and Hebrew letters. For others, as Chinese,
Japanese, Korean or emoji, the fonts of the system are looked through; where none has them, that is
said once and the picture shows boxes.
"""

import functools
import logging
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text

from transfer import console

OWN_FONT = "DejaVu Sans"  # comes with Matplotlib
MOST_FONTS = 500  # looked through; each takes a few milliseconds
MOST_NAMED = 10  # characters, in the line that says that there is no font for them

# Names of fonts that have many characters; they are looked through first.
_LARGE = re.compile(
    "CJK|Noto Sans|WenQuanYi|Droid Sans Fallback|Arial Unicode|PingFang|Hiragino|Heiti|YaHei|SimHei"
    "|SimSun|MS Gothic|Meiryo|Malgun|Nanum|Segoe UI|Symbol|FreeSans|Unifont"
)
_UPRIGHT_WEIGHTS = (400, 500, "normal", "regular", "book", "medium")  # WenQuanYi has 500 alone
_LAST_RESORT = "Last Resort"
# A font that has one weight alone is taken for every other, which need not be said.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
_told: set[str] = set()  # characters that no font has, once they were said


class PlainFigure(Figure):
    """A figure that shows every text as it is, wherever it is drawn: in a file or a notebook."""

    def draw(self, renderer: RendererBase) -> None:
        """Draws the figure, its texts in fonts that have their characters."""
        show_as_they_are(self)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # said already, and once
            super().draw(renderer)


def show_as_they_are(artist: Artist) -> None:
    """Makes the texts of a figure or of axes plain: `$...$` is no formula, and a font is found.

    Args:
        artist: a figure, or what is drawn in one.
    """
    texts = [text for text in artist.findobj(Text) if isinstance(text, Text)]
    for text in texts:
        text.set_parse_math(False)
        text.set_usetex(False)
    needed = {text: _needed(text.get_text()) for text in texts}
    families, lacking = find_fonts(frozenset[str]().union(*needed.values()))
    for text, characters in needed.items():
        if characters and families:
            text.set_fontfamily([OWN_FONT, *families])
    if new := lacking - _told:
        _told.update(new)
        named = " ".join(sorted(new)[:MOST_NAMED])
        console.say(
            f"No font here has {named}{' ...' if len(new) > MOST_NAMED else ''}: pictures show "
            "boxes in their place. Install one, such as fonts-noto-cjk of Debian and Ubuntu."
        )


def _needed(text: str) -> set[str]:
    # Characters that Matplotlib's own font has not; marks that only join others are not drawn.
    if text.isascii():
        return set()
    own = _characters(_path(OWN_FONT))
    return {
        character
        for character in text
        if ord(character) not in own
        and unicodedata.category(character) not in ("Cc", "Cf")
        and not unicodedata.name(character, "").startswith("VARIATION SELECTOR")
    }


@functools.cache
def find_fonts(characters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Returns families of the system's fonts that have these characters, and those that none has.

    Args:
        characters: to be found.
    """
    families: list[str] = []
    missing = {ord(character) for character in characters}
    for family, path in _candidates() if missing else ():
        if found := missing & _characters(path):
            families.append(family)
            missing -= found
        if not missing:
            break
    return families, frozenset(map(chr, missing))


def _candidates() -> Iterator[tuple[str, str]]:
    _add_new_fonts(font_manager.findSystemFonts())
    fonts: dict[str, str] = {}
    for entry in font_manager.fontManager.ttflist:
        if entry.name.startswith(_LAST_RESORT):
            continue  # Matplotlib's boxes
        if entry.style == "normal" and entry.weight in _UPRIGHT_WEIGHTS:
            fonts.setdefault(entry.name, entry.fname)
    ordered = sorted(fonts, key=lambda name: (not _LARGE.search(name), name))
    yield from ((name, fonts[name]) for name in ordered[:MOST_FONTS])


def _add_new_fonts(paths: Iterable[str]) -> None:
    # Matplotlib keeps a list of the fonts that were there when it was first used.
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in paths:
        if path not in known:
            try:
                font_manager.fontManager.addfont(path)
            except (OSError, RuntimeError, ValueError):
                continue  # no font that Matplotlib can read


def _path(family: str) -> str:
    return str(font_manager.findfont(family))


@functools.cache
def _characters(path: str) -> frozenset[int]:
    try:
        font: Any = font_manager.get_font(path)
    except (OSError, RuntimeError, ValueError):
        return frozenset()
    # Emoji in colour are pictures of one size, which Matplotlib cannot draw.
    return frozenset(font.get_charmap()) if font.scalable else frozenset()
