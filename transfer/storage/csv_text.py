"""Tables as CSV that a spreadsheet takes for what it is: no cell of it is a formula.

A class, a file or a worker may be called `=HYPERLINK(...)`; spreadsheets compute a text that begins
with one of a few characters. Such a cell gets an apostrophe in front, as OWASP advises
(https://owasp.org/www-community/attacks/CSV_Injection); numbers stay numbers.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

# A text that has apostrophes before such a character gets one more, so that taking one away gives
# back every text. The wide ones are formulas in East Asian versions.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a table as CSV, with line feeds.

    Args:
        columns: name of each.
        rows: their cells: texts, numbers, None for an empty one.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([plain_cell(cell) for cell in row] for row in (columns, *rows))
    return text.getvalue()


def plain_cell(cell: Any) -> Any:
    """Returns a cell that no spreadsheet computes; numbers and most texts as they are."""
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def original_cell(cell: str) -> str:
    """Returns the text that `plain_cell` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
