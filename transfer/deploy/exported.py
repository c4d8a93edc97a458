"""An exported file as a classifier: opened, checked against what it says of itself, and run.

TensorFlow is not needed. The runtime lives in a process of its own (`engine_process.py`).
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np

import transfer
from transfer.deploy import engine_process
from transfer.deploy.classifiers import Classifier, Outputs
from transfer.deploy.engine_process import MOST_NUMBERS, read_frame, to_bytes, write_frame
from transfer.deploy.engines import ENGINES, check_size
from transfer.deploy.facts import MOST_BYTES, ModelFacts, parse_model_facts
from transfer.errors import InputError, printable

AT_A_TIME = 32  # photos
_HEADER = 4096  # bytes before an array
_SUM_TOLERANCE = 0.05  # of probabilities that came out of 8 bits


def open_exported(path: Path) -> Classifier:
    """Opens a file made by `transfer export`.

    Raises:
        InputError: it is none, is damaged, or does not do what it says.
    """
    if path.suffix.lower() not in ENGINES:
        raise InputError(
            f"{path} should be a run folder, or a file that `transfer export` made, which ends in "
            f"{', '.join(ENGINES)}."
        )
    check_size(path)
    process = _Process(path)
    facts = parse_model_facts(process.facts, str(path))
    expected = (facts.geometry.height, facts.geometry.width, 3)
    if process.input_shape != expected:
        raise InputError(
            f"{path} should take images of {expected}, as it says. Received: {process.input_shape}."
        )
    return Classifier(facts, batched(process.run, facts, str(path)))


def batched(
    run: Callable[[np.ndarray], np.ndarray], facts: ModelFacts, where: str
) -> Callable[[np.ndarray], Outputs]:
    """Returns a classifier's `outputs` from what runs one batch of photos.

    Args:
        run: uint8 (B, H, W, 3) to float (B, C) or, with the distance, (B, C + 1).
        facts: of the model.
        where: the file, for errors.
    """
    num_classes = len(facts.class_names)

    def outputs(images: np.ndarray) -> Outputs:
        parts = [
            run(as_rgb(images[start : start + AT_A_TIME]))
            for start in range(0, len(images), AT_A_TIME)
        ]
        both = np.concatenate(parts) if parts else np.zeros((0, num_classes), np.float32)
        y_prob = both[:, :num_classes]
        sums = y_prob.sum(axis=1)
        is_sane = both.shape[1] in (num_classes, num_classes + 1) and np.isfinite(both).all()
        if not is_sane or (y_prob < 0).any() or (abs(sums - 1) > _SUM_TOLERANCE).any():
            raise InputError(f"{where} should give probabilities of {num_classes} classes.")
        has_distance = both.shape[1] > num_classes
        distance = both[:, -1] if has_distance else np.full(len(images), np.nan, np.float32)
        return Outputs(y_prob / sums[:, np.newaxis], distance)

    return outputs


def as_rgb(images: np.ndarray) -> np.ndarray:
    """Returns uint8 (N, H, W, 1 or 3) as contiguous (N, H, W, 3)."""
    return np.ascontiguousarray(np.broadcast_to(images, (*images.shape[:3], 3)))


class _Process:
    # The other side of `engine_process.py`.
    def __init__(self, path: Path) -> None:
        self._path = path
        where = [str(Path(transfer.__file__).parents[1]), *filter(None, sys.path)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(where)}
        empty = tempfile.TemporaryDirectory(prefix="transfer-engine-")
        words = [os.path.abspath(path), str(engine_process.SECONDS)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "transfer.deploy.engine_process", *words],
            cwd=empty.name,  # so that no other file that the model may name is there
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        weakref.finalize(self, _end, self._process, empty)
        assert self._process.stdin and self._process.stdout
        self._given, self._taken = self._process.stdin, self._process.stdout
        head = json.loads(read_frame(self._taken, 2 * MOST_BYTES) or self._fail())
        if "error" in head:
            raise InputError(printable(head["error"]))
        self.facts, self.input_shape = str(head["facts"]), tuple(head["input_shape"])

    def run(self, images: np.ndarray) -> np.ndarray:
        """Runs a batch, uint8 (B, H, W, 3), to float32 (B, C + 1)."""
        try:
            write_frame(self._given, to_bytes(images))
            frame = read_frame(self._taken, 4 * MOST_NUMBERS * len(images) + _HEADER)
        except OSError:  # it has ended
            frame = None
        if frame is None:
            self._fail()
        return np.asarray(np.load(io.BytesIO(frame), allow_pickle=False))

    def _fail(self) -> NoReturn:
        self._process.kill()
        raise InputError(
            f"{self._path} cannot be run: its runtime ended with {self._process.wait()}. The file "
            "is damaged, or needs more memory or time than a model should."
        )


def _end(process: subprocess.Popen, folder: tempfile.TemporaryDirectory) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()
    folder.cleanup()
