"""Few photos a class: what each place of weights knows of photographs, and which fit suits them.

The frozen backbone sees the images of `benchmarks/photos.py`, and a linear classifier learns from
1, 5 or 20 of each class. Each repeat has another seed, which draws training and test images anew.
"""

import statistics
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from benchmarks.interleaved import PERCENT, Measurement, Settings
from benchmarks.photos import make_photos
from transfer import console
from transfer.config import Config
from transfer.data.geometry import FITS, Geometry, fit_pixels
from transfer.data.pipeline import make_evaluation_dataset
from transfer.data.splits import Split
from transfer.errors import InputError
from transfer.models.backbones import scale
from transfer.models.batch_norm import make_recalibration
from transfer.models.classifier import build_classifier
from transfer.models.weights import KINDS, load_backbone
from transfer.training.defaults import settle
from transfer.training.features import compute_features, frozen_extractor

SHOTS = (1, 5, 20)  # training images of each class
FIT_SHOTS = 5
TEST_IMAGES = 20  # of each class
_NO_PLACE = ("file",)  # a kind that is a path of the user's

Features = Callable[[np.ndarray], np.ndarray]  # uint8 (N, S, S, 3) to float16 (N, D)


def measure_few_shot(settings: Settings) -> Measurement:
    """Returns the accuracies of each place of weights, in percent, one value a repeat."""
    values: dict[str, list[float]] = {}
    for kind, features in _places(settings):
        for seed in range(settings.repeats):
            train, test = (_fitted(part, settings, seed) for part in ("train", "test"))
            learnt, asked = features(train[0]), features(test[0])
            for shots in SHOTS:
                chosen = _first_of_each(train[1], shots)
                right = _score(learnt[chosen], train[1][chosen], asked, test[1])
                values.setdefault(f"{kind}, {shots} a class", []).append(right)
    return _measurement(settings, "photos, linear classifier on frozen features", values)


def measure_fit(settings: Settings) -> Measurement:
    """Returns the accuracies of each fit on photos that are not square, likewise."""
    values: dict[str, list[float]] = {}
    for kind, features in _places(settings):
        if kind == "none":
            continue
        for seed in range(settings.repeats):
            for fit in FITS:
                train, test = (
                    _fitted(part, settings, seed, wide=True, fit=fit, per_class=FIT_SHOTS)
                    for part in ("train", "test")
                )
                right = _score(features(train[0]), train[1], features(test[0]), test[1])
                values.setdefault(f"{kind}, {fit}", []).append(right)
    return _measurement(settings, f"photos that are not square, {FIT_SHOTS} a class", values)


def _measurement(settings: Settings, title: str, values: dict[str, list[float]]) -> Measurement:
    spread = {
        name: f"{statistics.stdev(of_name):.1f}" if len(of_name) > 1 else ""
        for name, of_name in values.items()
    }
    mean = {name: f"{statistics.fmean(of_name):.1f}" for name, of_name in values.items()}
    return Measurement(
        f"{title}: {settings.backbone}, {settings.image_size} pixels",
        values,
        (),
        unit=PERCENT,
        columns={"mean": mean, "deviation": spread},
        facts={"seeds": list(range(settings.repeats)), "test_images_of_each_class": TEST_IMAGES},
    )


def _places(settings: Settings) -> Iterator[tuple[str, Features]]:
    # Each kind of weights that is to be had here, and what a backbone makes of images with it.
    for kind in KINDS:
        if kind in _NO_PLACE:
            continue
        keras.utils.set_random_seed(0)
        try:
            backbone, weights = load_backbone(settings.backbone, settings.image_size, kind)
        except InputError:
            console.show(f"{kind}: no such weights of {settings.backbone} here; left out.")
            continue
        config = Config(backbone=settings.backbone, image_size=settings.image_size)
        settled = settle(config, weights)
        if not weights.pretrained:  # its outputs would vanish
            make_recalibration(backbone)(_scaled_photos(settings))
        classifier = build_classifier(settled, backbone, 2, train_batch_norm=False)
        yield kind, _features(frozen_extractor(classifier, settled), settled)


def _scaled_photos(settings: Settings) -> tf.data.Dataset:
    split = Split(*_fitted("train", settings, seed=0))
    batches = make_evaluation_dataset(split, settings.image_size, settings.batch_size, 1)
    return batches.map(lambda images, labels: scale(settings.backbone, images))


def _features(extractor: keras.Model, config: Config) -> Features:
    def features(images: np.ndarray) -> np.ndarray:
        split = Split(images, np.zeros(len(images), np.int64))
        return compute_features(extractor, split, config)

    return features


def _fitted(
    part: str,
    settings: Settings,
    seed: int,
    *,
    wide: bool = False,
    fit: str = FITS[0],
    per_class: int = max(SHOTS),
) -> tuple[np.ndarray, np.ndarray]:
    # uint8 (N, S, S, 3) images and labels.
    side = settings.image_size
    made = make_photos(part, per_class if part == "train" else TEST_IMAGES, seed, wide=wide)
    return _fit(made.images, Geometry(side, side, 3, fit)), made.labels


def _fit(images: list[Image.Image], geometry: Geometry) -> np.ndarray:
    return np.stack([fit_pixels(image, geometry) for image in images])


def _first_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)])


def _score(
    features: np.ndarray, labels: np.ndarray, asked: np.ndarray, y_true: np.ndarray
) -> float:
    # The share of test images that a regularised logistic regression gets right, in percent. It
    # sees no more directions than there are images, which changes nothing but the time it takes.
    classifier = make_pipeline(
        StandardScaler(), PCA(random_state=0), LogisticRegression(C=0.01, max_iter=200)
    )
    with threadpool_limits(1):
        classifier.fit(features.astype(np.float32), labels)
        return 100 * classifier.score(asked.astype(np.float32), y_true)
