"""Runtimes of exported files: each loads a file and runs batches of it, without TensorFlow.

An engine is a row of `ENGINES`. Files of strangers are run in a process of their own
(`engine_process.py`); what has just been exported is verified in this one.
"""

import importlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transfer.acceleration.openvino_core import openvino_core
from transfer.datasets.formats.checks import regular_size
from transfer.deploy.facts import MOST_BYTES
from transfer.errors import InputError

FACTS = "model_facts.json"  # the name under which each format keeps the facts
MOST_MODEL_BYTES = 1 << 29


@dataclass(frozen=True, eq=False)
class Engine:
    """An exported file, loaded.

    Attributes:
        facts: what it says of its model, JSON that nobody has checked yet; "" for nothing.
        input_shape: (H, W, 3) of the photos that it takes.
        run: uint8 (B, H, W, 3) to its outputs, float arrays.
    """

    facts: str
    input_shape: tuple[int, ...]
    run: Callable[[np.ndarray], list[np.ndarray]]


def load_engine(path: Path) -> Engine:
    """Loads an exported file into its runtime.

    Raises:
        InputError: no format that is known, the runtime is not installed, or the file is damaged.
    """
    suffix = path.suffix.lower()
    if suffix not in ENGINES:
        raise InputError(
            f"{path} should be a run folder or end in {', '.join(ENGINES)}. Received: {suffix!r}."
        )
    check_size(path)
    module, load = ENGINES[suffix]
    try:
        runtime = importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0].replace("_", "-")
        raise InputError(f"{error}; run `pip install {package}` for {suffix}.") from error
    try:
        return _in_order(load(runtime, path))
    except InputError:
        raise
    except Exception as error:  # each runtime has errors of its own
        raise InputError(f"{path} is damaged: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    # The first line that says something: OpenVINO begins with where it stands in its source.
    lines = [line for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from ", "Check '"))]
    return (told or lines or [type(error).__name__])[0].strip().rstrip(".")[:200]


def _in_order(engine: Engine) -> Engine:
    # Probabilities first, of two classes or more, then the distance: converters keep no order.
    def run(images: np.ndarray) -> list[np.ndarray]:
        outputs = [np.asarray(output, np.float32) for output in engine.run(images)]
        return sorted(outputs, key=lambda output: -output.size)

    return Engine(engine.facts, engine.input_shape, run)


def check_size(path: Path) -> None:
    """Raises `InputError` where an exported file is missing, no file or too large."""
    for file in (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,):
        try:
            size = regular_size(file)
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror}.") from error
        if size > MOST_MODEL_BYTES:
            raise InputError(f"{file} should have at most 512 MiB. Received: {size:,} bytes.")


def _load_litert(runtime: Any, path: Path) -> Engine:
    interpreter = runtime.Interpreter(model_path=str(path), num_threads=os.cpu_count())
    (taken,) = interpreter.get_input_details()
    size = tuple(map(int, taken["shape_signature"][1:]))
    return Engine(_zipped_facts(path), size, run_litert(interpreter))


def run_litert(interpreter: Any) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Returns what a LiteRT model answers, whose memory is laid out anew where a batch is another.

    Args:
        interpreter: of a model with one input.

    Returns:
        A function from a batch to the outputs, of shapes and dtypes as the model has them.
    """
    (taken,) = interpreter.get_input_details()
    batch = 0

    def run(images: np.ndarray) -> list[np.ndarray]:
        nonlocal batch
        if len(images) != batch:
            interpreter.resize_tensor_input(taken["index"], images.shape)
            interpreter.allocate_tensors()
            batch = len(images)
        interpreter.set_tensor(taken["index"], images)
        interpreter.invoke()
        return [interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()]

    return run


def _zipped_facts(path: Path) -> str:
    # A zip behind the model, as https://ai.google.dev/edge/litert/models/metadata has it.
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(FACTS).file_size > MOST_BYTES:
                return ""
            return archive.read(FACTS).decode("utf-8", "replace")
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError):
        return ""


def _load_onnx(runtime: Any, path: Path) -> Engine:
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    # From its bytes: so no other file that it might name is opened.
    session = runtime.InferenceSession(path.read_bytes(), options, ["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    facts = session.get_modelmeta().custom_metadata_map.get(FACTS, "")
    return Engine(
        facts, tuple(taken.shape[1:]), lambda images: session.run(None, {taken.name: images})
    )


def _load_openvino(runtime: Any, path: Path) -> Engine:
    core = openvino_core()
    model = core.read_model(path)
    keys = ["transfer", "facts"]
    facts = str(model.get_rt_info(keys).value) if model.has_rt_info(keys) else ""
    shape = model.input(0).get_partial_shape()
    # Not bfloat16, which it would choose where a CPU has it: a distance is a sum of squares.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: np.ndarray) -> list[np.ndarray]:
        found = compiled(images)
        return [found[output] for output in compiled.outputs]

    return Engine(facts, tuple(shape[axis].get_length() for axis in range(1, 4)), run)


# The module of each runtime, and what loads a file into it, by the ending of the file.
ENGINES: dict[str, tuple[str, Callable[[Any, Path], Engine]]] = {
    ".tflite": ("ai_edge_litert.interpreter", _load_litert),
    ".onnx": ("onnxruntime", _load_onnx),
    ".xml": ("openvino", _load_openvino),
}
