"""Keys of random numbers: every random choice about images has a purpose of its own.

The numbers depend on (seed, epoch, purpose) and the image's index alone, through stateless
operations: the same pixels come out at any degree of parallelism, and any epoch can be made again.
"""

import enum

import tensorflow as tf


class Purpose(enum.IntEnum):
    """What random numbers are for; two purposes never share a key. A new one gets a new number."""

    WARP = 0
    ORDER = 1
    VIEW = 2
    BOX = 3
    NOISE = 4
    COLOUR = 5
    CROP = 6
    MIX = 7
    MIXUP = 8
    CUTMIX = 9


def epoch_key(seed: int, epoch: tf.Tensor | int, purpose: Purpose) -> tf.Tensor:
    """Returns int64 (2,): the key of one epoch's random numbers for a purpose."""
    key = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
    return tf.random.experimental.stateless_fold_in(key, int(purpose))
