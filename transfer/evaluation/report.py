"""From numbers to something to read: the last stop of the walk.

Metrics are printed, and all of it, with the table of `table.py` and the pictures of `plots.py` and
`galleries.py`, becomes the folder of a report.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

from transfer.evaluation import page
from transfer.evaluation.calibration import apply_temperature
from transfer.evaluation.predictions import predictions_csv
from transfer.evaluation.significance import PairedComparison, Repeats
from transfer.evaluation.table import (
    MISSING,
    TABLE_TITLE,
    TableRow,
    comparison_table,
    empty_table,
    legend,
)
from transfer.formatting import format_percent
from transfer.runs import write_atomically

if TYPE_CHECKING:
    from transfer.evaluation.explain import Explanations

REPEATS_TITLE = "The same with other seeds"
PREDICTIONS_FILE, METRICS_FILE = "predictions.csv", "metrics.json"
NARROWEST_CLASS_TABLE = 50  # columns of a terminal; below, lines run over rather than lose digits
MOST_CLASSES_PRINTED = 20
MOST_PAIRS_PRINTED = 5


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
    table = empty_table(console.width, NARROWEST_CLASS_TABLE)
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


def print_repeats(repeats: Sequence[Repeats], console: Console) -> None:
    """Prints a line for each group of runs that differ in their seed alone, under a title."""
    if not repeats:
        return
    console.print()
    console.print(Text(REPEATS_TITLE, style="bold"))
    for group in repeats:
        console.print(Text(group.sentence()))


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
    explanations: "Explanations",
    comparisons: Sequence[PairedComparison] = (),
    repeats: Sequence[Repeats] = (),
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
        explanations: of a few test images.
        comparisons: of this run with others, each a sentence.
        repeats: runs that differ in their seed alone, each group a sentence.
        note: a sentence for right under the title of the comparison table.

    Returns:
        The path of report.md, which links the pictures relatively.
    """
    from transfer.evaluation import galleries, plots  # a terminal needs no matplotlib

    matrix, sample = metrics["confusion_matrix"], (test_images, y_true, y_prob, class_names)
    calibrated = apply_temperature(y_prob, calibration["temperature"])
    threshold = calibration["threshold"]
    drawings = {
        "learning_curves": lambda: plots.plot_history(history),
        "confusion_matrix_counts": lambda: plots.plot_confusion_matrix(matrix, class_names),
        "confusion_matrix_shares": lambda: plots.plot_confusion_matrix(matrix, class_names, True),
        "reliability_diagram": lambda: plots.plot_reliability(y_true, y_prob, calibrated),
        "reject_curve": lambda: plots.plot_reject_curve(y_true, calibrated, threshold),
        "sample_predictions": lambda: galleries.plot_sample_predictions(*sample),
        "mistakes_and_doubts": lambda: galleries.plot_mistakes_and_doubts(*sample),
        "confused_pairs": lambda: galleries.plot_confused_pairs(*sample),
        "explanations": lambda: galleries.plot_explanations(*sample, explanations),
        "feature_maps": lambda: galleries.plot_feature_maps(
            test_images[explanations.example], explanations.feature_maps
        ),
        "class_distribution": lambda: plots.plot_class_distribution(class_counts, class_names),
        "augmentation": lambda: galleries.plot_augmentation(originals, augmented),
    }
    # Drawn one after the other: an open figure takes more memory than its picture.
    pictures = [
        page.Picture(name, name.replace("_", " ").capitalize(), plots.png(draw()))
        for name, draw in drawings.items()
    ]
    sentences = [comparison.sentence() for comparison in comparisons]
    values = dict(metrics) | {"calibration": calibration, "comparisons": sentences}
    values["repeats"] = [dataclasses.asdict(group) for group in repeats]
    blocks = _blocks(facts, metrics, calibration, rows, comparisons, repeats, note) + pictures
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
    repeats: Sequence[Repeats],
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
        page.Paragraph(" ".join(legend(rows, "Bold"))),
    ]
    if repeats:
        sentences = [("", group.sentence()) for group in repeats]
        blocks += [page.Heading(REPEATS_TITLE), page.Bullets(sentences)]
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
