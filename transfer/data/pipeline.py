"""From a split's arrays to a `tf.data.Dataset` of batches.

The raw uint8 images stay in memory (or in a memory-mapped file) and are the cache:
a batch is gathered by index, warped once and prefetched. The order of an epoch is a
permutation made from (seed, epoch), so any epoch can be made again on its own.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from transfer.config import Config
from transfer.data.augment import draw_boxes, draw_warps, epoch_key, erase, identity_warps, warp
from transfer.data.sources import Split


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Returns the batches of an epoch; the last one may be smaller."""
    return -(-num_images // batch_size)


def make_training_dataset(
    split: Split, config: Config, num_classes: int, *, first_epoch: int = 0
) -> tf.data.Dataset:
    """Makes the shuffled, augmented batches of all fine-tuning epochs, one after another.

    Pass it to `fit` with `steps_per_epoch`: a single iterator then runs through all epochs,
    and epoch e is the same whether the run started at 0 or at e.

    Args:
        split: images uint8 (N, H, W, 1 or 3), labels int64 (N,).
        config: uses `seed`, `batch_size`, `image_size`, `finetune_epochs` and the augmentation.
        num_classes: width of the one-hot labels.
        first_epoch: number of the first epoch made, from 0.

    Returns:
        A dataset of (float32 (B, S, S, 3) in [0, 255], float32 (B, num_classes) one-hot).
    """

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = epoch_order(split.num_images, config.seed, epoch)
        drawn = (
            order,
            tf.gather(draw_warps(config, epoch, split.num_images), order),
            tf.gather(draw_boxes(config, epoch, split.num_images), order),
        )
        batches = tf.data.Dataset.from_tensor_slices(drawn).batch(config.batch_size)
        return batches.map(lambda indices, warps, boxes: (indices, warps, boxes, epoch))

    def load(
        indices: tf.Tensor, warps: tf.Tensor, boxes: tf.Tensor, epoch: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = _gather(split, indices, num_classes)
        warped = warp(images, warps, config.image_size)
        if config.erase_probability:
            key = epoch_key(config.seed, epoch, purpose=4)
            key = tf.random.experimental.stateless_fold_in(key, indices[0])
            warped = erase(warped, boxes, key)
        return warped, labels

    epochs = tf.data.Dataset.range(first_epoch, config.finetune_epochs).flat_map(one_epoch)
    return epochs.map(load, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def make_evaluation_dataset(
    split: Split, image_size: int, batch_size: int, num_classes: int, *, flipped: bool = False
) -> tf.data.Dataset:
    """Makes the batches of a split in order, each image once, resized and otherwise untouched.

    Args:
        split: images uint8 (N, H, W, 1 or 3), labels int64 (N,).
        image_size: side of the output, in pixels.
        batch_size: images in a batch; the last one holds the rest.
        num_classes: width of the one-hot labels.
        flipped: mirror every image left to right.

    Returns:
        A dataset of (float32 (B, S, S, 3) in [0, 255], float32 (B, num_classes) one-hot).
    """

    def load(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = _gather(split, indices, num_classes)
        warps = identity_warps(tf.shape(indices)[0], flipped=flipped)
        return warp(images, warps, image_size), labels

    indices = tf.data.Dataset.range(split.num_images).batch(batch_size)
    return indices.map(load, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def make_feature_dataset(
    views: Sequence[np.ndarray],
    labels: np.ndarray,
    config: Config,
    num_classes: int,
    *,
    first_epoch: int = 0,
) -> tf.data.Dataset:
    """Makes the shuffled batches of all head epochs from features computed beforehand.

    Args:
        views: arrays float16 (N, features), perhaps memory-mapped: the same N images as they are,
            mirrored, and so on. Each epoch takes one view of each image, at random from (seed,
            epoch, image index).
        labels: int64 (N,).
        config: uses `seed`, `batch_size` and `head_epochs`.
        num_classes: width of the one-hot labels.
        first_epoch: number of the first epoch made, from 0.

    Returns:
        A dataset of (float32 (B, features), float32 (B, num_classes) one-hot).
    """
    num_images = len(labels)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = epoch_order(num_images, config.seed, epoch)
        key = epoch_key(config.seed, epoch, purpose=2)
        chosen = tf.random.stateless_uniform((num_images,), key, 0, len(views), tf.int64)
        return tf.data.Dataset.from_tensor_slices((chosen, order)).batch(config.batch_size)

    def take(chosen: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features = np.empty((len(rows), views[0].shape[1]), np.float32)
        for number, view in enumerate(views):
            features[chosen == number] = view[rows[chosen == number]]
        return features, labels[rows]

    def load(chosen: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features, targets = tf.numpy_function(
            take, [chosen, rows], (tf.float32, tf.int64), stateful=False
        )
        features.set_shape((None, views[0].shape[1]))
        targets.set_shape((None,))
        return features, tf.one_hot(targets, num_classes)

    epochs = tf.data.Dataset.range(first_epoch, config.head_epochs).flat_map(one_epoch)
    return epochs.map(load, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def epoch_order(num_images: int, seed: int, epoch: tf.Tensor | int) -> tf.Tensor:
    """Returns int64 (num_images,): the permutation that belongs to (seed, epoch)."""
    key = epoch_key(seed, epoch, purpose=1)
    return tf.random.experimental.stateless_shuffle(tf.range(num_images, dtype=tf.int64), key)


def _gather(split: Split, indices: tf.Tensor, num_classes: int) -> tuple[tf.Tensor, tf.Tensor]:
    # NumPy does the gathering, so that a memory-mapped array is read a batch at a time.
    def take(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return split.images[rows], split.labels[rows]

    images, labels = tf.numpy_function(take, [indices], (tf.uint8, tf.int64), stateful=False)
    images.set_shape((None, *split.images.shape[1:]))
    labels.set_shape((None,))
    return images, tf.one_hot(labels, num_classes)
