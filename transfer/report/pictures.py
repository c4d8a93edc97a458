"""The pictures of a report, each drawn from a finished run's numbers and images."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from transfer import console
from transfer.evaluation.evaluated import EvaluatedRun
from transfer.evaluation.temperature import apply_temperature
from transfer.formatting import format_count
from transfer.report.document import Paragraph, Picture
from transfer.runs.finished import FinishedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AUGMENTED_ORIGINALS, AUGMENTED_VIEWS = 4, 6  # rows and columns of the augmentation picture
SPLIT_NAMES = {"train": "training", "validation": "validation", "test": "test"}


def draw_pictures(
    evaluated: EvaluatedRun, calibration: Mapping[str, Any]
) -> list[Picture | Paragraph]:
    """Returns the pictures of a run's report, in order, and a line on those that are left out.

    Args:
        evaluated: a single run, no ensemble.
        calibration: what `measure_calibration` returned for its test images.

    Raises:
        InputError: its data or its model cannot be used.
    """
    from transfer.plots.style import png  # a terminal needs no matplotlib

    drawings = _charts(evaluated, calibration) | _galleries(evaluated) | _explanations(evaluated)
    left_out = {name: why for name, why in _empty(evaluated).items() if name in drawings}
    pictures: list[Picture | Paragraph] = []
    names = [name for name in CAPTIONS if name in drawings and name not in left_out]
    # Drawn one after the other: an open figure takes more memory than its picture.
    for number, name in enumerate(names, start=1):
        with console.status(f"Drawing picture {number} of {len(names)}"):
            pictures.append(Picture(name, CAPTIONS[name], png(drawings[name]())))
    if left_out:
        told = "; ".join(f"{name.replace('_', ' ')}: {why}" for name, why in left_out.items())
        pictures.append(Paragraph(f"Left out, {told}.", is_aside=True))
    return pictures


def _empty(evaluated: EvaluatedRun) -> dict[str, str]:
    """Returns the pictures that would show next to nothing, and why."""
    y_true, y_prob = evaluated.predictions.y_true, evaluated.predictions.y_prob
    empty: dict[str, str] = {}
    if len(y_true) < FEWEST_IMAGES:
        few = f"{format_count(len(y_true), 'test image')} are too few"
        empty |= {"reliability_diagram": few, "reject_curve": few}
    if np.array_equal(y_prob.argmax(axis=1), y_true):
        empty["confused_pairs"] = "no test image was predicted wrongly"
    return empty


# What each picture is and how to read it, in the order of the page.
CAPTIONS = {
    "learning_curves": "Learning curves. Where the validation loss rises while the training loss "
    "falls, the network learns the training images by heart; a star marks the epoch whose weights "
    "are kept. Where it still falls at the end, more epochs would help.",
    "confusion_matrix_counts": "Confusion matrix in images. Each row is what images of one class "
    "were taken for: on the diagonal the right ones, beside it the mistakes.",
    "confusion_matrix_shares": "The same in percent of each true class.",
    "reliability_diagram": "Reliability diagram. A point below the diagonal: the model is surer "
    "than it is right. Bars show how many images have each confidence; where they are fewer than "
    "10 there is no point.",
    "reject_curve": "Reject curve. How accurate the answers are when only the surest images are "
    "answered: from right to left fewer are answered.",
    "sample_predictions": "Sample predictions, drawn by chance, so that they do not flatter. Above "
    "each image what it was taken for, and where that is wrong, what it is.",
    "mistakes_and_doubts": "The surest mistakes and the least sure answers. Among the first are "
    "often wrong labels, among the second images that people would argue about.",
    "confused_pairs": "Classes taken for each other, the worst pair first, the surest mistakes of "
    "each side.",
    "explanations": "What speaks for a class, by Grad-CAM: yellow parts raised its score most. "
    "Where yellow lies on the background, the network may have learnt that instead.",
    "feature_maps": "What the network sees of one image, from its first layers, which keep edges, "
    "to its last, which keep places of larger parts.",
    "class_distribution": "Images of each class. Classes with few of them are learnt worse.",
    "augmentation": "Training images as they are, and what six epochs of fine-tuning make of them.",
}
FEWEST_IMAGES = 20  # test images, for a diagram of their confidences

Sample = tuple[np.ndarray, np.ndarray, np.ndarray, Sequence[str]]  # images, truth, predictions
Drawings = dict[str, "Callable[[], Figure]"]


def _charts(evaluated: EvaluatedRun, calibration: Mapping[str, Any]) -> Drawings:
    from transfer.plots import charts

    run, names = evaluated.run, evaluated.run.class_names
    y_true, y_prob = evaluated.predictions.y_true, evaluated.predictions.y_prob
    matrix = evaluated.metrics["confusion_matrix"]
    temperature, threshold = calibration["temperature"], calibration["threshold"]
    calibrated = None if temperature is None else apply_temperature(y_prob, temperature)
    smoothing = run.settings.label_smoothing
    surest = y_prob if calibrated is None else calibrated
    return {
        "learning_curves": lambda: charts.plot_history(run.history, smoothing),
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
