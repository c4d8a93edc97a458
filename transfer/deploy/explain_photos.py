"""Grad-CAM of a user's own photos: which part of each speaks for its class, as pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from transfer.deploy.answers import fit_name
from transfer.deploy.photos import Photos
from transfer.errors import InputError
from transfer.evaluation.explain import can_explain, class_activation_maps
from transfer.plots.overlay import draw_overlay
from transfer.runs.finished import FinishedRun

Explainer = Callable[[Photos, Sequence[str], np.ndarray], None]


def explain_into(run: FinishedRun, folder: Path) -> Explainer:
    """Returns what writes a picture of each photo into a folder: 000001-name.png and so on.

    Raises:
        InputError: Keras does not run on TensorFlow, or the folder cannot be written.
    """
    if not can_explain():
        raise InputError("--explain needs Keras on TensorFlow.")
    written = 0

    def explain(photos: Photos, paths: Sequence[str], classes: np.ndarray) -> None:
        nonlocal written
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for index, picture in zip(
                photos.indices, explain_images(run, photos.images, classes), strict=True
            ):
                written += 1
                stem = f"{written:06d}-{Path(paths[index]).stem[:100]}"
                picture.save(folder / fit_name(stem, ".png"))
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror or error}.") from error

    return explain


def explain_images(run: FinishedRun, images: np.ndarray, classes: np.ndarray) -> list[Image.Image]:
    """Returns each image with the places that speak for a class.

    Args:
        run: a finished run.
        images: uint8 (N, H, W, 1 or 3), of the run's geometry.
        classes: (N,) integers in [0, C).
    """
    from transfer.data.augment import resize

    views = resize(images, run.settings.image_size).numpy()
    maps = class_activation_maps(run.classifier, views, classes)
    return [draw_overlay(image, one) for image, one in zip(images, maps, strict=True)]
