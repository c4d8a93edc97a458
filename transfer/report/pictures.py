"""The pictures of a report, each drawn from a finished run's numbers and images."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from transfer import console
from transfer.evaluation.evaluated import EvaluatedRun
from transfer.evaluation.temperature import apply_temperature
from transfer.report.document import Picture
from transfer.runs.finished import FinishedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AUGMENTED_ORIGINALS, AUGMENTED_VIEWS = 4, 6  # rows and columns of the augmentation picture
SPLIT_NAMES = {"train": "training", "validation": "validation", "test": "test"}


def draw_pictures(evaluated: EvaluatedRun, calibration: Mapping[str, Any]) -> list[Picture]:
    """Returns the pictures of a run's report, in order.

    Args:
        evaluated: a single run, no ensemble.
        calibration: what `measure_calibration` returned for its test images.

    Raises:
        InputError: its data or its model cannot be used.
    """
    from transfer.plots.style import png  # a terminal needs no matplotlib

    drawings = _charts(evaluated, calibration) | _galleries(evaluated) | _explanations(evaluated)
    # Drawn one after the other: an open figure takes more memory than its picture.
    return [
        Picture(name, name.replace("_", " ").capitalize(), png(drawings[name]()))
        for name in ORDER
        if name in drawings
    ]


ORDER = (
    "learning_curves",
    "confusion_matrix_counts",
    "confusion_matrix_shares",
    "reliability_diagram",
    "reject_curve",
    "sample_predictions",
    "mistakes_and_doubts",
    "confused_pairs",
    "explanations",
    "feature_maps",
    "class_distribution",
    "augmentation",
)

Sample = tuple[np.ndarray, np.ndarray, np.ndarray, Sequence[str]]  # images, truth, predictions
Drawings = dict[str, "Callable[[], Figure]"]


def _charts(evaluated: EvaluatedRun, calibration: Mapping[str, Any]) -> Drawings:
    from transfer.plots import charts

    run, names = evaluated.run, evaluated.run.class_names
    y_true, y_prob = evaluated.predictions.y_true, evaluated.predictions.y_prob
    matrix = evaluated.metrics["confusion_matrix"]
    temperature, threshold = calibration["temperature"], calibration["threshold"]
    calibrated = None if temperature is None else apply_temperature(y_prob, temperature)
    surest = y_prob if calibrated is None else calibrated
    return {
        "learning_curves": lambda: charts.plot_history(run.history),
        "confusion_matrix_counts": lambda: charts.plot_confusion_matrix(matrix, names),
        "confusion_matrix_shares": lambda: charts.plot_confusion_matrix(matrix, names, True),
        "reliability_diagram": lambda: charts.plot_reliability(y_true, y_prob, calibrated),
        "reject_curve": lambda: charts.plot_reject_curve(y_true, surest, threshold),
        "class_distribution": lambda: charts.plot_class_distribution(class_counts(run), names),
    }


def _galleries(evaluated: EvaluatedRun) -> Drawings:
    from transfer.plots import galleries

    run = evaluated.run
    sample, paths = _sample(evaluated), run.images("test").names
    return {
        "sample_predictions": lambda: galleries.plot_sample_predictions(*sample, paths=paths),
        "mistakes_and_doubts": lambda: galleries.plot_mistakes_and_doubts(*sample, paths=paths),
        "confused_pairs": lambda: galleries.plot_confused_pairs(*sample, paths=paths),
        "augmentation": lambda: galleries.plot_augmentation(*augmented_views(run)),
    }


def _explanations(evaluated: EvaluatedRun) -> Drawings:
    from transfer.evaluation.explain import can_explain, explain_run
    from transfer.plots import galleries

    if not can_explain():
        console.say("Grad-CAM and feature maps are left out: they need Keras on TensorFlow.")
        return {}
    sample, explained = _sample(evaluated), explain_run(evaluated.run, evaluated.predictions)
    example = sample[0][explained.example]
    return {
        "explanations": lambda: galleries.plot_explanations(*sample, explained),
        "feature_maps": lambda: galleries.plot_feature_maps(example, explained.feature_maps),
    }


def _sample(evaluated: EvaluatedRun) -> Sample:
    predictions = evaluated.predictions
    images = evaluated.run.images("test").images
    return images, predictions.y_true, predictions.y_prob, evaluated.run.class_names


def class_counts(run: FinishedRun) -> dict[str, np.ndarray]:
    """Returns how many images each class has in each part: int (C,) by the part's name."""
    return {
        name: np.bincount(run.used(part).labels, minlength=len(run.class_names))
        for part, name in SPLIT_NAMES.items()
    }


def augmented_views(run: FinishedRun) -> tuple[np.ndarray, np.ndarray]:
    """Returns a few training images and what the first epochs of fine-tuning make of them.

    Args:
        run: a finished run.

    Returns:
        uint8 (K, h, w, channels) and float32 (K, A, S, S, 3) in [0, 255]: view a of an image
        is exactly what epoch a shows to the network.
    """
    from transfer.data.augment import augment_some

    count = run.used("train").num_images
    chosen = np.linspace(0, count - 1, AUGMENTED_ORIGINALS).astype(int)
    originals = run.examples("train", chosen)
    views = [
        augment_some(originals, chosen, run.facts.settled, epoch, count).numpy()
        for epoch in range(AUGMENTED_VIEWS)
    ]
    return originals, np.stack(views, axis=1)
