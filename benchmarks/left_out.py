"""Techniques of fine-tuning that `transfer` does not have, put into it for a measurement.

Each is a context in which `transfer.train` has it; `benchmarks/techniques.py` tells what they are
worth beside those that are options.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from transfer.config import Config
from transfer.data.pipeline import make_training_dataset, steps_per_epoch
from transfer.data.splits import Split
from transfer.runs import files
from transfer.training import phases

STRENGTH = 0.1  # of RandAugment: Keras's own 0.5 turns images upside down
RADIUS = 0.05  # of SAM: the paper's
SMOOTHING = 0.1  # of the labels, in the first step
AVERAGED = 2  # epochs, the last ones
TAUGHT = 0.5  # share of each label that is what the teachers say


def rand_augment() -> AbstractContextManager[None]:
    """Two of eleven changes of shape and colour a batch, besides those there are.

    Cubuk et al. 2019, https://arxiv.org/abs/1909.13719, as Keras's layer.
    """
    layer = keras.layers.RandAugment(num_ops=2, factor=STRENGTH, seed=0)
    return _batches(lambda left, images, labels: (layer(images, training=True), labels))


def falling_smoothing() -> AbstractContextManager[None]:
    """Label smoothing that falls to 0 with the steps."""

    def smooth(left: tf.Tensor, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        share = SMOOTHING * tf.cast(left, tf.float32)
        return images, labels * (1 - share) + share / labels.shape[-1]

    return _batches(smooth)


def distillation(teachers: Sequence[Path]) -> AbstractContextManager[None]:
    """Labels that are half of them what finished runs say, on average, of the image as it is seen.

    Hinton et al. 2015, https://arxiv.org/abs/1503.02531, at temperature 1.
    """
    models = [keras.models.load_model(each / files.MODEL) for each in teachers]

    def teach(left: tf.Tensor, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        told = sum(model(images, training=False) for model in models) / len(models)
        return images, (1 - TAUGHT) * labels + TAUGHT * told

    return _batches(teach)


@contextlib.contextmanager
def _batches(change: Callable[..., tuple[tf.Tensor, ...]]) -> Iterator[None]:
    # Has the fine-tune phase learn from changed batches; `change` is told what share of them is
    # left, from 1 to 0.
    def make(split: Split, config: Config, *arguments: Any) -> tf.data.Dataset:
        steps = steps_per_epoch(split.num_images, config.batch_size) * config.finetune_epochs
        return (
            make_training_dataset(split, config, *arguments)
            .enumerate()
            .map(lambda step, batch: change(1 - step / steps, *batch), num_parallel_calls=2)
        )

    with mock.patch.object(phases, "make_training_dataset", make):
        yield


@contextlib.contextmanager
def sharpness_aware() -> Iterator[None]:
    """SAM: the gradient of each step is that where the loss around the weights is the highest.

    Foret et al. 2020, https://arxiv.org/abs/2010.01412. Each step costs two.
    """
    plain = keras.Model.train_step

    def step(model: keras.Model, batch: tuple[tf.Tensor, tf.Tensor]) -> dict[str, Any]:
        if all(layer.name != "backbone" for layer in model.layers):
            return plain(model, batch)
        (images, labels), weights = batch, model.trainable_weights

        def gradients_of() -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
            with tf.GradientTape() as tape:
                answers = model(images, training=True)
                loss = model.compute_loss(images, labels, answers, training=True)
            return answers, loss, tape.gradient(loss, weights)

        _, _, gradients = gradients_of()
        scale = RADIUS / (tf.linalg.global_norm(gradients) + 1e-12)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.assign_add(scale * gradient)
        answers, loss, around = gradients_of()
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.assign_sub(scale * gradient)
        model.optimizer.apply(around, weights)
        model.metrics[0].update_state(loss, sample_weight=tf.shape(images)[0])
        return model.compute_metrics(images, labels, answers)

    with mock.patch.object(keras.Model, "train_step", step):
        yield


class _MeanOfLastEpochs(keras.callbacks.Callback):
    """Has the last validation judge, and the run keep, the mean of the last epochs' weights."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[list[np.ndarray]] = []

    def on_test_begin(self, logs: Any = None) -> None:
        self._kept.append(self.model.get_weights())
        if len(self._kept) == self.params["epochs"]:
            self.model.set_weights(
                [np.mean(each, axis=0) for each in zip(*self._kept[-AVERAGED:], strict=True)]
            )


@contextlib.contextmanager
def mean_of_last_epochs() -> Iterator[None]:
    """The mean of the weights after the last epochs.

    Izmailov et al. 2018, https://arxiv.org/abs/1803.05407, with the schedule as it is.
    """
    plain = phases.keras_callbacks

    def callbacks(phase: str, *arguments: Any) -> Iterator[keras.callbacks.Callback]:
        yield from plain(phase, *arguments)
        if phase == phases.FINETUNE:
            yield _MeanOfLastEpochs()

    with mock.patch.object(phases, "keras_callbacks", callbacks):
        yield


CONTEXTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "RandAugment": rand_augment,
    "smoothing that falls": falling_smoothing,
    "SAM": sharpness_aware,
    "mean of the last two epochs": mean_of_last_epochs,
}
