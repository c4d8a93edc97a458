"""What a training run says of itself: what it is made of, what it came to, and how it ended."""

import contextlib
import dataclasses
import hashlib
import json
import platform
import shlex
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

import transfer
from transfer import runs
from transfer.config import Config
from transfer.data.sources import Splits
from transfer.errors import InputError, Interrupted
from transfer.formatting import format_percent, format_seconds
from transfer.models.fingerprints import fingerprint_variables
from transfer.models.weights import Weights
from transfer.training.checkpoint import list_checkpoints, remove_checkpoints
from transfer.training.phases import Run


@dataclass(frozen=True)
class Data:
    """A data set as it is trained on."""

    splits: Splits  # uint8 images in arrays
    fingerprints: dict[str, str]  # SHA-256 of each split as it was found


@dataclass(frozen=True)
class Result:
    """What a training run hands back."""

    run_dir: Path
    summary: dict  # the content of summary.json
    history: list[dict]  # the rows of history.csv


def describe_run(
    config: Config, settled: Config, data: Data, weights: Weights, weights_sha256: str
) -> dict:
    """Returns what config.json holds of a run, but for precision and command.

    Args:
        config: the settings.
        settled: the same, "auto" settled.
        data: the images.
        weights: what the backbone starts from.
        weights_sha256: fingerprint of their values.
    """
    splits = data.splits
    return {
        "settings": config.to_dict(),
        "settled": settled.to_dict(),
        "data": {
            "name": splits.name,
            "location": splits.location,
            "provenance": splits.provenance,
            "class_names": list(splits.class_names),
            "num_images": {name: split.num_images for name, split in splits.parts().items()},
            "fingerprints": data.fingerprints,
        },
        "weights": dataclasses.asdict(weights) | {"sha256": weights_sha256},
        "versions": _versions(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def warn_of_other_versions(facts: dict, console: Console) -> None:
    """Warns where a run began with other versions of what it computes with.

    Args:
        facts: the content of its config.json.
        console: where it is told.
    """
    now = _versions()
    other = [f"{name} {was}" for name, was in facts["versions"].items() if now.get(name) != was]
    if other:
        console.print(
            f"Warning: the run began with {', '.join(other)}; with other versions its numbers may "
            "differ in the last digits.",
            soft_wrap=True,
        )


def _versions() -> dict[str, str]:
    return {
        "transfer": transfer.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


def finish(trained: keras.Model, last: keras.Model, run: Run) -> Result:
    """Writes what a run came to, summary.json last.

    Args:
        trained: the model whose weights were learnt.
        last: the one that was trained last, with its optimizer.
        run: with its history.
    """
    run_dir, history = run.recorder.run_dir, run.recorder.rows
    summary = _summarise(history, time.perf_counter() - run.started)
    # Two runs of one seed are the same if these are.
    summary["sha256"] = {
        "weights": fingerprint_variables(trained.variables),
        "optimizer": fingerprint_variables(last.optimizer.variables),
        "history": _fingerprint_history(history),
    }
    runs.write_history(run_dir, history)
    runs.write_json(run_dir / runs.SUMMARY, summary)
    remove_checkpoints(run_dir / runs.CHECKPOINTS)
    return Result(run_dir, summary, history)


def _summarise(history: list[dict], seconds: float) -> dict:
    phases = {}
    for phase in dict.fromkeys(row["phase"] for row in history):
        rows = [row for row in history if row["phase"] == phase]
        # The epoch whose weights EarlyStopping put back.
        best = min(rows, key=lambda row: row["val_loss"])
        phases[phase] = {
            "epochs": len(rows),
            "best_epoch": best["epoch"],
            "val_loss": best["val_loss"],
            "val_accuracy": best["val_accuracy"],
            "seconds": round(sum(row["seconds"] for row in rows), 1),
        }
    return {"phases": phases, "seconds": round(seconds, 1)}


def print_summary(result: Result, console: Console) -> None:
    """Prints what was trained, how good it is on the validation images, and what to type next."""
    for phase, figures in result.summary["phases"].items():
        console.print(
            f"{phase}: {figures['epochs']} epochs in {format_seconds(figures['seconds'])}, "
            f"best epoch {figures['best_epoch']}: validation accuracy "
            f"{format_percent(figures['val_accuracy'])}, loss {figures['val_loss']:.4f}",
            soft_wrap=True,
        )
    console.print(
        f"Done in {format_seconds(result.summary['seconds'])}. Everything is in {result.run_dir}\n"
        f"Next: python evaluate.py {shlex.quote(str(result.run_dir))} --report",
        soft_wrap=True,
    )


@contextlib.contextmanager
def one_line_for_every_end(run_dir: Path, config: Config) -> Iterator[None]:
    """However a run ends before its end: tells what happened, what is kept, how to go on.

    Raises:
        InputError: there is not enough memory, or the disk is full.
        Interrupted: Ctrl-C or SIGTERM came.
    """
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        number = getattr(error, "number", signal.SIGINT)
        raise Interrupted(number, f"Stopped. {_how_to_go_on(run_dir)}") from error
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise InputError(
            f"{too_large(config)}; begin again with --batch-size "
            f"{max(1, config.batch_size // 2)}. {_kept(run_dir)}."
        ) from error
    except OSError as error:
        raise InputError(
            f"{error.filename or run_dir}: {error.strerror or error}; mend that. "
            f"{_how_to_go_on(run_dir)}"
        ) from error


def too_large(config: Config) -> str:
    """Returns the beginning of an error: what does not fit into the memory."""
    return (
        f"there is not enough memory for batches of {config.batch_size} images of "
        f"{config.image_size} pixels"
    )


def _how_to_go_on(run_dir: Path) -> str:
    if not (run_dir / runs.CONFIG).is_file():
        return "The run had not begun."
    return f"{_kept(run_dir)}. To go on: python train.py --resume {shlex.quote(str(run_dir))}"


def _kept(run_dir: Path) -> str:
    checkpoints = list_checkpoints(run_dir / runs.CHECKPOINTS)
    if not checkpoints:
        return "No epoch had finished"
    return f"All finished epochs are in {checkpoints[-1]}"


def _fingerprint_history(history: Iterable[Mapping]) -> str:
    # SHA-256 of the rows of history.csv without their seconds.
    numbers = [{name: row[name] for name in runs.HISTORY_COLUMNS[:-1]} for row in history]
    return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()
