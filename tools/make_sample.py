"""Draws the embedded sample from the real files; kept so that anyone can draw it again.

    python -m tools.make_sample [FOLDER_WITH_THE_FOUR_IDX_FILES] [TARGET_FOLDER]

600 training and 100 test images of each class, in the order they have in the real files.
The content depends on nothing but those files; the compressed bytes also on liblzma's version.
"""

import lzma
import struct
import sys
from pathlib import Path

import numpy as np

from transfer.datasets import places

SEED = 2017  # any fixed number
IMAGES_PER_CLASS = {"train": 600, "t10k": 100}


def draw_indices(labels: np.ndarray, images_per_class: int) -> np.ndarray:
    """Returns int64 (classes * images_per_class,), ascending: as many images of each class."""
    # RandomState, because its numbers are the same in every version of numpy.
    random = np.random.RandomState(SEED)
    drawn = [
        random.permutation(np.flatnonzero(labels == label))[:images_per_class]
        for label in np.unique(labels)
    ]
    return np.sort(np.concatenate(drawn))


def draw_sample(folder: Path) -> dict[str, bytes]:
    """Returns the content of the sample's four IDX files by name, not compressed.

    Args:
        folder: holds the four files of Fashion-MNIST.

    Raises:
        InputError: `folder` does not hold the published files.
    """
    published = places.load_published(folder)
    contents = {}
    for part, split in (("train", published.train), ("t10k", published.test)):
        drawn = split.take(draw_indices(split.labels, IMAGES_PER_CLASS[part]))
        images = struct.pack(">4I", 0x0803, *drawn.images.shape[:3]) + drawn.images.tobytes()
        labels = struct.pack(">2I", 0x0801, drawn.num_images) + drawn.labels.astype("u1").tobytes()
        contents |= {f"{part}-images-idx3-ubyte": images, f"{part}-labels-idx1-ubyte": labels}
    return contents


def write_sample(folder: Path, target: Path) -> None:
    """Draws the sample from the files in `folder` and writes it, xz-compressed, into `target`."""
    for stem, content in draw_sample(folder).items():
        compressed = lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)
        (target / f"{stem}.xz").write_bytes(compressed)


if __name__ == "__main__":
    arguments = [Path(argument) for argument in sys.argv[1:]]
    defaults = [places.SYSTEM_FOLDER, places.SAMPLE_FOLDER]
    write_sample(*(arguments + defaults[len(arguments) :]))
