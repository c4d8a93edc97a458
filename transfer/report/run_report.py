"""From finished runs to what `transfer evaluate` prints and writes: this file joins the others.

Runs on the same test images, their ensembles and the published results become the rows of one
table; all of it becomes the run's report.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer import console
from transfer.auditing.leaks import find_leaked_images, measure_without_leaks
from transfer.config import Config
from transfer.data.fashion_mnist import FASHION_MNIST, NUM_TEST_IMAGES
from transfer.evaluation.answering import keep_calibration
from transfer.evaluation.calibration import measure_calibration
from transfer.evaluation.comparison import (
    compare_runs,
    evaluate_others,
    group_repeats,
    model_name,
)
from transfer.evaluation.evaluated import EvaluatedRun, is_comparable, to_json
from transfer.evaluation.metrics import wilson_interval
from transfer.evaluation.predictions import predictions_csv
from transfer.evaluation.significance import PairedComparison, Repeats
from transfer.formatting import format_percent, format_seconds
from transfer.report import document, sections
from transfer.report.answers import answers_section, glossary_section
from transfer.report.card import model_card
from transfer.report.document import Block, Bullets, Contents, Heading, Paragraph, Picture
from transfer.report.none_of_these import measure_none_of_these, none_of_these_section
from transfer.report.pictures import draw_pictures
from transfer.report.table import TableRow, baseline_row, published_rows
from transfer.report.tensorboard import log_pictures
from transfer.runs import files
from transfer.runs.finished import FinishedRun
from transfer.runs.folder import check_own_folder
from transfer.storage.atomic import write_atomically

if TYPE_CHECKING:
    from transfer.evaluation.baselines import MeasuredBaseline

OTHER_IMAGES = "Not all of our rows were tested on the same images."
REPORT_FILE = "report.md"


@dataclass(frozen=True)
class Reported:
    """All that a report says of a run but its pictures.

    Attributes:
        evaluated: the run, no ensemble.
        calibration: what `measure_calibration` said of its test images.
        none_of_these: what `measure_none_of_these` said of images of other kinds.
        rows: of the comparison table.
        note: what a reader of the table must know, None for nothing.
        repeats: runs that differ in their seed alone.
        comparisons: of this run with others.
        measured: classic classifiers on the run's images.
    """

    evaluated: EvaluatedRun
    calibration: dict[str, Any]
    none_of_these: dict[str, Any]
    rows: Sequence[TableRow]
    note: str | None = None
    repeats: Sequence[Repeats] = ()
    comparisons: Sequence[PairedComparison] = ()
    measured: Sequence["MeasuredBaseline"] = ()

    def comparison_blocks(self) -> list[Block]:
        """Returns the run beside others: calibration apart, all that a terminal shows of it."""
        return [
            *sections.table_section(self.rows, self.note),
            *sections.repeats_section(self.repeats),
            *sections.comparisons_section(self.comparisons),
        ]


def print_run(evaluated: EvaluatedRun) -> None:
    """Shows where a run's data and weights came from, and its metrics."""
    facts = evaluated.facts
    where = {
        "Run": str(evaluated.run_dir),
        "Data": facts.data.provenance,
        "Weights": facts.weights.provenance if console.is_verbose() else facts.weights.short,
    }
    for name, text in where.items():
        console.say(f"{name}: {text}")
    metrics = evaluated.metrics
    blocks = sections.result_section(metrics) + sections.classes_section(metrics)
    document.show(blocks + sections.confused_section(metrics))


def print_side_by_side(compared: Sequence[EvaluatedRun], *, against_first: bool = False) -> None:
    """Shows a row for each run, without published ones, and whether they differ.

    Args:
        compared: the runs, and what was made of them.
        against_first: compare the first with each other one, not every two.
    """
    same = all(is_comparable(compared[0], run) for run in compared)
    rows = _ranked([table_row(run) for run in compared])
    document.show(
        [
            *sections.table_section(rows, None if same else OTHER_IMAGES),
            *sections.repeats_section(group_repeats(compared)),
            *sections.comparisons_section(compare_runs(compared, against_first=against_first)),
        ]
    )


def report_runs(
    evaluated: Sequence[EvaluatedRun],
    combined: Sequence[EvaluatedRun],
    *,
    all_baselines: bool,
    measure_baselines: bool = False,
    against_first: bool = True,
) -> Path:
    """Shows and writes the report of the first run beside all others and published results.

    Args:
        evaluated: the runs.
        combined: what `evaluate_combinations` made of them.
        all_baselines: all published results, not the best of each family.
        measure_baselines: measure some of the published classifiers on the first run's images.
        against_first: compare the first run with each other one, not every two of those named.

    Returns:
        The path of report.md.

    Raises:
        InputError: the data or the model of the first run cannot be used.
    """
    first = evaluated[0]
    calibration = calibrate_run(first)
    compared = [*evaluated, *combined, *evaluate_others(evaluated)]
    measured = _measure_baselines(first) if measure_baselines else []
    reported = Reported(
        first,
        calibration,
        measure_none_of_these(first),
        table_rows(compared, measured, all_baselines=all_baselines),
        table_note(compared),
        group_repeats(compared),
        _compare(compared, [*evaluated, *combined], against_first),
        measured,
    )
    document.show(
        [
            *sections.calibration_section(calibration),
            *none_of_these_section(reported.none_of_these),
            *reported.comparison_blocks(),
            *answers_section(first, calibration),
        ]
    )
    console.say()
    path = write_report(reported)
    for written in (path, path.with_suffix(".html")):
        console.say(f"Report: {written}")
    return path


def _compare(
    compared: Sequence[EvaluatedRun], named: Sequence[EvaluatedRun], against_first: bool
) -> list[PairedComparison]:
    # Runs that merely lie in the same folder are no question of the user's: the first's alone.
    if against_first or len(named) == 1:
        return compare_runs(compared)
    return compare_runs(named, against_first=False)


def calibrate_run(evaluated: EvaluatedRun) -> dict[str, Any]:
    """Fits temperature and threshold on a run's validation images and keeps them in the run.

    Returns:
        What `measure_calibration` says of them on the test images.

    Raises:
        InputError: its validation images or its model cannot be used.
    """
    fitted = keep_calibration(evaluated.run)
    test = evaluated.predictions
    return measure_calibration(fitted, test.y_true, test.y_prob)


def _measure_baselines(evaluated: EvaluatedRun) -> list["MeasuredBaseline"]:
    from transfer.evaluation.baselines import measure_baselines

    images = evaluated.run.images
    return measure_baselines(images("train"), images("validation"), images("test"))


def table_rows(
    evaluated: Sequence[EvaluatedRun],
    measured: Sequence["MeasuredBaseline"] = (),
    *,
    all_baselines: bool,
) -> list[TableRow]:
    """Returns the rows of the comparison table, our runs and the published results, best first.

    Published results are of Fashion-MNIST; beside other data they would say nothing.

    Args:
        evaluated: the runs.
        measured: classic classifiers on the images of the first run.
        all_baselines: all published results, not the best of each family.
    """
    rows = [table_row(run) for run in evaluated]
    if evaluated[0].facts.data.name.startswith(FASHION_MNIST):
        rows += published_rows(all_baselines, measured)
    else:
        rows += [baseline_row(result) for result in measured]
    return _ranked(rows)


def _ranked(rows: Sequence[TableRow]) -> list[TableRow]:
    return sorted(rows, key=lambda row: -row.accuracy)


def table_row(run: EvaluatedRun) -> TableRow:
    """Returns the row of a run, or of an ensemble."""
    members = run.members or (run,)
    optimizers = {member.facts.settings.optimizer for member in members}
    counts = {member.facts.data.num_images["train"] for member in members}
    return TableRow(
        model=model_name(run) if run.members else f"{run.run.name}: {model_name(run)}",
        accuracy=run.metrics["accuracy"],
        num_test_images=run.metrics["num_images"],
        loss=run.metrics["loss"],
        optimizer=", ".join(sorted(optimizers)),
        training_images=counts.pop() if len(counts) == 1 else None,
        source=" + ".join(str(member.run_dir) for member in members),
    )


def table_note(compared: Sequence[EvaluatedRun]) -> str | None:
    """Returns what a reader of the table must know, or None for the full Fashion-MNIST alone.

    Args:
        compared: the runs of the table's rows; the first is the one reported on.
    """
    first, *others = compared
    notes = [note] if (note := _data_note(first)) else []
    if not all(is_comparable(first, other) for other in others):
        notes.append(OTHER_IMAGES)
    return " ".join(notes) or None


def _data_note(run: EvaluatedRun) -> str | None:
    name, count = run.facts.data.name, run.metrics["num_images"]
    if not name.startswith(FASHION_MNIST):
        return f"The test images are {count:,} of {name}; nothing is published for them."
    if name == FASHION_MNIST and count == NUM_TEST_IMAGES:
        return None
    part = "the embedded sample" if name != FASHION_MNIST else "them"
    return (
        f"The published rows were measured on the {NUM_TEST_IMAGES:,} test images "
        f"of Fashion-MNIST; our rows on {count:,} of {part}."
    )


def write_report(reported: Reported) -> Path:
    """Writes a run's report folder and its model card, each file whole or not at all.

    Args:
        reported: what the report says.

    Returns:
        The path of report.md, which links the pictures relatively.

    Raises:
        InputError: the run's data or its model cannot be used.
    """
    evaluated, run = reported.evaluated, reported.evaluated.run
    predictions = evaluated.predictions
    without = measure_without_leaks(find_leaked_images(run), predictions.y_true, predictions.y_prob)
    metrics = to_json(evaluated) | {"without_near_duplicates": without}
    pictures = draw_pictures(evaluated, reported.calibration)
    blocks = _page_blocks(reported, metrics, pictures)
    title = f"Report: {run.name}"
    contents: dict[str, str | bytes] = {
        f"{one.name}.png": one.png for one in pictures if isinstance(one, Picture)
    }
    contents |= {
        sections.PREDICTIONS_FILE: predictions_csv(
            predictions.y_true,
            predictions.y_prob,
            run.class_names,
            run.images("test").names,
            reported.calibration["temperature"],
        ),
        sections.METRICS_FILE: _metrics_json(reported, metrics),
        "report.html": document.to_html(title, blocks),
        # Last, so that a report.md never links a picture that is not there.
        REPORT_FILE: document.to_markdown(title, blocks),
    }
    folder = check_own_folder(run.report_dir)
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    if not run.has_other_test:  # the card tells of the images that the run was made with
        log_pictures(run.run_dir / files.LOGS, pictures)
        card = model_card(run.name, run.facts, run.summary, evaluated.metrics, reported.calibration)
        write_atomically(run.run_dir / files.CARD, card)
    return folder / REPORT_FILE


def _page_blocks(
    reported: Reported, metrics: dict[str, Any], pictures: Sequence[Picture | Paragraph]
) -> list[Block]:
    """Returns the page: answers, then curves, tables and pictures, and where it all comes from."""
    curves, others = pictures[:1], pictures[1:]
    sections_below: list[Block] = [
        *sections.result_section(metrics),
        *curves,
        *reported.comparison_blocks(),
        *sections.classes_section(metrics),
        *sections.confused_section(metrics),
        *sections.calibration_section(reported.calibration),
        *none_of_these_section(reported.none_of_these),
        Heading("Pictures"),
        *others,
        *glossary_section(),
        Heading("How it was made"),
        Bullets(_provenance(reported.evaluated)),
        *sections.files_section(),
    ]
    first = answers_section(reported.evaluated, reported.calibration)
    return [*first, Contents.of(sections_below), *sections_below]


def _metrics_json(reported: Reported, metrics: dict[str, Any]) -> str:
    values = metrics | {
        "baselines": [dataclasses.asdict(one) for one in reported.measured],
        "calibration": reported.calibration,
        "none_of_these": reported.none_of_these,
        "comparisons": [comparison.sentence() for comparison in reported.comparisons],
        "repeats": [dataclasses.asdict(group) for group in reported.repeats],
    }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _provenance(evaluated: EvaluatedRun) -> list[tuple[str, document.Text]]:
    facts, summary = evaluated.facts, evaluated.run.summary
    counts, settings = facts.data.num_images, facts.settings
    phases = "; ".join(_tell_phase(name, evaluated.run) for name in summary.phases)
    items: list[tuple[str, document.Text]] = [
        ("Data", facts.data.provenance),
        ("Images", ", ".join(f"{count:,} {name}" for name, count in counts.items())),
        ("Working size", evaluated.run.geometry.describe()),
        ("Weights", facts.weights.provenance),
        ("Backbone", _tell_backbone(settings, summary.num_parameters)),
        ("Phases", phases),
        ("Weights kept", summary.tell_kept()),
        ("Cross-validation", summary.tell_folds()),
        ("Training time", format_seconds(summary.seconds)),
        ("Training precision", facts.precision),
        ("Command", document.Span(facts.command, "code")),
        ("Started", facts.started),
        ("Predicted by", evaluated.predictions.engine),
        ("Versions", ", ".join(f"{name} {value}" for name, value in facts.versions.items())),
    ]
    return [(name, text) for name, text in items if text and text != document.Span("", "code")]


def _tell_backbone(settings: Config, num_parameters: int) -> str:
    text = f"{settings.backbone} at {settings.image_size} pixels"
    return f"{text}, with its head {num_parameters:,} parameters" if num_parameters else text


def _tell_phase(name: str, run: FinishedRun) -> str:
    # The weights kept are those of the lowest validation loss, whose accuracy need not be the best.
    phase, count = run.summary.phases[name], run.facts.data.num_images["validation"]
    text = (
        f"{name}: {phase.epochs} epochs, kept the weights of epoch {phase.best_epoch}, which has "
        f"the lowest validation loss, {phase.val_loss:.4f}, and validation accuracy "
        f"{_with_interval(phase.val_accuracy, count)}"
    )
    rows = [row for row in run.history if row["phase"] == name]
    highest = max(rows, key=lambda row: row["val_accuracy"], default=None)
    if highest is None or highest["val_accuracy"] <= phase.val_accuracy:
        return text
    return (
        f"{text}; the highest validation accuracy was {format_percent(highest['val_accuracy'])}, "
        f"in epoch {highest['epoch']}"
    )


def _with_interval(accuracy: float, num_images: int) -> str:
    low, high = wilson_interval(round(accuracy * num_images), num_images)
    return f"{format_percent(accuracy)} [{100 * low:.2f}, {100 * high:.2f}]"
