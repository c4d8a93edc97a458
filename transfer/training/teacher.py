"""Teachers: finished runs whose answers are learnt beside the labels.

Hinton et al. 2015, https://arxiv.org/abs/1503.02531. A teacher answers to the images as they are
augmented, what the student sees itself (Beyer et al. 2022, https://arxiv.org/abs/2106.05237).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from transfer import console
from transfer.config import Config
from transfer.errors import InputError, printable, shortened
from transfer.models.fingerprints import fingerprint_variables
from transfer.runs.finished import FinishedRun
from transfer.training import distribution
from transfer.training.data import Data

NONE = "none"
WEIGHT = 0.5  # of the teachers' answers in what is learnt; the rest is the label's

Teach = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Teacher:
    """What finished runs say of images, the mean of several.

    Attributes:
        teach: images float32 (B, S, S, 3) in [0, 255] and labels float32 (B, num_classes), one-hot
            or mixed, to what is learnt in place of the labels, of the same shape.
        sha256: the fingerprint of each run's weights, with commas between them.
    """

    teach: Teach
    sha256: str


def load_teacher(config: Config, data: Data) -> Teacher | None:
    """Returns the teacher that the settings name, None where they name none.

    Args:
        config: uses `teacher` and `image_size`.
        data: what the student learns from.

    Raises:
        InputError: a run is not finished or knows other classes, or the backend has no teachers.
    """
    if config.teacher == NONE:
        return None
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "--teacher needs TensorFlow as the backend of Keras. Received: "
            f"{keras.backend.backend()}."
        )
    runs = [FinishedRun(Path(word.strip()).expanduser()) for word in config.teacher.split(",")]
    for run in runs:
        _check_taught(run, data)
    with distribution.alone():
        networks = [(run.predictor, run.settings.image_size) for run in runs]
    sha256 = ",".join(fingerprint_variables(network.variables) for network, _ in networks)
    return Teacher(_make_teach(networks, config.image_size), sha256)


def _check_taught(run: FinishedRun, data: Data) -> None:
    class_names = data.splits.class_names
    if run.class_names != tuple(map(printable, class_names)):
        raise InputError(
            f"--teacher should know the classes {shortened(class_names)}. Received: "
            f"{run.run_dir}, which knows {shortened(run.class_names)}."
        )
    if run.facts.data.fingerprints["train"] != data.fingerprints["train"]:
        console.say(
            f"Warning: the teacher {run.run_dir} was trained on other images; it may know some of "
            "the validation images, which then look too well recognised."
        )


def _make_teach(networks: Sequence[tuple[keras.Model, int]], image_size: int) -> Teach:
    def answer(network: keras.Model, side: int, images: tf.Tensor) -> tf.Tensor:
        if side != image_size:
            images = tf.image.resize(images, (side, side), antialias=True)
        return tf.cast(network(images, training=False), tf.float32)

    def teach(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        answers = [answer(network, side, images) for network, side in networks]
        return (1 - WEIGHT) * labels + WEIGHT * tf.add_n(answers) / len(answers)

    return teach
