"""The training images that are most like a photo: what the page shows beside an answer.

They are looked for as `similar.py` looks through a catalogue, among a few thousand of the images
that a run was trained on.
"""

from typing import Any

import numpy as np
from PIL import Image

from transfer.data.splits import Split
from transfer.deploy.classifiers import photos_at_a_time
from transfer.deploy.photos import to_picture
from transfer.deploy.similar import Index, make_index
from transfer.errors import InputError
from transfer.evaluation.answering import features_of
from transfer.runs.finished import FinishedRun

MOST_IMAGES = 5000  # evenly from all
SHOWN = 6


class TrainingImages:
    """Some of a run's training images and their features.

    Args:
        run: a finished run.

    Raises:
        InputError: its data or its model cannot be used.
    """

    def __init__(self, run: FinishedRun) -> None:
        self._run = run
        train = run.used("train")
        count = train.num_images
        self._chosen = np.unique(np.linspace(0, count - 1, min(count, MOST_IMAGES)).astype(int))
        self._labels = train.labels[self._chosen]
        batch = photos_at_a_time(run.geometry)
        parts = [
            _features_of(run, run.examples("train", self._chosen[start : start + batch]))
            for start in range(0, len(self._chosen), batch)
        ]
        names = tuple(run.class_names[label] for label in self._labels)
        self._index: Index = make_index(names, np.concatenate(parts))

    def __len__(self) -> int:
        return len(self._chosen)

    def nearest(self, image: np.ndarray) -> list[tuple[Image.Image, str]]:
        """Returns the most similar ones, the nearest first, each with its class and cosine.

        Args:
            image: uint8 (H, W, 1 or 3), of the run's geometry.
        """
        (features,) = _features_of(self._run, image[np.newaxis])
        found = self._index.nearest(features, SHOWN)
        images = self._run.examples("train", self._chosen[[index for index, _ in found]])
        return [
            (to_picture(one), f"{self._index.paths[index]}, {cosine:.2f}")
            for one, (index, cosine) in zip(images, found, strict=True)
        ]


def load_training_images(run: FinishedRun) -> TrainingImages | None:
    """Returns a run's training images; None where its data are gone."""
    try:
        return TrainingImages(run)
    except InputError:
        return None


def _features_of(run: FinishedRun, images: np.ndarray) -> Any:
    return features_of(run, Split(images, np.zeros(len(images), np.int64)))
