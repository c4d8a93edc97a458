"""Explanations: the part of an image that speaks for a class, and what the layers see of it.

Both need the network itself, unlike everything else in a report. `galleries.py` draws them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from transfer.data.augment import resize
from transfer.runs.finished import FinishedRun
from transfer.runs.predictions import Predictions

SMALLEST_SIDE = 7  # cells, as of 224 pixels in the paper; 4 x 4 mark little but corners
IMAGES_AT_ONCE = 8  # bounds the memory: all activations of an image are kept for the gradient
EXPLAINED_EACH = 6  # images predicted rightly, and wrongly


@dataclass(frozen=True)
class FeatureMaps:
    """What one layer makes of one image."""

    layer: str  # its name
    maps: np.ndarray  # float32 (h, w, channels)


@dataclass(frozen=True)
class Explanations:
    """What the report shows of a few test images.

    Attributes:
        right: (R,) indices of test images predicted rightly, drawn evenly by chance.
        wrong: (W,) indices of the mistakes that the classifier was surest of.
        for_predicted: float32 (R + W, h, w) in [0, 1], as `class_activation_maps` returns them,
            of the predicted class; first of `right`, then of `wrong`.
        for_true: float32 (W, h, w) in [0, 1], of the true class of `wrong`.
        layer: whose activation they are.
        example: index of the test image in `feature_maps`.
        feature_maps: of one layer for each resolution, from input to output.
    """

    right: np.ndarray
    wrong: np.ndarray
    for_predicted: np.ndarray
    for_true: np.ndarray
    layer: str
    example: int
    feature_maps: list[FeatureMaps]


def can_explain() -> bool:
    """Returns whether this backend of Keras gives the gradients of activations: TensorFlow does."""
    return bool(keras.backend.backend() == "tensorflow")


def explain_run(run: FinishedRun, predictions: Predictions) -> Explanations:
    """Explains a few of a run's predictions.

    Args:
        run: a finished run.
        predictions: of its test images.

    Raises:
        InputError: the data is gone, or the model file does not fit the run.
    """
    classifier, test = run.classifier, run.images("test")
    predicted = predictions.y_prob.argmax(axis=1)
    right, wrong = choose_examples(predictions.y_true, predictions.y_prob)
    chosen = np.concatenate([right, wrong])

    views = resize(test.images[chosen], run.settings.image_size).numpy()
    # In one call, because a network of its own is made for it.
    maps = class_activation_maps(
        classifier,
        np.concatenate([views, views[len(right) :]]),
        np.concatenate([predicted[chosen], predictions.y_true[wrong]]),
    )
    return Explanations(
        right=right,
        wrong=wrong,
        for_predicted=maps[: len(chosen)],
        for_true=maps[len(chosen) :],
        layer=explained_layer(classifier.get_layer("backbone")).name,
        example=int(chosen[0]),
        feature_maps=feature_maps(classifier, views[0]),
    )


def choose_examples(
    y_true: np.ndarray, y_prob: np.ndarray, num_each: int = EXPLAINED_EACH, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses predictions to explain: right ones by chance, and the surest mistakes.

    Args:
        y_true: (N,) integers in [0, C).
        y_prob: (N, C) floats in [0, 1].
        num_each: at most so many of each.
        seed: which right ones are drawn.

    Returns:
        Two arrays of indices, of right ones and of mistakes.
    """
    is_right, confidence = y_prob.argmax(axis=1) == y_true, y_prob.max(axis=1)
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(is_right))[:num_each]
    wrong = np.flatnonzero(~is_right)
    return np.sort(drawn), wrong[np.argsort(-confidence[wrong], kind="stable")[:num_each]]


def class_activation_maps(
    classifier: keras.Model, images: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """Returns Grad-CAM: where an image speaks for a class, to this classifier.

    The channels of a late layer are weighed by how much each raises the class's score, before
    the softmax, and added up; what lowers it is left out.
    Source: R. Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
    Gradient-based Localization", ICCV 2017, https://arxiv.org/abs/1610.02391.

    Args:
        classifier: as `build_classifier` makes it, or an inference copy of one.
        images: (N, S, S, 3) floats in [0, 255].
        classes: (N,) integers in [0, C).

    Returns:
        float32 (N, h, w) in [0, 1], the largest of each image 1, or all 0 where nothing speaks
        for the class. The cells divide the image evenly.
    """
    layer = explained_layer(classifier.get_layer("backbone"))
    model = _with_activations(classifier, [layer.output])
    height, width = layer.output.shape[1:3]
    maps = np.zeros((len(images), height, width), np.float32)
    for start in range(0, len(images), IMAGES_AT_ONCE):
        part = slice(start, start + IMAGES_AT_ONCE)
        maps[part] = _maps(model, tf.constant(images[part], tf.float32), classes[part])
    return maps


def _maps(model: keras.Model, images: tf.Tensor, classes: np.ndarray) -> np.ndarray:
    with tf.GradientTape() as tape:
        tape.watch(images)  # frozen weights alone would leave nothing to follow
        activation, scores = model(images, training=False)
        of_class = tf.gather(scores, classes, axis=1, batch_dims=1)  # (N,)
    gradient = tape.gradient(of_class, activation)  # (N, h, w, channels)
    activation, gradient = (tf.cast(value, tf.float32) for value in (activation, gradient))
    weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
    maps = tf.nn.relu(tf.reduce_sum(weights * activation, axis=-1)).numpy()
    return maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)


def _with_activations(
    classifier: keras.Model, activations: Sequence[keras.KerasTensor]
) -> keras.Model:
    """Returns images -> [*activations inside the backbone, scores before the softmax].

    The copy shares the backbone's layers; the classifier itself stays as it is.
    """
    backbone, head = classifier.get_layer("backbone"), classifier.get_layer("head")
    inner = keras.Model(backbone.inputs, [*activations, *backbone.outputs])
    linear_head, kept = _without_softmax(head), []

    def clone(layer: keras.Layer) -> keras.Layer:
        if layer in (backbone, head):
            return layer
        return type(layer).from_config(layer.get_config())

    def call(layer: keras.Layer, *inputs: keras.KerasTensor, **options: Any) -> keras.KerasTensor:
        if layer is head:
            return linear_head(*inputs)
        if layer is not backbone:
            return layer(*inputs, **options)
        found = inner(*inputs, training=False)
        kept.extend(found[: len(activations)])
        outputs = found[len(activations) :]
        return outputs[0] if len(outputs) == 1 else outputs

    copy = keras.models.clone_model(classifier, clone_function=clone, call_function=call)
    for layer in classifier.layers:
        if layer.weights and layer not in (backbone, head):
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return keras.Model(copy.inputs, [*kept, *copy.outputs])


def _without_softmax(head: keras.Model) -> keras.Model:
    def clone(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        is_last = layer is head.layers[-1]
        return type(layer).from_config(config | {"activation": "linear"} if is_last else config)

    copy = keras.models.clone_model(head, clone_function=clone)
    copy.set_weights(head.get_weights())
    return copy


def explained_layer(backbone: keras.Model) -> keras.Operation:
    """Returns the deepest layer of the trunk whose map still says where: 7 x 7 cells or more."""
    trunk = trunk_layers(backbone)
    fine = [layer for layer in trunk if min(layer.output.shape[1:3]) >= SMALLEST_SIDE]
    return (fine or trunk)[-1]


def trunk_layers(backbone: keras.Model) -> list[keras.Operation]:
    """Returns the layers that everything passes through: none in a branch beside another.

    Args:
        backbone: a functional model of fixed image size.

    Returns:
        Layers, or plain sums of two, with a map (B, h, w, channels) as output, from input to
        output. Padding is left out: its cells do not divide the image evenly.
    """
    nodes = backbone.operations  # its layers, and sums of branches where they are no layers
    last_reader: dict[str, int] = {}  # name of a node to the position of the last that reads it
    for position, node in enumerate(nodes):
        # A nested model does not know its place in the graph; it reads what stands before it.
        inputs = [] if isinstance(node, keras.Model) else keras.tree.flatten(node.input)
        for tensor in inputs:
            last_reader[tensor._keras_history.operation.name] = position
    skipped = (keras.Model, keras.layers.InputLayer, keras.layers.ZeroPadding2D)
    trunk, read_until = [], 0
    for position, node in enumerate(nodes):
        is_map = not isinstance(node, skipped) and len(node.output.shape) == 4
        if is_map and read_until <= position:
            trunk.append(node)
        read_until = max(read_until, last_reader.get(node.name, position))
    return trunk


def feature_maps(classifier: keras.Model, image: np.ndarray) -> list[FeatureMaps]:
    """Returns what the last trunk layer of each resolution makes of an image.

    Args:
        classifier: as `build_classifier` makes it, or an inference copy of one.
        image: (S, S, 3) floats in [0, 255].

    Returns:
        One for each resolution, the finest first; those of a single cell are left out.
    """
    trunk = trunk_layers(classifier.get_layer("backbone"))
    last = {layer.output.shape[1:3]: layer for layer in trunk if min(layer.output.shape[1:3]) > 1}
    layers = list(last.values())
    model = _with_activations(classifier, [layer.output for layer in layers])
    *maps, _ = model(tf.constant(image[np.newaxis], tf.float32), training=False)
    return [
        FeatureMaps(layer.name, tf.cast(of_layer[0], tf.float32).numpy())
        for layer, of_layer in zip(layers, maps, strict=True)
    ]
