"""From a split's arrays to a `tf.data.Dataset` of batches.

The raw uint8 images stay in memory (or in a memory-mapped file) and are the cache:
a batch is gathered by index, warped once and prefetched. The order of an epoch is a
permutation made from (seed, epoch), so any epoch can be made again on its own.
"""

import weakref
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from transfer.config import Config
from transfer.data.augment import Draws, augment, draw, mix, mixes, resize
from transfer.data.randomness import Purpose, epoch_key
from transfer.data.share import ALL, Share
from transfer.data.splits import Split

# Python's `if` and `for` stand here for what is known beforehand alone; to look through the source
# for others, as TensorFlow does otherwise, takes more than a second before the first step.
_as_it_stands = tf.autograph.experimental.do_not_convert

AHEAD = 4  # batches made at a time, and kept ready; each is made by all processor cores


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Returns the batches of an epoch; the last one may be smaller."""
    return -(-num_images // batch_size)


def make_training_dataset(
    split: Split,
    config: Config,
    num_classes: int,
    epochs: range | None = None,
    share: Share = ALL,
) -> tf.data.Dataset:
    """Makes the shuffled, augmented batches of epochs, one after another.

    Pass it to `fit` with `steps_per_epoch`: a single iterator then runs through all epochs,
    and epoch e is the same whether the run started at 0 or at e.

    Args:
        split: images uint8 (N, H, W, 1 or 3), labels int64 (N,).
        config: uses `seed`, `batch_size`, `image_size` and the augmentation.
        num_classes: width of the one-hot labels.
        epochs: their numbers, without gaps; None for those of the fine-tune phase from 0 on.
        share: what this process takes of each batch; no other image of it is read.

    Returns:
        A dataset of (float32 (B, S, S, 3) in [0, 255], float32 (B, num_classes) one-hot).
    """

    @_as_it_stands
    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = epoch_order(split.num_images, config.seed, epoch)
        drawn = (order, draw(config, epoch, split.num_images).take(order))
        batches = tf.data.Dataset.from_tensor_slices(drawn).batch(config.batch_size)
        return batches.map(lambda indices, draws: (indices, draws, epoch))

    gather = _make_gather(split, num_classes)

    def load(indices: tf.Tensor, draws: Draws, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        size = tf.shape(indices, tf.int64)[0]
        indices, draws = share.take((indices, draws), size)
        images, labels = gather(indices)
        shown = augment(images, indices, draws, config, epoch)
        batch = mix(shown, labels, draws.mixes) if mixes(config) else (shown, labels)
        return share.repeat(batch, size)

    numbers = range(config.finetune_epochs) if epochs is None else epochs
    made = tf.data.Dataset.range(numbers.start, numbers.stop).flat_map(one_epoch)
    return _map_owning(made, load, [split.images, split.labels])


def make_evaluation_dataset(
    split: Split,
    image_size: int,
    batch_size: int,
    num_classes: int,
    *,
    flipped: bool = False,
    share: Share = ALL,
) -> tf.data.Dataset:
    """Makes the batches of a split in order, each image once, resized and otherwise untouched.

    Args:
        split: images uint8 (N, H, W, 1 or 3), labels int64 (N,).
        image_size: side of the output, in pixels.
        batch_size: images in a batch; the last one holds the rest.
        num_classes: width of the one-hot labels.
        flipped: mirror every image left to right.
        share: what this process takes of each batch; no other image of it is read.

    Returns:
        A dataset of (float32 (B, S, S, 3) in [0, 255], float32 (B, num_classes) one-hot).
    """
    gather = _make_gather(split, num_classes)

    def load(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        size = tf.shape(indices, tf.int64)[0]
        images, labels = gather(share.take(indices, size))
        return share.repeat((resize(images, image_size, flipped=flipped), labels), size)

    indices = tf.data.Dataset.range(split.num_images).batch(batch_size)
    return _map_owning(indices, load, [split.images, split.labels])


def make_feature_dataset(
    views: Sequence[np.ndarray],
    labels: np.ndarray,
    config: Config,
    num_classes: int,
    epoch: tf.Variable,
    share: Share = ALL,
) -> tf.data.Dataset:
    """Makes the shuffled batches of a head epoch from features computed beforehand.

    Unlike the training dataset it ends with the epoch, so that `fit` can be told to take many
    steps at a time: they would take the first ones of the next epoch otherwise.

    Args:
        views: arrays float16 (N, features), perhaps memory-mapped: the same N images as they are,
            mirrored, and so on. Each epoch takes one view of each image, at random from (seed,
            epoch, image index).
        labels: int64 (N,).
        config: uses `seed` and `batch_size`.
        num_classes: width of the one-hot labels.
        epoch: int64, the number of the epoch, from 0; read when the dataset is begun.
        share: what this process takes of each batch.

    Returns:
        A dataset of (float32 (B, features), float32 (B, num_classes) one-hot), of known length.
    """
    views = list(views)
    num_images, num_features = len(labels), views[0].shape[1]
    of_views, of_labels = [_weakly(view) for view in views], _weakly(labels)

    @_as_it_stands
    def whole_epoch(unused: tf.Tensor) -> tf.data.Dataset:
        order = epoch_order(num_images, config.seed, epoch)
        key = epoch_key(config.seed, epoch, Purpose.VIEW)
        chosen = tf.random.stateless_uniform((num_images,), key, 0, len(of_views), tf.int64)
        return tf.data.Dataset.from_tensor_slices((chosen, order)).batch(config.batch_size)

    def take(chosen: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features = np.empty((len(rows), num_features), np.float16)
        for number, view in enumerate(of_views):
            at = np.flatnonzero(chosen == number)
            features[at] = view()[rows[at]]
        return features, of_labels()[rows]

    def load(chosen: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        chosen, rows = share.split(chosen, rows)
        features, targets = tf.numpy_function(
            take, [chosen, rows], (tf.float16, tf.int64), stateful=False
        )
        features.set_shape((None, num_features))
        targets.set_shape((None,))
        # TensorFlow's conversion is several times as fast as NumPy's.
        return tf.cast(features, tf.float32), tf.one_hot(targets, num_classes)

    # The function is what reads the variable anew each time.
    batches = tf.data.Dataset.range(1).flat_map(whole_epoch)
    steps = steps_per_epoch(num_images, config.batch_size)
    batches = batches.apply(tf.data.experimental.assert_cardinality(steps))
    return _map_owning(batches, load, [*views, labels])


def epoch_order(num_images: int, seed: int, epoch: tf.Tensor | int) -> tf.Tensor:
    """Returns int64 (num_images,): the permutation that belongs to (seed, epoch)."""
    key = epoch_key(seed, epoch, Purpose.ORDER)
    return tf.random.experimental.stateless_shuffle(tf.range(num_images, dtype=tf.int64), key)


def _weakly(array: np.ndarray) -> Callable[[], np.ndarray]:
    # Returns a function that returns the array and does not keep it: see `_map_owning`.
    reference = weakref.ref(array)

    def get() -> np.ndarray:
        kept = reference()
        if kept is None:
            raise ReferenceError("the dataset that owns these images is gone.")
        return kept

    return get


def _make_gather(
    split: Split, num_classes: int
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    # Returns a function from indices to images and one-hot labels.
    of_images, of_labels = _weakly(split.images), _weakly(split.labels)
    image_shape = split.images.shape[1:]

    # NumPy does the gathering, so that a memory-mapped array is read a batch at a time.
    def take(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return of_images()[rows], of_labels()[rows]

    def gather(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = tf.numpy_function(take, [indices], (tf.uint8, tf.int64), stateful=False)
        images.set_shape((None, *image_shape))
        labels.set_shape((None,))
        return images, tf.one_hot(labels, num_classes)

    return gather


def _map_owning(
    dataset: tf.data.Dataset, load: Callable, arrays: Sequence[np.ndarray]
) -> tf.data.Dataset:
    # TensorFlow keeps a function that `tf.numpy_function` was given until the process ends, and
    # with it, were it not for weak references, gigabytes. What owns the arrays is the dataset.
    loaded = without_tuner(
        dataset.map(_as_it_stands(load), num_parallel_calls=AHEAD).prefetch(AHEAD)
    )
    loaded.arrays = arrays
    return loaded


def without_tuner(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the dataset without TensorFlow's tuner of buffers and threads.

    The tuner wakes after 10 ms, 20 ms, 40 ms and so on, and every few times the end of a dataset
    waits until it does: up to as long again as the dataset was in use.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
