"""A training run, top to bottom: data, backbone, head phase, fine-tune phase, run folder.

`train` begins a run and `resume` goes on with one that was stopped, from its last finished
epoch; what they share stands below them.
"""

import dataclasses
import functools
import gc
import random
import time
import zlib
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from transfer import console
from transfer.acceleration.doors import (
    pass_engine,
    pass_libraries,
    passes_as_with,
    with_frozen_batch_norm,
    with_trained_batch_norm,
)
from transfer.config import Config, settings
from transfer.data.geometry import SQUASH
from transfer.data.pipeline import make_evaluation_dataset
from transfer.data.splits import Split, Splits
from transfer.datasets.formats.npz import write_arrays
from transfer.errors import InputError
from transfer.machine import has_accelerator, usable_memory
from transfer.models.backbones import build_backbone, check_image_size, get_backbone, scale
from transfer.models.batch_norm import RECALIBRATION_IMAGES, make_recalibration
from transfer.models.classifier import (
    build_classifier,
    count_features,
    count_numbers,
    count_unfrozen,
    least_training_bytes,
)
from transfer.models.counts import ClassifierCounts, count_network
from transfer.models.fingerprints import fingerprint_variables
from transfer.models.precision import (
    choose_inference_precision,
    choose_precision,
    dtype_policy,
    gradient_dtype,
)
from transfer.models.saving import save_classifier
from transfer.models.weights import Weights, check_weights, load_backbone
from transfer.recipes import get_recipe
from transfer.runs import files
from transfer.runs.facts import (
    Facts,
    RepeatsFacts,
    describe_data,
    describe_run,
    read_facts,
    versions,
)
from transfer.runs.folder import (
    check_new,
    check_resumable,
    create_run,
    is_finished,
    lock_new_run,
    lock_run,
)
from transfer.storage.atomic import remove_leftovers
from transfer.training import distribution
from transfer.training.callbacks import FINETUNE, HEAD, HistoryRecorder
from transfer.training.checkpoint import Checkpoint, HeadPhaseWeights, newest_checkpoint
from transfer.training.data import Data, load_data, suit_to_images
from transfer.training.defaults import check_folds, settle
from transfer.training.folds import cross_validate
from transfer.training.forecast import Forecast
from transfer.training.interruption import one_line_for_every_end, too_large
from transfer.training.phases import Run, fit_finetune, fit_head, fit_small, load_head_features
from transfer.training.result import Describe, Result, finish, tidy_up

ShowNetwork = Callable[[ClassifierCounts], None]  # shows it to a person


@distribution.over_all_devices()
def train(
    config: Config,
    *,
    run_dir: Path | None = None,
    offline: bool = False,
    command: str = "",
    given: Container[str] | None = None,
    repeats: RepeatsFacts | None = None,
    data: Data | None = None,
    describe: Describe | None = None,
    show_network: ShowNetwork | None = None,
    keep_model: bool = True,
) -> Result:
    """Trains a classifier through both phases and keeps everything in a new run folder.

    Args:
        config: the settings.
        run_dir: the folder to make, or None for `runs/<time>-<backbone>`.
        offline: never use the network.
        command: the command line, kept in the run.
        given: names of the settings that must stay as they are, the others may be suited to the
            number of images; None for all.
        repeats: what binds it to runs with other seeds, kept in the run.
        data: what `load_data` gave for these settings; None to load it now.
        describe: called with what the run came to, before it counts as finished.
        show_network: called with how large the classifier is, before it is trained.
        keep_model: write model.keras at the end.

    Returns:
        The run folder, its summary and its history.

    Raises:
        InputError: data or weights cannot be used, training diverged, or the disk is full.
        Interrupted: Ctrl-C or SIGTERM came.
    """
    started = time.perf_counter()
    if distribution.is_first():
        check_new(run_dir)
    start = prepare(config, data=data, given=given, offline=offline)
    config, settled, data = start.config, start.settled, start.data
    backbone, weights, policy = start.backbone, start.weights, start.policy
    make = functools.partial(create_run, config.backbone, run_dir)
    with (
        distribution.folder_of_run(make) as run_dir,
        one_line_for_every_end(run_dir, config),
        lock_new_run(run_dir),
    ):
        location = _keep_arrays(data, run_dir)
        sha256 = fingerprint_variables(backbone.weights)  # before they know the images
        classifier = build(settled, backbone, data.splits, policy)
        counts = _count(settled, classifier)
        describe_run(
            config,
            settled,
            describe_data(data.splits, data.fingerprints, location),
            weights,
            sha256,
            policy,
            command=command,
            repeats=repeats,
            counts=counts,
            libraries=pass_libraries(),
        ).write(run_dir)
        _say_network(settled, counts, show_network)
        console.say(f"Run folder: {run_dir}")
        forecast = _make_forecast(settled, data.splits)
        run = Run(settled, HistoryRecorder(run_dir), started, forecast=forecast)
        return _train_phases(
            classifier, data.splits, policy, run, describe=describe, keep_model=keep_model
        )


@distribution.over_all_devices()
def resume(
    run_dir: Path,
    *,
    given: Mapping[str, Any] | None = None,
    offline: bool = False,
    describe: Describe | None = None,
    show_network: ShowNetwork | None = None,
) -> Result:
    """Goes on with a run that was stopped, from its last finished epoch, in the same folder.

    On the same machine and with the same versions the result is the same to the last bit as
    that of a run that was never stopped.

    Args:
        run_dir: a run that has begun and not finished.
        given: settings that the user gave again; they must be those of the run.
        offline: never use the network.
        describe: called with what the run came to, before it counts as finished.
        show_network: called with how large the classifier is, before it is trained.

    Returns:
        The run folder, its summary and its history, the epochs before the stop included.

    Raises:
        InputError: the run has finished or is in use; a setting, the data or the weights are not
            those it began with; or as `train`.
        Interrupted: Ctrl-C or SIGTERM came.
    """
    started = time.perf_counter()
    check_resumable(run_dir)
    facts = read_facts(run_dir)
    _refuse_changes(run_dir, facts.settings, given or {})
    distribution.check_batch_size(facts.settled)
    with (
        distribution.folder_of_run(lambda: run_dir) as own_dir,
        one_line_for_every_end(run_dir, facts.settings),
        lock_run(own_dir),
        passes_as_with(facts.versions),
    ):
        if is_finished(run_dir):
            return tidy_up(run_dir, describe)
        if distribution.is_first():
            remove_leftovers(run_dir, ".+", alone=True)
        console.say(f"Run folder: {run_dir}, resumed")
        _warn_of_other_versions(facts)
        checkpoint = newest_checkpoint(
            run_dir / files.CHECKPOINTS, lambda line: console.say(f"Warning: {line}")
        )
        _check_same_checkpoint(run_dir, checkpoint)
        console.say(f"Going on {_describe_checkpoint(checkpoint)}")
        data = _load_data_again(run_dir, facts, offline)
        _check_same_data(run_dir, facts, data)
        backbone = _load_backbone_again(run_dir, facts, checkpoint, offline)
        _check_memory(facts.settled, backbone, facts.precision)
        classifier = build(facts.settled, backbone, data.splits, facts.precision)
        _say_network(facts.settled, _count(facts.settled, classifier), show_network)
        recorder = HistoryRecorder(own_dir)
        if checkpoint:
            recorder.rows = checkpoint.state.history
            started -= checkpoint.state.seconds
        forecast = _make_forecast(facts.settled, data.splits)
        run = Run(facts.settled, recorder, started, checkpoint, forecast)
        return _train_phases(classifier, data.splits, facts.precision, run, describe=describe)


def _train_phases(
    classifier: keras.Model,
    splits: Splits,
    policy: str,
    run: Run,
    *,
    describe: Describe | None,
    keep_model: bool = True,
) -> Result:
    phase = run.checkpoint.state.phase if run.checkpoint else HEAD  # to go on with
    last, folds = None, {}
    if run.config.head_epochs and phase == HEAD:
        last = classifier.get_layer("head")
        features = load_head_features(classifier, splits, run)
        if run.config.folds:
            folds = cross_validate(classifier, features, splits, run, policy)
        fit_head(last, features, splits, run)
        del features
        gc.collect()  # up to gigabytes, held by nothing but cycles
    if run.config.finetune_epochs:
        before = HeadPhaseWeights(classifier, run.recorder, run.checkpoint)
        small = None
        if run.config.small_epochs and phase != FINETUNE:
            small = _fit_small(classifier, splits, policy, run, before)
        last = fit_finetune(classifier, splits, run, before, small)
    if keep_model and distribution.is_first():
        with distribution.alone():
            save_classifier(classifier, run.config, policy, run.recorder.run_dir / files.MODEL)
    return finish(classifier, last, run, describe, folds)


def _fit_small(
    classifier: keras.Model, splits: Splits, policy: str, run: Run, before: HeadPhaseWeights
) -> keras.Model:
    # Trains a network of the same weights on smaller images and gives them back to the classifier.
    config = dataclasses.replace(run.config, image_size=run.config.small_image_size)
    backbone, _ = _load_backbone(config, "none", policy, offline=True)
    small = build(config, backbone, splits, policy)
    _copy_variables(classifier, small)
    fit_small(small, splits, run, before)
    _copy_variables(small, classifier)
    return small


def _copy_variables(source: keras.Model, target: keras.Model) -> None:
    # The states of random numbers too, which are no weights.
    for variable, value in zip(target.variables, source.variables, strict=True):
        variable.assign(value)


# --- Before the phases ----------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """What a run begins with."""

    config: Config  # as the user gave it, suited to the number of images
    settled: Config  # "auto" settled
    data: Data
    backbone: keras.Model
    weights: Weights
    policy: str  # its number format, one of `POLICIES`


def prepare(
    config: Config, *, data: Data | None, given: Container[str] | None, offline: bool
) -> Start:
    """Loads data and backbone, settles what the user left open, and says all of it.

    Args:
        config: the settings.
        data: what `load_data` gave for these settings; None to load it now.
        given: names of the settings that must stay as they are; None for all.
        offline: never use the network.

    Raises:
        InputError: data or weights cannot be used, or there is not enough memory.
    """
    check_image_size(config.backbone, config.image_size)
    check_folds(config)
    check_weights(config.weights)
    data = data or load_data(config, offline)
    config = suit_to_images(config, data, given)
    distribution.check_batch_size(config)
    policy, reason = choose_precision(config.backbone, config.precision)
    backbone, weights = _load_backbone(config, config.weights, policy, offline)
    settled = settle(config, weights, data.splits.geometry)
    _say_settings(settled, weights, policy, reason)
    _say_colours(settled, data.splits)
    _check_memory(settled, backbone, policy)
    _check_small_images(settled, backbone)
    return Start(config, settled, data, backbone, weights, policy)


def _load_backbone(
    config: Config, weights: str, policy: str, offline: bool
) -> tuple[keras.Model, Weights]:
    keras.utils.set_random_seed(config.seed)
    with dtype_policy(policy):
        return load_backbone(config.backbone, config.image_size, weights, offline=offline)


def _say_settings(settled: Config, weights: Weights, policy: str, reason: str) -> None:
    recipe = get_recipe(settled.backbone)
    own = [f"{name} {value}" for name, value in recipe.items() if getattr(settled, name) == value]
    if own:
        console.say(f"Defaults of {settled.backbone}: {', '.join(own)}")
    console.say(f"Weights: {weights.short}")
    if not weights.pretrained:
        console.say(
            "Head phase skipped: a frozen random backbone teaches nothing. All layers train from "
            f"scratch at learning rate {settled.finetune_learning_rate:g}."
        )
    inference, why = choose_inference_precision(settled.backbone, settled.precision)
    other = "" if inference == policy else f"; without gradients {inference}"
    if pass_libraries():
        other = f"; without gradients {inference} by {pass_engine()}"
    if console.is_verbose():
        policy, other = f"{policy}, {reason}", f"{other}, {why}" if other else ""
    console.say(f"Precision: {policy}{other}")


def _say_colours(settled: Config, splits: Splits) -> None:
    if splits.geometry and splits.geometry.channels > get_backbone(settled.backbone).channels:
        console.say(f"{settled.backbone} sees gray: the colours of the images are left out.")


def _check_memory(settled: Config, backbone: keras.Model, policy: str) -> None:
    # Early and in words: a system that runs out of memory kills the process without any.
    needed, there = least_training_bytes(settled, backbone, policy), usable_memory()
    if settled.finetune_epochs and not has_accelerator() and needed > there:
        raise InputError(
            f"{too_large(settled)}: they need more than {needed / 1e9:.0f} GB, and there are "
            f"{there / 1e9:.0f} here; take --batch-size {settled.batch_size // 2} or less."
        )


def _check_small_images(settled: Config, backbone: keras.Model) -> None:
    # Before the head phase: small images must give the head what it sees of the large ones.
    if not settled.small_epochs:
        return
    size = settled.image_size
    state = random.getstate()  # from which the head's weights are drawn, also by a resumed run
    small = build_backbone(settled.backbone, settled.small_image_size)
    random.setstate(state)
    if count_features(settled, small) != count_features(settled, backbone):
        # Where blocks halve the image five times, multiples of 32 pixels give outputs alike.
        other = f"--small-image-size {size * 2 // 96 * 32}, or " if size % 32 == 0 else ""
        raise InputError(
            f"the head sees other outputs of {settled.backbone} at {settled.small_image_size} "
            f"pixels than at {size}. Give {other}--head-features last."
        )


def _make_forecast(settled: Config, splits: Splits) -> Forecast:
    return Forecast(settled, splits.train.num_images, splits.validation.num_images)


def _keep_arrays(data: Data, run_dir: Path) -> str | None:
    # Images in memory are nowhere to be found again, so the run keeps them.
    if data.arrays is None:
        return None
    write_arrays(run_dir / files.DATA, data.arrays)
    return files.DATA


def build(settled: Config, backbone: keras.Model, splits: Splits, policy: str) -> keras.Model:
    """Returns the classifier that is trained, its head untrained.

    Args:
        settled: the settings, "auto" settled.
        backbone: with its weights.
        splits: the images.
        policy: one of `POLICIES`.
    """
    backbone = prepare_backbone(settled, backbone, splits, policy)
    num_classes, trains = len(splits.class_names), settled.train_batch_norm
    with dtype_policy(policy):
        return build_classifier(settled, backbone, num_classes, train_batch_norm=trains)


def _count(settled: Config, classifier: keras.Model) -> ClassifierCounts:
    backbone, head = classifier.get_layer("backbone"), classifier.get_layer("head")
    trained = {}
    if settled.head_epochs:
        trained[HEAD] = count_numbers(head.trainable_weights)
    if settled.finetune_epochs:
        trained[FINETUNE] = count_unfrozen(
            settled, classifier, train_batch_norm=settled.train_batch_norm
        )
    return ClassifierCounts(count_network(backbone), count_network(head), trained)


def _say_network(settled: Config, counts: ClassifierCounts, show: ShowNetwork | None) -> None:
    console.say(f"Network: {settled.backbone} and head, {counts.whole.tell()}")
    if show:
        show(counts)


def prepare_backbone(
    settled: Config, backbone: keras.Model, splits: Splits, policy: str
) -> keras.Model:
    """Returns the backbone as it trains: BatchNorm with its statistics, trained or frozen.

    Args:
        settled: the settings, "auto" settled.
        backbone: with its weights; its BatchNorm may get the statistics of the images.
        splits: the images.
        policy: one of `POLICIES`.
    """
    if settled.recalibrate_batch_norm:
        make_recalibration(backbone)(_recalibration_batches(settled, splits.train))
    prepare = with_trained_batch_norm if settled.train_batch_norm else with_frozen_batch_norm
    with dtype_policy(policy):
        return prepare(backbone, gradient_dtype=gradient_dtype(policy))


def _recalibration_batches(settled: Config, train: Split) -> tf.data.Dataset:
    # Drawn at random: a folder's images come class by class.
    order = np.random.default_rng(settled.seed).permutation(train.num_images)
    part = train.take(np.sort(order[:RECALIBRATION_IMAGES]))
    batches = make_evaluation_dataset(part, settled.image_size, settled.batch_size, num_classes=1)
    return batches.map(lambda images, labels: scale(settled.backbone, images))


# --- Going on -------------------------------------------------------------------------------


def _refuse_changes(run_dir: Path, config: Config, given: Mapping[str, Any]) -> None:
    known = settings()
    again = {name: known[name].normalise(value) for name, value in given.items()}
    changed = {name: value for name, value in again.items() if value != getattr(config, name)}
    if changed:
        told = ", ".join(
            f"--{name.replace('_', '-')} {getattr(config, name)} (received: {value})"
            for name, value in changed.items()
        )
        raise InputError(
            f"{run_dir} was begun with {told}. Resume it without these settings, or begin a new "
            "run without --resume."
        )


def _warn_of_other_versions(facts: Facts) -> None:
    now = versions(pass_libraries())
    other = [
        f"{name} {was} (here {now.get(name, 'none')})"
        for name, was in facts.versions.items()
        if now.get(name) != was
    ]
    if other:
        console.say(
            f"Warning: the run began with {', '.join(other)}; with other versions its numbers may "
            "differ in the last digits."
        )


def _load_data_again(run_dir: Path, facts: Facts, offline: bool) -> Data:
    geometry, settings = facts.data.geometry, facts.settings
    if geometry is None:  # of a run that knew but one fit
        settings = dataclasses.replace(settings, fit=SQUASH)
    return load_data(
        settings,
        offline,
        run_dir=run_dir,
        kept_fingerprints=facts.data.fingerprints,
        geometry=geometry,
    )


def _check_same_data(run_dir: Path, facts: Facts, data: Data) -> None:
    if data.fingerprints != facts.data.fingerprints:
        raise InputError(
            f"the data of {run_dir} have changed since it began: it took "
            f"{facts.data.provenance}. Received: {data.splits.provenance}. Put them back, "
            "or begin a new run."
        )


def _load_backbone_again(
    run_dir: Path, facts: Facts, checkpoint: Checkpoint | None, offline: bool
) -> keras.Model:
    # A checkpoint behind the head phase brings all weights; before it they are needed again.
    needed = checkpoint is None or checkpoint.state.phase == HEAD
    wanted = facts.settings.weights if needed else "none"
    backbone, weights = _load_backbone(facts.settings, wanted, facts.precision, offline)
    if needed and fingerprint_variables(backbone.weights) != facts.weights.sha256:
        raise InputError(
            f"{run_dir} began with {facts.weights.provenance}. Received: "
            f"{weights.provenance}, which differ. Put them back, or begin a new run."
        )
    return backbone


def _check_same_checkpoint(run_dir: Path, checkpoint: Checkpoint | None) -> None:
    # Processes on other machines see the folder by way of a network.
    name = checkpoint.path.name if checkpoint else ""
    if not distribution.all_see(zlib.crc32(name.encode()) % 2**31):
        raise InputError(
            f"the processes do not see the same checkpoints of {run_dir}; this one sees "
            f"{name or 'none'}. The folder should be on a disk that all of them share."
        )


def _describe_checkpoint(checkpoint: Checkpoint | None) -> str:
    if checkpoint is None:
        return "from the beginning: no epoch had finished"
    return f"after epoch {checkpoint.state.epoch} of the {checkpoint.state.phase} phase"
