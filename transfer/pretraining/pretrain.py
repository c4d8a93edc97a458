"""Pretrains a backbone on composed fractals, on the TensorFlow or the JAX backend of Keras.

One `fit` at each of two image sizes, over one schedule. What it takes and leaves is in
`transfer/pretraining/folder.py`.
"""

import math
import signal
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from transfer import console
from transfer.acceleration.doors import with_trained_batch_norm
from transfer.errors import InputError
from transfer.formatting import format_percent, format_seconds
from transfer.models.backbones import build_backbone, scale
from transfer.models.batch_norm import RECALIBRATION_IMAGES, make_recalibration
from transfer.models.precision import dtype_policy
from transfer.pretraining import folder as kept
from transfer.pretraining.composition import TRAINING, VALIDATION, Batches, Composer, Plan
from transfer.pretraining.fractals import load_bank
from transfer.pretraining.settings import Settings
from transfer.pretraining.textures import NUM_TEXTURES, make_textures
from transfer.signals import Noted, noting
from transfer.storage.atomic import remove_leftovers, whole_path

FINISHED = "finished"
ROWS = 100  # of the log; a checkpoint is kept with each
SHORTEST_ROW = 20  # steps
WARMUP_SHARE = 0.05
WEIGHT_DECAY = 0.05
MOMENTUM = 0.99  # of BatchNorm's statistics; Keras's MobileNetV2 has 0.999, too slow to follow
VALIDATION_SHARE = 8  # one in so many renderings of each class is never trained on
VALIDATION_IMAGES = 1024
SAMPLE_ROWS, SAMPLE_COLUMNS = 8, 12


class Pretrainer(keras.Model):
    """A composer, and the network that learns from its images.

    Args:
        composer: plans -> images.
        network: images -> logits; its layer "backbone" is what is wanted.
    """

    def __init__(self, composer: Composer, network: keras.Model) -> None:
        super().__init__(name="pretrainer")
        self.composer, self.network = composer, network

    def call(self, plan: Plan, training: bool | None = None) -> keras.KerasTensor:
        """Returns the logits (B, classes) of the images of a plan."""
        return self.network(self.composer(plan), training=training)

    def set_image_size(self, image_size: int) -> None:
        """Composes images of another size from here on; the network takes any."""
        self.composer.image_size = image_size
        self.make_train_function(force=True)
        self.make_test_function(force=True)


def pretrain(
    settings: Settings,
    folder: Path,
    *,
    resume: bool = False,
    time_limit: float = math.inf,
    command: str = "",
) -> str:
    """Pretrains, or goes on with a pretraining that was stopped.

    Args:
        settings: of the pretraining; when resuming, those it was begun with.
        folder: where everything is kept.
        resume: go on from the checkpoint in `folder`.
        time_limit: seconds from now after which training stops and a checkpoint is kept.
        command: the command as typed, for the record.

    Returns:
        `FINISHED`, "time limit", or the name of the signal that stopped it.

    Raises:
        InputError: `folder` is in use, or holds nothing to go on with.
    """
    deadline = time.monotonic() + time_limit
    if not resume:
        kept.begin(folder, settings, choose_policy(settings.precision), command)
    model = build_pretrainer(settings, folder)
    remove_leftovers(folder, ".+")
    if resume:
        kept.load_checkpoint(folder, model.network, model.optimizer)
    if not (folder / kept.SAMPLES).exists():
        columns = min(SAMPLE_COLUMNS, settings.batch_size)
        kept.write_samples(folder, _compose_samples(model, settings), columns)
    checkpoints = CheckpointCallback(model, settings, folder, deadline)
    reason = _train(model, settings, checkpoints)
    if reason == FINISHED:
        _finish(model, settings, checkpoints)
    return reason


def choose_policy(precision: str) -> str:
    """Returns the Keras dtype policy: "auto" is bfloat16 on a GPU or TPU, float32 on a CPU."""
    if precision == "auto":
        on_cpu = all(device.startswith("cpu") for device in keras.distribution.list_devices())
        precision = "float32" if on_cpu else "bfloat16"
    return {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]


def build_pretrainer(settings: Settings, folder: Path) -> Pretrainer:
    """Builds and compiles what is trained, with a bank of sprites from `folder`.

    The loss is the cross-entropy of one softmax against the classes in the image, in equal
    parts: for many classes Mahajan et al. 2018, arXiv:1805.00932, found it better than a
    sigmoid for each. "accuracy" is the share of images whose likeliest class is in them.
    """
    started = time.perf_counter()
    bank = load_bank(
        folder, settings.systems, settings.silhouettes, settings.renderings, settings.seed
    )
    textures = make_textures(settings.seed, NUM_TEXTURES)
    console.show(f"sprites and textures: {format_seconds(time.perf_counter() - started)}")
    keras.utils.set_random_seed(settings.seed)
    network = build_network(settings.backbone, len(bank), choose_policy(settings.precision))
    model = Pretrainer(Composer(bank, textures, settings.image_size), network)
    model.compile(
        make_optimizer(settings),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.MeanMetricWrapper(_top_class_present, name="accuracy")],
        jit_compile=keras.backend.backend() == "jax",  # XLA on a CPU slows TensorFlow down
    )
    model.optimizer.build(model.trainable_variables)
    return model


def build_network(backbone_name: str, num_classes: int, policy: str) -> keras.Model:
    """Returns images (B, S, S, 3) in [0, 255] -> float32 logits (B, num_classes), any S."""
    with dtype_policy(policy):
        backbone = build_backbone(backbone_name, None)
        backbone = with_trained_batch_norm(backbone, MOMENTUM)
        images = keras.Input((None, None, 3), name="image")
        features = backbone(scale(backbone_name, images))
        pooled = keras.layers.GlobalAveragePooling2D(name="pooling")(features)
        logits = keras.layers.Dense(num_classes, dtype="float32", name="classes")(pooled)
    return keras.Model(images, logits, name="network")


def make_optimizer(settings: Settings) -> keras.optimizers.Optimizer:
    """AdamW whose rate rises for a while and then falls to zero along a cosine, by the step."""
    steps = count_steps(settings)
    warmup = math.ceil(WARMUP_SHARE * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), warmup_target=settings.learning_rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def count_steps(settings: Settings) -> int:
    """Returns the number of steps of the whole schedule."""
    return math.ceil(settings.sample_steps / settings.batch_size)


def make_batches(settings: Settings, stream: int, length: int) -> Batches:
    """Returns the batches of the training or the validation stream."""
    held_out = math.ceil(settings.renderings / VALIDATION_SHARE)
    first_held_out = settings.renderings - held_out
    renderings = range(first_held_out)
    if stream == VALIDATION:
        renderings = range(first_held_out, settings.renderings)
    return Batches(
        num_classes=settings.systems + settings.silhouettes,
        renderings=renderings,
        per_class=settings.renderings,
        instances=settings.instances,
        num_textures=NUM_TEXTURES,
        batch_size=settings.batch_size,
        seed=settings.seed,
        stream=stream,
        length=length,
        ramp=round(settings.curriculum * count_steps(settings)) if stream == TRAINING else 0,
    )


def _top_class_present(labels: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    top = ops.argmax(logits, axis=-1)[:, None]
    return ops.cast(ops.take_along_axis(labels, top, axis=-1) > 0, "float32")[:, 0]


def _train(model: Pretrainer, settings: Settings, checkpoints: "CheckpointCallback") -> str:
    steps = count_steps(settings)
    final_steps = round(settings.final_share * steps)
    phases = ((settings.image_size, steps - final_steps), (settings.final_image_size, steps))
    with noting() as checkpoints.noted:
        for image_size, last_step in phases:
            checkpoints.last_step = last_step
            if checkpoints.step < last_step and not checkpoints.reason:
                model.set_image_size(image_size)
                _fit(model, settings, checkpoints)
            if checkpoints.step < last_step:
                return checkpoints.reason
    return FINISHED


def _fit(model: Pretrainer, settings: Settings, checkpoints: "CheckpointCallback") -> None:
    training = make_batches(settings, TRAINING, count_steps(settings))
    steps_per_row = max(math.ceil(count_steps(settings) / ROWS), SHORTEST_ROW)
    model.fit(
        (training[step] for step in range(checkpoints.step, checkpoints.last_step)),
        epochs=math.ceil((checkpoints.last_step - checkpoints.step) / steps_per_row),
        steps_per_epoch=steps_per_row,
        validation_data=_validation(settings),
        callbacks=[checkpoints],
        shuffle=False,
        verbose=0,
    )


def _validation(settings: Settings) -> Batches:
    return make_batches(settings, VALIDATION, math.ceil(VALIDATION_IMAGES / settings.batch_size))


class CheckpointCallback(keras.callbacks.Callback):
    """Writes a row of the log and a checkpoint at times, and stops the training when due.

    Args:
        model: what is trained.
        settings: of the pretraining.
        folder: of the pretraining; its log goes on.
        deadline: on the clock of `time.monotonic`.
    """

    def __init__(
        self,
        model: Pretrainer,
        settings: Settings,
        folder: Path,
        deadline: float,
    ) -> None:
        super().__init__()
        self.settings, self.folder = settings, folder
        self.deadline = deadline
        self.noted = Noted()  # the signal that came, if one did; it stops the training
        self.step = int(model.optimizer.iterations)
        self.last_step = self.step  # where the present `fit` ends
        self.rows = kept.read_rows(folder, last_step=self.step)

    @property
    def reason(self) -> str:
        """Why to stop before the last step, or nothing."""
        if self.noted.number is not None:
            return signal.Signals(self.noted.number).name
        return "time limit" if time.monotonic() >= self.deadline else ""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock of a row."""
        self._first_step, self._started = self.step, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts the step, and stops where it is the last or there is a reason to."""
        self.step += 1
        # `self.model` makes the JAX backend bring the weights up to date, so only at the end.
        if self.step == self.last_step or self.reason:
            self.model.stop_training = True

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Stops the clock of the training steps."""
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Writes a row of the log and a checkpoint.

        Raises:
            InputError: the loss is no number.
        """
        if not (math.isfinite(logs["loss"]) and math.isfinite(logs["val_loss"])):
            raise InputError(
                f"the loss at step {self.step} is {logs['loss']}, of the validation images "
                f"{logs['val_loss']}; begin again with a lower --learning-rate."
            )
        self.rows.append(self._make_row(logs))
        kept.write_rows(self.folder, self.rows)
        kept.save_checkpoint(self.folder, self.model.network, self.model.optimizer)
        self._print(self.rows[-1])

    def _make_row(self, logs: dict) -> dict:
        images = (self.step - self._first_step) * self.settings.batch_size
        before = self.rows[-1]["seconds"] if self.rows else 0.0
        numbers = ("loss", "accuracy", "val_loss", "val_accuracy")
        return {
            "step": self.step,
            "samples": self.step * self.settings.batch_size,
            "image_size": self.model.composer.image_size,
            **{name: round(float(logs[name]), 5) for name in numbers},
            "learning_rate": float(f"{float(self.model.optimizer.learning_rate):.4g}"),
            "images_per_second": round(images / (self._trained - self._started), 1),
            "seconds": round(before + time.perf_counter() - self._started, 1),
        }

    def _print(self, row: dict) -> None:
        console.say(
            f"step {row['step']:,} of {count_steps(self.settings):,}, {row['image_size']} pixels: "
            f"loss {row['loss']:.3f}, accuracy {format_percent(row['accuracy'])}; "
            f"validation loss {row['val_loss']:.3f}, "
            f"accuracy {format_percent(row['val_accuracy'])}; "
            f"{row['images_per_second']:,.0f} images/s, {format_seconds(row['seconds'])}",
        )


def _compose_samples(model: Pretrainer, settings: Settings) -> np.ndarray:
    """Composes training images of the whole schedule, row by row from its start to its end.

    Returns:
        float32 (N, S, S, 3) in [0, 255].
    """
    last = count_steps(settings) - 1
    training = make_batches(settings, TRAINING, last + 1)
    steps = np.linspace(0, last, SAMPLE_ROWS).astype(int)
    images = [ops.convert_to_numpy(model.composer(training[step][0])) for step in steps]
    return np.concatenate([row[:SAMPLE_COLUMNS] for row in images])


def _finish(model: Pretrainer, settings: Settings, checkpoints: "CheckpointCallback") -> None:
    """Writes the backbone and the results."""
    model.set_image_size(settings.final_image_size)
    path = checkpoints.folder / kept.WEIGHTS
    export_backbone(model, settings, path)
    result = model.evaluate(_validation(settings), verbose=0, return_dict=True)
    samples, seconds = checkpoints.rows[-1]["samples"], checkpoints.rows[-1]["seconds"]
    results = {
        "sample_steps": samples,
        "seconds": seconds,
        "recalibrated": {name: round(float(value), 5) for name, value in result.items()},
        "curves": checkpoints.rows,
    }
    kept.finish(checkpoints.folder, results)
    console.say(
        f"{path}: {samples:,} images in {format_seconds(seconds)}; "
        f"validation accuracy {format_percent(result['accuracy'])}",
    )


def export_backbone(model: Pretrainer, settings: Settings, path: Path) -> None:
    """Writes the trained backbone for `keras.applications`, BatchNorm's statistics made exact.

    The model gets the new statistics too, so that it can be evaluated as it was written.

    Args:
        model: the trained one; its composer makes the images for the statistics.
        settings: of the pretraining.
        path: of the float32 .weights.h5 file; appears only when it is whole.
    """
    with dtype_policy("float32"):
        backbone = build_backbone(settings.backbone, None)
    trained = model.network.get_layer("backbone")
    backbone.set_weights(trained.get_weights())
    first = count_steps(settings)  # batches not trained on
    batches = make_batches(settings, TRAINING, first)
    make_recalibration(backbone)(
        scale(settings.backbone, model.composer(batches[first + number][0]))
        for number in range(math.ceil(RECALIBRATION_IMAGES / settings.batch_size))
    )
    trained.set_weights(backbone.get_weights())
    with whole_path(path) as temporary:
        backbone.save_weights(temporary)
