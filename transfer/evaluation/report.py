"""From numbers to something to read: the last stop of the walk.

Metrics are printed, rows of our runs and of published results become one table (for a terminal
or for Markdown), and all of it, with the pictures of `plots.py`, becomes the folder of a
report. Nothing is computed here but the interval beside each accuracy.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from transfer.evaluation import published
from transfer.evaluation.metrics import wilson_interval
from transfer.formatting import format_percent
from transfer.runs import write_atomically

MISSING = "–"
TABLE_TITLE = "Accuracy on the test images"
# Columns of a terminal. Below the narrowest, lines run over rather than lose digits; below the
# wide, intervals stand under their accuracies and sources in notes, for 80 columns to be enough.
NARROWEST_TABLE, NARROWEST_CLASS_TABLE, WIDE_TABLE = 72, 50, 120
MOST_CLASSES_PRINTED = 20
MOST_PAIRS_PRINTED = 5


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
    """

    model: str
    accuracy: float
    num_test_images: int
    loss: float | None
    optimizer: str | None
    training_images: int | None
    source: str
    source_url: str | None = None

    @property
    def is_published(self) -> bool:
        """Whether the number is quoted from others, not measured here."""
        return self.source_url is not None


def published_rows(all_baselines: bool = False) -> list[TableRow]:
    """Returns rows of the published results: the best of each family, or all of them."""
    results = published.all_results() if all_baselines else published.best_per_family()
    return [
        TableRow(
            model=f"{result.family} ({result.settings})" if result.settings else result.family,
            accuracy=result.accuracy,
            num_test_images=result.num_test_images,
            loss=None,
            optimizer=None,
            training_images=result.training_images,
            source=result.source_name + (f" ({result.caveat})" if result.caveat else ""),
            source_url=result.source_url,
        )
        for result in results
    ]


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
        row.source,
    )


def print_table(rows: Sequence[TableRow], console: Console, note: str | None = None) -> None:
    """Prints the comparison table, one row for each of `rows`, in their order.

    Rows measured here are bold and carry a `*`, which is seen without colours too. Text is
    wrapped where the console is narrow; numbers are never cut.

    Args:
        rows: what to compare.
        console: where to print; its width decides the layout.
        note: a sentence for right under the title, for example on which images were tested.
    """
    is_wide = console.width >= WIDE_TABLE
    console.print(Text(TABLE_TITLE, style="bold"))
    if note:
        console.print(Text(note, style="yellow"))
    # Without crop, a console that is narrower than the table shows all of it all the same.
    console.print(_rich_table(rows, is_wide, console.width), crop=False)
    console.print()
    console.print(Text(_legend(rows, "*"), style="dim"))
    for number, (source, url) in enumerate(_sources(rows).items(), start=1):
        if url or not is_wide:
            prefix = "" if is_wide else f"[{number}] "
            console.print(Text(f"{prefix}{source}{f': {url}' if url else ''}", style="dim"))


def _rich_table(rows: Sequence[TableRow], is_wide: bool, console_width: int) -> Table:
    """Returns the table; where it is not wide, sources are numbers that stand for notes."""
    table = _empty_table(console_width, NARROWEST_TABLE)
    table.add_column("model", overflow="fold")
    table.add_column("accuracy %", no_wrap=True)
    table.add_column("loss", justify="right", no_wrap=True)
    table.add_column("optimizer", no_wrap=True)
    table.add_column("training\nimages", justify="right", no_wrap=True)
    table.add_column("source", overflow="fold")
    sources, gap = list(_sources(rows)), " " if is_wide else "\n"
    for i, row in enumerate(rows):
        if i > 0 and row.is_published != rows[i - 1].is_published:
            table.add_section()
        model, accuracy, interval, *others, source = _cells(row)
        cells = [
            model if row.is_published else f"* {model}",
            f"{accuracy}{gap}{interval}",
            *others,
            source if is_wide else f"[{sources.index(source) + 1}]",
        ]
        # Text, because rich would take the brackets of the interval for its own markup.
        table.add_row(*map(Text, cells), style="" if row.is_published else "bold green")
    return table


def _empty_table(console_width: int, narrowest: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    if console_width < narrowest:
        table.width = narrowest
    return table


def _legend(rows: Iterable[TableRow], mark: str) -> str:
    quoted = any(row.is_published for row in rows)
    brackets = "In brackets: the 95 % Wilson interval of the accuracy."
    return f"{brackets} {mark}: measured here, the rest is quoted." if quoted else brackets


def _sources(rows: Iterable[TableRow]) -> dict[str, str | None]:
    """Returns each source with its address, in the order of the table."""
    return {row.source: row.source_url for row in rows}


def table_markdown(rows: Sequence[TableRow]) -> str:
    """Returns the comparison table in Markdown; rows measured here are bold."""
    lines = [
        "| model | accuracy in % [95 % interval] | loss | optimizer | training images | source |",
        "|:--|:--|--:|:--|--:|:--|",
    ]
    for row in rows:
        model, accuracy, interval, loss, optimizer, training_images, source = _cells(row)
        cells = [_escaped(model), f"{accuracy} {interval}", loss, _escaped(optimizer)]
        cells.append(training_images)
        source = _escaped(source)
        if row.is_published:
            source = f"[{source}]({row.source_url})"
        else:
            cells = [cell if cell == MISSING else f"**{cell}**" for cell in cells]
        lines.append(f"| {' | '.join([*cells, source])} |")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Returns the text such that Markdown shows it as it is, on one line and in one cell."""
    return re.sub(r"([\\`*_|<>\[\]#~&$])", r"\\\1", " ".join(str(text).split()))


def _summary(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the numbers that come first, each with its name."""
    low, high = metrics["accuracy_interval"]
    return [
        ("accuracy", format_percent(metrics["accuracy"])),
        ("95 % Wilson interval", f"{100 * low:.2f} to {100 * high:.2f} %"),
        ("test images", f"{metrics['num_images']:,}"),
        ("loss (mean cross-entropy)", f"{metrics['loss']:.4f}"),
        ("macro precision", format_percent(metrics["precision_macro"])),
        ("macro recall", format_percent(metrics["recall_macro"])),
        ("macro F1", format_percent(metrics["f1_macro"])),
    ]


def _class_cells(row: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Returns a class's name, precision, recall, F1 (in %) and number of test images as text."""
    shares = [f"{100 * row[key]:.2f}" for key in ("precision", "recall", "f1")]
    if row["support"] == 0:  # nothing was measured, and 0.00 would look as if it was
        shares = [MISSING] * 3
    return (row["class_name"], *shares, f"{row['support']:,}")


def _confused_text(pair: Mapping[str, Any]) -> str:
    share = 100 * pair["share_of_true"]
    return f"{pair['true']} taken for {pair['predicted']}: {pair['count']:,} ({share:.1f} %)"


def print_metrics(metrics: Mapping[str, Any], console: Console) -> None:
    """Prints what `compute_metrics` returned: the summary, the classes, the confused pairs.

    Of more than 20 classes, the 20 with the lowest F1 are shown, and a line says so.
    """
    for name, value in _summary(metrics):
        console.print(Text(f"{name:<26}{value}", style="bold" if name == "accuracy" else ""))
    rows, title = metrics["per_class"], "Per class (%)"
    if len(rows) > MOST_CLASSES_PRINTED:
        tested = [row for row in rows if row["support"] > 0]
        title = f"Per class (%): the {MOST_CLASSES_PRINTED} lowest F1 of {len(rows)} classes"
        rows = sorted(tested, key=lambda row: row["f1"])[:MOST_CLASSES_PRINTED]
    table = _empty_table(console.width, NARROWEST_CLASS_TABLE)
    table.add_column("class", overflow="fold")
    for name in ("precision", "recall", "F1", "images"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, _class_cells(row)))
    console.print()
    console.print(Text(title, style="bold"))
    console.print(table, crop=False)
    console.print()
    if metrics["most_confused"]:
        console.print(Text("Most confused (share of the true class)", style="bold"))
    for pair in metrics["most_confused"][:MOST_PAIRS_PRINTED]:
        console.print(Text(_confused_text(pair)))


def write_report(
    report_dir: Path,
    *,
    run_name: str,
    facts: Mapping[str, str],
    metrics: Mapping[str, Any],
    rows: Sequence[TableRow],
    history: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    y_true: np.ndarray,
    y_prob: np.ndarray,
    test_images: np.ndarray,
    class_counts: Mapping[str, np.ndarray],
    originals: np.ndarray,
    augmented: np.ndarray,
    note: str | None = None,
) -> Path:
    """Writes report.md and its pictures, each file whole or not at all.

    Args:
        report_dir: where to write; made where it is missing, older files are replaced.
        run_name: for the heading.
        facts: for the head of the report: where data and weights came from, the command,
            versions. A value in `backticks` stays code, any other is shown as it is.
        metrics: what `compute_metrics` returned for `y_true` and `y_prob`.
        rows: for the comparison table.
        history: for `plots.plot_history`.
        class_names: C names.
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1].
        test_images: (N, H, W, 1 or 3) uint8 in [0, 255], in the order of `y_true`.
        class_counts: split name to (C,) counts.
        originals: (K, h, w, 1 or 3) uint8 in [0, 255], a few training images.
        augmented: (K, A, H, W, 3) in [0, 255], A augmented views of each.
        note: a sentence for right under the title of the comparison table.

    Returns:
        The path of report.md, which links the pictures relatively.
    """
    from transfer.evaluation import plots  # a table in the terminal needs no matplotlib

    counts = metrics["confusion_matrix"]
    pictures = {
        "learning_curves": lambda: plots.plot_history(history),
        "confusion_matrix_counts": lambda: plots.plot_confusion_matrix(counts, class_names),
        "confusion_matrix_shares": lambda: plots.plot_confusion_matrix(
            counts, class_names, normalize=True
        ),
        "sample_predictions": lambda: plots.plot_sample_predictions(
            test_images, y_true, y_prob, class_names
        ),
        "class_distribution": lambda: plots.plot_class_distribution(class_counts, class_names),
        "augmentation": lambda: plots.plot_augmentation(originals, augmented),
    }
    report_dir = Path(report_dir)
    report_dir.mkdir(parents=True, exist_ok=True)
    for name, draw in pictures.items():
        write_atomically(report_dir / f"{name}.png", plots.png(draw()))
    path = report_dir / "report.md"
    # Last, so that a report.md never links a picture that is not there.
    write_atomically(path, _report_markdown(run_name, facts, metrics, rows, note, pictures))
    return path


def _report_markdown(
    run_name: str,
    facts: Mapping[str, str],
    metrics: Mapping[str, Any],
    rows: Sequence[TableRow],
    note: str | None,
    picture_names: Iterable[str],
) -> str:
    sections = [
        f"# Report: {_escaped(run_name)}",
        _bullets((name, _fact(str(value))) for name, value in facts.items()),
        "## Result",
        _bullets(_summary(metrics)),
        f"## {TABLE_TITLE}",
        _escaped(note) if note else "",
        table_markdown(rows),
        _legend(rows, "Bold"),
        "## Per class",
        _per_class_markdown(metrics["per_class"]),
        "## Most confused",
        _confused_markdown(metrics["most_confused"]),
        "## Pictures",
        *(f"![{name.replace('_', ' ').capitalize()}]({name}.png)" for name in picture_names),
    ]
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


def _bullets(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- **{_escaped(name)}:** {value}" for name, value in pairs)


def _fact(value: str) -> str:
    is_code = len(value) > 2 and value[0] == value[-1] == "`" and "`" not in value[1:-1]
    return value if is_code else _escaped(value)


def _per_class_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| class | precision in % | recall in % | F1 in % | test images |",
        "|:--|--:|--:|--:|--:|",
        *(f"| {' | '.join(map(_escaped, _class_cells(row)))} |" for row in rows),
    ]
    return "\n".join(lines)


def _confused_markdown(pairs: Sequence[Mapping[str, Any]]) -> str:
    if not pairs:
        return "No image was predicted wrongly."
    lines = [
        "| true class | predicted as | images | share of the true class in % |",
        "|:--|:--|--:|--:|",
    ]
    for pair in pairs:
        cells = (pair["true"], pair["predicted"], f"{pair['count']:,}")
        share = f"{100 * pair['share_of_true']:.1f}"
        lines.append(f"| {' | '.join([*map(_escaped, cells), share])} |")
    return "\n".join(lines)
