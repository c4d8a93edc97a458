"""An audit, top to bottom: images, findings, label errors, lists and pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from transfer import console
from transfer.auditing.findings import examine, read_images
from transfer.auditing.label_errors import find_label_errors
from transfer.auditing.report import write_audit
from transfer.backend import load_keras
from transfer.config import Config
from transfer.data.descriptors import appearance_features
from transfer.data.splits import Loaded
from transfer.datasets.sources import describe_origin, load_undivided
from transfer.models.pretrained import MADE_FROM
from transfer.models.weights import Weights, check_weights


def audit(
    config: Config,
    out: Path,
    *,
    arrays: Loaded | None = None,
    offline: bool = False,
    verbose: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Looks for what is wrong with a data set and lists it in a folder, with pictures.

    Args:
        config: uses `data`, `limit`, `image_size`; `weights` and `backbone`, by whose features
            label errors are found, or "none" for the images' gradients and pixels; "auto" for
            features of images in colour by weights that have seen photos.
        out: the folder.
        arrays: images in memory, in place of `config.data`.
        offline: never use the network.
        verbose: let the libraries log and warn.
        command: as it was typed, for the record.

    Returns:
        The numbers of the audit, as `summarise` returns them.

    Raises:
        InputError: the data or the weights cannot be used, or the folder cannot be written.
    """
    check_weights(config.weights)
    loaded = load_undivided(arrays or config.data, offline=offline)
    facts = {"data": describe_origin(loaded), "command": command}
    console.say(f"Data: {facts['data']}")
    images = read_images(loaded, config.image_size, config.limit)
    features, facts["features"] = _describe(images.pixels, config, offline, verbose)
    console.say(f"Label errors are looked for by {facts['features']}")
    with console.status("Looking for duplicates"):
        findings = examine(images)
    with console.status("Looking for label errors"):
        errors = find_label_errors(features, images.labels)
    return write_audit(out, facts, images, findings, errors)


def _describe(
    pixels: np.ndarray, config: Config, offline: bool, verbose: bool = False
) -> tuple[np.ndarray, str]:
    """Returns the features (N, D) that label errors are found by, and what they are, in words."""

    # Pixels and gradients doubt many a right label of photos, which vary more, and so do features
    # that have never seen a photo: docs/data.md.
    def is_wanted(weights: Weights) -> bool:
        return weights.pretrained and (config.weights != "auto" or weights.name not in MADE_FROM)

    is_gray = pixels.shape[3] == 1
    if config.weights != "none" and not (config.weights == "auto" and is_gray):
        load_keras(verbose)
        from transfer.training.features import load_pretrained_features

        features, weights = load_pretrained_features(
            pixels, config, offline=offline, wanted=is_wanted
        )
        if features is not None:
            return features, f"features of {config.backbone}, {weights.short}"
    return appearance_features(pixels), "gradients and pixels of the images"
