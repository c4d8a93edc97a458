"""A trained classifier on the disk."""

from pathlib import Path

import keras

from transfer.config import Config
from transfer.models.backbones import build_backbone
from transfer.models.classifier import build_classifier
from transfer.models.precision import dtype_policy
from transfer.models.weight_files import read_weights
from transfer.storage.atomic import whole_path


def save_classifier(classifier: keras.Model, config: Config, policy: str, path: Path) -> None:
    """Saves a trained classifier as a `.keras` file of Keras's own layers alone.

    Args:
        classifier: as `build_classifier` makes it, with fused BatchNorm or without.
        config: the settings it was built with.
        policy: the Keras dtype policy it was built with.
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
        policy: the Keras dtype policy it was trained with.
        path: the saved `.keras` file.

    Raises:
        InputError: the file is missing, damaged or of another architecture.
    """
    classifier = _build_plain(config, num_classes, policy)
    read_weights(classifier, path, "the weights of this run")
    return classifier
