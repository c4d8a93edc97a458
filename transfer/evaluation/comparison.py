"""From finished runs to what `evaluate.py` prints and writes: this room joins the others.

A run's predictions become its metrics; runs on the same test images and the published
results become the rows of one table; all of it becomes the run's report.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from transfer import runs
from transfer.config import Config
from transfer.data.sources import FASHION_MNIST, Split
from transfer.errors import InputError
from transfer.evaluation.metrics import compute_metrics
from transfer.evaluation.predictions import (
    Predictions,
    decode_run_split,
    load_run_splits,
    predict_run,
)
from transfer.evaluation.report import TableRow, published_rows, write_report
from transfer.formatting import format_percent

NUM_FASHION_MNIST_TEST_IMAGES = 10_000
AUGMENTED_ORIGINALS, AUGMENTED_VIEWS = 4, 6  # rows and columns of the augmentation picture


@dataclass(frozen=True)
class EvaluatedRun:
    """A finished run with what it says of its test images."""

    run_dir: Path
    facts: dict  # the content of config.json
    summary: dict  # the content of summary.json
    predictions: Predictions
    metrics: dict  # as `compute_metrics` returns them


def evaluate_run(run_dir: Path, console: Console) -> EvaluatedRun:
    """Predicts each test image of a finished run once, or takes the predictions kept in it.

    Raises:
        InputError: the run is not finished, or its data or model cannot be used.
    """
    runs.check_finished(run_dir)
    facts = runs.read_facts(run_dir)
    summary = runs.read_json(run_dir / runs.SUMMARY)
    predictions = predict_run(run_dir, console)
    metrics = compute_metrics(predictions.y_true, predictions.y_prob, facts["data"]["class_names"])
    return EvaluatedRun(run_dir, facts, summary, predictions, metrics)


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
            if run_dir.resolve() not in known and _same_test_images(facts, first.facts):
                others.append(evaluate_run(run_dir, console))
        except (InputError, KeyError) as error:
            console.print(f"Left out of the table: {run_dir} ({error})", highlight=False)
    return others


def _same_test_images(facts: dict, others: dict) -> bool:
    return facts["data"]["fingerprints"]["test"] == others["data"]["fingerprints"]["test"]


def to_json(run: EvaluatedRun) -> dict:
    """Returns a run's metrics with where its data and weights came from, as JSON values."""
    data = {name: run.facts["data"][name] for name in ("name", "location", "provenance")}
    return run.metrics | {
        "run_dir": str(run.run_dir),
        "data": data,
        "weights": run.facts["weights"],
    }


def table_rows(evaluated: list[EvaluatedRun], *, all_baselines: bool) -> list[TableRow]:
    """Returns the rows of the comparison table: our runs, then the published results.

    Published results are of Fashion-MNIST; beside other data they would say nothing.
    """
    rows = [_table_row(run) for run in evaluated]
    is_fashion = evaluated[0].facts["data"]["name"].startswith(FASHION_MNIST)
    return rows + (published_rows(all_baselines) if is_fashion else [])


def _table_row(run: EvaluatedRun) -> TableRow:
    settings, data = run.facts["settings"], run.facts["data"]
    start = run.facts["weights"]["name"]
    start = "from scratch" if start == "none" else f"{start} weights"
    return TableRow(
        model=f"{settings['backbone']}, {settings['image_size']} px, {start}",
        accuracy=run.metrics["accuracy"],
        num_test_images=run.metrics["num_images"],
        loss=run.metrics["loss"],
        optimizer=settings["optimizer"],
        training_images=data["num_images"]["train"],
        source=str(run.run_dir),
    )


def table_note(run: EvaluatedRun) -> str | None:
    """Returns what a reader of the table must know, or None for the full Fashion-MNIST."""
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


def write_run_report(run: EvaluatedRun, rows: list[TableRow]) -> Path:
    """Writes report.md and its pictures into the run folder and returns the path of report.md."""
    splits, config = load_run_splits(run.facts), Config.from_dict(run.facts["settings"])
    class_names = run.facts["data"]["class_names"]
    parts = {"training": splits.train, "validation": splits.validation, "test": splits.test}
    originals, augmented = augmented_views(splits.train, config)
    return write_report(
        run.run_dir / runs.REPORT,
        run_name=run.run_dir.name,
        facts=_report_facts(run),
        metrics=run.metrics,
        rows=rows,
        history=runs.read_history(run.run_dir),
        class_names=class_names,
        y_true=run.predictions.y_true,
        y_prob=run.predictions.y_prob,
        test_images=decode_run_split(splits.test, config).images,
        class_counts={
            name: np.bincount(split.labels, minlength=len(class_names))
            for name, split in parts.items()
        },
        originals=originals,
        augmented=augmented,
        note=table_note(run),
    )


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
        f"{format_percent(figures['val_accuracy'])} in epoch {figures['best_epoch']}"
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
        "Precision": facts["precision"],
        "Command": f"`{facts['command']}`",
        "Started": facts["started"],
        "Versions": ", ".join(f"{name} {value}" for name, value in facts["versions"].items()),
    }
