"""The first screen of a report: how good, what it confuses, where to trust it, what to do next.

All of it is said elsewhere in numbers; here it stands in words, for who reads nothing else.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from transfer.evaluation.evaluated import EvaluatedRun
from transfer.formatting import format_count, format_percent
from transfer.report.document import Block, Bullets, Heading, Span, Text
from transfer.runs.facts import Summary

TITLE = "In short"
SURE = 0.95  # confidence from which a mistake may be a wrong label
FAR_BELOW = 0.05  # by which a class's recall lies below the accuracy, to be worth more images
_FINETUNE = "fine-tune"


def answers_section(evaluated: EvaluatedRun, calibration: Mapping[str, Any]) -> list[Block]:
    """Returns the answers to what a reader asks first.

    Args:
        evaluated: a single run, no ensemble.
        calibration: what `measure_calibration` returned for its test images.
    """
    metrics = evaluated.metrics
    items: list[tuple[str, Text]] = [
        ("How good", _tell_accuracy(metrics)),
        ("What it confuses", _tell_confused(metrics)),
        ("Where to trust it", _tell_threshold(calibration)),
    ]
    advice = [
        *_advise_on_classes(evaluated),
        *_advise_on_labels(evaluated),
        *_advise_on_training(evaluated.run.summary),
    ]
    return [Heading(TITLE), Bullets(items + [("What to do next", one) for one in advice])]


def _tell_accuracy(metrics: Mapping[str, Any]) -> Span:
    low, high = metrics["accuracy_interval"]
    return Span(
        f"{format_percent(metrics['accuracy'])} of {metrics['num_images']:,} test images are "
        f"right; of all images of this kind probably between {100 * low:.1f} and {100 * high:.1f} %"
    )


def _tell_confused(metrics: Mapping[str, Any]) -> str:
    pairs = metrics["most_confused"]
    if not pairs:
        return "nothing: no test image was predicted wrongly"
    return ", then ".join(
        f"{pair['true']} is taken for {pair['predicted']} ({format_count(pair['count'], 'image')}, "
        f"{100 * pair['share_of_true']:.1f} % of the class)"
        for pair in pairs[:2]
    )


def _tell_threshold(calibration: Mapping[str, Any]) -> str:
    answered = calibration["answered"]
    if calibration["temperature"] is None:
        return "not known: there were too few validation images to fit a threshold"
    if answered is None or not answered["num_images"]:
        target = 100 * calibration["target_accuracy"]
        return f"nowhere to {target:g} %: no confidence gave that on the validation images"
    return (
        f"where its calibrated confidence is {format_percent(calibration['threshold'])} or more: "
        f"{format_percent(answered['share'])} of the test images, of which "
        f"{format_percent(answered['accuracy'])} are right"
    )


def _advise_on_classes(evaluated: EvaluatedRun) -> list[str]:
    rows = [row for row in evaluated.metrics["per_class"] if row["support"]]
    worst = min(rows, key=lambda row: row["recall"])
    if worst["recall"] > evaluated.metrics["accuracy"] - FAR_BELOW:
        return []
    name = worst["class_name"]
    return [
        f"more training images of {name}: only {format_percent(worst['recall'])} of its test "
        "images are found"
    ]


def _advise_on_labels(evaluated: EvaluatedRun) -> list[str]:
    y_true, y_prob = evaluated.predictions.y_true, evaluated.predictions.y_prob
    is_wrong = y_prob.argmax(axis=1) != y_true
    count = int(np.count_nonzero(is_wrong & (y_prob.max(axis=1) >= SURE)))
    if not count:
        return []
    return [
        f"look at the labels of {format_count(count, 'test image')} that it gets wrong with a "
        f"confidence of {100 * SURE:.0f} % or more: see the surest mistakes among the pictures"
    ]


def _advise_on_training(summary: Summary) -> list[str]:
    phases = summary.phases
    kept = summary.kept_phase
    name = next(name for name, phase in phases.items() if phase is kept)
    if _FINETUNE in phases and name != _FINETUNE:
        return [
            "the head alone was better than fine-tuning, and is kept: lower "
            "--finetune-learning-rate, or leave fine-tuning out (--finetune-epochs 0)"
        ]
    option = "finetune" if name == _FINETUNE else "head"
    if kept.best_epoch == kept.epochs:
        return [
            "train longer: the validation loss still fell in the last epoch "
            f"(--{option}-epochs {2 * kept.epochs})"
        ]
    return [
        f"a longer run would not pay: of {kept.epochs} epochs the validation loss was lowest in "
        f"epoch {kept.best_epoch}"
    ]


# Words of a report that are not everyday ones, in the order of the page.
GLOSSARY = {
    "95 % interval": "where the number of all such images lies, in 95 of 100 samples like this "
    "one; of an accuracy by the method of Wilson, else by drawing the test images again and again "
    "(bootstrap)",
    "loss": "mean cross-entropy: how surprised the model is by the right answers, in nats (natural "
    "logarithm); 0 is perfect, and a wrong answer of high confidence costs most",
    "precision": "of the images that were called a class, the share that is of it",
    "recall": "of the images of a class, the share that was called so",
    "F1": "the harmonic mean of precision and recall",
    "macro": "the mean over the classes, each counting the same, however many images it has",
    "expected calibration error": "how far confidence and accuracy lie apart, on average",
    "temperature": "the number by which the model's scores are divided, for its confidence to be "
    "its accuracy; fitted on the validation images",
    "McNemar's test": "compares two models by the images that only one of them gets right; a small "
    "p says that chance alone would seldom do that",
    "settled": "what became of a setting that was left at auto",
}


def glossary_section() -> list[Block]:
    """Returns the words of a report that are not everyday ones."""
    return [Heading("Words"), Bullets(list(GLOSSARY.items()))]
