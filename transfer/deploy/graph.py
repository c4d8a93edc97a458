"""The network as it is exported: photos as uint8 go in, probabilities and distances come out.

What evaluation does before and after the network is part of it: gray, resizing, the distance of
`evaluation/outliers.py`. All of it is Keras's own layers and operations, which every exporter
knows.
"""

import keras
import numpy as np

from transfer.data.geometry import Geometry
from transfer.evaluation.answering import Answering
from transfer.evaluation.outliers import KnownImages
from transfer.runs.finished import FinishedRun

PREPROCESSING, KNOWN = "preprocessing", "known"  # parts that stay float when others are quantized
_LUMA = (0.299, 0.587, 0.114)  # of Pillow's conversion to gray, ITU-R 601


def build_graph(run: FinishedRun, answering: Answering) -> keras.Model:
    """Returns uint8 (B, H, W, 3), RGB in a run's geometry, to probabilities and distances.

    Args:
        run: a finished run.
        answering: of the run.

    Returns:
        A model of float32 outputs (B, C) and, where known images are told, (B, 1).
    """
    classifier = run.float32_classifier
    keep_constants(classifier)
    images = keras.Input((*run.geometry.shape[:2], 3), dtype="uint8", name="image")
    pixels = _build_preprocessing(run.geometry, run.settings.image_size)(images)
    features = classifier.get_layer("pooling").output
    network = keras.Model(classifier.input, [classifier.output, features], name="network")
    probabilities, features = network(pixels, training=False)  # dropout is left out
    outputs = [probabilities]
    if answering.known:
        outputs.append(_build_known(answering.known)(features))
    graph = keras.Model(images, outputs, name="exported")
    graph(np.zeros((1, *graph.input_shape[1:]), np.uint8))  # exporters want it called once
    return graph


def keep_constants(model: keras.Model) -> None:
    """Makes means and variances given to Normalization part of a model's graph.

    Keras holds them as tensors of its own, which a converter to ONNX takes for inputs.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            keep_constants(layer)
        elif isinstance(layer, keras.layers.Normalization) and layer.input_mean is not None:
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)


def _build_preprocessing(geometry: Geometry, image_size: int) -> keras.Model:
    images = keras.Input((geometry.height, geometry.width, 3), dtype="uint8")
    pixels = keras.ops.cast(images, "float32")
    if geometry.channels == 1:
        # Rounded as Pillow does, so that gray photos stay exactly what they are.
        weighed = keras.ops.sum(pixels * np.array(_LUMA, np.float32), axis=-1, keepdims=True)
        gray = keras.ops.round(weighed)
        pixels = keras.ops.concatenate([gray, gray, gray], axis=-1)
    if (geometry.height, geometry.width) != (image_size, image_size):
        pixels = keras.layers.Resizing(image_size, image_size, dtype="float32")(pixels)
    return keras.Model(images, pixels, name=PREPROCESSING)


def _build_known(known: KnownImages) -> keras.Model:
    # As KnownImages.distances, whose docstring has the formula.
    features = keras.Input((len(known.mean),))
    centred = features - known.mean
    inside = _matmul(known.directions, "directions")(centred)
    white = _matmul(known.whitening, "whitening")(inside)
    to_centres = _matmul(-2 * known.centres.T, "centres")(white)
    to_centres = to_centres + np.square(known.centres).sum(axis=1)
    to_centre = _squares(white) + keras.ops.min(to_centres, axis=1, keepdims=True)
    outside = (_squares(centred) - _squares(inside)) * np.float32(1 / known.rest_deviation**2)
    squared = keras.ops.relu(to_centre) + keras.ops.relu(outside)
    return keras.Model(features, keras.ops.sqrt(squared), name=KNOWN)


def _matmul(matrix: np.ndarray, name: str) -> keras.layers.Layer:
    layer = keras.layers.Dense(matrix.shape[1], use_bias=False, dtype="float32", name=name)
    layer.build((None, matrix.shape[0]))
    layer.set_weights([matrix])
    return layer


def _squares(values: keras.KerasTensor) -> keras.KerasTensor:
    return keras.ops.sum(keras.ops.square(values), axis=1, keepdims=True)
