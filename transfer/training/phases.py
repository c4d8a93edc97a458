"""A training run, top to bottom: data, backbone, head phase, fine-tune phase, run folder.

Head: the frozen backbone runs once over the images and only the head trains, on its
features. Fine-tune: the upper blocks (or all) are unfrozen and train at a low learning
rate. Each phase is one `fit` with Keras's own callbacks.
"""

import dataclasses
import math
import platform
import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from sklearn.utils.class_weight import compute_class_weight

import transfer
from transfer import runs
from transfer.config import Config
from transfer.data.decode import decode_splits
from transfer.data.pipeline import (
    make_evaluation_dataset,
    make_feature_dataset,
    make_training_dataset,
    steps_per_epoch,
)
from transfer.data.sources import Split, Splits, fingerprint, load_splits
from transfer.errors import InputError
from transfer.formatting import format_percent, format_seconds
from transfer.models.backbones import get_backbone
from transfer.models.classifier import (
    build_classifier,
    dtype_policy,
    feature_extractor,
    save_classifier,
    unfreeze_backbone,
)
from transfer.models.folding import fold_classifier
from transfer.models.normalization import fuse_batch_norm
from transfer.models.precision import choose_precision, has_accelerator
from transfer.models.weights import Weights, load_backbone
from transfer.progress import PhaseProgress
from transfer.training.callbacks import (
    FINETUNE,
    HEAD,
    SHORT_EPOCH_STEPS,
    BatchNormRecalibration,
    HistoryRecorder,
    keras_callbacks,
)
from transfer.training.features import compute_features


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
) -> Result:
    """Trains a classifier through both phases and keeps everything in a new run folder.

    Args:
        config: the settings.
        console: where progress is told.
        run_dir: the folder to make, or None for `runs/<time>-<backbone>`.
        offline: never use the network.
        command: the command line, kept in the run.

    Returns:
        The run folder, its summary and its history.

    Raises:
        InputError: data or weights cannot be used, or training diverged.
    """
    started = time.perf_counter()
    splits, fingerprints = _load_data(config, offline, console)
    keras.utils.set_random_seed(config.seed)
    policy, reason = choose_precision(config.backbone, config.precision)
    with dtype_policy(policy):
        backbone, weights = load_backbone(
            config.backbone, config.image_size, config.weights, offline=offline
        )
        settled = _settle(config, weights, console)
        if settled.train_batch_norm:
            backbone = fuse_batch_norm(backbone)
        classifier = build_classifier(
            settled, backbone, len(splits.class_names), train_batch_norm=settled.train_batch_norm
        )
    console.print(f"Precision: {policy}, {reason}", highlight=False, soft_wrap=True)
    run_dir = runs.create_run(config.backbone, run_dir)
    facts = _describe_run(config, settled, splits, weights)
    facts["data"]["fingerprints"] = fingerprints
    facts |= {"precision": policy, "command": command}
    runs.write_json(run_dir / runs.CONFIG, facts)
    console.print(f"Run folder: {run_dir}", highlight=False, soft_wrap=True)

    recorder = HistoryRecorder(run_dir)
    if settled.head_epochs:
        fit_head(classifier, splits, settled, recorder, console)
    if settled.finetune_epochs:
        fit_finetune(classifier, splits, settled, recorder, console)
    save_classifier(classifier, config, policy, run_dir / runs.MODEL)
    summary = _summarise(recorder.rows, time.perf_counter() - started)
    runs.write_json(run_dir / runs.SUMMARY, summary)
    return Result(run_dir, summary, recorder.rows)


def print_summary(result: Result, console: Console) -> None:
    """Prints what was trained, how good it is on the validation images, and what to type next."""
    for phase, figures in result.summary["phases"].items():
        console.print(
            f"{phase}: {figures['epochs']} epochs in {format_seconds(figures['seconds'])}, "
            f"best epoch {figures['best_epoch']}: validation accuracy "
            f"{format_percent(figures['val_accuracy'])}, loss {figures['val_loss']:.4f}",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"Done in {format_seconds(result.summary['seconds'])}. Everything is in {result.run_dir}\n"
        f"Next: python evaluate.py {shlex.quote(str(result.run_dir))} --report",
        highlight=False,
        soft_wrap=True,
    )


def fit_head(
    classifier: keras.Model,
    splits: Splits,
    config: Config,
    recorder: HistoryRecorder,
    console: Console,
) -> None:
    """Trains the head alone on the frozen backbone's features, each computed once.

    With flips on, an epoch takes each image or its mirror image at random.
    """
    extractor = feature_extractor(fold_classifier(classifier))
    head = classifier.get_layer("head")

    def features_of(split: Split, title: str, flipped: bool = False) -> np.ndarray:
        progress = _progress(console, f"features of {title}", split.num_images, config)
        return compute_features(extractor, split, config, flipped=flipped, callbacks=[progress])

    views = [features_of(splits.train, "the training images")]
    if config.flip:
        views.append(features_of(splits.train, "their mirror images", flipped=True))
    validation = features_of(splits.validation, "the validation images")
    num_classes = len(splits.class_names)
    _compile(head, config, config.head_learning_rate)
    _fit(
        head,
        HEAD,
        make_feature_dataset(np.stack(views), splits.train.labels, config, num_classes),
        (validation, keras.utils.to_categorical(splits.validation.labels, num_classes)),
        splits.train,
        config,
        recorder,
        console,
    )


def fit_finetune(
    classifier: keras.Model,
    splits: Splits,
    config: Config,
    recorder: HistoryRecorder,
    console: Console,
) -> None:
    """Unfreezes the upper blocks of the backbone and trains them with the head."""
    backbone = classifier.get_layer("backbone")
    unfreeze_backbone(
        config.backbone, backbone, config.unfreeze, train_batch_norm=config.train_batch_norm
    )
    _compile(classifier, config, config.finetune_learning_rate)
    num_classes = len(splits.class_names)
    batches = make_training_dataset(splits.train, config, num_classes)
    steps = steps_per_epoch(splits.train.num_images, config.batch_size)
    recalibrates = config.train_batch_norm and steps < SHORT_EPOCH_STEPS
    _fit(
        classifier,
        FINETUNE,
        batches,
        make_evaluation_dataset(
            splits.validation, config.image_size, config.batch_size, num_classes
        ),
        splits.train,
        config,
        recorder,
        console,
        [BatchNormRecalibration(classifier, batches)] if recalibrates else [],
    )


def choose_finetune_learning_rate(config: Config, *, pretrained: bool) -> float:
    """Returns the learning rate that "auto" means.

    1e-4 for pretrained weights (low, so that what they know is not lost at once), the
    backbone's own rate for random weights; ten times that for SGD, whose steps are not
    normalised as Adam's are.
    """
    rate = 1e-4 if pretrained else get_backbone(config.backbone).scratch_learning_rate
    return rate * 10 if config.optimizer == "sgd" else rate


def make_optimizer(name: str, learning_rate: float) -> keras.optimizers.Optimizer:
    """Returns a fresh optimizer: adam, adamw, rmsprop or sgd (Nesterov momentum 0.9)."""
    optimizers = keras.optimizers
    return {
        "adam": lambda: optimizers.Adam(learning_rate),
        "adamw": lambda: optimizers.AdamW(learning_rate),
        "rmsprop": lambda: optimizers.RMSprop(learning_rate),
        "sgd": lambda: optimizers.SGD(learning_rate, momentum=0.9, nesterov=True),
    }[name]()


def _load_data(config: Config, offline: bool, console: Console) -> tuple[Splits, dict[str, str]]:
    splits = load_splits(
        config.data,
        validation_fraction=config.validation_fraction,
        seed=config.seed,
        limit=config.limit,
        offline=offline,
    )
    console.print(f"Data: {splits.provenance}", highlight=False, soft_wrap=True)
    fingerprints = {name: fingerprint(split) for name, split in _named(splits)}
    splits = decode_splits(splits, config.image_size, skip_bad_images=config.skip_bad_images)
    console.print(
        f"Images used: {splits.train.num_images:,} training, "
        f"{splits.validation.num_images:,} validation, {splits.test.num_images:,} test; "
        f"{len(splits.class_names)} classes",
        highlight=False,
        soft_wrap=True,
    )
    return splits, fingerprints


def _named(splits: Splits) -> list[tuple[str, Split]]:
    return [("train", splits.train), ("validation", splits.validation), ("test", splits.test)]


def _settle(config: Config, weights: Weights, console: Console) -> Config:
    # What "auto" means once the weights are known.
    console.print(f"Weights: {weights.provenance}", highlight=False, soft_wrap=True)
    rate = config.finetune_learning_rate
    if rate == "auto":
        rate = choose_finetune_learning_rate(config, pretrained=weights.pretrained)
    config = dataclasses.replace(config, finetune_learning_rate=rate)
    if weights.pretrained:
        return config
    if not config.finetune_epochs:
        raise InputError(
            "finetune_epochs is 0 and there are no pretrained weights: a frozen random backbone "
            "teaches nothing. Give --finetune-epochs, or --weights."
        )
    console.print(
        "Head phase skipped: a frozen random backbone teaches nothing. All layers and BatchNorm "
        f"train from scratch at learning rate {rate:g}.",
        highlight=False,
        soft_wrap=True,
    )
    return dataclasses.replace(config, head_epochs=0, unfreeze="all", train_batch_norm=True)


def _compile(model: keras.Model, config: Config, learning_rate: float) -> None:
    model.compile(
        make_optimizer(config.optimizer, learning_rate),
        keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        # XLA makes depthwise convolutions several times slower on a CPU.
        jit_compile="auto" if has_accelerator() else False,
    )
    # Variables made inside the first step would have TensorFlow trace that step twice, which for
    # MobileNetV2 takes tens of seconds.
    model.optimizer.build(model.trainable_variables)


def _fit(
    model: keras.Model,
    phase: str,
    batches: tf.data.Dataset,
    validation: tf.data.Dataset | tuple[np.ndarray, np.ndarray],
    train: Split,
    config: Config,
    recorder: HistoryRecorder,
    console: Console,
    callbacks: Iterable[keras.callbacks.Callback] = (),
) -> None:
    epochs = config.head_epochs if phase == HEAD else config.finetune_epochs
    recorder.phase = phase
    progress = _progress(console, phase, train.num_images, config, epochs)
    try:
        model.fit(
            batches,
            steps_per_epoch=steps_per_epoch(train.num_images, config.batch_size),
            epochs=epochs,
            validation_data=validation,
            class_weight=_class_weights(train.labels) if config.class_weights else None,
            callbacks=[
                *callbacks,
                recorder,
                progress,
                *keras_callbacks(phase, config, recorder.run_dir),
            ],
            shuffle=False,
            verbose=0,
        )
    finally:
        progress.close()
    if not math.isfinite(model.history.history["loss"][-1]):
        option = "head" if phase == HEAD else "finetune"
        raise InputError(
            f"the loss is no longer a number in the {phase} phase; lower --{option}-learning-rate, "
            f"now {getattr(config, option + '_learning_rate'):g}. "
            f"Finished epochs are in {recorder.run_dir}/{runs.HISTORY}."
        )


def _class_weights(labels: np.ndarray) -> dict[int, float]:
    classes = np.unique(labels)
    return dict(enumerate(compute_class_weight("balanced", classes=classes, y=labels)))


def _progress(
    console: Console, title: str, num_images: int, config: Config, epochs: int = 1
) -> PhaseProgress:
    steps = steps_per_epoch(num_images, config.batch_size)
    return PhaseProgress(console, title, num_images=num_images, steps=steps, epochs=epochs)


def _describe_run(config: Config, settled: Config, splits: Splits, weights: Weights) -> dict:
    return {
        "settings": config.to_dict(),
        "settled": settled.to_dict(),
        "data": {
            "name": splits.name,
            "location": splits.location,
            "provenance": splits.provenance,
            "class_names": list(splits.class_names),
            "num_images": {name: split.num_images for name, split in _named(splits)},
        },
        "weights": dataclasses.asdict(weights),
        "versions": {
            "transfer": transfer.__version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
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
