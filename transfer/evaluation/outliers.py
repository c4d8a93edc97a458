"""Whether an image is like the training images at all: beside `calibration.py`, on features.

A classifier names one of its classes for every image, also for one of none of them. How far the
features of an image lie from those of the training images tells such images apart.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transfer.datasets.formats.npz import read_arrays
from transfer.errors import InputError
from transfer.storage.atomic import whole_file

MOST_DIRECTIONS = 64  # 128 and 256 told digits, fractals and noise no better from Fashion-MNIST
# Of validation images: the field's usual point. At 99 % half of all digits pass for clothes.
SHARE_KNOWN = 0.95


@dataclass(frozen=True, eq=False)
class KnownImages:
    """Where the training images of each class lie among features, float32 all.

    Attributes:
        mean: (F,), of all.
        directions: (F, K), orthonormal: those in which the features vary most.
        whitening: (K, K), brings the spread within a class to 1 in each direction.
        centres: (C, K), of each class, whitened.
        rest_deviation: float, standard deviation of a feature outside of the directions.
        threshold: a distance above it is that of an image of none of the classes.
        borders: (2,), levels of gray from 0 to 255 between which the borders of 90 % of the
            training images lie, each image by the median of its outermost pixels.
    """

    mean: np.ndarray
    directions: np.ndarray
    whitening: np.ndarray
    centres: np.ndarray
    rest_deviation: float
    threshold: float
    borders: np.ndarray

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Returns how far features (N, F) lie from the nearest class, float64 (N,).

        The Mahalanobis distance of K. Lee et al., NeurIPS 2018, arXiv:1807.03888, with one
        covariance for all classes, in the K directions; outside of them, where the features of
        known images hardly vary, the same variance in each, as probabilistic PCA has it
        (M. Tipping and C. Bishop, 1999).
        """
        centred = features.astype(np.float64) - self.mean
        inside = centred @ self.directions
        outside = np.square(centred).sum(axis=1) - np.square(inside).sum(axis=1)
        white = inside @ self.whitening
        crossed = np.square(self.centres).sum(axis=1) - 2 * white @ self.centres.T  # (N, C)
        to_centre = np.square(white).sum(axis=1) + crossed.min(axis=1)
        return np.sqrt(
            np.maximum(to_centre, 0.0) + np.maximum(outside, 0.0) / self.rest_deviation**2
        )

    def write(self, path: Path, model_sha256: bytes) -> None:
        """Writes it as .npz, whole or not at all, bound to the model whose features they are."""
        arrays = {name: getattr(self, name) for name in _NAMES}
        arrays[_BINDING] = np.frombuffer(model_sha256, np.uint8)
        with whole_file(path) as file:
            np.savez(file, **arrays)


_NAMES = tuple(KnownImages.__dataclass_fields__)
_BINDING = "model_sha256"


def read_known(path: Path, num_classes: int, model_sha256: bytes) -> KnownImages | None:
    """Reads what `KnownImages.write` wrote; None where it is damaged or of another model."""
    try:
        arrays = read_arrays(path, (*_NAMES, _BINDING))
    except (InputError, OSError):
        return None
    if arrays.pop(_BINDING).tobytes() != model_sha256:
        return None
    shapes = [arrays[name].shape for name in _NAMES]
    features, count = arrays["directions"].shape if arrays["directions"].ndim == 2 else (0, 0)
    expected = [(features,), (features, count), (count, count), (num_classes, count), (), (), (2,)]
    are_finite = all(
        array.dtype.kind == "f" and np.isfinite(array).all() for array in arrays.values()
    )
    if shapes != expected or not are_finite or not arrays["rest_deviation"] > 0:
        return None
    rest, threshold = float(arrays["rest_deviation"]), float(arrays["threshold"])
    mean, directions, whitening, centres = (arrays[name] for name in _NAMES[:4])
    return KnownImages(mean, directions, whitening, centres, rest, threshold, arrays["borders"])


def fit_known(
    features: np.ndarray, labels: np.ndarray, validation: np.ndarray, borders: np.ndarray
) -> KnownImages:
    """Finds where the training images lie, and how far validation images lie from them.

    Args:
        features: (N, F) of training images, some of each class.
        labels: (N,) integers in [0, C), every class among them.
        validation: (M, F) of validation images, which choose the threshold: `SHARE_KNOWN` of
            them lie within it.
        borders: (N,), as `border_levels` returns them for the training images.
    """
    from sklearn.covariance import ledoit_wolf

    features = features.astype(np.float64)
    mean = features.mean(axis=0)
    centred = features - mean
    directions = _main_directions(centred)
    inside = centred @ directions
    outside = np.square(centred).sum() - np.square(inside).sum()
    centres = np.stack([inside[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    # Of few images a covariance is mostly noise: shrunk by the rule of Ledoit and Wolf, 2004.
    covariance, _ = ledoit_wolf(inside - centres[labels], assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(
        np.maximum(values, np.finfo(np.float32).eps * values.max() + _TINY)
    )
    spare = max(centred.size - len(centred) * directions.shape[1], 1)
    # Where the directions hold all there is, the rest is rounding.
    least = _LEAST_REST * np.square(centred).mean() + _TINY
    known = KnownImages(
        mean.astype(np.float32),
        directions.astype(np.float32),
        whitening.astype(np.float32),
        (centres @ whitening).astype(np.float32),
        rest_deviation=float(np.sqrt(max(outside / spare, least))),
        threshold=0.0,
        borders=np.quantile(borders, (0.05, 0.95)).astype(np.float32),
    )
    threshold = float(np.quantile(known.distances(validation), SHARE_KNOWN))
    return dataclasses.replace(known, threshold=threshold)


_TINY = 1e-6  # features that never vary
_LEAST_REST = 1e-3  # share of the mean variance


def _main_directions(centred: np.ndarray) -> np.ndarray:
    # (N, F) -> (F, K), by the smaller of the two products.
    num_images, num_features = centred.shape
    count = max(1, min(MOST_DIRECTIONS, num_features, num_images // 4))
    if num_images < num_features:
        values, vectors = np.linalg.eigh(centred @ centred.T)
        vectors = centred.T @ vectors[:, ::-1][:, :count]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=0), _TINY)
    return np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count]


def measure_known(known: np.ndarray, others: np.ndarray) -> float:
    """Returns the area under the ROC curve (AUROC) of the distance, in [0, 1].

    It is the chance that an image of another kind lies farther away than a known one.

    Args:
        known: (N,) distances of test images.
        others: (M,) distances of images of another kind.
    """
    from sklearn.metrics import roc_auc_score

    is_other = np.repeat([0, 1], [len(known), len(others)])
    return float(roc_auc_score(is_other, np.concatenate([known, others])))


def border_levels(images: np.ndarray) -> np.ndarray:
    """Returns the median of the outermost pixels of each image, float64 (N,) in [0, 255].

    Args:
        images: uint8 (N, H, W, 1 or 3).
    """
    gray = images.mean(axis=3) if images.shape[3] == 3 else images[..., 0]
    sides = (gray[:, 0], gray[:, -1], gray[:, :, 0], gray[:, :, -1])
    return np.median(np.concatenate(sides, axis=1), axis=1).astype(np.float64)
