"""Many heads on one frozen backbone: what a search over the head phase alone trains.

The backbone, its weights and its features are the same for all, so they are taken once;
each head is then trained as `train` would train it, to the same bits, and has the same run folder.
"""

import dataclasses
import random
import time
from dataclasses import dataclass
from pathlib import Path

import keras

from transfer.acceleration.doors import pass_libraries
from transfer.config import Config
from transfer.models.classifier import build_classifier
from transfer.models.fingerprints import fingerprint_variables
from transfer.models.head import build_head
from transfer.models.precision import choose_precision, dtype_policy
from transfer.models.weights import Weights, load_backbone
from transfer.runs.facts import describe_data, describe_run
from transfer.runs.folder import create_run, lock_new_run
from transfer.training.callbacks import HistoryRecorder
from transfer.training.data import Data
from transfer.training.defaults import settle
from transfer.training.interruption import one_line_for_every_end
from transfer.training.phases import HeadFeatures, Run, fit_head, load_head_features
from transfer.training.result import Result, finish
from transfer.training.run import prepare_backbone


@dataclass(frozen=True)
class HeadStart:
    """What the heads on one backbone have in common."""

    features: HeadFeatures
    weights: Weights
    weights_sha256: str
    policy: str  # one of `POLICIES`
    random_state: tuple  # of Python's generator when a head is built


def prepare_heads(config: Config, data: Data, *, offline: bool) -> HeadStart:
    """Runs a frozen backbone once over the images, or reads what an earlier run kept.

    Args:
        config: uses `backbone`, `weights`, `image_size`, `precision`, `flip`, `batch_size`, `seed`.
        data: the images.
        offline: never use the network.

    Raises:
        InputError: there are no pretrained weights.
    """
    policy, _ = choose_precision(config.backbone, config.precision)
    keras.utils.set_random_seed(config.seed)
    with dtype_policy(policy):
        backbone, weights = load_backbone(
            config.backbone, config.image_size, config.weights, offline=offline
        )
    settled = settle(config, weights, data.splits.geometry)
    digest = fingerprint_variables(backbone.weights)
    backbone = prepare_backbone(settled, backbone, data.splits, policy)
    state = random.getstate()
    with dtype_policy(policy):
        classifier = build_classifier(
            settled, backbone, len(data.splits.class_names), train_batch_norm=False
        )
    run = Run(settled, HistoryRecorder(Path()), time.perf_counter())
    features = load_head_features(classifier, data.splits, run)
    return HeadStart(features, weights, digest, policy, state)


def train_head(config: Config, data: Data, start: HeadStart, run_dir: Path) -> Result:
    """Trains one head and keeps everything but the model in a new run folder.

    Args:
        config: the settings; those of `prepare_heads` must be the same.
        data: the images.
        start: as `prepare_heads` made it.
        run_dir: the folder to make.

    Returns:
        The run folder, its summary and its history, as `train` gives them.

    Raises:
        InputError: training diverged, or the disk is full.
        Interrupted: Ctrl-C or SIGTERM came.
    """
    started = time.perf_counter()
    settled = settle(config, start.weights, data.splits.geometry)
    num_features = start.features.validation.shape[1]
    run_dir = create_run(config.backbone, run_dir)
    with one_line_for_every_end(run_dir, config), lock_new_run(run_dir):
        described = describe_data(data.splits, data.fingerprints)
        describe_run(
            config,
            settled,
            described,
            start.weights,
            start.weights_sha256,
            start.policy,
            libraries=pass_libraries(),
        ).write(run_dir)
        random.setstate(start.random_state)  # from which the head's weights are drawn
        with dtype_policy(start.policy):
            head = build_head(settled, num_features, len(data.splits.class_names))
        run = Run(settled, HistoryRecorder(run_dir), started)
        features = start.features
        if not config.flip:
            features = dataclasses.replace(features, views=features.views[:1])
        fit_head(head, features, data.splits, run)
        return finish(head, head, run)
