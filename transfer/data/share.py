"""What one of several processes takes of each batch that they train on together.

A batch is divided evenly among the devices of all processes. One that cannot be, as the last
of an epoch, is repeated for each device; what counts of it stands in training/counting.py.
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class Share:
    """One process's share of each batch; that of a single process is all of it.

    Attributes:
        process: its number, from 0.
        num_processes: how many there are.
        num_devices: of all of them together, the same number in each.
        copies: how often a batch is there that cannot be divided; a multiple of `num_devices`.
        images_together: that must stay in one process, 2 where pairs of them are mixed.
    """

    process: int = 0
    num_processes: int = 1
    num_devices: int = 1
    copies: int = 1
    images_together: int = 1

    def divides(self, size: Any) -> Any:
        """Returns whether a batch of so many images, a number or a tensor, can be divided."""
        return size % (self.num_devices * self.images_together) == 0

    def take(self, batch: Any, size: tf.Tensor) -> Any:
        """Returns this process's part of a batch, all of one that cannot be divided.

        Args:
            batch: a nest of tensors whose first dimension is the image.
            size: int64 (), of images.
        """
        if self.num_devices == 1:
            return batch
        part = size // self.num_processes
        begin = tf.where(self.divides(size), part * self.process, 0)
        end = tf.where(self.divides(size), begin + part, size)
        return tf.nest.map_structure(lambda each: each[begin:end], batch)

    def repeat(self, batch: Any, size: tf.Tensor) -> Any:
        """Returns what `take` gave, repeated for the devices where it could not be divided."""
        if self.num_devices == 1:
            return batch
        times = tf.where(self.divides(size), 1, self.copies // self.num_processes)

        def repeat(each: tf.Tensor) -> tf.Tensor:
            return tf.tile(each, [times, *[1] * (each.shape.rank - 1)])

        return tf.nest.map_structure(repeat, batch)

    def split(self, *batch: Any) -> Any:
        """Returns this process's share of a batch that is at hand."""
        size = tf.shape(tf.nest.flatten(batch)[0], tf.int64)[0]
        return self.repeat(self.take(batch, size), size)


ALL = Share()


def share_batches(share: Share, *epochs: tuple[int, int]) -> tuple[list[Share], dict[int, int]]:
    """Chooses how often the last batches are repeated, so that their sizes tell them apart.

    Args:
        share: of this process.
        epochs: number of images and batch size, of training and of validation.

    Returns:
        A share for each of the epochs, and the images in a batch by the size it is repeated to.
    """
    if share.num_devices == 1:
        return [share] * len(epochs), {}
    shares, sizes = [], {size for _, size in epochs}
    images_in: dict[int, int] = {}
    for num_images, batch_size in epochs:
        rest, copies = num_images % batch_size, share.num_devices
        while rest * copies in sizes and images_in.get(rest * copies) != rest:
            copies += share.num_devices
        if rest and not share.divides(rest):
            sizes.add(rest * copies)
            images_in[rest * copies] = rest
        own = Share(
            share.process, share.num_processes, share.num_devices, copies, share.images_together
        )
        shares.append(own)
    return shares, images_in
