"""An inference copy of a network, with BatchNorm folded into the layers before it.

In inference BatchNorm is a fixed scale and offset for each channel. Behind a convolution
or a dense layer these go into its kernel and bias, and a pass over memory is saved. The
head phase, evaluation and prediction run on such copies.
"""

import keras
import numpy as np

_FOLDABLE = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Returns a copy of a functional model that computes the same in inference, folded.

    A BatchNorm that follows anything else (the sum of two branches, say) stays as it is.

    Args:
        model: its nested models are kept as they are, not folded.

    Returns:
        A new model with weights of its own; its layers keep their names.
    """
    folded = {norm.name: layer for norm, layer in foldable_pairs(model)}
    with_bias = {layer.name for layer in folded.values()}

    def clone(layer: keras.Layer) -> keras.Layer:
        if layer.name in folded:
            return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy)
        config = layer.get_config()
        return type(layer).from_config(
            config | {"use_bias": True} if layer.name in with_bias else config
        )

    def call(layer: keras.Layer, *inputs: keras.KerasTensor, **options) -> keras.KerasTensor:
        # Identity takes none of BatchNorm's options (training, mask).
        return layer(*inputs) if layer.name in folded else layer(*inputs, **options)

    copy = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        if layer.weights and layer.name not in folded and layer.name not in with_bias:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    for norm_name, layer in folded.items():
        weights = _fold(layer, model.get_layer(norm_name))
        copy.get_layer(layer.name).set_weights(weights)
    copy.name = model.name
    return copy


def fold_classifier(classifier: keras.Model) -> keras.Model:
    """Returns an inference copy of a classifier with its backbone folded."""

    def clone(layer: keras.Layer) -> keras.Layer:
        if layer.name == "backbone":
            return fold_batch_norm(layer)
        return type(layer).from_config(layer.get_config())

    copy = keras.models.clone_model(classifier, clone_function=clone)
    copy.get_layer("head").set_weights(classifier.get_layer("head").get_weights())
    return copy


def foldable_pairs(model: keras.Model) -> list[tuple[keras.Layer, keras.Layer]]:
    """Returns the BatchNorm layers that can be folded, each with the layer it alone reads."""
    readers: dict[int, list[keras.Layer]] = {}
    for layer in model.layers:
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        for tensor in inputs:
            readers.setdefault(id(tensor), []).append(layer)
    outputs = {id(tensor) for tensor in model.outputs}
    pairs = []
    for layer in model.layers:
        read_by = readers.get(id(layer.output), [])
        if not isinstance(layer, _FOLDABLE) or len(read_by) != 1 or id(layer.output) in outputs:
            continue
        norm = read_by[0]
        is_norm = isinstance(norm, keras.layers.BatchNormalization)
        if is_norm and layer.activation is keras.activations.linear and _is_last_axis(norm):
            pairs.append((norm, layer))
    return pairs


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
