"""Where images stand in a gallery: a sheet filled from top to bottom, measured in inches.

Matplotlib's own layouts draw everything once to measure it, which of forty images takes longer
than all else. Here sizes are known before: of a cell, and of a line of words.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transfer.plots.fonts import PlainFigure
from transfer.plots.style import GRAY

CELL_WIDTH = 1.75  # inches
TALLEST = 1.5  # of an image's height by its width; beyond, it becomes narrower
CAPTION_WIDTH = 24  # characters in a line above a cell of one column
MAP_OPACITY = 0.6  # of a map over its image
_CAPTION_SIZE, _UNDER_SIZE, _LINE = 8, 7, 0.135  # points, points, inches
_MARGIN, _GAP = 0.12, 0.1  # inches: around the sheet, and between cells
_LABEL = 0.3  # inches left of the cells, where rows have names


@dataclass(frozen=True, eq=False)
class Cell:
    """One image of a sheet.

    Attributes:
        image: uint8 (H, W, 1 or 3), or a single map (h, w) of floats, shown on its own scale.
        caption: above it; its lines are kept, longer ones folded.
        under: below it in small letters.
        overlay: float (h, w) in [0, 1], over the image; None for none.
    """

    image: np.ndarray
    caption: str = ""
    under: str = ""
    overlay: np.ndarray | None = None


class Sheet:
    """A figure that is filled row by row.

    Args:
        title: above all.
        columns: cells in a row.
        wide: columns of the usual width that a cell takes.
        has_labels: whether rows have names, left of them.
    """

    def __init__(
        self, title: str, columns: int, *, wide: float = 1, has_labels: bool = False
    ) -> None:
        self.columns, self.wide = columns, wide
        self._left = _MARGIN + (_LABEL if has_labels else 0.0)
        self._width = self._left + columns * wide * CELL_WIDTH + _MARGIN
        self._y = 0.5
        self._texts: list[tuple[float, float, str, dict]] = [
            (self._width / 2, 0.22, title, {"size": 13, "ha": "center"})
        ]
        self._places: list[tuple[tuple[float, float, float, float], Cell]] = []

    def add_heading(self, text: str, colour: str) -> None:
        """Adds a line above the rows that follow."""
        style = {"size": 10, "weight": "bold", "color": colour, "ha": "left"}
        self._texts.append((self._left, self._y + 0.2, text, style))
        self._y += 0.3

    def add_rows(self, cells: Sequence[Cell], label: str = "") -> None:
        """Adds cells, in as many rows as they need.

        Args:
            cells: all images of one shape.
            label: what the rows are, left of them.
        """
        for start in range(0, len(cells), self.columns):
            self._add_row(cells[start : start + self.columns], label)

    def _add_row(self, cells: Sequence[Cell], label: str) -> None:
        width = CELL_WIDTH * self.wide - _GAP
        height, across = cells[0].image.shape[:2]
        tall = width * min(height / across, TALLEST)
        above = max(_count_lines(self._fold(cell.caption)) for cell in cells) * _LINE
        below = max(_count_lines(self._fold(cell.under)) for cell in cells) * _LINE
        top = self._y + above + 0.06
        for column, cell in enumerate(cells):
            x = self._left + column * CELL_WIDTH * self.wide + _GAP / 2
            self._places.append(((x, top, width, tall), cell))
        if label:
            style = {"size": 8, "ha": "center", "va": "center", "rotation": 90}
            self._texts.append((_MARGIN + 0.1, top + tall / 2, label, style))
        self._y = top + tall + below + 0.1

    def _fold(self, text: str) -> str:
        width = round(CAPTION_WIDTH * self.wide)
        return "\n".join(textwrap.fill(line, width) for line in text.splitlines())

    def draw(self) -> Figure:
        """Returns the figure."""
        height = self._y + 0.05
        figure = PlainFigure(figsize=(self._width, height))
        for x, y, text, style in self._texts:
            figure.text(x / self._width, 1 - y / height, text, **{"va": "center", **style})
        for (x, y, width, tall), cell in self._places:
            box = (x / self._width, 1 - (y + tall) / height, width / self._width, tall / height)
            axes = figure.add_axes(box)
            axes.set_axis_off()
            _draw_cell(axes, cell)
            axes.set_title(self._fold(cell.caption), fontsize=_CAPTION_SIZE, pad=3)
            if cell.under:
                self._draw_under(axes, cell.under)
        return figure

    def _draw_under(self, axes: Axes, text: str) -> None:
        style: dict[str, Any] = {"size": _UNDER_SIZE, "color": GRAY, "ha": "center", "va": "top"}
        axes.annotate(
            self._fold(text), (0.5, 0), (0, -2), "axes fraction", "offset points", **style
        )


def _count_lines(text: str) -> int:
    return text.count("\n") + 1 if text else 0


def _draw_cell(axes: Axes, cell: Cell) -> None:
    image = cell.image
    if image.ndim == 2:  # a map on a scale of its own
        axes.imshow(image, cmap="cividis", interpolation="nearest")
        return
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    if cell.overlay is not None:
        height, width = image.shape[:2]
        axes.imshow(
            cell.overlay,
            cmap="cividis",
            vmin=0,
            vmax=1,
            alpha=MAP_OPACITY,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="bilinear",
        )
