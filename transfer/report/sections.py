"""What stands in a report, section by section: from numbers to blocks of a document.

Each section is made once; `document.py` shows it in a terminal and writes it as Markdown and HTML.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from transfer.evaluation.calibration import CALIBRATED, LEAST_IMAGES
from transfer.evaluation.significance import PairedComparison, Repeats
from transfer.formatting import format_percent
from transfer.report.document import Block, Bullets, Heading, Paragraph, Span, Table, Text
from transfer.report.table import MISSING, TABLE_TITLE, TableRow, comparison_table, legend

REPEATS_TITLE = "The same with other seeds"
PREDICTIONS_FILE, METRICS_FILE = "predictions.csv", "metrics.json"
MOST_CLASSES_SHOWN = 20  # in a terminal
MOST_PAIRS_SHOWN = 5


def result_section(metrics: Mapping[str, Any]) -> list[Block]:
    """Returns the numbers that come first.

    Args:
        metrics: as `compute_metrics` returned them, perhaps with `without_near_duplicates`.
    """
    return [Heading("Result"), Bullets(_summary(metrics) + _without_near_duplicates(metrics))]


def _summary(metrics: Mapping[str, Any]) -> list[tuple[str, Text]]:
    low, high = metrics["accuracy_interval"]
    loss, f1 = metrics["loss_interval"], metrics["f1_macro_interval"]
    return [
        ("accuracy", Span(format_percent(metrics["accuracy"]), "bold")),
        ("95 % interval of the accuracy", f"{100 * low:.2f} to {100 * high:.2f} %"),
        ("test images", f"{metrics['num_images']:,}"),
        ("loss (mean cross-entropy)", f"{metrics['loss']:.4f}"),
        ("95 % interval of the loss", f"{loss[0]:.4f} to {loss[1]:.4f}"),
        ("macro precision", format_percent(metrics["precision_macro"])),
        ("macro recall", format_percent(metrics["recall_macro"])),
        ("macro F1", format_percent(metrics["f1_macro"])),
        ("95 % interval of macro F1", f"{100 * f1[0]:.2f} to {100 * f1[1]:.2f} %"),
    ]


def _without_near_duplicates(metrics: Mapping[str, Any]) -> list[tuple[str, Text]]:
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


def files_section() -> list[Block]:
    """Returns what the files beside the page are."""
    return [
        Paragraph(
            f"{PREDICTIONS_FILE} beside this page has the predictions that every number here comes "
            f"from: confidence is what the model says, {CALIBRATED} the same with the temperature. "
            f"{METRICS_FILE} has the numbers with all their digits."
        )
    ]


def table_section(rows: Sequence[TableRow], note: str | None = None) -> list[Block]:
    """Returns the comparison table with what its reader must know.

    Args:
        rows: what to compare.
        note: a sentence for right under the title, for example on which images were tested.
    """
    return [
        Heading(TABLE_TITLE),
        *([Paragraph(note)] if note else []),
        comparison_table(rows),
        Paragraph(" ".join(legend(rows)), is_aside=True),
    ]


def repeats_section(repeats: Sequence[Repeats]) -> list[Block]:
    """Returns a sentence for each group of runs that differ in their seed alone."""
    if not repeats:
        return []
    return [Heading(REPEATS_TITLE), Bullets([("", group.sentence()) for group in repeats])]


def comparisons_section(comparisons: Sequence[PairedComparison]) -> list[Block]:
    """Returns a sentence for each comparison; nothing where there is none."""
    if not comparisons:
        return []
    return [
        Heading("Is the difference more than noise?"),
        Bullets([("", comparison.sentence()) for comparison in comparisons]),
        Paragraph(_how_compared(comparisons), is_aside=True),
    ]


def _how_compared(comparisons: Sequence[PairedComparison]) -> str:
    text = "McNemar's exact test on the same test images"
    if len(comparisons) > 1:
        text += f", p values corrected by Holm's method for {len(comparisons)} comparisons"
    return f"{text}; it compares these trained models, not what another seed would give."


def classes_section(metrics: Mapping[str, Any]) -> list[Block]:
    """Returns precision, recall and F1 of each class.

    Of more than 20 classes a terminal shows the 20 with the lowest F1, and says so.
    """
    header = ("class", "precision in %", "recall in %", "F1 in %", "test images")
    rows, shown = metrics["per_class"], None
    if len(rows) > MOST_CLASSES_SHOWN:
        # Classes without test images have no F1 to be low.
        rows = sorted(rows, key=lambda row: row["f1"] if row["support"] else 2.0)
        shown = MOST_CLASSES_SHOWN
    left_out = f"the {MOST_CLASSES_SHOWN} lowest F1 of {len(rows)} classes"
    cells = [_class_cells(row) for row in rows]
    return [Heading("Per class"), Table(header, (False, *[True] * 4), cells, shown, left_out)]


def _class_cells(row: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Returns a class's name, precision, recall, F1 (in %) and number of test images as text."""
    precision, recall, f1 = (f"{100 * row[key]:.2f}" for key in ("precision", "recall", "f1"))
    if row["support"] == 0:  # nothing was measured, and 0.00 would look as if it was
        precision = recall = f1 = MISSING
    return row["class_name"], precision, recall, f1, f"{row['support']:,}"


def confused_section(metrics: Mapping[str, Any]) -> list[Block]:
    """Returns which classes were most often taken for which."""
    pairs = metrics["most_confused"]
    if not pairs:
        return [Heading("Most confused"), Paragraph("No image was predicted wrongly.")]
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
    left_out = f"the first {MOST_PAIRS_SHOWN} of {len(lines)} pairs; the report has the others"
    table = Table(header, (False, False, True, True), lines, MOST_PAIRS_SHOWN, left_out)
    return [Heading("Most confused"), table]


def calibration_section(calibration: Mapping[str, Any]) -> list[Block]:
    """Returns what `measure_calibration` returned, in words."""
    before, after = calibration["before"], calibration["after"]
    names = {
        "expected_calibration_error": ("expected calibration error", format_percent),
        "mean_confidence": ("mean confidence", format_percent),
        "loss": ("loss (mean cross-entropy)", "{:.4f}".format),
    }
    lines = [
        (name, *(show(values[key]) for values in (before, after) if values))
        for key, (name, show) in names.items()
    ]
    header = ["on the test images", "as the model says"]
    header += [f"with temperature {calibration['temperature']:.3f}"] if after else []
    sentences = calibration_sentences(calibration)
    return [
        Heading("Calibration"),
        Table(header, [False, True, True][: len(header)], lines),
        *map(Paragraph, sentences),
    ]


def calibration_sentences(calibration: Mapping[str, Any]) -> list[str]:
    """Returns what was fitted on the validation images and what comes of it, in sentences."""
    count = calibration["num_validation_images"]
    if calibration["temperature"] is None:
        return [
            f"No temperature and no threshold were fitted: {count:,} validation images are too few "
            f"for them, at least {LEAST_IMAGES} are needed."
        ]
    return [
        f"The temperature was fitted on the {count:,} validation images; it changes no prediction, "
        "only the confidence.",
        _threshold_sentence(calibration),
    ]


def _threshold_sentence(calibration: Mapping[str, Any]) -> str:
    target = f"{100 * calibration['target_accuracy']:g} %"
    answered = calibration["answered"]
    if answered is None:
        return f"No calibrated confidence reached {target} accuracy on the validation images."
    threshold = format_percent(calibration["threshold"])
    start = (
        f"Answering only from a calibrated confidence of {threshold} on (the confidence with the "
        f"temperature, {CALIBRATED} in {PREDICTIONS_FILE}), which gave at least {target} accuracy "
        "on the validation images, answers"
    )
    if answered["num_images"] == 0:
        return f"{start} none of the test images."
    low, high = answered["accuracy_interval"]
    return (
        f"{start} {format_percent(answered['share'])} of the test images; "
        f"{100 * answered['accuracy']:.2f} % [{100 * low:.2f}, {100 * high:.2f}] of them are right."
    )
