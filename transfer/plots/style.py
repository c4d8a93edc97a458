"""Colours and sizes that all pictures share."""

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

# M. Okabe, K. Ito, "Color Universal Design" (2008), https://jfly.uni-koeln.de/color/
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, GRAY = "#56B4E9", "#CC79A7", "#666666"
SPLIT_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION)
LONGEST_LABEL = 32  # characters
PICTURE_DPI = 110


def png(figure: Figure) -> bytes:
    """Returns a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PICTURE_DPI)
    return buffer.getvalue()


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Returns the names with the middle left out of long ones: their ends tell them apart."""
    half = width // 2 - 1
    names = [" ".join(name.split()) for name in names]  # on one line
    return [name if len(name) <= width else f"{name[:half]}…{name[-half:]}" for name in names]
