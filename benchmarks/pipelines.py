"""The input pipeline: ours beside Keras's layers, and what it costs the training step."""

import functools
import time

import keras
import numpy as np
import tensorflow as tf

from benchmarks.interleaved import KERAS, Measurement, Settings, take_turns
from benchmarks.steps import NUM_CLASSES, build_finetuning
from benchmarks.stock_keras import make_stock_dataset
from transfer.config import Config
from transfer.data.pipeline import make_training_dataset
from transfer.data.splits import Split

HERE, STOCK = "here: one warp", "Keras: Resizing and random layers"
REAL, RESIDENT = "fit on the real pipeline", "fit on one batch in memory"
STARTING_STEPS = 3  # of each fit, while the pipeline fills; not timed


def measure_pipeline(settings: Settings) -> Measurement:
    """Returns images/s that a pipeline alone gives: shuffled, resized, augmented, batched."""
    split = make_images(settings.num_images)

    config = Config(
        image_size=settings.image_size, batch_size=settings.batch_size, finetune_epochs=1
    )
    datasets = {HERE: make_training_dataset(split, config, NUM_CLASSES)}
    if KERAS in settings.against:
        sizes = (settings.image_size, settings.batch_size)
        datasets[STOCK] = make_stock_dataset(split.images, split.labels, *sizes, augmented=True)
    contenders = {name: functools.partial(_count, batches) for name, batches in datasets.items()}
    return Measurement(
        f"Input pipeline alone: an epoch of {split.num_images:,} images of 28 pixels, "
        f"made {settings.image_size} pixels",
        take_turns(contenders, settings.repeats),
        ((HERE, STOCK),),
    )


def measure_fit(settings: Settings) -> Measurement:
    """Returns images/s of `fit` on our pipeline and of the same `fit` on one resident batch."""
    model = build_finetuning(settings)
    steps = STARTING_STEPS + 5 * settings.steps
    # Whole batches alone count; the last one of an epoch may be smaller.
    batch_size = min(settings.batch_size, settings.num_images)
    split = make_images(settings.num_images // batch_size * batch_size)
    epochs = -(-steps * batch_size // split.num_images)
    config = Config(image_size=settings.image_size, batch_size=batch_size, finetune_epochs=epochs)
    batches = make_training_dataset(split, config, NUM_CLASSES)
    resident = tf.data.Dataset.from_tensors(next(iter(batches))).cache().repeat()
    values: dict[str, list[float]] = {REAL: [], RESIDENT: []}
    _fit(model, resident, STARTING_STEPS + 1)  # compiles the step
    for _ in range(settings.repeats):
        for name, dataset in ((REAL, batches), (RESIDENT, resident)):
            values[name].append(_fit(model, dataset, steps) * batch_size)
    return Measurement(
        f"Fine-tuning step in fit: {settings.backbone}, {settings.image_size} pixels, "
        f"batch {settings.batch_size}",
        values,
        ((REAL, RESIDENT),),
    )


def make_images(num_images: int) -> Split:
    """Returns noise in the shape of Fashion-MNIST: uint8 (N, 28, 28, 1)."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (num_images, 28, 28, 1), np.uint8)
    return Split(images, generator.integers(0, NUM_CLASSES, num_images))


def _count(batches: tf.data.Dataset) -> int:
    return sum(len(images) for images, _ in batches)


def _fit(model: keras.Model, batches: tf.data.Dataset, steps: int) -> float:
    # steps/s of a fit after its first steps: a run fills its pipeline once, not once a turn.
    ends: list[float] = []
    timer = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
    )
    model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[timer])
    return (steps - STARTING_STEPS) / (ends[-1] - ends[STARTING_STEPS - 1])
