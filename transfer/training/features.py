"""The head phase's training data: the frozen backbone's outputs, computed once and kept.

Frozen features do not change from epoch to epoch, so the backbone runs over each image
once (and once over its mirror image where flips are on), and a head epoch then costs
milliseconds instead of a pass through the network. The next run with the same images, weights and
size reads them from the cache folder.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from transfer import console
from transfer.acceleration.doors import is_fast, pass_libraries, predict_batches
from transfer.config import Config
from transfer.data.fingerprints import fingerprint
from transfer.data.splits import Split
from transfer.errors import InputError, disk_error
from transfer.machine import usable_memory
from transfer.models.classifier import build_classifier, feature_extractor
from transfer.models.fingerprints import fingerprint_variables
from transfer.models.folding import fold_classifier
from transfer.models.precision import choose_inference_precision
from transfer.models.weights import Weights, load_backbone
from transfer.storage.cache import FolderCache
from transfer.training import distribution

CACHE = FolderCache("features", ".npy", most_bytes=4 * 2**30)
MEMORY_SHARE = 1 / 8  # of the memory there is; larger features stay on the disk

_FORMAT = 5  # part of a file's name; raise it when the same images would give other features


def load_features(
    extractor: keras.Model,
    split: Split,
    config: Config,
    *,
    flipped: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    tell: Callable[[str], None] = lambda line: None,
) -> np.ndarray:
    """Returns the frozen backbone's features of a split, from the cache or computed now.

    Of two processes that want the same ones the second waits for the first.

    Args:
        extractor: images (B, S, S, 3) -> (B, features).
        split: N images as uint8 arrays.
        config: uses `image_size` and `batch_size`.
        flipped: mirror the images left to right.
        callbacks: for progress while computing.
        tell: called with a line when they come from the cache, or cannot be kept there.

    Returns:
        float16 (N, features); read from the disk as needed where they are more than
        `MEMORY_SHARE` of the memory.

    Raises:
        InputError: they fit neither on the disk nor into memory.
    """
    if distribution.num_processes() > 1:
        return _load_together(extractor, split, config, flipped, callbacks, tell)
    shape = (split.num_images, *extractor.output_shape[1:])
    path = CACHE.path(*_key(extractor, split, config, flipped))
    try:
        with CACHE.locked(path):
            if CACHE.holds(path) and (kept := _open(path, shape)) is not None:
                tell("kept from an earlier run" + (f", {path}" if console.is_verbose() else ""))
                return kept
            _compute_to(path, shape, _batches(extractor, split, config, flipped, callbacks))
            if (written := _open(path, shape)) is not None:
                return written
            raise OSError(f"{path} is not what was written")
    except OSError as error:  # no place for a cache, or one that somebody blocks: then without
        _check_fits(shape, path)
        tell(f"not kept, {disk_error(error, path)}")
        return compute_features(extractor, split, config, flipped=flipped, callbacks=callbacks)


def compute_features(
    extractor: keras.Model,
    split: Split,
    config: Config,
    *,
    flipped: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> np.ndarray:
    """Runs the frozen backbone over a split, each image once, in order.

    Arguments as `load_features`.

    Returns:
        float16 (N, features), in memory.
    """
    return np.concatenate(list(_batches(extractor, split, config, flipped, callbacks)))


def _load_together(
    extractor: keras.Model,
    split: Split,
    config: Config,
    flipped: bool,
    callbacks: Sequence[keras.callbacks.Callback],
    tell: Callable[[str], None],
) -> np.ndarray:
    # Each process runs the backbone over its own images. What is kept is read if all can read it.
    path = CACHE.path(*_key(extractor, split, config, flipped))
    shape = (split.num_images, *extractor.output_shape[1:])
    kept = _open(path, shape) if CACHE.holds(path) else None
    if not distribution.any_says(kept is None) and kept is not None:
        tell(f"read from {path}")
        return kept
    rows = distribution.own_rows(split.num_images, config.batch_size)
    batches = list(_batches(extractor, split.take(np.r_[rows]), config, flipped, callbacks))
    own = np.concatenate(batches) if batches else np.empty((0, *shape[1:]), np.float16)
    features = distribution.gather_rows(own, split.num_images, config.batch_size)
    if distribution.is_first():
        try:
            with CACHE.locked(path):
                _compute_to(path, shape, [features])
        except OSError as error:
            tell(f"not kept, {disk_error(error, path)}")
    return features


def load_pretrained_features(
    images: np.ndarray,
    config: Config,
    *,
    offline: bool = False,
    wanted: Callable[[Weights], bool] = lambda weights: weights.pretrained,
) -> tuple[np.ndarray | None, Weights]:
    """Returns a pretrained backbone's features of images, as `load_features` without a run.

    Args:
        images: uint8 (N, H, W, 1 or 3).
        config: uses `backbone`, `weights`, `image_size` and `batch_size`.
        offline: never use the network.
        wanted: whether features of these weights are worth having.

    Returns:
        float16 (N, features), None where they are not wanted; and what the weights are.

    Raises:
        InputError: the weights asked for are not to be had, or do not fit the backbone.
    """
    backbone, weights = load_backbone(
        config.backbone, config.image_size, config.weights, offline=offline
    )
    if not wanted(weights):
        return None, weights
    classifier = build_classifier(config, backbone, 2, train_batch_norm=False)
    split = Split(images, np.zeros(len(images), np.int64))
    return load_features(frozen_extractor(classifier, config), split, config), weights


def frozen_extractor(classifier: keras.Model, config: Config) -> keras.Model:
    """Returns a folded copy of what a classifier has before its head, in the fastest number format.

    Args:
        classifier: as `build_classifier` makes it.
        config: uses `backbone` and `precision`.
    """
    policy, _ = choose_inference_precision(config.backbone, config.precision)
    with distribution.alone():
        return feature_extractor(fold_classifier(classifier, policy))


def _key(extractor: keras.Model, split: Split, config: Config, flipped: bool) -> tuple[Any, ...]:
    return (
        _FORMAT,
        fingerprint(split),
        flipped,
        config.backbone,
        config.image_size,
        list(_number_formats(extractor)),
        *([] if is_fast() else [keras.backend.backend()]),  # other kernels, other last digits
        *(f"{name} {version}" for name, version in pass_libraries().items()),
        fingerprint_variables(extractor.variables),
    )


def _number_formats(model: keras.Model) -> Iterator[str]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _number_formats(layer)
        elif isinstance(layer, keras.Layer):  # an operation computes in the format it is given
            yield layer.dtype_policy.name


def _batches(
    extractor: keras.Model,
    split: Split,
    config: Config,
    flipped: bool,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Iterator[np.ndarray]:
    with distribution.alone():
        for features in predict_batches(
            extractor,
            split,
            config.image_size,
            config.batch_size,
            flipped=flipped,
            callbacks=callbacks,
        ):
            # float16 halves the memory; its 11 bits are more than a head can use.
            yield np.clip(features, -65504, 65504).astype(np.float16)


def _compute_to(path: Path, shape: tuple[int, ...], batches: Iterable[np.ndarray]) -> None:
    descr = np.lib.format.dtype_to_descr(np.dtype(np.float16))
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    with CACHE.keep(path) as file:  # a mapped file would count as memory of this process
        np.lib.format.write_array_header_1_0(file, header)
        for features in batches:
            file.write(np.ascontiguousarray(features).data.cast("B"))


def _check_fits(shape: tuple[int, ...], path: Path) -> None:
    # In memory, where the disk has no room: a system that runs out of it kills without a word.
    num_bytes = np.dtype(np.float16).itemsize * math.prod(shape)
    if num_bytes > usable_memory() / 2:
        raise InputError(
            f"the features of {shape[0]:,} images should have {num_bytes / 1e9:.1f} GB on the disk "
            f"of {path.parent}. Received: less; make room, set KERAS_HOME to where there is, or "
            "give --limit."
        )


def _open(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    # None where it is none of ours, whatever its checksum: somebody put it there.
    try:
        kept = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, SyntaxError):
        return None
    if kept.shape != shape or kept.dtype != np.float16:
        return None
    if path.stat().st_size > MEMORY_SHARE * usable_memory():
        return kept
    # Read, not copied from the mapping, whose pages would be in memory a second time meanwhile.
    return np.load(path, allow_pickle=False)
