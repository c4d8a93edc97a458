"""The comparison table: rows of our runs and of published results, for a terminal or for a page.

Nothing is computed here but the interval beside each accuracy.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table as RichTable
from rich.text import Text as RichText

from transfer import console
from transfer.evaluation import published
from transfer.evaluation.metrics import wilson_interval
from transfer.report.document import Span, Table, empty_table

if TYPE_CHECKING:
    from transfer.evaluation.baselines import MeasuredBaseline  # loads most of scikit-learn

MISSING = "–"
TABLE_TITLE = "Accuracy on the test images"
# Columns of a terminal. Below the narrowest, lines run over rather than lose digits; below the
# wide, intervals stand under their accuracies, sources in notes, and nobody counts ranks, for 80
# columns to be enough.
NARROWEST_TABLE, WIDE_TABLE = 70, 120


@dataclass(frozen=True)
class TableRow:
    """One line of the comparison table.

    Attributes:
        model: name of the model, with its settings where they matter.
        accuracy: share of the test images, in [0, 1].
        num_test_images: how many images it was tested on.
        loss: mean cross-entropy in nats, None where it is not known.
        optimizer: its name, None where there is none or it is not known.
        training_images: how many images it was trained on, None where it is not known.
        source: the run, or the short name of the publication.
        source_url: where the publication is; None for what was measured here.
        caveat: what a reader must know before comparing, "" where there is nothing.
    """

    model: str
    accuracy: float
    num_test_images: int
    loss: float | None
    optimizer: str | None
    training_images: int | None
    source: str
    source_url: str | None = None
    caveat: str = ""

    @property
    def full_source(self) -> str:
        """The source with its caveat."""
        return f"{self.source} ({self.caveat})" if self.caveat else self.source

    @property
    def is_published(self) -> bool:
        """Whether the number is quoted from others, not measured here."""
        return self.source_url is not None


def published_rows(
    all_baselines: bool = False, measured: Sequence["MeasuredBaseline"] = ()
) -> list[TableRow]:
    """Returns rows of the published results, and below each family what was measured of it here.

    Args:
        all_baselines: all of them, not the best of each family.
        measured: results of the paper's classifiers here.
    """
    results = published.all_results() if all_baselines else published.best_per_family()
    accuracies = {(one.family, one.settings): one.accuracy for one in published.all_results()}
    rows = []
    for family, members in itertools.groupby(results, key=lambda result: result.family):
        rows += [_published_row(result) for result in members]
        rows += [
            baseline_row(result, accuracies[result.family, result.settings])
            for result in measured
            if result.family == family
        ]
    return rows


def _published_row(result: published.PublishedResult) -> TableRow:
    return TableRow(
        model=f"{result.family} ({result.settings})" if result.settings else result.family,
        accuracy=result.accuracy,
        num_test_images=result.num_test_images,
        loss=None,
        optimizer=None,
        training_images=result.training_images,
        source=result.source_name,
        source_url=result.source_url,
        caveat=result.caveat,
    )


def baseline_row(measured: "MeasuredBaseline", published_accuracy: float | None = None) -> TableRow:
    """Returns the row of a classic classifier measured here.

    Args:
        measured: its result.
        published_accuracy: of the same classifier, in [0, 1], to say the difference; None where
            nothing is published.
    """
    source = measured.library
    if published_accuracy is not None:
        points = 100 * (measured.accuracy - published_accuracy)
        source += f"; published {100 * published_accuracy:.1f}, here {points:+.2f} points"
    return TableRow(
        model=f"{measured.family} ({measured.settings})",
        accuracy=measured.accuracy,
        num_test_images=measured.num_test_images,
        loss=None,
        optimizer=None,
        training_images=measured.training_images,
        source=source,
    )


def _cells(row: TableRow) -> tuple[str, str, str, str, str, str, str]:
    """Returns model, accuracy, interval, loss, optimizer, training images and source as text."""
    interval = wilson_interval(round(row.accuracy * row.num_test_images), row.num_test_images)
    digits = 1 if row.is_published else 2  # as many as the sources give
    low, high = (f"{100 * bound:.{digits}f}" for bound in interval)
    return (
        row.model,
        f"{100 * row.accuracy:.{digits}f}",
        f"[{low}, {high}]",
        MISSING if row.loss is None else f"{row.loss:.4f}",
        row.optimizer or MISSING,
        MISSING if row.training_images is None else f"{row.training_images:,}",
        row.full_source,
    )


@dataclass(frozen=True)
class ComparisonTable(Table):
    """The comparison table as a block: in a terminal its layout follows the width.

    Rows measured here are bold and, in a terminal, carry a `*`, which is seen without colours too.
    Text is wrapped where the console is narrow; numbers are never cut.
    """

    results: Sequence[TableRow] = ()

    def show(self) -> None:
        """Shows the table in the terminal, and below it where its sources are."""
        is_wide = console.get().width >= WIDE_TABLE
        # Without crop, a console that is narrower than the table shows all of it all the same.
        console.show(_rich_table(self.results, is_wide), crop=False)
        console.say()
        for note in dict.fromkeys(_source_notes(self.results, is_wide)):
            console.show(RichText(note, style="dim"))


def _source_notes(rows: Sequence[TableRow], is_wide: bool) -> list[str]:
    if is_wide:
        return [f"{row.source}: {row.source_url}" for row in rows if row.is_published]
    return [
        f"[{number}] {source}{f': {url}' if url else ''}"
        for number, (source, url) in enumerate(_sources(rows).items(), start=1)
    ]


def _rich_table(rows: Sequence[TableRow], is_wide: bool) -> RichTable:
    """Returns the table; where it is not wide, sources are numbers that stand for notes."""
    table = empty_table(NARROWEST_TABLE)
    if is_wide:
        table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("model", overflow="fold")
    table.add_column("accuracy %", no_wrap=True)
    table.add_column("loss", justify="right", no_wrap=True)
    table.add_column("optimizer", no_wrap=True)
    table.add_column("training\nimages", justify="right", no_wrap=True)
    table.add_column("source" if is_wide else "see", overflow="fold", no_wrap=not is_wide)
    sources, gap = list(_sources(rows)), " " if is_wide else "\n"
    for rank, row in zip(_ranks(rows), rows, strict=True):
        model, accuracy, interval, *others, source = _cells(row)
        cells = [
            *([rank] if is_wide else []),
            model if row.is_published else f"* {model}",
            f"{accuracy}{gap}{interval}",
            *others,
            source if is_wide else f"[{sources.index(source) + 1}]",
        ]
        # Text, because rich would take the brackets of the interval for its own markup.
        table.add_row(*map(RichText, cells), style="" if row.is_published else "bold green")
    return table


def _ranks(rows: Sequence[TableRow]) -> list[str]:
    # As in sports: who is as accurate as another one has the same.
    return [str(1 + sum(other.accuracy > row.accuracy for other in rows)) for row in rows]


def legend(rows: Sequence[TableRow]) -> list[str]:
    """Returns the sentences that a reader of the table needs."""
    sentences = ["The most accurate first; in brackets the 95 % interval of the accuracy."]
    if any(row.is_published for row in rows):
        sentences += [
            "Bold, in a terminal with a *: measured here; the rest is quoted: of each family of "
            "classifiers, such as SVC, its best settings in the data set's paper, and what others "
            "published."
        ]
    return sentences + published.notes(row.full_source for row in rows if row.is_published)


def _sources(rows: Iterable[TableRow]) -> dict[str, str | None]:
    """Returns each source with its address, in the order of the table."""
    return {row.full_source: row.source_url for row in rows}


def comparison_table(rows: Sequence[TableRow]) -> ComparisonTable:
    """Returns the comparison table, one row for each of `rows`, in their order."""
    lines = []
    for rank, row in zip(_ranks(rows), rows, strict=True):
        model, accuracy, interval, *others, source = _cells(row)
        cells = (rank, model, f"{accuracy} {interval}", *others)
        style = "" if row.is_published else "bold"
        spans = [Span(cell, "" if cell == MISSING else style) for cell in cells]
        lines.append([*spans, Span(source, url=row.source_url or "")])
    accuracy = "accuracy in % [95 % interval]"
    names = ("rank", "model", accuracy, "loss", "optimizer", "training images", "source")
    numeric = (True, False, True, True, False, True, False)
    return ComparisonTable(names, numeric, lines, results=rows)
