"""The classifier: image -> the backbone's own scaling -> backbone -> pooling -> head.

Scaling lives inside the model, random augmentation does not. The head is one nested
model, so the head phase trains the very layers that the classifier then uses.
"""

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
from sklearn.preprocessing import StandardScaler

from transfer.config import Config
from transfer.models.backbones import build_backbone, outputs_by_depth, scale, split_blocks
from transfer.models.files import read_weights

LAST, MULTI = "last", "multi"  # a head reads the backbone's last output, or several depths
HIDDEN_UNITS = 128  # behind several depths, where not asked otherwise
MOST_FEATURES = 2048  # of one depth: its channels, times the positions they are pooled to
_STANDARDIZATION = "standardization"
_ROWS = 8192  # of features in memory at once


@contextlib.contextmanager
def dtype_policy(policy: str) -> Iterator[None]:
    """Builds layers under a Keras dtype policy and puts the one before back."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def build_classifier(
    config: Config, backbone: keras.Model, num_classes: int, *, train_batch_norm: bool
) -> keras.Model:
    """Puts a backbone between its scaling and a fresh head. The backbone starts frozen.

    Args:
        config: uses `backbone`, `image_size`, `head_features`, `hidden_units`, `dropout`, `l2`,
            `seed`.
        backbone: (B, S, S, 3) -> (B, h, w, features).
        num_classes: width of the output.
        train_batch_norm: whether BatchNorm will use batch statistics while training;
            otherwise it stays in inference mode, also after unfreezing.

    Returns:
        A model from float images (B, S, S, 3) in [0, 255] to float32 (B, num_classes)
        probabilities. Its layers "backbone" and "head" are models of their own.
    """
    if config.head_features == MULTI:
        outputs = outputs_by_depth(config.backbone, backbone)
        backbone = keras.Model(backbone.input, outputs, name="backbone")
    backbone.trainable = False
    images = keras.Input((config.image_size, config.image_size, 3), name="image")
    # As the Keras guide on transfer learning: training=False is what keeps BatchNorm's
    # statistics fixed after unfreezing; None follows fit().
    features = backbone(
        scale(config.backbone, images), training=None if train_batch_norm else False
    )
    pooled = _pool(features)  # (B, features)
    head = build_head(config, pooled.shape[-1], num_classes)
    return keras.Model(images, head(pooled), name="classifier")


def _pool(outputs: keras.KerasTensor | list[keras.KerasTensor]) -> keras.KerasTensor:
    # (B, h, w, channels), one or several -> (B, features)
    if not isinstance(outputs, list):
        return keras.layers.GlobalAveragePooling2D(name="pooling")(outputs)
    pooled, window = [], outputs[-1].shape[1]  # the finer the output, the more positions it keeps
    for output in outputs:
        cells = min(output.shape[1] // window, math.isqrt(MOST_FEATURES // output.shape[-1]))
        pooled.append(keras.layers.Flatten()(_pool_to_grid(output, cells)))
    return keras.layers.Concatenate(name="pooling")(pooled)


def _pool_to_grid(output: keras.KerasTensor, cells: int) -> keras.KerasTensor:
    # (B, side, side, channels) -> (B, cells, cells, channels): means of windows of one size, which
    # overlap where they have to. Keras's adaptive pooling takes as long as the whole network.
    side = output.shape[1]
    stride = side // cells
    return keras.layers.AveragePooling2D(side - (cells - 1) * stride, stride)(output)


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
    temporary = path.with_name(f".partial-{path.name}")
    plain.save(temporary)
    with open(temporary, "rb+") as file:  # on the disk before it gets its name
        os.fsync(file.fileno())
    temporary.replace(path)


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


def build_head(config: Config, num_features: int, num_classes: int) -> keras.Model:
    """Returns features (B, num_features) -> float32 probabilities (B, num_classes)."""
    penalty = keras.regularizers.L2(config.l2) if config.l2 else None
    layers = [keras.Input((num_features,))]
    if config.head_features == MULTI:
        layers.append(_build_standardization())
    if units := choose_hidden_units(config):
        layers.append(keras.layers.Dense(units, "relu", kernel_regularizer=penalty))
    if config.dropout:
        layers.append(keras.layers.Dropout(config.dropout, seed=config.seed))
    # float32 whatever the policy: a softmax in bfloat16 loses digits of the loss.
    layers.append(
        keras.layers.Dense(num_classes, "softmax", kernel_regularizer=penalty, dtype="float32")
    )
    return keras.Sequential(layers, name="head")


def choose_hidden_units(config: Config) -> int:
    """Returns the units of the head's hidden layer, "auto" settled.

    Several depths want one: on the features of the included weights the head alone came to 93.0 %
    of Fashion-MNIST's validation images with 128 units, 91.6 % without. 256 and 512 gave no more.

    Args:
        config: uses `hidden_units` and `head_features`, "auto" of which is the last output.
    """
    if config.hidden_units != "auto":
        return config.hidden_units
    return HIDDEN_UNITS if config.head_features == MULTI else 0


def _build_standardization() -> keras.Layer:
    # Of several depths each has a scale of its own. BatchNorm as plain arithmetic, which never
    # trains: `standardize_features` gives it its mean and variance.
    return keras.layers.BatchNormalization(
        center=False, scale=False, epsilon=1e-5, trainable=False, name=_STANDARDIZATION
    )


def measure_features(features: np.ndarray) -> StandardScaler:
    """Returns a scaler that has seen each feature's mean and variance.

    Args:
        features: (N, features) of the training images, perhaps memory-mapped.
    """
    scaler = StandardScaler()
    for start in range(0, len(features), _ROWS):
        scaler.partial_fit(features[start : start + _ROWS].astype(np.float32))
    return scaler


def standardize_features(head: keras.Model, scaler: StandardScaler) -> None:
    """Makes a head that reads several depths bring each feature to mean 0 and variance 1.

    Args:
        head: as `build_head` makes it.
        scaler: as `measure_features` makes it.
    """
    head.get_layer(_STANDARDIZATION).set_weights([scaler.mean_, scaler.var_])


def feature_extractor(classifier: keras.Model) -> keras.Model:
    """Returns the part of a classifier before its head: images -> (B, features)."""
    return keras.Model(classifier.input, classifier.get_layer("pooling").output)


def unfreeze_backbone(
    name: str, backbone: keras.Model, unfreeze: float | str, *, train_batch_norm: bool
) -> int:
    """Makes the upper blocks of a backbone trainable; compile the model again afterwards.

    Args:
        name: the row of `BACKBONES` that knows the blocks.
        backbone: the backbone inside a classifier.
        unfreeze: "all", or the share of the blocks, counted from the top, rounded up.
        train_batch_norm: whether the BatchNorm layers of these blocks learn too.

    Returns:
        The number of blocks made trainable.
    """
    blocks = split_blocks(name, backbone)
    count = _count_unfrozen(blocks, unfreeze)
    backbone.trainable = True
    for number, block in enumerate(blocks):
        for layer in block:
            is_batch_norm = isinstance(layer, keras.layers.BatchNormalization)
            frozen_norm = is_batch_norm and not train_batch_norm
            layer.trainable = number >= len(blocks) - count and not frozen_norm
    return count


def least_training_bytes(config: Config, backbone: keras.Model, policy: str) -> int:
    """Returns memory that a fine-tuning step needs at the very least, in bytes.

    Backpropagation keeps what the unfrozen layers with weights put out, and more: MobileNetV2 at
    96 pixels took 12.3 MB an image, of which they are 9.8. Three quarters of that are counted, to
    refuse nothing that may fit.

    Args:
        config: uses `backbone`, `unfreeze` and `batch_size`.
        backbone: as it will be trained.
        policy: the Keras dtype policy of the training.
    """
    blocks = split_blocks(config.backbone, backbone)
    kept = [
        layer for block in blocks[-_count_unfrozen(blocks, config.unfreeze) :] for layer in block
    ]
    numbers = sum(math.prod(layer.output.shape[1:]) for layer in kept)
    bytes_each = 4 if policy == "float32" else 2
    return config.batch_size * numbers * bytes_each * 3 // 4


def _count_unfrozen(blocks: Sequence, unfreeze: float | str) -> int:
    return len(blocks) if unfreeze == "all" else math.ceil(unfreeze * len(blocks))
