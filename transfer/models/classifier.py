"""The classifier: image -> the backbone's own scaling -> backbone -> pooling -> head.

Scaling lives inside the model, random augmentation does not. The head is one nested
model, so the head phase trains the very layers that the classifier then uses.
"""

import math
from collections.abc import Sequence

import keras

from transfer.config import Config
from transfer.models.backbones import outputs_by_depth, scale, split_blocks
from transfer.models.head import MULTI, build_head
from transfer.models.precision import BFLOAT16

MOST_FEATURES = 2048  # of one depth: its channels, times the positions they are pooled to


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
        backbone = keras.Model(backbone.input, _outputs(config, backbone), name="backbone")
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


def count_features(config: Config, backbone: keras.Model) -> int:
    """Returns how many features of an image the head of such a classifier sees.

    Args:
        config: uses `backbone` and `head_features`.
        backbone: (B, S, S, 3) -> (B, h, w, features).
    """
    return _pool(_outputs(config, backbone)).shape[-1]


def _outputs(config: Config, backbone: keras.Model) -> keras.KerasTensor | list[keras.KerasTensor]:
    if config.head_features == MULTI:
        return outputs_by_depth(config.backbone, backbone)
    return backbone.output


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


def feature_extractor(classifier: keras.Model) -> keras.Model:
    """Returns the part of a classifier before its head: images -> (B, features)."""
    return keras.Model(classifier.input, classifier.get_layer("pooling").output)


def with_features(classifier: keras.Model) -> keras.Model:
    """Returns images -> (B, C + F): a classifier's probabilities beside its features."""
    features = keras.ops.cast(classifier.get_layer("pooling").output, "float32")
    both = keras.layers.Concatenate(dtype="float32")([classifier.output, features])
    return keras.Model(classifier.input, both)


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


def count_unfrozen(config: Config, classifier: keras.Model, *, train_batch_norm: bool) -> int:
    """Returns how many parameters fine-tuning trains; the classifier stays frozen as it was built.

    Args:
        config: uses `backbone` and `unfreeze`.
        classifier: as `build_classifier` makes it.
        train_batch_norm: as for `unfreeze_backbone`.
    """
    backbone = classifier.get_layer("backbone")
    unfreeze_backbone(config.backbone, backbone, config.unfreeze, train_batch_norm=train_batch_norm)
    count = count_numbers(classifier.trainable_weights)
    backbone.trainable = False
    return count


def count_numbers(weights: Sequence[keras.Variable]) -> int:
    """Returns how many numbers variables hold together."""
    return sum(math.prod(each.shape) for each in weights)


def decay_by_block(name: str, backbone: keras.Model, decay: float) -> dict[str, float]:
    """Returns factors of the learning rate that fall from the top of the backbone to its bottom.

    Layer-wise rate decay as of Howard and Ruder, arXiv:1801.06146, by block.

    Args:
        name: the row of `BACKBONES` that knows the blocks.
        backbone: the backbone inside a classifier.
        decay: the factor from a block to the one below; that of the top block itself, since the
            head is above it.

    Returns:
        By the path of a variable, above 0 to 1.
    """
    blocks = split_blocks(name, backbone)
    return {
        variable.path: decay ** (len(blocks) - number)
        for number, block in enumerate(blocks)
        for layer in block
        for variable in layer.variables
    }


def least_training_bytes(config: Config, backbone: keras.Model, policy: str) -> int:
    """Returns memory that a fine-tuning step needs at the very least, in bytes.

    Backpropagation keeps most of what the unfrozen layers with weights put out: MobileNetV2 at 96
    pixels took 6.1 MB more for each image of a batch, and they are 9.8, since what goes straight
    into an activation is not kept. Half of that is counted, to refuse nothing that may fit.

    Args:
        config: uses `backbone`, `unfreeze` and `batch_size`.
        backbone: as it will be trained.
        policy: the number format of the training, one of `POLICIES`.
    """
    blocks = split_blocks(config.backbone, backbone)
    kept = [
        layer for block in blocks[-_count_unfrozen(blocks, config.unfreeze) :] for layer in block
    ]
    numbers = sum(math.prod(layer.output.shape[1:]) for layer in kept)
    bytes_each = 2 if policy == BFLOAT16 else 4
    return config.batch_size * numbers * bytes_each // 2


def _count_unfrozen(blocks: Sequence, unfreeze: float | str) -> int:
    return len(blocks) if isinstance(unfreeze, str) else math.ceil(unfreeze * len(blocks))
