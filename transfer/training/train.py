"""A training run, top to bottom: data, backbone, head phase, fine-tune phase, run folder.

`train` begins a run and `resume` goes on with one that was stopped, from its last finished
epoch; what they share stands below them.
"""

import contextlib
import dataclasses
import gc
import platform
import shlex
import signal
import time
from collections.abc import Iterator, Mapping
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
from transfer.data.decode import decode_splits
from transfer.data.formats import physical_memory
from transfer.data.pipeline import make_evaluation_dataset
from transfer.data.sources import Split, Splits, fingerprint, load_splits
from transfer.errors import InputError, Interrupted
from transfer.formatting import format_percent, format_seconds
from transfer.models.backbones import scale
from transfer.models.classifier import (
    build_classifier,
    dtype_policy,
    least_training_bytes,
    save_classifier,
)
from transfer.models.normalization import freeze_batch_norm, fuse_batch_norm
from transfer.models.precision import (
    choose_inference_precision,
    choose_precision,
    has_accelerator,
)
from transfer.models.recalibration import RECALIBRATION_IMAGES, recalibrate
from transfer.models.weights import Weights, load_backbone
from transfer.training.callbacks import FINETUNE, HistoryRecorder
from transfer.training.checkpoint import (
    Checkpoint,
    list_checkpoints,
    newest_checkpoint,
    remove_checkpoints,
)
from transfer.training.defaults import settle
from transfer.training.fingerprints import fingerprint_history, fingerprint_variables
from transfer.training.phases import Run, fit_finetune, fit_head, load_head_features


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


def train(
    config: Config,
    console: Console,
    *,
    run_dir: Path | None = None,
    offline: bool = False,
    command: str = "",
    repeats: Mapping | None = None,
    data: Data | None = None,
    keep_model: bool = True,
) -> Result:
    """Trains a classifier through both phases and keeps everything in a new run folder.

    Args:
        config: the settings.
        console: where progress is told.
        run_dir: the folder to make, or None for `runs/<time>-<backbone>`.
        offline: never use the network.
        command: the command line, kept in the run.
        repeats: what binds it to runs with other seeds, kept in the run.
        data: what `load_data` gave for these settings; None to load it now.
        keep_model: write model.keras at the end.

    Returns:
        The run folder, its summary and its history.

    Raises:
        InputError: data or weights cannot be used, training diverged, or the disk is full.
        Interrupted: Ctrl-C or SIGTERM came.
    """
    started = time.perf_counter()
    runs.check_new(run_dir)
    data = data or load_data(config, offline, console)
    splits = data.splits
    policy, reason = choose_precision(config.backbone, config.precision)
    keras.utils.set_random_seed(config.seed)
    with dtype_policy(policy):
        backbone, weights = load_backbone(
            config.backbone, config.image_size, config.weights, offline=offline
        )
    _tell(console, f"Weights: {weights.provenance}")
    settled = settle(config, weights)
    if not weights.pretrained:
        _tell(
            console,
            "Head phase skipped: a frozen random backbone teaches nothing. All layers and "
            f"BatchNorm train from scratch at learning rate {settled.finetune_learning_rate:g}.",
        )
    _tell(console, f"Precision: {policy}, {reason}{_inference_precision(settled, policy)}")
    _check_memory(settled, backbone, policy)
    run_dir = runs.create_run(config.backbone, run_dir)
    with runs.lock_run(run_dir), one_line_for_every_end(run_dir, config):
        digest = fingerprint_variables(backbone.weights)
        facts = describe_run(config, settled, data, weights, digest)
        facts |= {"precision": policy, "command": command}
        facts |= {"repeats": dict(repeats)} if repeats else {}
        runs.write_json(run_dir / runs.CONFIG, facts)
        _tell(console, f"Run folder: {run_dir}")
        classifier = _build(settled, backbone, splits, policy)
        run = Run(settled, console, HistoryRecorder(run_dir), started)
        return _train_phases(classifier, splits, policy, run, keep_model=keep_model)


def resume(
    run_dir: Path, console: Console, *, given: dict | None = None, offline: bool = False
) -> Result:
    """Goes on with a run that was stopped, from its last finished epoch, in the same folder.

    On the same machine and with the same versions the result is the same to the last bit as
    that of a run that was never stopped.

    Args:
        run_dir: a run that has begun and not finished.
        console: where progress is told.
        given: settings that the user gave again; they must be those of the run.
        offline: never use the network.

    Returns:
        The run folder, its summary and its history, the epochs before the stop included.

    Raises:
        InputError: the run has finished or is in use; a setting, the data or the weights are not
            those it began with; or as `train`.
        Interrupted: Ctrl-C or SIGTERM came.
    """
    started = time.perf_counter()
    runs.check_resumable(run_dir)
    facts = runs.read_facts(run_dir)
    config, settled = Config.from_dict(facts["settings"]), Config.from_dict(facts["settled"])
    _refuse_changes(run_dir, config, given or {})
    with runs.lock_run(run_dir), one_line_for_every_end(run_dir, config):
        _tell(console, f"Run folder: {run_dir}, resumed")
        _warn_of_other_versions(facts, console)
        checkpoint = newest_checkpoint(
            run_dir / runs.CHECKPOINTS, lambda line: _tell(console, f"Warning: {line}")
        )
        _tell(console, f"Going on {_describe_checkpoint(checkpoint)}")
        data = load_data(config, offline, console)
        splits = data.splits
        if data.fingerprints != facts["data"].get("fingerprints"):
            raise InputError(
                f"the data of {run_dir} have changed since it began: it took "
                f"{facts['data']['provenance']}. Received: {splits.provenance}. Put them back, "
                "or begin a new run."
            )
        backbone = _load_backbone_again(run_dir, facts, config, checkpoint, offline)
        classifier = _build(settled, backbone, splits, facts["precision"])
        recorder = HistoryRecorder(run_dir)
        if checkpoint:
            recorder.rows = checkpoint.state.history
            started -= checkpoint.state.seconds
        run = Run(settled, console, recorder, started, checkpoint)
        return _train_phases(classifier, splits, facts["precision"], run)


def print_summary(result: Result, console: Console) -> None:
    """Prints what was trained, how good it is on the validation images, and what to type next."""
    for phase, figures in result.summary["phases"].items():
        _tell(
            console,
            f"{phase}: {figures['epochs']} epochs in {format_seconds(figures['seconds'])}, "
            f"best epoch {figures['best_epoch']}: validation accuracy "
            f"{format_percent(figures['val_accuracy'])}, loss {figures['val_loss']:.4f}",
        )
    _tell(
        console,
        f"Done in {format_seconds(result.summary['seconds'])}. Everything is in {result.run_dir}\n"
        f"Next: python evaluate.py {shlex.quote(str(result.run_dir))} --report",
    )


def load_data(config: Config, offline: bool, console: Console, *, with_test: bool = True) -> Data:
    """Loads, fingerprints and decodes the images that settings ask for, and says what they are.

    Args:
        config: the settings.
        offline: never use the network.
        console: where it is told.
        with_test: False leaves the test images out, for those who may not see them.

    Raises:
        InputError: the data cannot be used.
    """
    splits = load_splits(
        config.data,
        validation_fraction=config.validation_fraction,
        seed=config.seed,
        limit=config.limit,
        offline=offline,
    )
    _tell(console, f"Data: {splits.provenance}")
    if not with_test:
        splits = dataclasses.replace(splits, test=splits.test.take(np.arange(0)))
    fingerprints = {name: fingerprint(split) for name, split in _named(splits)}
    splits = decode_splits(splits, config.image_size, skip_bad_images=config.skip_bad_images)
    test = f"{splits.test.num_images:,} test" if with_test else "the test images left alone"
    _tell(
        console,
        f"Images used: {splits.train.num_images:,} training, "
        f"{splits.validation.num_images:,} validation, {test}; "
        f"{len(splits.class_names)} classes",
    )
    return Data(splits, fingerprints)


def _train_phases(
    classifier: keras.Model, splits: Splits, policy: str, run: Run, *, keep_model: bool = True
) -> Result:
    resumes_finetune = run.checkpoint and run.checkpoint.state.phase == FINETUNE
    last = None
    if run.config.head_epochs and not resumes_finetune:
        last = classifier.get_layer("head")
        fit_head(last, load_head_features(classifier, splits, run), splits, run)
        gc.collect()  # the features, up to gigabytes, are held by nothing but cycles
    if run.config.finetune_epochs:
        last = fit_finetune(classifier, splits, run)
    if keep_model:
        save_classifier(classifier, run.config, policy, run.recorder.run_dir / runs.MODEL)
    return finish(classifier, last, run)


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
        "history": fingerprint_history(history),
    }
    runs.write_history(run_dir, history)
    runs.write_json(run_dir / runs.SUMMARY, summary)
    remove_checkpoints(run_dir / runs.CHECKPOINTS)
    return Result(run_dir, summary, history)


def _named(splits: Splits) -> list[tuple[str, Split]]:
    return [("train", splits.train), ("validation", splits.validation), ("test", splits.test)]


def _inference_precision(settled: Config, policy: str) -> str:
    inference, reason = choose_inference_precision(settled.backbone, settled.precision)
    return "" if inference == policy else f"; without gradients {inference}, {reason}"


def _check_memory(settled: Config, backbone: keras.Model, policy: str) -> None:
    # Early and in words: a system that runs out of memory kills the process without any.
    needed, there = least_training_bytes(settled, backbone, policy), physical_memory()
    if settled.finetune_epochs and not has_accelerator() and needed > there:
        raise InputError(
            f"{_too_large(settled)}: they need more than {needed / 1e9:.0f} GB, and this machine "
            f"has {there / 1e9:.0f}; take --batch-size {settled.batch_size // 2} or less."
        )


def _too_large(config: Config) -> str:
    return (
        f"there is not enough memory for batches of {config.batch_size} images of "
        f"{config.image_size} pixels"
    )


def _build(settled: Config, backbone: keras.Model, splits: Splits, policy: str) -> keras.Model:
    backbone = prepare_backbone(settled, backbone, splits, policy)
    num_classes, trains = len(splits.class_names), settled.train_batch_norm
    with dtype_policy(policy):
        return build_classifier(settled, backbone, num_classes, train_batch_norm=trains)


def prepare_backbone(
    settled: Config, backbone: keras.Model, splits: Splits, policy: str
) -> keras.Model:
    """Returns the backbone as it trains: BatchNorm with its statistics, fused or frozen.

    Args:
        settled: the settings, "auto" settled.
        backbone: with its weights; its BatchNorm may get the statistics of the images.
        splits: the images.
        policy: Keras's dtype policy.
    """
    if settled.recalibrate_batch_norm:
        recalibrate(backbone, _recalibration_batches(settled, splits.train))
    with dtype_policy(policy):
        return (fuse_batch_norm if settled.train_batch_norm else freeze_batch_norm)(backbone)


def _recalibration_batches(settled: Config, train: Split) -> tf.data.Dataset:
    # Drawn at random: a folder's images come class by class.
    order = np.random.default_rng(settled.seed).permutation(train.num_images)
    part = train.take(np.sort(order[:RECALIBRATION_IMAGES]))
    batches = make_evaluation_dataset(part, settled.image_size, settled.batch_size, num_classes=1)
    return batches.map(lambda images, labels: scale(settled.backbone, images))


def _load_backbone_again(
    run_dir: Path, facts: dict, config: Config, checkpoint: Checkpoint | None, offline: bool
) -> keras.Model:
    # A checkpoint of the fine-tune phase brings all weights; before it they are needed again.
    needed = checkpoint is None or checkpoint.state.phase != FINETUNE
    keras.utils.set_random_seed(config.seed)
    with dtype_policy(facts["precision"]):
        backbone, weights = load_backbone(
            config.backbone,
            config.image_size,
            config.weights if needed else "none",
            offline=offline,
        )
    if needed and fingerprint_variables(backbone.weights) != facts["weights"].get("sha256"):
        raise InputError(
            f"{run_dir} began with {facts['weights']['provenance']}. Received: "
            f"{weights.provenance}, which differ. Put them back, or begin a new run."
        )
    return backbone


def _refuse_changes(run_dir: Path, config: Config, given: dict) -> None:
    changed = {name: value for name, value in given.items() if value != getattr(config, name)}
    if changed:
        told = ", ".join(
            f"{name} {getattr(config, name)} (received: {value})" for name, value in changed.items()
        )
        raise InputError(
            f"{run_dir} was begun with {told}. Resume it without these settings, or begin a new "
            "run without --resume."
        )


def _warn_of_other_versions(facts: dict, console: Console) -> None:
    now = _versions()
    other = [f"{name} {was}" for name, was in facts["versions"].items() if now.get(name) != was]
    if other:
        _tell(
            console,
            f"Warning: the run began with {', '.join(other)}; with other versions its numbers may "
            "differ in the last digits.",
        )


def _describe_checkpoint(checkpoint: Checkpoint | None) -> str:
    if checkpoint is None:
        return "from the beginning: no epoch had finished"
    return f"after epoch {checkpoint.state.epoch} of the {checkpoint.state.phase} phase"


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
            f"{_too_large(config)}; begin again with --batch-size "
            f"{max(1, config.batch_size // 2)}. {_kept(run_dir)}."
        ) from error
    except OSError as error:
        raise InputError(
            f"{error.filename or run_dir}: {error.strerror or error}; mend that. "
            f"{_how_to_go_on(run_dir)}"
        ) from error


def _how_to_go_on(run_dir: Path) -> str:
    if not (run_dir / runs.CONFIG).is_file():
        return "The run had not begun."
    return f"{_kept(run_dir)}. To go on: python train.py --resume {shlex.quote(str(run_dir))}"


def _kept(run_dir: Path) -> str:
    checkpoints = list_checkpoints(run_dir / runs.CHECKPOINTS)
    if not checkpoints:
        return "No epoch had finished"
    return f"All finished epochs are in {checkpoints[-1]}"


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
            "num_images": {name: split.num_images for name, split in _named(splits)},
            "fingerprints": data.fingerprints,
        },
        "weights": dataclasses.asdict(weights) | {"sha256": weights_sha256},
        "versions": _versions(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    return {
        "transfer": transfer.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


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


def _tell(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)
