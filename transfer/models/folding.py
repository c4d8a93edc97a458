"""An inference copy of a network, with BatchNorm and padding folded into the convolutions.

In inference BatchNorm is a fixed scale and offset for each channel. Behind a convolution
or a dense layer these go into its kernel and bias, and a pass over memory is saved; another one
where a layer of zeros before a convolution is what its own padding would add. The head phase,
evaluation and prediction run on such copies.
"""

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

_FOLDABLE = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
_KEEP_PRECISION = (
    keras.layers.InputLayer,
    keras.layers.Rescaling,
    keras.layers.Normalization,
)


def fold_batch_norm(model: keras.Model, policy: str | None = None) -> keras.Model:
    """Returns a copy of a functional model that computes the same in inference, folded.

    A BatchNorm that follows anything else (the sum of two branches, say) stays as it is.

    Args:
        model: its nested models are kept as they are, not folded.
        policy: Keras's dtype policy of the copy, or None for that of each layer. The scaling of
            images keeps its own: bfloat16 cannot tell apart 254 and 254.5. Convolutions and dense
            layers also keep their weights in the format that they compute in.

    Returns:
        A new model with weights of its own; its layers keep their names.
    """
    folded = {norm.name: layer for norm, layer in foldable_pairs(model)}
    with_bias = {layer.name for layer in folded.values()}
    paddings = replaceable_paddings(model)  # of convolutions, by name
    removed = {*folded, *paddings.values()}

    def clone(layer: keras.Layer) -> keras.Layer:
        if layer.name in removed:
            return keras.layers.Identity(name=layer.name, dtype=policy or layer.dtype_policy.name)
        config = layer.get_config()
        if layer.name in with_bias:
            config["use_bias"] = True
        if layer.name in paddings:
            config["padding"] = "same"
        if policy and isinstance(layer, _FOLDABLE):
            # Rounded once, not for each batch: it computes with nothing finer.
            config["dtype"] = keras.DTypePolicy(policy).compute_dtype
        elif policy and isinstance(layer, keras.Layer) and not isinstance(layer, _KEEP_PRECISION):
            config["dtype"] = policy
        return _keras_kind(layer).from_config(config)

    def call(layer: keras.Layer, *inputs: keras.KerasTensor, **options: Any) -> keras.KerasTensor:
        # Identity takes none of BatchNorm's options (training, mask).
        return layer(*inputs) if layer.name in removed else layer(*inputs, **options)

    copy = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        if layer.weights and layer.name not in folded and layer.name not in with_bias:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    for norm_name, layer in folded.items():
        weights = _fold(layer, model.get_layer(norm_name))
        copy.get_layer(layer.name).set_weights(weights)
    copy.name = model.name
    return copy


def fold_classifier(classifier: keras.Model, policy: str | None = None) -> keras.Model:
    """Returns an inference copy of a classifier with its backbone folded.

    Args:
        classifier: as `build_classifier` makes it.
        policy: Keras's dtype policy of the backbone, or None for the one it has; pooling and head
            keep theirs.
    """

    def clone(layer: keras.Layer) -> keras.Layer:
        if layer.name == "backbone":
            return fold_batch_norm(layer, policy)
        return type(layer).from_config(layer.get_config())

    copy = keras.models.clone_model(classifier, clone_function=clone)
    copy.get_layer("head").set_weights(classifier.get_layer("head").get_weights())
    return copy


def _keras_kind(layer: keras.Layer) -> type[keras.Layer]:
    # Keras's own class of a layer that only trains in another way: what gives it cheap gradients
    # hides from an engine what it could compute as one operation (OpenVINO then took three times
    # as long). A layer that is not one of Keras's stays as it is.
    kind = next(each for each in type(layer).__mro__ if each.__module__.startswith("keras."))
    return type(layer) if kind is keras.Layer else kind


def foldable_pairs(model: keras.Model) -> list[tuple[keras.Layer, keras.Layer]]:
    """Returns the BatchNorm layers that can be folded, each with the layer it alone reads."""
    pairs = []
    for layer, norm in _only_readers(model):
        is_norm = isinstance(layer, _FOLDABLE) and isinstance(norm, keras.layers.BatchNormalization)
        if is_norm and layer.activation is keras.activations.linear and _is_last_axis(norm):
            pairs.append((norm, layer))
    return pairs


def replaceable_paddings(model: keras.Model) -> dict[str, str]:
    """Returns the names of the convolutions whose padding="same" is a layer of zeros before them.

    Returns:
        By name of the convolution that of the layer of zeros, which it alone reads.
    """
    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    return {
        reader.name: layer.name
        for layer, reader in _only_readers(model)
        if isinstance(layer, keras.layers.ZeroPadding2D)
        and isinstance(reader, convolutions)
        and reader.padding == "valid"
        and layer.padding == _same_padding(reader, layer.input.shape[1:3])
    }


def _same_padding(
    convolution: keras.Layer, sides: tuple[int | None, int | None]
) -> tuple[tuple[int, int], ...] | None:
    # What padding="same" would add, as ((top, bottom), (left, right)); None where not known.
    # https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
    if None in sides or tuple(convolution.dilation_rate) != (1, 1):
        return None
    paddings = []
    for side, kernel, stride in zip(
        sides, convolution.kernel_size, convolution.strides, strict=True
    ):
        total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        paddings.append((total // 2, total - total // 2))
    return tuple(paddings)


def _only_readers(model: keras.Model) -> Iterator[tuple[keras.Layer, keras.Layer]]:
    # Each layer whose output one layer alone reads, with that one.
    readers: dict[int, list[keras.Layer]] = {}
    for layer in model.layers:
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        for tensor in inputs:
            readers.setdefault(id(tensor), []).append(layer)
    outputs = {id(tensor) for tensor in model.outputs}
    for layer in model.layers:
        read_by = readers.get(id(layer.output), [])
        if len(read_by) == 1 and id(layer.output) not in outputs:
            yield layer, read_by[0]


def _is_last_axis(norm: keras.layers.BatchNormalization) -> bool:
    return norm.axis in (-1, len(norm.input.shape) - 1)


def _fold(layer: keras.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    # Returns kernel and bias of `layer` followed by `norm`, computed in float64.
    def value(variable: keras.Variable | None, default: float) -> np.ndarray | float:
        return default if variable is None else variable.numpy().astype(np.float64)

    scale = value(norm.gamma if norm.scale else None, 1.0)
    scale = scale / np.sqrt(value(norm.moving_variance, 1.0) + norm.epsilon)
    bias = value(layer.bias if layer.use_bias else None, 0.0) - value(norm.moving_mean, 0.0)
    bias = bias * scale + value(norm.beta if norm.center else None, 0.0)
    kernel = layer.kernel.numpy().astype(np.float64)
    # A depthwise kernel (h, w, channels, multiplier) makes channels * multiplier outputs.
    by_output = kernel.reshape(*kernel.shape[:2], -1) if kernel.ndim == 4 else kernel
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        kernel = (by_output * scale).reshape(kernel.shape)
    else:
        kernel = kernel * scale
    return [kernel.astype(np.float32), bias.astype(np.float32)]
