"""From finished runs to what `evaluate.py` prints and writes: this room joins the others.

Runs on the same test images, their ensembles and the published results become the rows of one
table; all of it becomes the run's report.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from transfer import runs
from transfer.config import Config
from transfer.data.sources import FASHION_MNIST, Split
from transfer.errors import InputError
from transfer.evaluation.calibration import fit_calibration, measure_calibration
from transfer.evaluation.card import model_card
from transfer.evaluation.evaluate import (
    EvaluatedRun,
    evaluate_run,
    have_same_test_images,
    is_comparable,
    to_json,
)
from transfer.evaluation.leaks import find_leaked_images, measure_without_leaks
from transfer.evaluation.metrics import wilson_interval
from transfer.evaluation.predictions import (
    VALIDATION,
    decode_run_split,
    load_run_splits,
    predict_run,
)
from transfer.evaluation.report import (
    print_calibration,
    print_comparisons,
    print_metrics,
    print_repeats,
    write_report,
)
from transfer.evaluation.significance import PairedComparison, Repeats, compare_with_first
from transfer.evaluation.table import TableRow, baseline_row, print_table, published_rows
from transfer.formatting import format_percent

if TYPE_CHECKING:
    from transfer.evaluation.baselines import MeasuredBaseline

NUM_FASHION_MNIST_TEST_IMAGES = 10_000
OTHER_IMAGES = "Not all of our rows were tested on the same images."
AUGMENTED_ORIGINALS, AUGMENTED_VIEWS = 4, 6  # rows and columns of the augmentation picture


def compare_runs(evaluated: Sequence[EvaluatedRun]) -> list[PairedComparison]:
    """Compares the first run with each other one that was tested on the same images."""
    first, *others = evaluated
    comparable = [first, *(run for run in others if is_comparable(first, run))]
    return compare_with_first(
        [
            (run.name, run.predictions.y_prob.argmax(axis=1) == run.predictions.y_true)
            for run in comparable
        ]
    )


def group_repeats(compared: Sequence[EvaluatedRun]) -> list[Repeats]:
    """Finds runs that differ in their seed alone, whether one command made them or several.

    Of two runs with the same seed the first counts. Ensembles are no repeats of each other.
    """
    groups: dict[str, dict[int, EvaluatedRun]] = {}
    for run in compared:
        if run.members or not is_comparable(compared[0], run):
            continue
        settings = Config.from_dict(run.facts["settings"]).to_dict()
        seed = settings.pop("seed")
        start = {name: run.facts["weights"].get(name) for name in ("name", "provenance")}
        key = json.dumps([settings, start, run.facts["precision"], run.has_flips])
        groups.setdefault(key, {}).setdefault(seed, run)
    return [
        Repeats(
            model=_table_row(next(iter(members.values()))).model,
            seeds=tuple(sorted(members)),
            accuracies=tuple(members[seed].metrics["accuracy"] for seed in sorted(members)),
            losses=tuple(members[seed].metrics["loss"] for seed in sorted(members)),
        )
        for members in groups.values()
        if len(members) > 1
    ]


def evaluate_others(evaluated: list[EvaluatedRun], console: Console) -> list[EvaluatedRun]:
    """Evaluates the other finished runs beside the first that saw the same test images.

    A run that cannot be evaluated any more is named and left out.
    """
    first = evaluated[0]
    known = {run.run_dir.resolve() for run in evaluated}
    others = []
    for run_dir in runs.finished_runs(first.run_dir.parent):
        try:
            facts = runs.read_facts(run_dir)
            if run_dir.resolve() not in known and have_same_test_images(facts, first.facts):
                others.append(evaluate_run(run_dir, console))
        except (InputError, KeyError) as error:
            console.print(f"Left out of the table: {run_dir} ({error})")
    return others


def print_run(run: EvaluatedRun, console: Console) -> None:
    """Prints where a run's data and weights came from, and its metrics."""
    for name, text in (
        ("Run", run.run_dir),
        ("Data", run.facts["data"]["provenance"]),
        ("Weights", run.facts["weights"]["provenance"]),
    ):
        console.print(f"{name}: {text}", soft_wrap=True)
    print_metrics(run.metrics, console)


def print_side_by_side(compared: Sequence[EvaluatedRun], console: Console) -> None:
    """Prints a row for each run, without published ones, and whether they differ."""
    same = all(is_comparable(compared[0], run) for run in compared)
    console.print()
    print_table([_table_row(run) for run in compared], console, None if same else OTHER_IMAGES)
    print_repeats(group_repeats(compared), console)
    print_comparisons(compare_runs(compared), console)


def report_runs(
    evaluated: list[EvaluatedRun],
    combined: list[EvaluatedRun],
    console: Console,
    *,
    all_baselines: bool,
    measure_baselines: bool = False,
) -> Path:
    """Prints and writes the report of the first run beside all others and published results.

    Args:
        evaluated: the runs.
        combined: what `evaluate_combinations` made of them.
        console: where to print.
        all_baselines: all published results, not the best of each family.
        measure_baselines: measure some of the published classifiers on the first run's images.

    Returns:
        The path of report.md.

    Raises:
        InputError: the data or the model of the first run cannot be used.
    """
    run = evaluated[0]
    calibration = calibrate_run(run, console)
    compared = evaluated + combined + evaluate_others(evaluated, console)
    measured = measure_run_baselines(run, console) if measure_baselines else []
    rows = table_rows(compared, measured, all_baselines=all_baselines)
    comparisons, note = compare_runs(compared), table_note(compared)
    print_calibration(calibration, console)
    console.print()
    print_table(rows, console, note)
    repeats = group_repeats(compared)
    print_repeats(repeats, console)
    print_comparisons(comparisons, console)
    path = write_run_report(
        run, rows, calibration, comparisons, note=note, repeats=repeats, measured=measured
    )
    for written in (path, path.with_suffix(".html")):
        console.print(f"Report: {written}", soft_wrap=True)
    return path


def measure_run_baselines(run: EvaluatedRun, console: Console) -> list["MeasuredBaseline"]:
    """Measures classic classifiers on a run's images, or reads what was measured before.

    Raises:
        InputError: its data cannot be used.
    """
    from transfer.evaluation.baselines import measure_baselines

    config = Config.from_dict(run.facts["settings"])
    splits = load_run_splits(run.facts)
    return measure_baselines(splits, console, skip_bad_images=config.skip_bad_images)


def table_rows(
    evaluated: Sequence[EvaluatedRun],
    measured: Sequence["MeasuredBaseline"] = (),
    *,
    all_baselines: bool,
) -> list[TableRow]:
    """Returns the rows of the comparison table: our runs, then the published results.

    Published results are of Fashion-MNIST; beside other data they would say nothing.

    Args:
        evaluated: the runs.
        measured: classic classifiers on the images of the first run.
        all_baselines: all published results, not the best of each family.
    """
    rows = [_table_row(run) for run in evaluated]
    if evaluated[0].facts["data"]["name"].startswith(FASHION_MNIST):
        return rows + published_rows(all_baselines, measured)
    return rows + [baseline_row(result) for result in measured]


def _table_row(run: EvaluatedRun) -> TableRow:
    members = run.members or (run,)
    optimizers = {member.facts["settings"]["optimizer"] for member in members}
    counts = {member.facts["data"]["num_images"]["train"] for member in members}
    model = f"ensemble of {len(members)} runs" if run.members else _model_name(run.facts)
    return TableRow(
        model=model + (", with flips" if run.has_flips else ""),
        accuracy=run.metrics["accuracy"],
        num_test_images=run.metrics["num_images"],
        loss=run.metrics["loss"],
        optimizer=", ".join(sorted(optimizers)),
        training_images=counts.pop() if len(counts) == 1 else None,
        source=" + ".join(str(member.run_dir) for member in members),
    )


def _model_name(facts: dict) -> str:
    settings, start = facts["settings"], facts["weights"]["name"]
    start = "from scratch" if start == "none" else f"{start} weights"
    return f"{settings['backbone']}, {settings['image_size']} px, {start}"


def table_note(compared: Sequence[EvaluatedRun]) -> str | None:
    """Returns what a reader of the table must know, or None for the full Fashion-MNIST alone.

    Args:
        compared: the runs of the table's rows; the first is the one reported on.
    """
    first, *others = compared
    notes = [_data_note(first)] if _data_note(first) else []
    if not all(is_comparable(first, other) for other in others):
        notes.append(OTHER_IMAGES)
    return " ".join(notes) or None


def _data_note(run: EvaluatedRun) -> str | None:
    name, count = run.facts["data"]["name"], run.metrics["num_images"]
    if not name.startswith(FASHION_MNIST):
        return f"The test images are {count:,} of {name}; nothing is published for them."
    if name == FASHION_MNIST and count == NUM_FASHION_MNIST_TEST_IMAGES:
        return None
    part = "the embedded sample" if name != FASHION_MNIST else "them"
    return (
        f"The published rows were measured on the {NUM_FASHION_MNIST_TEST_IMAGES:,} test images "
        f"of Fashion-MNIST; our rows on {count:,} of {part}."
    )


def calibrate_run(run: EvaluatedRun, console: Console) -> dict:
    """Fits temperature and threshold on a run's validation images and keeps them in the run.

    Returns:
        What `measure_calibration` says of them on the test images.

    Raises:
        InputError: its validation images or its model cannot be used.
    """
    validation = predict_run(run.run_dir, console, VALIDATION)
    fitted = fit_calibration(validation.y_true, validation.y_prob)
    runs.write_json(run.run_dir / runs.CALIBRATION, fitted)
    return measure_calibration(fitted, run.predictions.y_true, run.predictions.y_prob)


def write_run_report(
    run: EvaluatedRun,
    rows: list[TableRow],
    calibration: dict,
    comparisons: Sequence[PairedComparison] = (),
    *,
    note: str | None = None,
    repeats: Sequence[Repeats] = (),
    measured: Sequence["MeasuredBaseline"] = (),
) -> Path:
    """Writes a run's report folder and its model card and returns the path of report.md.

    Args:
        run: a single run, no ensemble.
        rows: of the comparison table.
        calibration: what `calibrate_run` returned.
        comparisons: of this run with others.
        note: what a reader of the table must know.
        repeats: what `group_repeats` found.
        measured: classic classifiers on the run's images.

    Raises:
        InputError: its data or its model cannot be used.
    """
    from transfer.evaluation.explain import explain_run

    splits, config = load_run_splits(run.facts), Config.from_dict(run.facts["settings"])
    class_names = run.facts["data"]["class_names"]
    parts = {"training": splits.train, "validation": splits.validation, "test": splits.test}
    originals, augmented = augmented_views(splits.train, config)
    test = decode_run_split(splits.test, config)
    leaked = find_leaked_images(splits, config)
    without = measure_without_leaks(leaked, run.predictions.y_true, run.predictions.y_prob)
    path = write_report(
        run.run_dir / runs.REPORT,
        run_name=run.run_dir.resolve().name,
        facts=_report_facts(run),
        metrics=to_json(run)
        | {
            "baselines": [dataclasses.asdict(one) for one in measured],
            "without_near_duplicates": without,
        },
        calibration=calibration,
        rows=rows,
        history=runs.read_history(run.run_dir),
        class_names=class_names,
        y_true=run.predictions.y_true,
        y_prob=run.predictions.y_prob,
        test_images=test.images,
        class_counts={
            name: np.bincount(split.labels, minlength=len(class_names))
            for name, split in parts.items()
        },
        originals=originals,
        augmented=augmented,
        explanations=explain_run(run.run_dir, test, run.predictions, config.image_size),
        comparisons=comparisons,
        repeats=repeats,
        note=note,
    )
    card = model_card(run.run_dir.resolve().name, run.facts, run.summary, run.metrics, calibration)
    runs.write_atomically(run.run_dir / runs.CARD, card)
    return path


def augmented_views(train: Split, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Returns a few training images and what the first epochs of fine-tuning make of them.

    Args:
        train: all training images, decoded or not.
        config: the settings of the run.

    Returns:
        uint8 (K, h, w, channels) and float32 (K, A, S, S, 3) in [0, 255]: view a of an image
        is exactly what epoch a shows to the network.
    """
    from transfer.data.augment import draw_warps, warp

    chosen = np.linspace(0, train.num_images - 1, AUGMENTED_ORIGINALS).astype(int)
    originals = decode_run_split(train.take(chosen), config).images
    views = [
        warp(
            originals,
            draw_warps(config, epoch, train.num_images).numpy()[chosen],
            config.image_size,
        ).numpy()
        for epoch in range(AUGMENTED_VIEWS)
    ]
    return originals, np.stack(views, axis=1)


def _report_facts(run: EvaluatedRun) -> dict[str, str]:
    facts, data = run.facts, run.facts["data"]
    phases = "; ".join(
        f"{name}: {figures['epochs']} epochs, best validation accuracy "
        f"{_validation_accuracy(figures['val_accuracy'], data['num_images']['validation'])} "
        f"in epoch {figures['best_epoch']}"
        for name, figures in run.summary["phases"].items()
    )
    images = ", ".join(f"{count:,} {name}" for name, count in data["num_images"].items())
    return {
        "Data": data["provenance"],
        "Images": images,
        "Weights": facts["weights"]["provenance"],
        "Backbone": f"{facts['settings']['backbone']} at {facts['settings']['image_size']} pixels",
        "Phases": phases,
        "Training time": f"{run.summary['seconds']:,.0f} s",
        "Training precision": facts["precision"],
        "Command": f"`{facts['command']}`",
        "Started": facts["started"],
        "Versions": ", ".join(f"{name} {value}" for name, value in facts["versions"].items()),
    }


def _validation_accuracy(accuracy: float, num_images: int) -> str:
    low, high = wilson_interval(round(accuracy * num_images), num_images)
    return f"{format_percent(accuracy)} [{100 * low:.2f}, {100 * high:.2f}]"
