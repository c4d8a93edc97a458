"""A training run, top to bottom: data, backbone, head phase, fine-tune phase, run folder.

`train` begins a run and `resume` goes on with one that was stopped, from its last finished
epoch; what they share stands below them.
"""

import dataclasses
import gc
import time
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from transfer import runs
from transfer.config import Config
from transfer.data.decode import decode_splits
from transfer.data.pipeline import make_evaluation_dataset
from transfer.data.sources import Split, Splits, fingerprint, load_splits
from transfer.errors import InputError
from transfer.memory import usable_memory
from transfer.models.backbones import scale
from transfer.models.classifier import (
    build_classifier,
    dtype_policy,
    least_training_bytes,
    save_classifier,
)
from transfer.models.fingerprints import fingerprint_variables
from transfer.models.normalization import freeze_batch_norm, fuse_batch_norm
from transfer.models.precision import (
    choose_inference_precision,
    choose_precision,
    has_accelerator,
)
from transfer.models.recalibration import RECALIBRATION_IMAGES, recalibrate
from transfer.models.weights import load_backbone
from transfer.training.callbacks import FINETUNE, HistoryRecorder
from transfer.training.checkpoint import Checkpoint, newest_checkpoint
from transfer.training.defaults import settle
from transfer.training.phases import Run, fit_finetune, fit_head, load_head_features
from transfer.training.record import (
    Data,
    Result,
    describe_run,
    finish,
    one_line_for_every_end,
    too_large,
    warn_of_other_versions,
)


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
    console.print(f"Weights: {weights.provenance}", soft_wrap=True)
    settled = settle(config, weights)
    if not weights.pretrained:
        console.print(
            "Head phase skipped: a frozen random backbone teaches nothing. All layers and "
            f"BatchNorm train from scratch at learning rate {settled.finetune_learning_rate:g}.",
            soft_wrap=True,
        )
    console.print(
        f"Precision: {policy}, {reason}{_inference_precision(settled, policy)}", soft_wrap=True
    )
    _check_memory(settled, backbone, policy)
    run_dir = runs.create_run(config.backbone, run_dir)
    with runs.lock_run(run_dir), one_line_for_every_end(run_dir, config):
        digest = fingerprint_variables(backbone.weights)
        facts = describe_run(config, settled, data, weights, digest)
        facts |= {"precision": policy, "command": command}
        facts |= {"repeats": dict(repeats)} if repeats else {}
        runs.write_json(run_dir / runs.CONFIG, facts)
        console.print(f"Run folder: {run_dir}", soft_wrap=True)
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
        console.print(f"Run folder: {run_dir}, resumed", soft_wrap=True)
        warn_of_other_versions(facts, console)
        checkpoint = newest_checkpoint(
            run_dir / runs.CHECKPOINTS,
            lambda line: console.print(f"Warning: {line}", soft_wrap=True),
        )
        console.print(f"Going on {_describe_checkpoint(checkpoint)}", soft_wrap=True)
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
    console.print(f"Data: {splits.provenance}", soft_wrap=True)
    if not with_test:
        splits = dataclasses.replace(splits, test=splits.test.take(np.arange(0)))
    fingerprints = {name: fingerprint(split) for name, split in splits.parts().items()}
    splits = decode_splits(splits, config.image_size, skip_bad_images=config.skip_bad_images)
    test = f"{splits.test.num_images:,} test" if with_test else "the test images left alone"
    console.print(
        f"Images used: {splits.train.num_images:,} training, "
        f"{splits.validation.num_images:,} validation, {test}; "
        f"{len(splits.class_names)} classes",
        soft_wrap=True,
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


def _inference_precision(settled: Config, policy: str) -> str:
    inference, reason = choose_inference_precision(settled.backbone, settled.precision)
    return "" if inference == policy else f"; without gradients {inference}, {reason}"


def _check_memory(settled: Config, backbone: keras.Model, policy: str) -> None:
    # Early and in words: a system that runs out of memory kills the process without any.
    needed, there = least_training_bytes(settled, backbone, policy), usable_memory()
    if settled.finetune_epochs and not has_accelerator() and needed > there:
        raise InputError(
            f"{too_large(settled)}: they need more than {needed / 1e9:.0f} GB, and there are "
            f"{there / 1e9:.0f} here; take --batch-size {settled.batch_size // 2} or less."
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


def _describe_checkpoint(checkpoint: Checkpoint | None) -> str:
    if checkpoint is None:
        return "from the beginning: no epoch had finished"
    return f"after epoch {checkpoint.state.epoch} of the {checkpoint.state.phase} phase"
