"""Photos to answers: what `transfer predict`, `run.predict` and the app have in common.

An answer has a class and a calibrated confidence, or it is "unknown": because the classifier is
less sure than the run's threshold, or because the photo is unlike all that it was trained on.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from transfer.data.records import Encoded
from transfer.datasets.formats.record_files import expand_records
from transfer.deploy.classifiers import Classifier, photos_at_a_time
from transfer.deploy.opening import open_fastest
from transfer.deploy.photos import find_photos, read_photos
from transfer.errors import InputError
from transfer.evaluation.temperature import apply_temperature
from transfer.formatting import format_count

if TYPE_CHECKING:
    from transfer.deploy.explain_photos import Explainer

Model = str | Path | Classifier
UNSURE, NONE_OF_THESE = "unsure", "none of these"


@dataclass(frozen=True)
class Answer:
    """What is said of a photo.

    Attributes:
        path: as it was named.
        ranked: (class name, confidence in [0, 1]), the surest first; empty if it was not read.
        answered: whether the first of them is an answer, and not "unknown".
        unknown_because: UNSURE or NONE_OF_THESE; "" of an answer.
        distance: from the training images, in standard deviations; None where not known.
        inverted: whether the photo was made a negative first.
        squashed: whether it did not keep its aspect, as the model takes none of another.
        error: why it was not read; "" where it was.
    """

    path: str
    ranked: tuple[tuple[str, float], ...] = ()
    answered: bool = False
    unknown_because: str = ""
    distance: float | None = None
    inverted: bool = False
    squashed: bool = False
    error: str = ""

    @property
    def predicted(self) -> str:
        """The likeliest class, also where it is no answer; "" if the photo was not read."""
        return self.ranked[0][0] if self.ranked else ""

    @property
    def confidence(self) -> float:
        """The confidence in it; 0 if the photo was not read."""
        return self.ranked[0][1] if self.ranked else 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values."""
        ranked = [{"class": name, "confidence": share} for name, share in self.ranked]
        values = dataclasses.asdict(self) | {"ranked": ranked}
        return {"path": self.path, "predicted": self.predicted} | values


@dataclass(frozen=True)
class PredictOptions:
    """How photos are answered.

    Attributes:
        top: classes named of each, at least the first two.
        tta: mean of each photo and its mirror image.
        invert: as `read_photos` takes it.
        explain: writes where each photo speaks for its class; None for no pictures.
    """

    top: int = 2
    tta: bool = False
    invert: str = "auto"
    explain: "Explainer | None" = None


def predict(
    model: Model | Sequence[Model],
    photos: str | Path | Sequence[str | Path],
    *,
    top: int = 5,
    tta: bool = False,
    invert: str = "auto",
) -> list[Answer]:
    """Names what is on photos; loads no TensorFlow for an exported file.

    Args:
        model: a run folder, a file made by `transfer export`, or "included"; of several the mean.
        photos: files, and folders with all below; Parquet, tar and TFRecord files stand for the
            photos in them.
        top: classes named of each, the surest first.
        tta: mean of each photo and its mirror image.
        invert: make a negative of all ("yes"), of none ("no"), or of those whose border is light
            where the training images' is dark, and the other way round ("auto").

    Returns:
        An answer for each photo, each once, in the order they were named.

    Raises:
        InputError: the model cannot be used, or no photo was named.
    """
    models = [model] if isinstance(model, str | Path | Classifier) else model
    names = [photos] if isinstance(photos, str | Path) else photos
    found = find_photos([str(name) for name in names], inside=True)
    opened = [one if isinstance(one, Classifier) else open_fastest(one) for one in models]
    return list(answer_photos(opened, found.paths, PredictOptions(top, tta, invert)))


def answer_photos(
    classifiers: Sequence[Classifier],
    paths: Sequence[str],
    options: PredictOptions,
    tell: Callable[[int], None] = lambda count: None,
) -> Iterator[Answer]:
    """Yields an answer for each photo, in order; a batch of them is in memory at a time.

    Args:
        classifiers: one, or several whose mean is taken.
        paths: of the photos, and of files of records with many photos.
        options: how they are answered.
        tell: called with the number of photos that are done.

    Raises:
        InputError: the classifiers have not the same classes, or a file of records is damaged.
    """
    check_same_classes(classifiers)
    batch = min(photos_at_a_time(one.facts.geometry) for one in classifiers)
    photos, done = expand_records(paths), 0
    while part := list(itertools.islice(photos, batch)):
        yield from _answer_batch(classifiers, part, options)
        done += len(part)
        tell(done)


def check_same_classes(classifiers: Sequence[Classifier]) -> None:
    """Raises `InputError` where the classifiers have not the same classes."""
    first, *others = (classifier.facts for classifier in classifiers)
    for other in others:
        if other.class_names != first.class_names:
            raise InputError(
                f"the classifiers of an ensemble should have the same classes; those of "
                f"{other.name} are not those of {first.name}."
            )


class _Judged(NamedTuple):
    # What one classifier says of M photos: float64 (M, C), (M,), and bool (M,).
    confidence: np.ndarray
    distance: np.ndarray
    is_far: np.ndarray


def _answer_batch(
    classifiers: Sequence[Classifier], paths: Sequence[Encoded], options: PredictOptions
) -> list[Answer]:
    read = [
        read_photos(paths, one.facts.geometry, one.facts.ground, options.invert)
        for one in classifiers
    ]
    photos, names = read[0], [str(path) for path in paths]
    answers = [Answer(path, error=why) for path, why in zip(names, photos.reasons, strict=True)]
    if not len(photos.indices):
        return answers
    judged = [
        _judge(one, photos.images, options.tta)
        for one, photos in zip(classifiers, read, strict=True)
    ]
    confidence = np.mean([one.confidence for one in judged], axis=0)
    if options.explain:
        options.explain(photos, names, confidence.argmax(axis=1))
    is_far = np.mean([one.is_far for one in judged], axis=0) > 0.5
    thresholds = [one.facts.threshold for one in classifiers if one.facts.threshold is not None]
    least = max(thresholds, default=0.0)
    class_names = classifiers[0].facts.class_names
    for row, index in enumerate(photos.indices):
        because = NONE_OF_THESE if is_far[row] else UNSURE * bool(confidence[row].max() < least)
        distance = float(judged[0].distance[row])
        answers[index] = Answer(
            names[index],
            _rank(confidence[row], class_names, options.top),
            answered=not because,
            unknown_because=because,
            distance=distance if np.isfinite(distance) else None,
            inverted=bool(photos.inverted[row]),
            squashed=bool(photos.squashed[row]),
        )
    return answers


def _judge(classifier: Classifier, images: np.ndarray, tta: bool) -> _Judged:
    facts = classifier.facts
    y_prob, distance = classifier.outputs(images)
    if tta:
        y_prob = (y_prob + classifier.outputs(images[:, :, ::-1]).y_prob) / 2
    limit = np.inf if facts.distance_threshold is None else facts.distance_threshold
    return _Judged(apply_temperature(y_prob, facts.temperature), distance, distance > limit)


def _rank(confidence: np.ndarray, names: Sequence[str], top: int) -> tuple[tuple[str, float], ...]:
    best = np.argsort(-confidence, kind="stable")[: max(top, 2)]
    return tuple((names[label], float(confidence[label])) for label in best)


@dataclass
class Tally:
    """What became of photos: counts of all, and of each kind of end."""

    photos: int = 0
    answered: int = 0
    unsure: int = 0
    none_of_these: int = 0
    unread: int = 0
    squashed: int = 0

    def add(self, answer: Answer) -> None:
        """Counts an answer."""
        self.photos += 1
        self.answered += answer.answered
        self.unsure += answer.unknown_because == UNSURE
        self.none_of_these += answer.unknown_because == NONE_OF_THESE
        self.unread += bool(answer.error)
        self.squashed += answer.squashed

    def __add__(self, other: "Tally") -> "Tally":
        """Returns both together."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Tally(*(one + more for one, more in pairs))

    def tell(self) -> str:
        """Returns it in one line."""
        unknown = self.unsure + self.none_of_these
        text = f"{format_count(self.photos, 'photo')}: {self.answered:,} answered"
        text += f", {unknown:,} unknown"
        if unknown:
            text += f" ({self.unsure:,} {UNSURE}, {self.none_of_these:,} {NONE_OF_THESE})"
        text += f", {self.unread:,} not readable" if self.unread else ""
        shape = "squashed to the shape of the training images (--fit pad in training keeps theirs)"
        return text + (f"; {self.squashed:,} {shape}" if self.squashed else "")


def count_answers(answers: Iterable[Answer]) -> str:
    """Returns what became of photos in one line."""
    tally = Tally()
    for answer in answers:
        tally.add(answer)
    return tally.tell()
