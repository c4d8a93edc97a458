"""The folder of a pretraining: the only code that knows what one looks like.

pretrain.json         settings, versions; at the end also seconds and curves
sprites-<...>.npy     the bank of sprites
samples.png           what the network sees
log.csv               one row a hundredth of the schedule
checkpoint.npz        weights and optimizer, until the end
backbone.weights.h5   the result, for keras.applications without its top
"""

import csv
import importlib.metadata
import io
import platform
import zipfile
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import keras
import numpy as np
from keras import ops
from PIL import Image

from transfer.errors import InputError
from transfer.pretraining.settings import Settings
from transfer.storage.atomic import read_json, write_atomically, write_json

FACTS = "pretrain.json"
LOG = "log.csv"
CHECKPOINT = "checkpoint.npz"
SAMPLES = "samples.png"
WEIGHTS = "backbone.weights.h5"


def begin(folder: Path, settings: Settings, policy: str, command: str) -> None:
    """Makes the folder and writes down what is about to be done.

    Raises:
        InputError: it holds a pretraining already, or cannot be made.
    """
    if (folder / FACTS).exists():
        raise InputError(
            f"{folder} holds a pretraining already; go on with it (--resume) or name another --out."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be made: {error.strerror}; name another --out."
        ) from error
    backend = keras.backend.backend()
    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in ("keras", backend, "numpy")}
    facts = {
        "settings": asdict(settings),
        "precision": policy,
        "backend": backend,
        "devices": keras.distribution.list_devices(),
        "versions": versions,
        "command": command,
        "started": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        "finished": False,
    }
    write_json(folder / FACTS, facts)


def read_settings(folder: Path) -> Settings:
    """Reads the settings of a pretraining that was begun and is not finished.

    Raises:
        InputError: there is none in `folder`.
    """
    facts = read_json(folder / FACTS)
    if facts.get("finished"):
        (folder / CHECKPOINT).unlink(missing_ok=True)  # killed before that was done
        raise InputError(f"the pretraining in {folder} has finished: see {folder / WEIGHTS}.")
    try:
        return Settings(**facts["settings"])
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{folder / FACTS} should hold the settings of a pretraining. Received: {error}."
        ) from error


def finish(folder: Path, results: dict) -> None:
    """Adds the results to the facts and takes the checkpoint away."""
    facts = read_json(folder / FACTS)
    write_json(folder / FACTS, facts | {"finished": True} | results)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def write_rows(folder: Path, rows: list[dict]) -> None:
    """Writes log.csv, whose columns are the keys of the rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / LOG, text.getvalue())


def read_rows(folder: Path, last_step: int) -> list[dict]:
    """Reads log.csv back, without rows after `last_step`; no rows where there is no file."""
    if not (folder / LOG).exists():
        return []
    with (folder / LOG).open(newline="", encoding="utf-8") as file:
        rows = [
            {name: _number(value) for name, value in row.items()} for row in csv.DictReader(file)
        ]
    return [row for row in rows if row["step"] <= last_step]


def _number(text: str) -> int | float:
    return int(text) if text.isdecimal() else float(text)


def save_checkpoint(folder: Path, network: keras.Model, optimizer: keras.Optimizer) -> None:
    """Writes weights and optimizer; the optimizer knows the step."""
    buffer = io.BytesIO()
    arrays = _variables(network, optimizer)
    np.savez(buffer, **{name: ops.convert_to_numpy(v) for name, v in arrays.items()})
    write_atomically(folder / CHECKPOINT, buffer.getvalue())


def load_checkpoint(folder: Path, network: keras.Model, optimizer: keras.Optimizer) -> None:
    """Puts weights and optimizer back; without a file they stay as they are.

    Raises:
        InputError: the file is damaged or of another network.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return  # stopped before the first was kept
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name, variable in _variables(network, optimizer).items():
                variable.assign(arrays[name])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} should be a checkpoint of this pretraining. Received: {error}."
        ) from error


def _variables(network: keras.Model, optimizer: keras.Optimizer) -> dict[str, keras.Variable]:
    # By position: names of layers differ between backends, the order of weights does not.
    variables = {f"network_{i}": v for i, v in enumerate(network.weights)}
    return variables | {f"optimizer_{i}": v for i, v in enumerate(optimizer.variables)}


def write_samples(folder: Path, images: np.ndarray, columns: int) -> None:
    """Writes samples.png: images side by side, row by row.

    Args:
        folder: of the pretraining.
        images: (N, S, S, 3) in [0, 255], N a multiple of `columns`.
        columns: images in a row.
    """
    size = images.shape[1]
    grid = np.uint8(np.rint(images)).reshape(-1, columns, size, size, 3)
    sheet = grid.swapaxes(1, 2).reshape(-1, columns * size, 3)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG", optimize=True)
    write_atomically(folder / SAMPLES, buffer.getvalue())
