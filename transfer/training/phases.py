"""The two phases of a training run, each one `fit` with Keras's own callbacks.

Head: the frozen backbone runs once over the images and only the head trains, on its
features. Fine-tune: the upper blocks (or all) are unfrozen and train at a low learning
rate.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from transfer import console
from transfer.acceleration.doors import compiles_steps, forget_networks
from transfer.config import Config
from transfer.data.pipeline import (
    make_evaluation_dataset,
    make_feature_dataset,
    make_training_dataset,
    steps_per_epoch,
    without_tuner,
)
from transfer.data.share import ALL, Share, share_batches
from transfer.data.splits import Split, Splits
from transfer.errors import InputError
from transfer.models.classifier import decay_by_block, unfreeze_backbone
from transfer.models.head import MULTI, measure_features, standardize_features
from transfer.progress import PhaseProgress
from transfer.runs import files
from transfer.training.callbacks import (
    FINETUNE,
    HEAD,
    SHORT_EPOCH_STEPS,
    SMALL,
    BatchNormRecalibration,
    HistoryRecorder,
    keras_callbacks,
)
from transfer.training.checkpoint import (
    Checkpoint,
    Checkpointer,
    HeadPhaseWeights,
    list_checkpoints,
)
from transfer.training.counting import CountedAccuracy, CountedCrossentropy, count_repeated
from transfer.training.defaults import shows_mirror_images_to_head
from transfer.training.distribution import own_rows, own_share
from transfer.training.features import frozen_extractor, load_features
from transfer.training.forecast import Forecast, Foretell
from transfer.training.interruption import StopAfterStep
from transfer.training.optimizers import make_optimizer, make_schedule, scale_steps
from transfer.training.scores import best_loss

HEAD_VALIDATION_BATCH = 1024  # features; Keras's own 32 would take a third of a head epoch

# Between two steps Keras and its callbacks take a millisecond, a third of a head's step.
HEAD_STEPS_AT_A_TIME = 32


@dataclass(frozen=True)
class Run:
    """What both phases of a run share."""

    config: Config  # "auto" settled
    recorder: HistoryRecorder
    started: float  # `time.perf_counter()`, earlier by what the run took before it was resumed
    checkpoint: Checkpoint | None = None  # to go on from
    forecast: Forecast | None = None  # none of a part of something larger

    def first_epoch(self, phase: str) -> int:
        """Returns the number of the first epoch to train, from 0."""
        if self.checkpoint is None or self.checkpoint.state.phase != phase:
            return 0
        return self.epochs(phase) if self.checkpoint.state.finished else self.checkpoint.state.epoch

    def epochs(self, phase: str) -> int:
        """Returns the epochs that a phase may take."""
        config = self.config
        of_phase = {HEAD: config.head_epochs, SMALL: config.small_epochs}
        return of_phase.get(phase, config.finetune_epochs)


@dataclass(frozen=True)
class HeadFeatures:
    """What the head trains on, float16 (N, features) each, as `load_features` gives them."""

    views: list[np.ndarray]  # of the training images, and perhaps of their mirror images
    validation: np.ndarray
    scaler: StandardScaler | None  # of the training images', where the head standardizes them


def load_head_features(classifier: keras.Model, splits: Splits, run: Run) -> HeadFeatures:
    """Returns the frozen backbone's features, each computed once or kept before."""
    config = run.config
    extractor = frozen_extractor(classifier, config)
    num_images = splits.train.num_images
    shows_mirror_images = shows_mirror_images_to_head(config, num_images)
    left = num_images * (2 if shows_mirror_images else 1) + splits.validation.num_images

    def features_of(split: Split, title: str, flipped: bool = False) -> np.ndarray:
        nonlocal left
        left -= split.num_images
        name = f"features of {title}"
        foretell = run.forecast.during_pass(left) if run.forecast else None
        progress = _progress(run, name, split.num_images, foretell=foretell, passes_once=True)
        with StopAfterStep() as stop, contextlib.closing(progress):
            return load_features(
                extractor,
                split,
                config,
                flipped=flipped,
                callbacks=[progress, stop],
                tell=lambda line: console.say(f"{name}: {line}"),
            )

    views = [features_of(splits.train, "the training images")]
    if shows_mirror_images:
        views.append(features_of(splits.train, "their mirror images", flipped=True))
    validation = features_of(splits.validation, "the validation images")
    forget_networks()  # which are done with, before the head takes memory
    scaler = measure_features(views[0]) if config.head_features == MULTI else None
    return HeadFeatures(views, validation, scaler)


def fit_head(head: keras.Model, features: HeadFeatures, splits: Splits, run: Run) -> None:
    """Trains the head alone on the frozen backbone's features.

    Where it has features of the mirror images, an epoch takes each image or its mirror image at
    random.
    """
    config, num_classes = run.config, len(splits.class_names)
    compile_head(head, features, splits, config)
    (own, own_validation), _ = _share(splits, config, HEAD_VALIDATION_BATCH)
    epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
    begin_epoch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda number, logs: epoch.assign(number)
    )
    batches = make_feature_dataset(
        features.views, splits.train.labels, config, num_classes, epoch, own
    )
    targets = keras.utils.to_categorical(splits.validation.labels, num_classes)
    validation = tf.data.Dataset.from_tensor_slices((features.validation, targets))
    validation = without_tuner(validation.batch(HEAD_VALIDATION_BATCH).map(own_validation.split))
    validation = _weigh_validation(validation, splits.validation, config, num_classes)
    _fit(head, HEAD, batches, validation, splits.train, run, [begin_epoch])


def compile_head(
    head: keras.Model,
    features: HeadFeatures,
    splits: Splits,
    config: Config,
    steps_at_a_time: int | None = None,  # as many as are fast
) -> None:
    """Makes a head ready to train on features: optimizer, loss, and what standardizes them."""
    steps = steps_per_epoch(splits.train.num_images, config.batch_size)
    rate = make_schedule(config, config.head_learning_rate, steps * config.head_epochs)
    optimizer = make_optimizer(config.optimizer, rate, weight_decay=config.weight_decay)
    _, images_in = _share(splits, config, HEAD_VALIDATION_BATCH)
    at_a_time = steps_at_a_time or HEAD_STEPS_AT_A_TIME
    _compile(head, config, optimizer, images_in, steps_at_a_time=at_a_time)
    if features.scaler:
        standardize_features(head, features.scaler)


def fit_small(classifier: keras.Model, splits: Splits, run: Run, before: HeadPhaseWeights) -> None:
    """Trains all that `fit_finetune` will, on smaller images, for the first part of one schedule.

    Cheap epochs first: Howard, fast.ai 2018, and Touvron et al., arXiv:1906.06423.

    Args:
        classifier: for images of `small_image_size`; it is trained in place.
        splits: the images.
        run: with its settings.
        before: the weights of the head phase, kept in the checkpoints.
    """
    config = dataclasses.replace(run.config, image_size=run.config.small_image_size)
    compile_unfrozen(classifier, config, splits)
    _fit_unfrozen(classifier, SMALL, splits, dataclasses.replace(run, config=config), before)


def fit_finetune(
    classifier: keras.Model,
    splits: Splits,
    run: Run,
    before: HeadPhaseWeights,
    small: keras.Model | None = None,
) -> keras.Model:
    """Unfreezes the upper blocks of the backbone and trains them with the head.

    Where that ends worse than the head phase, by the validation loss, the weights of the head
    phase are put back.

    Args:
        classifier: with the weights to begin with; it is trained in place.
        splits: the images.
        run: with its settings.
        before: the weights of the head phase.
        small: the network that `fit_small` trained, whose optimizer goes on here.

    Returns:
        The classifier.
    """
    compile_unfrozen(classifier, run.config, splits)
    if small is not None and not run.config.ema_momentum:
        pairs = zip(classifier.optimizer.variables, small.optimizer.variables, strict=True)
        for variable, value in pairs:
            variable.assign(value)
    _fit_unfrozen(classifier, FINETUNE, splits, run, before)
    before.put_back_if_better(classifier)
    return classifier


def compile_unfrozen(classifier: keras.Model, config: Config, splits: Splits) -> None:
    """Unfreezes what the fine-tune phase trains and makes it ready: optimizer and loss."""
    backbone = classifier.get_layer("backbone")
    unfreeze_backbone(
        config.backbone, backbone, config.unfreeze, train_batch_norm=config.train_batch_norm
    )
    epochs = config.small_epochs + config.finetune_epochs
    steps = steps_per_epoch(splits.train.num_images, config.batch_size) * epochs
    rate = make_schedule(config, float(config.finetune_learning_rate), steps)  # "auto" is settled
    optimizer = make_optimizer(config.optimizer, rate, config.ema_momentum, config.weight_decay)
    if config.layer_decay < 1:
        scale_steps(optimizer, decay_by_block(config.backbone, backbone, config.layer_decay))
    _, images_in = _share(splits, config, config.batch_size)
    _compile(classifier, config, optimizer, images_in)


def _fit_unfrozen(
    classifier: keras.Model, phase: str, splits: Splits, run: Run, before: HeadPhaseWeights
) -> None:
    config, num_classes = run.config, len(splits.class_names)
    begun = config.small_epochs if phase == FINETUNE else 0  # epochs of the schedule before
    (own, own_validation), _ = _share(splits, config, config.batch_size)

    def batches_from(epoch: int, share: Share) -> tf.data.Dataset:
        # One at least: on JAX `fit` looks at a batch also where no epoch is left to train.
        epochs = range(begun + epoch, begun + max(epoch + 1, run.epochs(phase)))
        return make_training_dataset(splits.train, config, num_classes, epochs, share)

    validation = make_evaluation_dataset(
        splits.validation, config.image_size, config.batch_size, num_classes, share=own_validation
    )
    validation = _weigh_validation(validation, splits.validation, config, num_classes)
    _fit(
        classifier,
        phase,
        batches_from(run.first_epoch(phase), own),
        validation,
        splits.train,
        run,
        # Always on the batches of epoch 0: a resumed run takes the same ones, and every process.
        [BatchNormRecalibration(classifier, batches_from(0, ALL), config.batch_size)]
        if recalibrates_batch_norm(config, splits.train.num_images)
        else [],
        steps=steps_per_epoch(splits.train.num_images, config.batch_size),
        before=before,
    )


def recalibrates_batch_norm(config: Config, num_images: int) -> bool:
    """Returns whether BatchNorm's statistics are computed anew before each validation.

    The moving average is not what belongs to the weights in short epochs, nor where it follows
    weights of which an average is kept, nor behind a last batch of a few images, which counts as
    much as a full one.

    Args:
        config: the settings.
        num_images: number of training images.
    """
    is_short = steps_per_epoch(num_images, config.batch_size) < SHORT_EPOCH_STEPS
    rest = num_images % config.batch_size
    has_small_batch = 0 < rest < config.batch_size / 4
    return config.train_batch_norm and (bool(config.ema_momentum) or is_short or has_small_batch)


def _share(
    splits: Splits, config: Config, validation_batch: int
) -> tuple[list[Share], dict[int, int]]:
    # Of the batches of training and of validation, and how many images are in repeated ones.
    epochs = [
        (splits.train.num_images, config.batch_size),
        (splits.validation.num_images, validation_batch),
    ]
    return share_batches(own_share(config), *epochs)


def _compile(
    model: keras.Model,
    config: Config,
    optimizer: keras.optimizers.Optimizer,
    images_in: Mapping[int, int],
    steps_at_a_time: int = 1,
) -> None:
    model.compile(
        optimizer,
        CountedCrossentropy(images_in, config.label_smoothing),
        metrics=[CountedAccuracy(images_in)],
        jit_compile="auto" if compiles_steps() else False,
        steps_per_execution=steps_at_a_time,
    )
    count_repeated(model, images_in)
    # Variables made inside the first step would have TensorFlow trace that step twice, which for
    # MobileNetV2 takes tens of seconds.
    model.optimizer.build(model.trainable_variables)


def _fit(
    model: keras.Model,
    phase: str,
    batches: tf.data.Dataset,
    validation: tf.data.Dataset,
    train: Split,
    run: Run,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    steps: int | None = None,  # an epoch; None: the batches end with it
    before: HeadPhaseWeights | None = None,
) -> None:
    run.recorder.phase = phase
    foretell = run.forecast.during(phase) if run.forecast else None
    progress = _progress(
        run, phase, train.num_images, run.epochs(phase), run.first_epoch(phase), foretell
    )
    kerases = list(keras_callbacks(phase, run.config, run.recorder.run_dir))
    resumed = run.checkpoint if run.first_epoch(phase) else None
    checkpointer = Checkpointer(run.recorder, kerases, run.started, resumed, before)
    num_classes, weighs = model.output_shape[-1], run.config.class_weights
    weights = _class_weights(train.labels, num_classes) if weighs else None
    try:
        with StopAfterStep() as stop:
            model.fit(
                batches,
                steps_per_epoch=steps,
                initial_epoch=run.first_epoch(phase),
                epochs=run.epochs(phase),
                validation_data=validation,
                class_weight=weights,
                # What is told of an epoch is already kept.
                callbacks=[run.recorder, *kerases, *callbacks, checkpointer, progress, stop],
                shuffle=False,
                verbose=0,
            )
    finally:
        progress.close()
    last, best = run.recorder.rows[-1], best_loss(run.recorder.rows, phase)
    if not (math.isfinite(last["loss"]) and math.isfinite(best)):
        raise InputError(_told_divergence(phase, run))


def _told_divergence(phase: str, run: Run) -> str:
    option = "head" if phase == HEAD else "finetune"
    checkpoints = list_checkpoints(run.recorder.run_dir / files.CHECKPOINTS)
    return (
        f"the loss, or that of the validation images, is no longer a number in the {phase} phase; "
        f"begin again with a lower "
        f"--{option}-learning-rate, now {getattr(run.config, option + '_learning_rate'):g}, or "
        "with other weights where it never was one. "
        f"The last good state is {checkpoints[-1] if checkpoints else 'the beginning'}."
    )


def _class_weights(labels: np.ndarray, num_classes: int) -> dict[int, float]:
    # Keras wants a weight for every class; one without a training image never uses its own.
    classes = np.unique(labels)
    weights = compute_class_weight("balanced", classes=classes, y=labels)
    of_class = dict(zip(classes.tolist(), weights.tolist(), strict=True))
    return {label: of_class.get(label, 1.0) for label in range(num_classes)}


def _weigh_validation(
    batches: tf.data.Dataset, validation: Split, config: Config, num_classes: int
) -> tf.data.Dataset:
    # Where classes count the same in what is learnt, they do in what chooses the epoch: its loss
    # is then the mean over the classes.
    if not config.class_weights:
        return batches
    of_class = _class_weights(validation.labels, num_classes)
    weights = tf.constant([of_class[label] for label in range(num_classes)], tf.float32)

    def weigh(images: tf.Tensor, y_true: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return images, y_true, tf.linalg.matvec(tf.cast(y_true, tf.float32), weights)

    return batches.map(weigh)


def _progress(
    run: Run,
    title: str,
    num_images: int,
    epochs: int = 1,
    first_epoch: int = 0,
    foretell: Foretell | None = None,
    passes_once: bool = False,  # over each image, which one of the processes looks at
) -> PhaseProgress:
    seen = len(range(num_images)[own_rows(num_images, run.config.batch_size)])
    steps = steps_per_epoch(seen if passes_once else num_images, run.config.batch_size)
    return PhaseProgress(
        title,
        num_images=num_images,
        steps=steps,
        epochs=epochs,
        first_epoch=first_epoch,
        foretell=foretell,
    )
