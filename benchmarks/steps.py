"""One step of training and of inference on a batch that stays in memory, in the ways there are."""

import contextlib
import math
import statistics
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from benchmarks.interleaved import FASTAI, KERAS, TORCH, Measurement, Settings, take_turns
from benchmarks.machine import measure_matrix_peak
from benchmarks.torch_process import FASTAI_STEP, TORCH_STEP, torch_training
from transfer.acceleration.batch_norm import freeze_batch_norm, fuse_batch_norm
from transfer.acceleration.doors import make_adam
from transfer.config import Config
from transfer.models.backbones import build_backbone
from transfer.models.classifier import build_classifier, unfreeze_backbone
from transfer.models.folding import fold_classifier
from transfer.models.precision import choose_precision, dtype_policy, gradient_dtype

NUM_CLASSES = 10
_LEARNING_RATE = 1e-3  # Keras's own
UNFREEZE = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, "all")

FINETUNE = "training: here, fine-tuning (BatchNorm frozen)"
FINETUNE_FLOAT32 = "training: here, fine-tuning, all of it in float32"
SCRATCH = "training: here, from scratch (BatchNorm fused)"
KERAS_TRAINED = "training: Keras, BatchNorm trained"
KERAS_FROZEN = "training: Keras, BatchNorm frozen"
TORCH_DEFAULT = "training: PyTorch, default memory format"
TORCH_LAST = "training: PyTorch, channels last"
FASTAI_LEARNER = "training: fastai's Learner"
FOLDED = "inference: here, BatchNorm folded"
FOLDED_BFLOAT16 = "inference: here, BatchNorm folded, bfloat16"
KERAS_INFERENCE = "inference: Keras"


def measure_steps(settings: Settings) -> Measurement:
    """Returns images/s of a training step and of a forward pass, contender by contender."""
    peak = measure_matrix_peak(settings.repeats)
    with contextlib.ExitStack() as processes:
        rates = take_turns(_contenders(settings, processes), settings.repeats)
    peak = max(peak, measure_matrix_peak(settings.repeats))
    multiply_adds = count_multiply_adds(build_backbone(settings.backbone, settings.image_size))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    shares = {
        name: operations_per_image(multiply_adds, training=name.startswith("training"))
        * rate
        / peak
        for name, rate in medians.items()
    }
    return Measurement(
        f"One step on one batch: {settings.backbone}, {settings.image_size} pixels, "
        f"batch {settings.batch_size}",
        rates,
        (
            (FINETUNE, FINETUNE_FLOAT32),
            (FINETUNE, KERAS_TRAINED),
            (FINETUNE, KERAS_FROZEN),
            (FINETUNE, TORCH_DEFAULT),
            (FINETUNE, TORCH_LAST),
            (FINETUNE, FASTAI_LEARNER),
            (SCRATCH, KERAS_TRAINED),
            (FOLDED, KERAS_INFERENCE),
            (FOLDED_BFLOAT16, KERAS_INFERENCE),
        ),
        columns={
            "of matrix peak": {name: f"{100 * share:.1f} %" for name, share in shares.items()}
        },
        facts={
            "matrix_peak_float32_operations_per_s": peak,
            "multiply_adds_forward_per_image": multiply_adds,
            "share_of_matrix_peak": shares,
        },
    )


def measure_unfreeze(settings: Settings) -> Measurement:
    """Returns images/s of a fine-tuning step against the share of the blocks that trains."""
    batch = make_batch(settings)
    contenders = {
        f"--unfreeze {share}": _training(
            build_finetuning(settings, unfreeze=share), batch, settings.steps
        )
        for share in UNFREEZE
    }
    rates = take_turns(contenders, settings.repeats)
    *parts, whole = rates
    return Measurement(
        f"Fine-tuning step by the share of the blocks that trains: {settings.backbone}, "
        f"{settings.image_size} pixels, batch {settings.batch_size}",
        rates,
        tuple((part, whole) for part in parts),
    )


def count_multiply_adds(model: keras.Model) -> int:
    """Returns the multiply-adds of a forward pass of one image.

    Counted are convolutions and dense layers: each number of the output takes as many as the
    kernel has numbers for its channel.
    """
    return sum(
        multiply_adds_of(layer)
        for layer in model.layers
        if getattr(layer, "kernel", None) is not None
    )


def multiply_adds_of(layer: keras.Layer) -> int:
    """Returns those of a convolution or dense layer."""
    return math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])


def operations_per_image(multiply_adds: int, *, training: bool) -> int:
    """Returns the floating-point operations of a step, two for a multiply-add.

    A training step of all layers counts as three forward passes: the pass itself, the gradient
    of each layer's input, and that of its kernel.
    """
    return 2 * multiply_adds * (3 if training else 1)


def make_batch(settings: Settings) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns float32 (B, S, S, 3) in [0, 255] and one-hot float32 (B, 10), of noise."""
    generator = np.random.default_rng(0)
    shape = (settings.batch_size, settings.image_size, settings.image_size, 3)
    images = tf.constant(generator.uniform(0, 255, shape).astype(np.float32))
    return images, tf.one_hot(generator.integers(0, NUM_CLASSES, len(images)), NUM_CLASSES)


def build_untrained(settings: Settings) -> keras.Model:
    """Returns a classifier as Keras builds it, BatchNorm in inference mode."""
    network = build_backbone(settings.backbone, settings.image_size)
    return _classifier(settings, network, train_batch_norm=False)


def build_finetuning(
    settings: Settings, precision: str = "auto", unfreeze: float | str = "all"
) -> keras.Model:
    """Returns the classifier that `train.py` fine-tunes, with its Adam and number format."""
    network = _as_trained(settings, freeze_batch_norm, precision)
    return _trainable(settings, network, False, unfreeze, make_adam(_LEARNING_RATE))


def _contenders(
    settings: Settings, processes: contextlib.ExitStack
) -> dict[str, Callable[[], int]]:
    batch, steps = make_batch(settings), settings.steps

    def stock(train_batch_norm: bool) -> Callable[[], int]:
        network = build_backbone(settings.backbone, settings.image_size)
        return _training(_trainable(settings, network, train_batch_norm), batch, steps)

    contenders = {
        FINETUNE: _training(build_finetuning(settings), batch, steps),
        FINETUNE_FLOAT32: _training(build_finetuning(settings, "float32"), batch, steps),
        SCRATCH: _training(_scratch_classifier(settings), batch, steps),
    }
    if KERAS in settings.against:
        contenders[KERAS_TRAINED] = stock(train_batch_norm=True)
        contenders[KERAS_FROZEN] = stock(train_batch_norm=False)
    arrays = [array.numpy() for array in batch]

    def torch(source: str, **options: bool) -> Callable[[], int]:
        step = processes.enter_context(torch_training(source, *arrays, **options))
        return _repeated(step, steps, settings.batch_size)

    if TORCH in settings.against:
        contenders[TORCH_DEFAULT] = torch(TORCH_STEP, channels_last=False)
        contenders[TORCH_LAST] = torch(TORCH_STEP, channels_last=True)
    if FASTAI in settings.against:
        contenders[FASTAI_LEARNER] = torch(FASTAI_STEP)
    contenders[FOLDED] = _inference(fold_classifier(build_untrained(settings)), batch, steps)
    half = fold_classifier(build_untrained(settings), "mixed_bfloat16")
    contenders[FOLDED_BFLOAT16] = _inference(half, batch, steps)
    if KERAS in settings.against:
        contenders[KERAS_INFERENCE] = _inference(build_untrained(settings), batch, steps)
    return contenders


def _classifier(settings: Settings, network: keras.Model, *, train_batch_norm: bool) -> keras.Model:
    config = Config(backbone=settings.backbone, image_size=settings.image_size)
    return build_classifier(config, network, NUM_CLASSES, train_batch_norm=train_batch_norm)


def _trainable(
    settings: Settings,
    network: keras.Model,
    train_batch_norm: bool,
    unfreeze: float | str = "all",
    optimizer: str | keras.optimizers.Optimizer = "adam",
) -> keras.Model:
    model = _classifier(settings, network, train_batch_norm=train_batch_norm)
    unfreeze_backbone(settings.backbone, network, unfreeze, train_batch_norm=train_batch_norm)
    # On a CPU Keras by itself does without XLA.
    model.compile(optimizer, "categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    return model


def _scratch_classifier(settings: Settings) -> keras.Model:
    network = _as_trained(settings, fuse_batch_norm)
    return _trainable(settings, network, True, optimizer=make_adam(_LEARNING_RATE))


def _as_trained(
    settings: Settings, prepare: Callable[..., keras.Model], precision: str = "auto"
) -> keras.Model:
    # In the number format that `train.py` takes on this machine.
    policy, _ = choose_precision(settings.backbone, precision)
    with dtype_policy(policy):
        network = build_backbone(settings.backbone, settings.image_size)
        return prepare(network, gradient_dtype=gradient_dtype(policy))


def _training(
    model: keras.Model, batch: tuple[tf.Tensor, tf.Tensor], steps: int
) -> Callable[[], int]:
    return _repeated(lambda: model.train_on_batch(*batch), steps, len(batch[0]))


def _inference(
    model: keras.Model, batch: tuple[tf.Tensor, tf.Tensor], steps: int
) -> Callable[[], int]:
    forward = tf.function(lambda images: model(images, training=False))
    return _repeated(lambda: forward(batch[0]).numpy(), steps, len(batch[0]))


def _repeated(step: Callable[[], object], steps: int, batch_size: int) -> Callable[[], int]:
    def work() -> int:
        for _ in range(steps):
            step()
        return steps * batch_size

    return work
