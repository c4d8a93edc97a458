"""From numbers to something to read: the last stop of the walk.

Metrics are printed, rows of our runs and of published results become one table (for a terminal
or for a page), and all of it, with the pictures of `plots.py`, becomes the folder of a report.
Nothing is computed here but the interval beside each accuracy.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from transfer.evaluation import page, published
from transfer.evaluation.calibration import apply_temperature
from transfer.evaluation.metrics import wilson_interval
from transfer.evaluation.predictions import predictions_csv
from transfer.evaluation.significance import PairedComparison
from transfer.formatting import format_percent
from transfer.runs import write_atomically

MISSING = "–"
PREDICTIONS_FILE, METRICS_FILE = "predictions.csv", "metrics.json"
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
            source=result.source_name,
            source_url=result.source_url,
            caveat=result.caveat,
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
        row.full_source,
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
    console.print(Text(" ".join(_legend(rows, "*")), style="dim"))
    if is_wide:
        notes = [f"{row.source}: {row.source_url}" for row in rows if row.is_published]
    else:
        notes = [
            f"[{number}] {source}{f': {url}' if url else ''}"
            for number, (source, url) in enumerate(_sources(rows).items(), start=1)
        ]
    for note in dict.fromkeys(notes):
        console.print(Text(note, style="dim"))


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


def _legend(rows: Sequence[TableRow], mark: str) -> list[str]:
    """Returns the sentences that a reader of the table needs."""
    sentences = ["In brackets: the 95 % Wilson interval of the accuracy."]
    if any(row.is_published for row in rows):
        sentences.append(f"{mark}: measured here, the rest is quoted.")
    return sentences + published.notes(row.full_source for row in rows if row.is_published)


def _sources(rows: Iterable[TableRow]) -> dict[str, str | None]:
    """Returns each source with its address, in the order of the table."""
    return {row.full_source: row.source_url for row in rows}


def comparison_table(rows: Sequence[TableRow]) -> page.Table:
    """Returns the comparison table; rows measured here are bold."""
    lines = []
    for row in rows:
        model, accuracy, interval, *others, source = _cells(row)
        cells = (model, f"{accuracy} {interval}", *others)
        style = "" if row.is_published else "bold"
        spans = [page.Span(cell, "" if cell == MISSING else style) for cell in cells]
        lines.append([*spans, page.Span(source, url=row.source_url or "")])
    names = ("model", "accuracy in % [95 % interval]", "loss", "optimizer", "training images")
    return page.Table((*names, "source"), (False, True, True, False, True, False), lines)


def _summary(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the numbers that come first, each with its name."""
    low, high = metrics["accuracy_interval"]
    loss, f1 = metrics["loss_interval"], metrics["f1_macro_interval"]
    return [
        ("accuracy", format_percent(metrics["accuracy"])),
        ("95 % Wilson interval", f"{100 * low:.2f} to {100 * high:.2f} %"),
        ("test images", f"{metrics['num_images']:,}"),
        ("loss (mean cross-entropy)", f"{metrics['loss']:.4f}"),
        ("95 % bootstrap interval", f"{loss[0]:.4f} to {loss[1]:.4f}"),
        ("macro precision", format_percent(metrics["precision_macro"])),
        ("macro recall", format_percent(metrics["recall_macro"])),
        ("macro F1", format_percent(metrics["f1_macro"])),
        ("95 % bootstrap interval", f"{100 * f1[0]:.2f} to {100 * f1[1]:.2f} %"),
    ]


def _without_near_duplicates(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what `measure_without_leaks` said, where it was measured."""
    without = metrics.get("without_near_duplicates")
    if without is None:
        return []
    name = "accuracy without near duplicates"
    count = without["num_near_duplicates"]
    if count == 0:
        return [(name, "the same: no test image has a near duplicate in training or validation")]
    if without["accuracy"] is None:
        return [(name, "none left: every test image has one in training or validation")]
    low, high = without["accuracy_interval"]
    return [
        (
            name,
            f"{format_percent(without['accuracy'])} [{100 * low:.2f}, {100 * high:.2f}], on the "
            f"{without['num_images']:,} test images; {count:,} others have a near duplicate in "
            "training or validation",
        )
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


def print_comparisons(comparisons: Sequence[PairedComparison], console: Console) -> None:
    """Prints a sentence for each comparison, under a title; nothing where there is none."""
    if not comparisons:
        return
    console.print()
    console.print(Text("Is the difference more than noise?", style="bold"))
    for comparison in comparisons:
        console.print(Text(comparison.sentence()))
    console.print(Text(_how_compared(comparisons), style="dim"))


def _how_compared(comparisons: Sequence[PairedComparison]) -> str:
    text = "McNemar's exact test on the same test images"
    if len(comparisons) > 1:
        text += f", p values corrected by Holm's method for {len(comparisons)} comparisons"
    return f"{text}; it compares these trained models, not what another seed would give."


def print_calibration(calibration: Mapping[str, Any], console: Console) -> None:
    """Prints what `measure_calibration` returned."""
    console.print()
    console.print(Text("Calibration", style="bold"))
    errors = [calibration[key]["expected_calibration_error"] for key in ("before", "after")]
    console.print(
        Text(
            f"expected calibration error {format_percent(errors[0])}, with temperature "
            f"{calibration['temperature']:.3f} {format_percent(errors[1])}"
        )
    )
    console.print(Text(_threshold_sentence(calibration)))


def _threshold_sentence(calibration: Mapping[str, Any]) -> str:
    target = f"{100 * calibration['target_accuracy']:g} %"
    answered = calibration["answered"]
    if answered is None:
        return f"No confidence reached {target} accuracy on the validation images."
    start = (
        f"Answering only from confidence {format_percent(calibration['threshold'])} on, which gave "
        f"at least {target} accuracy on the validation images, answers"
    )
    if answered["num_images"] == 0:
        return f"{start} none of the test images."
    low, high = answered["accuracy_interval"]
    return (
        f"{start} {format_percent(answered['share'])} of the test images; "
        f"{100 * answered['accuracy']:.2f} % [{100 * low:.2f}, {100 * high:.2f}] of them are right."
    )


def write_report(
    report_dir: Path,
    *,
    run_name: str,
    facts: Mapping[str, str],
    metrics: Mapping[str, Any],
    calibration: Mapping[str, Any],
    rows: Sequence[TableRow],
    history: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    y_true: np.ndarray,
    y_prob: np.ndarray,
    test_images: np.ndarray,
    class_counts: Mapping[str, np.ndarray],
    originals: np.ndarray,
    augmented: np.ndarray,
    comparisons: Sequence[PairedComparison] = (),
    note: str | None = None,
) -> Path:
    """Writes report.md, report.html, the pictures and the numbers, each file whole or not at all.

    Args:
        report_dir: where to write; made where it is missing, older files are replaced.
        run_name: for the heading.
        facts: for the head of the report: where data and weights came from, the command,
            versions. A value in `backticks` stays code, any other is shown as it is.
        metrics: JSON values, among them what `compute_metrics` returned for `y_true` and
            `y_prob`; all of it goes into metrics.json.
        calibration: what `measure_calibration` returned for them.
        rows: for the comparison table.
        history: for `plots.plot_history`.
        class_names: C names.
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1].
        test_images: (N, H, W, 1 or 3) uint8 in [0, 255], in the order of `y_true`.
        class_counts: split name to (C,) counts.
        originals: (K, h, w, 1 or 3) uint8 in [0, 255], a few training images.
        augmented: (K, A, H, W, 3) in [0, 255], A augmented views of each.
        comparisons: of this run with others, each a sentence.
        note: a sentence for right under the title of the comparison table.

    Returns:
        The path of report.md, which links the pictures relatively.
    """
    from transfer.evaluation import plots  # a table in the terminal needs no matplotlib

    matrix, sample = metrics["confusion_matrix"], (test_images, y_true, y_prob, class_names)
    calibrated = apply_temperature(y_prob, calibration["temperature"])
    threshold = calibration["threshold"]
    drawings = {
        "learning_curves": lambda: plots.plot_history(history),
        "confusion_matrix_counts": lambda: plots.plot_confusion_matrix(matrix, class_names),
        "confusion_matrix_shares": lambda: plots.plot_confusion_matrix(matrix, class_names, True),
        "reliability_diagram": lambda: plots.plot_reliability(y_true, y_prob, calibrated),
        "reject_curve": lambda: plots.plot_reject_curve(y_true, calibrated, threshold),
        "sample_predictions": lambda: plots.plot_sample_predictions(*sample),
        "mistakes_and_doubts": lambda: plots.plot_mistakes_and_doubts(*sample),
        "confused_pairs": lambda: plots.plot_confused_pairs(*sample),
        "class_distribution": lambda: plots.plot_class_distribution(class_counts, class_names),
        "augmentation": lambda: plots.plot_augmentation(originals, augmented),
    }
    # Drawn one after the other: an open figure takes more memory than its picture.
    pictures = [
        page.Picture(name, name.replace("_", " ").capitalize(), plots.png(draw()))
        for name, draw in drawings.items()
    ]
    sentences = [comparison.sentence() for comparison in comparisons]
    values = dict(metrics) | {"calibration": calibration, "comparisons": sentences}
    blocks = _blocks(facts, metrics, calibration, rows, comparisons, note) + pictures
    files = {f"{picture.name}.png": picture.png for picture in pictures} | {
        PREDICTIONS_FILE: predictions_csv(y_true, y_prob, class_names),
        METRICS_FILE: json.dumps(values, indent=2, ensure_ascii=False) + "\n",
        "report.html": page.to_html(f"Report: {run_name}", blocks),
        # Last, so that a report.md never links a picture that is not there.
        "report.md": page.to_markdown(f"Report: {run_name}", blocks),
    }
    report_dir = Path(report_dir)
    report_dir.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(report_dir / name, content)
    return report_dir / "report.md"


def _blocks(
    facts: Mapping[str, str],
    metrics: Mapping[str, Any],
    calibration: Mapping[str, Any],
    rows: Sequence[TableRow],
    comparisons: Sequence[PairedComparison],
    note: str | None,
) -> list[page.Block]:
    """Returns all of the report but its pictures."""
    blocks = [
        page.Bullets([(name, _fact(str(value))) for name, value in facts.items()]),
        page.Heading("Result"),
        page.Bullets(_summary(metrics) + _without_near_duplicates(metrics)),
        page.Paragraph(
            f"{PREDICTIONS_FILE} beside this page has the predictions that every number here comes "
            f"from, {METRICS_FILE} the numbers with all their digits."
        ),
        page.Heading(TABLE_TITLE),
        *([page.Paragraph(note)] if note else []),
        comparison_table(rows),
        page.Paragraph(" ".join(_legend(rows, "Bold"))),
    ]
    if comparisons:
        sentences = [("", comparison.sentence()) for comparison in comparisons]
        blocks += [
            page.Heading("Is the difference more than noise?"),
            page.Bullets(sentences),
            page.Paragraph(_how_compared(comparisons)),
        ]
    return blocks + [
        page.Heading("Per class"),
        _per_class_table(metrics["per_class"]),
        page.Heading("Most confused"),
        _confused_table(metrics["most_confused"]),
        page.Heading("Calibration"),
        *_calibration_blocks(calibration),
        page.Heading("Pictures"),
    ]


def _fact(value: str) -> page.Span:
    is_code = len(value) > 2 and value[0] == value[-1] == "`"
    return page.Span(value[1:-1], "code") if is_code else page.Span(value)


def _per_class_table(rows: Sequence[Mapping[str, Any]]) -> page.Table:
    header = ("class", "precision in %", "recall in %", "F1 in %", "test images")
    return page.Table(header, (False, *[True] * 4), [_class_cells(row) for row in rows])


def _confused_table(pairs: Sequence[Mapping[str, Any]]) -> page.Block:
    if not pairs:
        return page.Paragraph("No image was predicted wrongly.")
    header = ("true class", "predicted as", "images", "share of the true class in %")
    lines = [
        (
            pair["true"],
            pair["predicted"],
            f"{pair['count']:,}",
            f"{100 * pair['share_of_true']:.1f}",
        )
        for pair in pairs
    ]
    return page.Table(header, (False, False, True, True), lines)


def _calibration_blocks(calibration: Mapping[str, Any]) -> list[page.Block]:
    before, after = calibration["before"], calibration["after"]
    names = {
        "expected_calibration_error": ("expected calibration error", format_percent),
        "mean_confidence": ("mean confidence", format_percent),
        "loss": ("loss (mean cross-entropy)", "{:.4f}".format),
    }
    lines = [(name, show(before[key]), show(after[key])) for key, (name, show) in names.items()]
    temperature = f"with temperature {calibration['temperature']:.3f}"
    header = ("on the test images", "as the model says", temperature)
    fitted = (
        f"The temperature was fitted on the {calibration['num_validation_images']:,} validation "
        "images; it changes no prediction, only the confidence."
    )
    return [
        page.Table(header, (False, True, True), lines),
        page.Paragraph(fitted),
        page.Paragraph(_threshold_sentence(calibration)),
    ]
