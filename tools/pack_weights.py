"""Packs trained weights for the package: float16, checksum, manifest.

    python -m tools.pack_weights bundled runs/pretraining/backbone.weights.h5
    python -m tools.pack_weights fashion runs/best

The first packs MobileNetV2 as `python -m transfer pretrain` leaves it, the second a finished
run's whole classifier with what its run folder says of it. Kernels become float16; vectors
(biases, BatchNorm's statistics) stay float32: they are few, and a variance may lie outside of
what float16 holds.
"""

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import h5py
import keras
import numpy as np

from transfer.models.backbones import build_backbone
from transfer.models.pretrained import BUNDLED, FASHION, FOLDER, MANIFEST
from transfer.models.weight_files import read_weights
from transfer.runs.finished import FinishedRun
from transfer.storage.atomic import read_json, write_json

NAMES = {BUNDLED: "mobilenetv2_fractal.weights.h5", FASHION: "mobilenetv2_fashion.weights.h5"}
MOST_BYTES = 5_000_000


def pack(kind: str, source: Path) -> None:
    """Writes a file of weights into the package and its checksum into the manifest.

    Args:
        kind: `BUNDLED` or `FASHION`.
        source: a weights file of MobileNetV2 without its top; or a finished run's folder.
    """
    if kind == BUNDLED:
        model, facts = build_backbone("mobilenetv2", None), {}
        read_weights(model, source, "the weights of mobilenetv2 without its top")
    else:
        model, facts = _read_run(source)
    path = FOLDER / NAMES[kind]
    write_packed(model, path)
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(
            f"Expected at most {MOST_BYTES:,} bytes. Received: {path.stat().st_size:,}"
        )
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = {"file": path.name, "sha256": checksum, "bytes": path.stat().st_size}
    manifest = read_json(MANIFEST)
    manifest.setdefault(kind, {})["mobilenetv2"] = entry | facts
    write_json(MANIFEST, manifest)


def write_packed(model: keras.Model, path: Path) -> None:
    """Writes a model's weights as .weights.h5: kernels float16, vectors and numbers float32."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole.weights.h5")
        model.save_weights(whole)
        with h5py.File(whole, "r") as source, h5py.File(path, "w") as target:

            def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
                if isinstance(item, h5py.Dataset):
                    kind = np.float16 if item.ndim > 1 else np.float32
                    target.create_dataset(name, data=item[()].astype(kind))

            source.visititems(copy)


def _read_run(run_dir: Path) -> tuple[keras.Model, dict]:
    run = FinishedRun(run_dir)
    kept = run.facts.to_json()
    # Paths as seen from here: those of the machine that trained it say nothing elsewhere.
    here = f"{Path.cwd().resolve()}{os.sep}"
    kept["weights"]["provenance"] = run.facts.weights.provenance.replace(here, "")
    return run.trained, {
        "facts": kept,
        "summary": run.summary.to_json(),
        "history": run.history,
    }


if __name__ == "__main__":
    pack(sys.argv[1], Path(sys.argv[2]))
