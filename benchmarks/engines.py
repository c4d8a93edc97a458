"""The prediction pass beside the runtimes that exported files run in, at three batch sizes.

All run the same network on the same noise, in the size that it takes: so nothing is resized.
"""

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np

from benchmarks.interleaved import Measurement, Settings, take_turns
from benchmarks.steps import build_untrained
from transfer.acceleration.doors import pass_libraries, passes_as_with
from transfer.acceleration.openvino_core import openvino_core
from transfer.config import Config
from transfer.data.splits import Split
from transfer.deploy.choices import INT8, LITERT, NONE, ONNX, OPENVINO
from transfer.deploy.engines import load_engine, run_litert
from transfer.deploy.formats import missing_modules, write_export
from transfer.deploy.graph import keep_constants
from transfer.evaluation.predictions import predict_split
from transfer.models.folding import fold_classifier
from transfer.models.precision import choose_inference_precision

BATCHES = (1, 32, 128)
LEAST_IMAGES = 1024  # of a turn: what begins and ends a pass is a small part of it
HERE, IN_TENSORFLOW = "here", "here, in TensorFlow"
Run = Callable[[np.ndarray], object]  # of a batch, uint8 (B, S, S, 3)


def measure_engines(settings: Settings) -> Measurement:
    """Returns images/s of each engine, from uint8 images to probabilities, by batch size."""
    with tempfile.TemporaryDirectory() as folder:
        engines = dict(_engines(settings, Path(folder)))
        ours = _build_pass(settings)
        contenders: dict[str, Callable[[], int]] = {}
        for size in BATCHES:
            images = _make_noise(settings, size)
            for name in (HERE, *([IN_TENSORFLOW] if pass_libraries() else [])):
                contenders[f"batch {size}: {name}"] = functools.partial(ours, name, images, size)
            for name, run in engines.items():
                contenders[f"batch {size}: {name}"] = _in_batches(run, images, size)
        rates = take_turns(contenders, settings.repeats)
    pairs = tuple(
        (f"batch {size}: {HERE}", f"batch {size}: {name}") for size in BATCHES for name in engines
    )
    return Measurement(f"Engines: {settings.backbone}, {settings.image_size} pixels", rates, pairs)


def _make_noise(settings: Settings, size: int) -> np.ndarray:
    count = max(LEAST_IMAGES, settings.steps * size)
    shape = (count // size * size, settings.image_size, settings.image_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _in_batches(run: Run, images: np.ndarray, size: int) -> Callable[[], int]:
    def work() -> int:
        for start in range(0, len(images), size):
            run(images[start : start + size])
        return len(images)

    return work


def _build_pass(settings: Settings) -> Callable[[str, np.ndarray, int], int]:
    precision = choose_inference_precision(settings.backbone)[0]
    folded = fold_classifier(build_untrained(settings), precision)

    def work(name: str, images: np.ndarray, size: int) -> int:
        config = Config(backbone=settings.backbone, image_size=settings.image_size, batch_size=size)
        split = Split(images, np.zeros(len(images), np.int64))
        with passes_as_with({}) if name == IN_TENSORFLOW else contextlib.nullcontext():
            return len(predict_split(folded, split, config))

    return work


def _engines(settings: Settings, folder: Path) -> Iterator[tuple[str, Run]]:
    graph = _build_graph(settings)
    kinds = ((ONNX, NONE), (OPENVINO, NONE), (LITERT, NONE), (LITERT, INT8))
    for form, quantize in kinds:
        if missing_modules(form, quantize):
            continue
        place = folder / f"{form}-{quantize}"
        place.mkdir()
        path = write_export(graph, form, quantize, _make_noise(settings, 1)[:20], place)
        name = f"{form} {'float32' if quantize == NONE else quantize}"
        yield name, load_engine(path).run
        if form == OPENVINO:
            yield f"{form} bfloat16", _load_bfloat16(path)
        if form == LITERT:
            yield f"{name}, one thread", _load_one_thread(path)


def _build_graph(settings: Settings) -> keras.Model:
    folded = fold_classifier(build_untrained(settings))
    keep_constants(folded)
    images = keras.Input((settings.image_size, settings.image_size, 3), dtype="uint8", name="image")
    graph = keras.Model(images, folded(keras.ops.cast(images, "float32"), training=False))
    graph(np.zeros((1, *graph.input_shape[1:]), np.uint8))
    return graph


def _load_one_thread(path: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    return run_litert(Interpreter(model_path=str(path), num_threads=1))


def _load_bfloat16(path: Path) -> Run:
    how = {"INFERENCE_PRECISION_HINT": "bf16"}
    return openvino_core().compile_model(path, "CPU", how)
