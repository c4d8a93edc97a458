"""What the learning-rate finder found, as a plot and a table in a folder of its own."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from transfer.plots.charts import plot_learning_rates
from transfer.plots.style import png
from transfer.runs.folder import create_run
from transfer.storage.atomic import write_atomically
from transfer.training.learning_rates import RateTest

PLOT, TABLE = "learning_rates.png", "learning_rates.csv"


def write_learning_rates(tests: Sequence[RateTest], folder: Path | None = None) -> Path:
    """Keeps a plot of the tests and their numbers, and returns the folder.

    Args:
        tests: of the phases.
        folder: to make, or None for `runs/<time>-learning-rates`.

    Raises:
        InputError: it exists already.
        OSError: it cannot be written.
    """
    folder = create_run("learning-rates", folder)
    write_atomically(folder / TABLE, _table(tests))
    write_atomically(folder / PLOT, png(plot_learning_rates(tests)))
    return folder


def _table(tests: Sequence[RateTest]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["phase", "learning_rate", "loss", "smoothed_loss"])
    for test in tests:
        for row in zip(
            *(each.tolist() for each in (test.rates, test.losses, test.smoothed)), strict=True
        ):
            rows.writerow([test.phase, *(f"{number:.6g}" for number in row)])
    return text.getvalue()
