"""Which engine answers for a run: the fastest of its verified exports, where one is as good.

An export that gives up nothing starts in half a second, and runs as fast as its runtime does;
TensorFlow takes several seconds to start. So predict takes it where it was made of this very
model, was verified to be at most 0.05 percentage points less accurate, is not quantized to 8
bits, and its runtime is installed; of several the one that was fastest when it was verified.
"""

import hashlib
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

from transfer.deploy.choices import INT8
from transfer.deploy.engines import ENGINES
from transfer.errors import InputError
from transfer.runs.files import EXPORTS, MODEL, VERIFICATION
from transfer.storage.untrusted import open_regular, read_regular

MOST_LOSS = 0.05  # percentage points of accuracy
_MOST_BYTES = 1 << 20
_BATCH = "32"  # whose speed counts


def fastest_export(run_dir: Path) -> Path | None:
    """Returns the file of the export that answers for a run; None for the run itself."""
    found: dict[Path, float] = {}
    try:
        with open_regular(run_dir / MODEL) as file:
            model = hashlib.file_digest(file, "sha256").hexdigest()
        for report in sorted((run_dir / EXPORTS).glob(f"*/{VERIFICATION}")):
            path, speed = _model_file(report.parent), _speed(report, model)
            if path and speed:
                found[path] = speed
    except (OSError, InputError):  # what is wrong with a run is told where it is opened
        return None
    return max(found, key=lambda path: found[path], default=None)


def _model_file(folder: Path) -> Path | None:
    for suffix, (module, _) in ENGINES.items():
        path = folder / f"model{suffix}"
        if path.is_file() and importlib.util.find_spec(module.split(".")[0]):
            return path
    return None


def _speed(report: Path, model: str) -> float | None:
    # images/s; None of an export that is not as good as the run, or not of this model.
    try:
        values: Any = json.loads(read_regular(report, _MOST_BYTES))
        loss, speed = values["loss_in_points"], values["images_per_second"][_BATCH]
        is_same = values["model_sha256"] == model and values["quantize"] != INT8
        is_good = is_same and loss <= MOST_LOSS and math.isfinite(speed)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return float(speed) if is_good else None
