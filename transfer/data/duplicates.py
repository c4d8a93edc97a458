"""Pictures that are there twice: exactly, or shifted, brightened or compressed anew.

Two steps, so that 70,000 images against each other take a minute or two in bounded memory:
descriptors that such changes leave alone name a few candidates for each image; of these, the
pixels decide, at the shift that fits best and after brightness and contrast are fitted.
"""

import contextlib
from typing import NamedTuple

import numpy as np

from transfer.data.decode import decode_readable
from transfer.data.descriptors import CHUNK_IMAGES, COMPARED_SIZE, shrink, spectra
from transfer.data.fingerprints import fingerprint
from transfer.data.splits import Split
from transfer.errors import InputError
from transfer.storage.cache import FolderCache

MOST_GROUPED = 5_000  # images that are compared before a data set is divided
NUM_CANDIDATES = 12  # looked at closely for each image
MOST_DIFFERENCE = 6.0  # gray levels of 255, root mean square; measured by benchmarks/audit.py
LEAST_CORRELATION = 0.96  # of two pictures with little contrast, the difference is always small
MOST_SHIFT = 1  # pixels either way, at the compared size
MOST_CONTRAST = 3.0  # one picture's contrast by the other's, either way

_CACHE = FolderCache("duplicate-groups", ".json")
_FORMAT = 1  # part of a file's name; raise it when the same images would give other groups
_SATURATED = 250  # gray levels from which on a brightened picture has lost what it showed


class Pairs(NamedTuple):
    """Pairs of images that look the same.

    Attributes:
        first, second: int (P,), indices of the images.
        difference: float32 (P,), root mean square of what differs after shift, brightness and
            contrast are fitted, over means of 2 x 2 pixels, in gray levels of 255; 0 is the same
            picture.
    """

    first: np.ndarray
    second: np.ndarray
    difference: np.ndarray


def find_near_duplicates(images: np.ndarray, references: np.ndarray | None = None) -> Pairs:
    """Finds pairs that are one picture, shifted by a pixel, brightened or compressed anew.

    Args:
        images: uint8 (N, H, W, C); compared at no more than 32 pixels.
        references: uint8 (M, H, W, C) to look for them in; None for `images` themselves, where
            each pair is then told once, the lower index first.

    Returns:
        The pairs, the most similar first; of an image's look-alikes the nearest twelve are
        looked at.
    """
    images = shrink(images)
    if references is None:
        first, second = _candidates(spectra(images), None)
        pairs = np.unique(np.sort(np.stack([first, second], axis=1), axis=1), axis=0)
        first, second, references = pairs[:, 0], pairs[:, 1], images
    else:
        references = shrink(references)
        first, second = _candidates(spectra(images), spectra(references))
    difference = np.full(len(first), np.inf, np.float32)
    for start in range(0, len(first), CHUNK_IMAGES):
        chunk = slice(start, start + CHUNK_IMAGES)
        difference[chunk] = _differences(images[first[chunk]], references[second[chunk]])
    order = np.argsort(difference, kind="stable")
    order = order[difference[order] <= MOST_DIFFERENCE]
    return Pairs(first[order], second[order], difference[order])


def find_exact_duplicates(digests: list[bytes]) -> np.ndarray:
    """Returns, for each of N contents, the index of the first that is the same: int (N,)."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(digest, index) for index, digest in enumerate(digests)], int)


def group_near_duplicates(images: np.ndarray) -> np.ndarray:
    """Returns a number for each image, which near duplicates share, also by way of a third one.

    Args:
        images: uint8 (N, H, W, C).

    Returns:
        int (N,) in [0, G).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    images = shrink(images)
    original = find_exact_duplicates([image.tobytes() for image in images])
    unique = np.flatnonzero(original == np.arange(len(images)))
    near = find_near_duplicates(images[unique])
    first = np.concatenate([original, unique[near.first]])
    second = np.concatenate([np.arange(len(images)), unique[near.second]])
    pairs = coo_array((np.ones(len(first)), (first, second)), shape=(len(images), len(images)))
    return connected_components(pairs, directed=False)[1]


def group_split(split: Split) -> np.ndarray:
    """Returns such a number for each image of a small split that is not decoded yet.

    Image files are decoded for it at a few pixels, once; what was found is kept beside Keras's
    caches. A file that does not decode is alone.

    Args:
        split: image files, or an array; of more than `MOST_GROUPED` each image is alone.

    Returns:
        int (N,), from 0.
    """
    alone = np.arange(split.num_images)
    if split.num_images > MOST_GROUPED:
        return alone
    if not split.are_files:
        return group_near_duplicates(split.images)
    path = _CACHE.path(_FORMAT, fingerprint(split))
    kept = _CACHE.read_json(path)
    if kept is None:
        groups = alone + split.num_images
        with contextlib.suppress(InputError):  # not one decodes, which will be told
            decoded = decode_readable(split, COMPARED_SIZE)
            groups[decoded.indices] = group_near_duplicates(decoded.images)
        kept = {"groups": groups.tolist()}
        _CACHE.keep_json(path, kept)
    return np.array(kept["groups"])


def _candidates(
    queries: np.ndarray, references: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.neighbors import NearestNeighbors  # half a second that --help need not pay

    others = queries if references is None else references
    # Without references an image is not its own neighbour.
    count = min(NUM_CANDIDATES, len(others) - (references is None))
    if count < 1:
        return np.empty(0, int), np.empty(0, int)
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(others)
    second = search.kneighbors(None if references is None else queries, return_distance=False)
    return np.repeat(np.arange(len(queries)), count), second.ravel()


def _differences(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    # uint8 (P, H, W, C) each -> float32 (P,): the difference, infinite where they do not correlate.
    one, other = _best_windows(images.astype(np.float32), others.astype(np.float32))
    difference = np.minimum(_unexplained(one, other), _unexplained(other, one))
    alike = _correlation(one, other) >= LEAST_CORRELATION
    same = (one == other).all(axis=(1, 2, 3))  # two pictures of one colour do not correlate
    return np.where(same, 0, np.where(alike, difference, np.inf))


def _best_windows(images: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Returns what both show at the shift at which they correlate best, float32 (P, h, w, C) each.
    height, width = images.shape[1:3]
    edge = MOST_SHIFT if min(height, width) > 4 * MOST_SHIFT else 0
    middle = others[:, edge : height - edge, edge : width - edge]
    best, highest = middle, np.full(len(images), -np.inf, np.float32)
    steps = range(2 * edge + 1)
    for top, left in sorted(
        ((top, left) for top in steps for left in steps),
        key=lambda step: abs(step[0] - edge) + abs(step[1] - edge),  # unshifted, if that is as good
    ):
        window = images[:, top : top + height - 2 * edge, left : left + width - 2 * edge]
        correlation = _correlation(window, middle)
        better = correlation > highest
        best = np.where(better[:, None, None, None], window, best)
        highest = np.maximum(highest, correlation)
    return best, middle


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one.reshape(len(one), -1), other.reshape(len(other), -1)
    one = one - one.mean(axis=1, keepdims=True)
    other = other - other.mean(axis=1, keepdims=True)
    lengths = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return (one * other).sum(axis=1) / np.maximum(lengths, 1e-3)


def _unexplained(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    # Root mean square of one - (contrast * other + brightness), clipped as a picture is.
    pixels = (1, 2, 3)
    seen = ((one < _SATURATED) & (other < _SATURATED)).astype(np.float32)
    count = np.maximum(seen.sum(axis=pixels, keepdims=True), 1)
    mean_one = (seen * one).sum(axis=pixels, keepdims=True) / count
    mean_other = (seen * other).sum(axis=pixels, keepdims=True) / count
    centred = seen * (other - mean_other)
    covariance = (centred * (one - mean_one)).sum(axis=pixels, keepdims=True)
    contrast = covariance / np.maximum((centred**2).sum(axis=pixels, keepdims=True), 1e-3)
    contrast = np.clip(contrast, 1 / MOST_CONTRAST, MOST_CONTRAST)
    residual = one - np.clip(mean_one + contrast * (other - mean_other), 0, 255)
    # What compression adds is noise from pixel to pixel; what another picture shows is not.
    for axis in (1, 2):
        residual = _mean_of_neighbours(residual, axis)
    return np.sqrt((residual**2).mean(axis=pixels))


def _mean_of_neighbours(values: np.ndarray, axis: int) -> np.ndarray:
    size = values.shape[axis]
    if size == 1:
        return values
    before, after = (values.take(range(*ends), axis) for ends in ((size - 1,), (1, size)))
    return (before + after) / 2
