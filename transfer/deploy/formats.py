"""The formats that a graph is written in: one row each, and how each keeps the model's facts."""

import contextlib
import importlib.util
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from transfer.acceleration.openvino_core import openvino_core
from transfer.deploy.choices import FLOAT16, INT8, LITERT, NONE, ONNX, OPENVINO, SAVED_MODEL
from transfer.deploy.engines import FACTS
from transfer.deploy.facts import ModelFacts
from transfer.errors import InputError
from transfer.storage.atomic import scratch_folder

if TYPE_CHECKING:
    import keras
    import openvino


@dataclass(frozen=True)
class Format:
    """One row of `FORMATS`.

    Attributes:
        keras_format: what `keras.Model.export` calls it.
        file: name of the model in the folder of an export.
        modules: that it needs beside Keras and TensorFlow, and those for quantization.
        quantizations: that it knows.
        finish: quantizes what Keras has written: (graph, path, quantization, calibration images
            uint8 (N, H, W, 3)).
        add_facts: puts JSON into what was written.
    """

    keras_format: str
    file: str
    modules: tuple[str, ...]
    quantizations: tuple[str, ...]
    finish: Callable[["keras.Model", Path, str, np.ndarray], None]
    add_facts: Callable[[Path, str], None]


Convert = Callable[["keras.Model", str], dict[str, bytes]]


def convert(graph: "keras.Model", form: str) -> dict[str, bytes]:
    """Returns what Keras makes of a graph, the same for every quantization.

    Args:
        graph: as `build_graph` makes it.
        form: a row of `FORMATS`.

    Returns:
        The content of each file, by its path in the folder of the export.

    Raises:
        InputError: the format does not know this network.
    """
    with scratch_folder() as folder, quietly():
        row = FORMATS[form]
        graph.export(str(folder / row.file), format=row.keras_format, verbose=False)
        files = [path for path in folder.rglob("*") if path.is_file()]
        if not files:  # tf2onnx logs what it cannot do, and goes on
            raise InputError(
                f"{form} could not be written: its converter does not know this network."
            )
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def write_export(
    graph: "keras.Model",
    form: str,
    quantize: str,
    calibration: np.ndarray,
    folder: Path,
    convert: Convert = convert,
) -> Path:
    """Writes a graph in a format.

    Args:
        graph: as `build_graph` makes it.
        form: a row of `FORMATS`.
        quantize: one of its quantizations.
        calibration: uint8 (N, H, W, 3), training images that tell the ranges of int8.
        folder: where to.
        convert: as the function above, of which the answers may be kept for other quantizations.

    Returns:
        The path of the file.

    Raises:
        InputError: it needs a package that is not installed, or does not know this network.
    """
    row = FORMATS[form]
    for module in missing_modules(form, quantize):
        raise InputError(f'{form} needs {module}; run `pip install "transfer[export]"`.')
    for name, content in convert(graph, form).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with quietly():
        row.finish(graph, folder / row.file, quantize, calibration)
    return folder / row.file


def missing_modules(form: str, quantize: str) -> list[str]:
    """Returns the modules that a format needs and that are not installed."""
    needed = list(FORMATS[form].modules)
    if form == LITERT and quantize != NONE:
        needed.append("ai_edge_quantizer")
    return [name for name in needed if importlib.util.find_spec(name) is None]


def add_facts(form: str, path: Path, facts: ModelFacts) -> None:
    """Puts what a model knows of itself into its file, and beside it as model_facts.json."""
    text = json.dumps(facts.to_json(), ensure_ascii=False, indent=2)
    FORMATS[form].add_facts(path, text)
    (path.parent / FACTS).write_text(text + "\n", encoding="utf-8")


def _layers_within(model: "keras.Model") -> Iterator["keras.Layer"]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _layers_within(layer)
        else:
            yield layer


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keeps converters and runtimes from printing, from Python and from C++."""
    saved = [os.dup(1), os.dup(2)]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(io.StringIO()):
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
        try:
            yield
        finally:
            for number, kept in enumerate(saved, 1):
                os.dup2(kept, number)
                os.close(kept)


def _as_it_is(graph: "keras.Model", path: Path, quantize: str, calibration: np.ndarray) -> None:
    """Leaves a model as Keras has written it."""


def _quantize_litert(
    graph: "keras.Model", path: Path, quantize: str, calibration: np.ndarray
) -> None:
    if quantize == NONE:
        return
    from ai_edge_quantizer import quantizer

    recipe = _int8_recipe(graph) if quantize == INT8 else _FLOAT16
    made = quantizer.Quantizer(str(path), recipe)
    ranges = None
    if quantize == INT8:
        from ai_edge_litert.interpreter import Interpreter

        (signature,) = Interpreter(model_path=str(path)).get_signature_list()
        batches = [{"image": image[np.newaxis]} for image in calibration]
        ranges = made.calibrate({signature: batches}, num_threads=os.cpu_count() or 1)
    quantized = made.quantize(ranges, enable_progress_report=False).quantized_model
    path.write_bytes(bytes(quantized))


# https://ai.google.dev/edge/litert/models/quantization, as recipes of ai-edge-quantizer. The
# backbone alone is computed in 8 bits. What is before it costs little in float; behind it 8 bits
# cannot hold features of several depths, the probabilities' tails and a sum of squares. Of the head
# and the distance the matrices are kept in 8 bits all the same, as their largest part.
_STATIC_INT8 = {
    "activation_tensor_config": {
        "num_bits": 8,
        "symmetric": False,
        "granularity": "TENSORWISE",
        "dtype": "INT",
    },
    "weight_tensor_config": {
        "num_bits": 8,
        "symmetric": True,
        "granularity": "CHANNELWISE",
        "dtype": "INT",
    },
    "compute_precision": "INTEGER",
    "explicit_dequantize": False,
    "skip_checks": False,
    "min_weight_elements": 0,
}
_FLOAT16_WEIGHTS = {
    "weight_tensor_config": {
        "num_bits": 16,
        "symmetric": True,
        "granularity": "TENSORWISE",
        "dtype": "FLOAT",
    },
    "compute_precision": "FLOAT",
    "explicit_dequantize": True,
    "skip_checks": False,
    "min_weight_elements": 0,
}
_INT8_WEIGHTS = _FLOAT16_WEIGHTS | {
    "weight_tensor_config": _STATIC_INT8["weight_tensor_config"],
}


def _recipe(
    regex: str, algorithm: str, config: dict[str, Any] | None = None, operation: str = "*"
) -> dict[str, Any]:
    values = {"regex": regex, "operation": operation, "algorithm_key": algorithm}
    return values | {"op_config": config or {}}


def _int8_recipe(graph: "keras.Model") -> list[dict[str, Any]]:
    first = "|".join(_first_layers(graph))
    return [
        _recipe(".*/backbone_.*", "min_max_uniform_quantize", _STATIC_INT8),
        *([_recipe(f".*({first}).*", "no_quantize")] if first else []),
        _recipe(".*(known|head)_.*", "min_max_uniform_quantize", _INT8_WEIGHTS, "FULLY_CONNECTED"),
    ]


def _first_layers(graph: "keras.Model") -> list[str]:
    # Up to the first depthwise convolution and the one behind it, whose few weights have channels
    # of very different ranges: 8 bits harm them the most (docs/deploy.md).
    import keras

    layers = [layer for layer in _layers_within(graph) if layer.weights]
    for index, layer in enumerate(layers):
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            return [f"/{layer.name}_" for layer in layers[: index + 2]]
    return []


_FLOAT16 = [_recipe(".*", "float_casting", _FLOAT16_WEIGHTS)]


def _add_zip(path: Path, text: str) -> None:
    if zipfile.is_zipfile(path):  # of the facts before these
        with zipfile.ZipFile(path) as archive:
            start = min(member.header_offset for member in archive.infolist())
        os.truncate(path, start)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(FACTS, text)
        names = json.loads(text)["class_names"]
        archive.writestr("labels.txt", "\n".join(names) + "\n")


def _add_onnx(path: Path, text: str) -> None:
    import onnx

    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {FACTS: text})
    onnx.save(model, str(path))


def _finish_openvino(
    graph: "keras.Model", path: Path, quantize: str, calibration: np.ndarray
) -> None:
    with _rewritten_openvino(path, to_float16=quantize == FLOAT16) as change:
        change.model = _answers_alone(change.model)


def _answers_alone(model: "openvino.Model") -> "openvino.Model":
    import openvino

    # Keras leaves sizes within the graph among its outputs.
    answers = [one for one in model.outputs if one.get_partial_shape().rank.get_length() == 2]
    return openvino.Model(answers, model.get_parameters(), "exported")


def _add_openvino(path: Path, text: str) -> None:
    with _rewritten_openvino(path) as change:
        change.model.set_rt_info(text, ["transfer", "facts"])


@contextlib.contextmanager
def _rewritten_openvino(path: Path, to_float16: bool = False) -> Iterator[SimpleNamespace]:
    # While a model is there its weights lie in its file, which can be replaced, not written.
    import openvino

    whole = path.with_name("whole.xml")
    change = SimpleNamespace(model=openvino_core().read_model(path))
    yield change
    openvino.save_model(change.model, str(whole), compress_to_fp16=to_float16)
    del change.model
    for suffix in (".xml", ".bin"):
        os.replace(whole.with_suffix(suffix), path.with_suffix(suffix))


def _add_asset(path: Path, text: str) -> None:
    folder = path / "assets.extra"  # where TensorFlow has what is none of its own
    folder.mkdir(exist_ok=True)
    (folder / FACTS).write_text(text, encoding="utf-8")


FORMATS: dict[str, Format] = {
    LITERT: Format(
        "litert",
        "model.tflite",
        ("ai_edge_litert",),
        (NONE, FLOAT16, INT8),
        _quantize_litert,
        _add_zip,
    ),
    ONNX: Format(
        "onnx", "model.onnx", ("onnx", "onnxruntime", "tf2onnx"), (NONE,), _as_it_is, _add_onnx
    ),
    OPENVINO: Format(
        "openvino", "model.xml", ("openvino",), (NONE, FLOAT16), _finish_openvino, _add_openvino
    ),
    SAVED_MODEL: Format("tf_saved_model", "saved_model", (), (NONE,), _as_it_is, _add_asset),
}
