"""A trained classifier on the disk."""

from pathlib import Path

import keras
import numpy as np

from transfer.config import Config
from transfer.errors import InputError
from transfer.models.backbones import build_backbone
from transfer.models.classifier import build_classifier
from transfer.models.head import choose_hidden_units
from transfer.models.precision import dtype_policy
from transfer.models.weight_files import read_weights
from transfer.storage.atomic import whole_path


def save_classifier(classifier: keras.Model, config: Config, policy: str, path: Path) -> None:
    """Saves a trained classifier as a `.keras` file of Keras's own layers alone.

    Args:
        classifier: as `build_classifier` makes it, with fused BatchNorm or without.
        config: the settings it was built with.
        policy: one of `POLICIES`, which it was built with.
        path: where to; appears only when it is whole.
    """
    plain = _build_plain(config, classifier.output_shape[-1], policy)
    plain.set_weights(classifier.get_weights())
    with whole_path(path) as temporary:
        plain.save(temporary)


def _build_plain(config: Config, num_classes: int, policy: str) -> keras.Model:
    with dtype_policy(policy):
        backbone = build_backbone(config.backbone, config.image_size)
        return build_classifier(config, backbone, num_classes, train_batch_norm=False)


def restore_classifier(config: Config, num_classes: int, policy: str, path: Path) -> keras.Model:
    """Rebuilds a trained classifier from its settings and loads its weights, nothing else.

    The file is never asked for an architecture or code.

    Args:
        config: the settings it was trained with.
        num_classes: width of its output.
        policy: one of `POLICIES`, which it was trained with.
        path: the saved `.keras` file.

    Raises:
        InputError: the file is missing, damaged or of another architecture.
    """
    with dtype_policy(policy):
        backbone = build_backbone(config.backbone, config.image_size)
        _check_width(config, num_classes, backbone.output_shape[-1], path)
        classifier = build_classifier(config, backbone, num_classes, train_batch_norm=False)
    read_weights(classifier, path, "the weights of this run")
    return classifier


def _check_width(config: Config, num_classes: int, num_features: int, path: Path) -> None:
    # A run from a stranger may name thousands of classes, or units, to fill the memory with a head
    # that its file has no weights for.
    hidden = choose_hidden_units(config)
    num_weights = hidden * (num_features + num_classes) if hidden else num_features * num_classes
    size = path.stat().st_size if path.is_file() else 0
    if num_weights * np.dtype(np.float32).itemsize > size:
        found = f"a file of {size:,} bytes, too small for them" if size else "no file"
        raise InputError(
            f"{path} should hold the weights of this run, of {num_classes:,} classes and "
            f"{hidden:,} hidden units. Received: {found}."
        )
