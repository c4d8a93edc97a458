import dataclasses
import json
import math
import threading
import weakref
from collections import Counter
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.conftest import printed, write_copies
from transfer.acceleration import doors
from transfer.config import Config
from transfer.data.geometry import PAD, Geometry
from transfer.data.pipeline import make_evaluation_dataset, make_training_dataset
from transfer.datasets.sources import load_splits
from transfer.errors import InputError
from transfer.models.backbones import build_backbone
from transfer.runs import files
from transfer.runs.facts import read_facts, read_summary
from transfer.runs.finished import FinishedRun
from transfer.runs.history import read_history
from transfer.training import data, defaults, features, folds, phases, run
from transfer.training.callbacks import BatchNormRecalibration
from transfer.training.data import load_data
from transfer.training.result import print_summary
from transfer.training.run import train


@pytest.fixture(scope="module")
def config(tiny_inputs):
    """Pretrained weights, both phases, in about two seconds."""
    return Config(
        **tiny_inputs,
        image_size=32,
        batch_size=32,
        head_epochs=3,
        finetune_epochs=2,
        finetune_learning_rate=1e-3,
    )


@pytest.fixture
def scratch(config):
    return dataclasses.replace(
        config, weights="none", finetune_learning_rate="auto", finetune_epochs=6
    )


def capture_classifier(monkeypatch):
    """Returns a dict that holds the classifier and its backbone's weights once a run began."""
    kept = {}
    build = run.build_classifier

    def build_and_keep(config, backbone, *args, **kwargs):
        kept["before"] = {weight.path: weight.numpy() for weight in backbone.weights}
        kept["classifier"] = build(config, backbone, *args, **kwargs)
        return kept["classifier"]

    monkeypatch.setattr(run, "build_classifier", build_and_keep)
    return kept


def moved_weights(kept):
    backbone = kept["classifier"].get_layer("backbone")
    return {
        weight.path
        for weight in backbone.weights
        if not np.array_equal(weight.numpy(), kept["before"][weight.path])
    }


@pytest.fixture(scope="module")
def watched(config, tmp_path_factory):
    """Trains through both phases once; what came of it, and what was there as they ran."""
    features_seen, alive = [], []
    load, finetune = phases.load_features, run.fit_finetune

    def load_and_remember(*args, **kwargs):
        features = load(*args, **kwargs)
        features_seen.append(weakref.ref(features))
        return features

    def look_and_finetune(*args):
        alive.extend(reference for reference in features_seen if reference() is not None)
        return finetune(*args)

    with pytest.MonkeyPatch.context() as monkeypatch:
        kept = capture_classifier(monkeypatch)
        monkeypatch.setattr(phases, "load_features", load_and_remember)
        monkeypatch.setattr(run, "fit_finetune", look_and_finetune)
        monkeypatch.setattr(doors, "has_accelerator", lambda: False)
        run_dir = tmp_path_factory.mktemp("watched") / "run"
        counts = []
        result = train(
            config, run_dir=run_dir, command="python train.py", show_network=counts.append
        )
    return SimpleNamespace(
        result=result,
        classifier=kept["classifier"],
        features=features_seen,
        alive=alive,
        counts=counts,
    )


def test_both_phases_run_and_the_folder_is_whole(watched, config):
    result = watched.result
    rows = [(row["phase"], row["epoch"]) for row in result.history]
    assert rows == [("head", 1), ("head", 2), ("head", 3), ("fine-tune", 1), ("fine-tune", 2)]
    assert read_history(result.run_dir) == result.history
    facts = json.loads((result.run_dir / files.CONFIG).read_text())
    assert Config.from_json(result.run_dir / files.CONFIG) == config
    assert facts["command"] == "python train.py"
    assert facts["weights"]["name"] == "file"
    assert facts["data"]["num_images"] == {"train": 216, "validation": 24, "test": 61}
    assert set(facts["data"]["fingerprints"]) == {"train", "validation", "test"}
    assert {"tensorflow", "keras", "numpy", "python", "transfer"} <= set(facts["versions"])
    (counts,) = watched.counts
    assert read_facts(result.run_dir).counts == counts
    assert counts.whole.parameters == result.summary.num_parameters
    trained = sum(weight.numpy().size for weight in watched.classifier.trainable_weights)
    assert counts.trained["fine-tune"] == trained > counts.trained["head"] > 0
    assert (result.run_dir / files.MODEL).is_file()
    assert list((result.run_dir / files.LOGS).rglob("events.*"))
    assert json.loads((result.run_dir / files.SUMMARY).read_text()) == result.summary.to_json()


def test_the_head_phase_moves_nothing_in_the_backbone(config, monkeypatch, tmp_path):
    kept = capture_classifier(monkeypatch)
    config = dataclasses.replace(config, finetune_epochs=0)
    train(config, run_dir=tmp_path / "run")
    assert moved_weights(kept) == set()


def test_the_head_phase_runs_the_backbone_once_an_image(config, monkeypatch, tmp_path):
    seen = []
    load = phases.load_features

    def count(extractor, split, *args, flipped=False, **kwargs):
        seen.append((split.num_images, flipped))
        return load(extractor, split, *args, flipped=flipped, **kwargs)

    monkeypatch.setattr(phases, "load_features", count)
    config = dataclasses.replace(config, finetune_epochs=0, head_epochs=4)
    train(config, run_dir=tmp_path / "with")
    assert sorted(seen) == [(24, False), (216, False), (216, True)]
    seen.clear()
    train(dataclasses.replace(config, flip=False), run_dir=tmp_path / "without")
    assert sorted(seen) == [(24, False), (216, False)]
    seen.clear()
    monkeypatch.setattr(defaults, "FEW", 200)
    config = dataclasses.replace(config, finetune_epochs=1)  # which sees the mirror images
    train(config, run_dir=tmp_path / "fine-tuned")
    assert sorted(seen) == [(24, False), (216, False)]


class ImageCounter(keras.layers.Layer):
    """Passes images on and counts those that really go through, in a variable of the class."""

    seen = 0
    lock = threading.Lock()

    def call(self, images):
        counted = tf.py_function(self._count, [images], images.dtype)
        counted.set_shape(images.shape)
        return counted

    def compute_output_shape(self, shape):
        return shape

    @classmethod
    def _count(cls, images):
        with cls.lock:  # parts of a batch come side by side
            cls.seen += len(images)
        return images


def test_an_image_goes_through_the_network_once_whatever_the_head_epochs(
    config, monkeypatch, tmp_path
):
    monkeypatch.setattr(ImageCounter, "seen", 0)
    monkeypatch.setattr(doors, "installed_openvino", lambda: "")  # which counts nothing
    extract = features.feature_extractor

    def counted(classifier):
        network = extract(classifier)
        return keras.Model(network.input, network(ImageCounter()(network.input)))

    monkeypatch.setattr(features, "feature_extractor", counted)
    config = dataclasses.replace(config, finetune_epochs=0, head_epochs=4)
    train(config, run_dir=tmp_path / "run")
    assert ImageCounter.seen == 216 + 216 + 24  # training images, mirror images, validation


def test_many_steps_of_the_head_at_a_time_are_the_same_steps(config, monkeypatch, tmp_path):
    config = dataclasses.replace(config, batch_size=5, dropout=0.3, finetune_epochs=0)
    assert 216 // 5 > phases.HEAD_STEPS_AT_A_TIME  # more than a turn, and not two whole ones
    many = train(config, run_dir=tmp_path / "many")
    monkeypatch.setattr(phases, "HEAD_STEPS_AT_A_TIME", 1)
    single = train(config, run_dir=tmp_path / "single")
    assert many.summary.sha256 == single.summary.sha256


def test_the_features_are_gone_when_fine_tuning_begins(watched):
    assert len(watched.features) == 3 and not watched.alive


def test_fine_tuning_moves_unfrozen_kernels_and_nothing_else(config, monkeypatch, tmp_path):
    kept = capture_classifier(monkeypatch)
    config = dataclasses.replace(config, unfreeze=0.5)
    train(config, run_dir=tmp_path / "run")
    assert moved_weights(kept) == {"block3_conv/kernel", "block4_conv/kernel"}


def test_batch_norm_of_mobilenetv2_stays_put_in_fine_tuning(config, monkeypatch, tmp_path):
    path = tmp_path / "mobilenetv2.weights.h5"
    build_backbone("mobilenetv2", 32).save_weights(path)
    kept = capture_classifier(monkeypatch)
    config = dataclasses.replace(
        config, backbone="mobilenetv2", weights=str(path), head_epochs=1, finetune_epochs=1
    )
    train(dataclasses.replace(config, limit=64), run_dir=tmp_path / "run")
    # Statistics, scales and offsets stay; kernels whose gradient vanishes may stay as well.
    kernels = {path for path in kept["before"] if path.endswith("kernel")}
    assert moved_weights(kept) and moved_weights(kept) <= kernels


def test_from_scratch_skips_the_head_and_learns(scratch, monkeypatch, tmp_path):
    kept = capture_classifier(monkeypatch)
    result = train(scratch, run_dir=tmp_path / "run")
    assert {row["phase"] for row in result.history} == {"fine-tune"}
    assert moved_weights(kept) == set(kept["before"])  # statistics too
    assert result.summary.phases["fine-tune"].val_accuracy > 0.9
    assert result.history[0]["learning_rate"] == pytest.approx(1e-2)
    assert Config.from_json(result.run_dir / files.CONFIG) == scratch  # as asked, not as settled


def test_from_scratch_without_fine_tuning_is_refused(scratch, tmp_path):
    with pytest.raises(InputError, match="--finetune-epochs"):
        train(dataclasses.replace(scratch, finetune_epochs=0), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_best_epoch_is_what_is_saved(scratch, monkeypatch, tmp_path):
    # A learning rate that grows worse again: the last epoch is not the best.
    config = dataclasses.replace(scratch, finetune_learning_rate=0.3, optimizer="sgd")
    kept = capture_classifier(monkeypatch)
    result = train(config, run_dir=tmp_path / "run")
    best = result.summary.phases["fine-tune"]
    splits = data.load_data(config, True).splits
    batches = phases.make_evaluation_dataset(splits.validation, 32, 32, 2)
    loss, accuracy = kept["classifier"].evaluate(batches, verbose=0)
    assert loss == pytest.approx(best.val_loss, rel=1e-4)
    assert accuracy == pytest.approx(best.val_accuracy, rel=1e-4)
    assert best.val_loss == min(row["val_loss"] for row in result.history)


def test_the_learning_rate_falls_on_a_plateau_in_both_phases(config, tmp_path):
    config = dataclasses.replace(
        config,
        head_epochs=4,
        finetune_epochs=4,
        head_learning_rate=1e-9,  # nothing is learnt: a plateau from the start
        finetune_learning_rate=1e-9,
        minimum_learning_rate=0.0,
        plateau_patience=1,
        plateau_factor=0.1,
        early_stopping_patience=9,
        dropout=0.0,
    )
    # Keras counts an improvement only above min_delta = 1e-4.
    result = train(config, run_dir=tmp_path / "run")
    for phase in ("head", "fine-tune"):
        rates = [row["learning_rate"] for row in result.history if row["phase"] == phase]
        assert rates == pytest.approx([1e-9, 1e-9, 1e-10, 1e-11], rel=1e-3)


def test_early_stopping_ends_a_phase(config, tmp_path):
    config = dataclasses.replace(
        config, finetune_epochs=30, early_stopping_patience=1, finetune_learning_rate=5.0
    )
    result = train(config, run_dir=tmp_path / "run")
    assert result.summary.phases["fine-tune"].epochs < 30


def test_the_cosine_falls_from_the_rate_towards_the_minimum(config, tmp_path):
    config = dataclasses.replace(config, schedule="cosine", minimum_learning_rate=1e-5)
    result = train(config, run_dir=tmp_path / "run")
    rates = [row["learning_rate"] for row in result.history if row["phase"] == "head"]
    cosine = 0.5 * (1 + np.cos(np.pi * np.arange(1, 4) / 3))  # at the end of each epoch
    np.testing.assert_allclose(rates, 1e-5 + (1e-3 - 1e-5) * cosine, rtol=1e-4)


def test_a_loss_that_is_not_a_number_is_told_with_the_mend(scratch, tmp_path):
    config = dataclasses.replace(scratch, finetune_learning_rate=10.0, optimizer="sgd", l2=10.0)
    with pytest.raises(InputError, match="--finetune-learning-rate, now 10"):
        train(config, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / files.SUMMARY).exists()


@pytest.mark.parametrize("phase", ["head", "fine-tune"])
def test_a_validation_loss_that_is_no_number_is_nothing_to_keep(
    config, monkeypatch, tmp_path, phase
):
    recorded = phases.HistoryRecorder.on_epoch_end

    def lose(self, epoch, logs):
        if self.phase == phase:
            logs["val_loss"] = math.nan
        recorded(self, epoch, logs)

    monkeypatch.setattr(phases.HistoryRecorder, "on_epoch_end", lose)
    with pytest.raises(InputError, match=f"no longer a number in the {phase} phase"):
        train(config, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / files.SUMMARY).exists()


@pytest.mark.parametrize(
    ("num_images", "batch_size", "ema_momentum", "expected"),
    [
        (128 * 300, 128, 0.0, False),
        (128 * 300 + 112, 128, 0.0, False),
        (128 * 300 + 1, 128, 0.0, True),  # a last batch of one
        (128 * 300, 128, 0.9, True),
        (128 * 10, 128, 0.0, True),
        (1000, 1, 0.0, False),
    ],
)
def test_where_the_moving_average_is_wrong_batch_norm_is_recalibrated(
    num_images, batch_size, ema_momentum, expected
):
    config = Config(train_batch_norm=True, batch_size=batch_size, ema_momentum=ema_momentum)
    assert phases.recalibrates_batch_norm(config, num_images) == expected
    frozen = dataclasses.replace(config, train_batch_norm=False)
    assert not phases.recalibrates_batch_norm(frozen, num_images)


class Accepted(Exception):
    """The run was about to begin."""


def test_a_batch_that_cannot_fit_into_memory_is_told_before_anything_is_made(
    config, monkeypatch, tmp_path
):
    # 32 images; convolution and BatchNorm in four blocks of 16, 8, 4 and 2 pixels, 8 channels.
    least = 32 * 2 * 8 * (16**2 + 8**2 + 4**2 + 2**2) * 4 // 2
    monkeypatch.setattr(run, "usable_memory", lambda: least - 1)
    with pytest.raises(InputError, match="batches of 32 images .* take --batch-size 16 or less"):
        train(config, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()

    def accept(*arguments):
        raise Accepted

    monkeypatch.setattr(run, "create_run", accept)  # what comes next where it fits
    with pytest.raises(Accepted):
        train(dataclasses.replace(config, unfreeze=0.5), run_dir=tmp_path / "half")
    monkeypatch.setattr(run, "usable_memory", lambda: least)
    with pytest.raises(Accepted):
        train(config, run_dir=tmp_path / "run")


def test_the_same_seed_gives_the_same_run_and_another_one_does_not(watched, config, tmp_path):
    def losses(name, seed):
        result = train(dataclasses.replace(config, seed=seed), run_dir=tmp_path / name)
        return [row["loss"] for row in result.history]

    first = [row["loss"] for row in watched.result.history]
    assert losses("again", config.seed) == pytest.approx(first, rel=1e-4)
    assert losses("other", 2) != pytest.approx(first, rel=1e-4)


def test_no_xla_on_a_cpu(watched):
    assert watched.classifier.jit_compile is False
    assert watched.classifier.get_layer("head").jit_compile is False


def test_class_weights_balance_uneven_labels():
    weights = phases._class_weights(np.array([0] * 30 + [1] * 10), 2)
    assert weights == pytest.approx({0: 2 / 3, 1: 2.0})


@pytest.mark.parametrize("sizes, told", [((30, 3), True), ((30, 4), False), ((5, 5), False)])
def test_classes_of_very_unequal_size_are_said_with_what_helps(sizes, told):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    advice = data.advise_on_balance(labels, ("cats", "dogs"))
    assert bool(advice) == told
    assert not told or ("3 (dogs) to 30 (cats)" in advice and "--class-weights" in advice)


@pytest.mark.parametrize("fit", ["auto", "pad", "squash"])
def test_photos_that_are_not_square_are_fitted_as_asked_said_and_kept(fit, config, tmp_path):
    generator = np.random.default_rng(0)
    for number in range(24):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    asked = dataclasses.replace(config, data=str(tmp_path / "photos"), fit=fit, finetune_epochs=0)
    spoken = printed(lambda: train(asked, run_dir=tmp_path / "run"), width=500)
    finished = FinishedRun(tmp_path / "run")
    kept = PAD if fit == "auto" else fit
    assert finished.facts.settled.fit == finished.geometry.fit == kept
    side = (20, 30) if fit == "squash" else (30, 30)
    assert finished.images("test").images.shape[1:] == (*side, 3)
    assert "24 of 24 images are not square" in finished.facts.data.provenance
    assert "working size 30 x" in spoken and "24 of 24 images are not square" in spoken


def test_a_run_from_before_there_was_a_fit_goes_on_with_the_one_there_was(config, tmp_path):
    arrays = np.random.default_rng(0).integers(0, 256, (24, 20, 30, 3), np.uint8)
    np.savez(tmp_path / "wide.npz", x_train=arrays, y_train=np.arange(24) % 2)
    asked = dataclasses.replace(config, data=str(tmp_path / "wide.npz"), fit="squash")
    train(asked, run_dir=tmp_path / "run")
    values = json.loads((tmp_path / "run" / files.CONFIG).read_text())
    (tmp_path / "run" / files.SUMMARY).unlink()
    for group in ("settings", "settled"):
        del values[group]["fit"]
    for geometry in (values["data"]["geometry"], None):
        values["data"]["geometry"] = geometry
        (tmp_path / "run" / files.CONFIG).write_text(json.dumps(values))
        facts = run.read_facts(tmp_path / "run")
        again = run._load_data_again(tmp_path / "run", facts, True)
        assert again.splits.geometry == Geometry(20, 30, 3, "squash")


@pytest.mark.parametrize(("rate", "earlier"), [(1e-3, False), (0.25, True)])
def test_the_average_of_the_weights_is_what_is_validated_and_kept(
    config, tmp_path, monkeypatch, rate, earlier
):
    kept = capture_classifier(monkeypatch)
    config = dataclasses.replace(
        config,
        finetune_learning_rate=rate,
        optimizer="sgd",
        finetune_epochs=4,
        early_stopping_patience=2,
        ema_momentum=0.9,
    )
    result = train(config, run_dir=tmp_path / "run")
    # A rate so high that an earlier epoch is better than the last, which is put back.
    assert (result.summary.phases["fine-tune"].best_epoch < 4) == earlier
    splits = load_splits(config.data, validation_fraction=config.validation_fraction, seed=0)
    batches = make_evaluation_dataset(
        splits.validation, config.image_size, config.batch_size, len(splits.class_names)
    )
    loss, _ = kept["classifier"].evaluate(batches, verbose=0)
    assert loss == pytest.approx(result.summary.phases["fine-tune"].val_loss, rel=1e-5)
    assert kept["classifier"].optimizer.use_ema


def test_batch_norm_has_the_statistics_of_the_average_of_the_weights(config, tmp_path, monkeypatch):
    kept = capture_classifier(monkeypatch)
    config = dataclasses.replace(
        config,
        train_batch_norm=True,
        finetune_learning_rate=0.01,
        finetune_epochs=1,
        ema_momentum=0.9,
    )
    monkeypatch.setattr(phases, "SHORT_EPOCH_STEPS", 0)
    train(config, run_dir=tmp_path / "run")

    def statistics():
        return [w.numpy() for w in kept["classifier"].weights if "moving" in w.path]

    before = statistics()
    splits = load_splits(config.data, validation_fraction=config.validation_fraction, seed=0)
    batches = make_training_dataset(splits.train, config, len(splits.class_names))
    BatchNormRecalibration(kept["classifier"], batches, 32).on_test_begin()
    for was, now in zip(before, statistics(), strict=True):
        np.testing.assert_allclose(now, was, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("train_batch_norm", [False, True])
def test_a_head_at_several_depths_goes_through_both_phases(
    config, tmp_path, monkeypatch, train_batch_norm
):
    kept = capture_classifier(monkeypatch)
    several = dataclasses.replace(
        config,
        head_features="multi",
        recalibrate_batch_norm=True,
        train_batch_norm=train_batch_norm,
    )
    result = train(several, run_dir=tmp_path / "run")
    assert [row["phase"] for row in result.history] == ["head"] * 3 + ["fine-tune"] * 2
    assert result.history[-1]["val_accuracy"] > 0.9  # stripes
    assert len(kept["classifier"].get_layer("backbone").outputs) == 3
    assert not train_batch_norm or any("moving_mean" in path for path in moved_weights(kept))


def test_new_statistics_are_those_of_the_training_images(config, tmp_path, monkeypatch):
    kept = capture_classifier(monkeypatch)
    train(
        dataclasses.replace(config, recalibrate_batch_norm=True, finetune_epochs=0),
        run_dir=tmp_path / "run",
    )
    backbone = kept["classifier"].get_layer("backbone")
    norm, kernel = backbone.get_layer("block1_bn"), backbone.get_layer("block1_conv").kernel
    images = np.load(config.data)["x_train"]
    splits = load_splits(config.data, validation_fraction=0.1, seed=0, limit=None, offline=True)
    assert splits.train.num_images < len(images)
    scaled = np.repeat(splits.train.images / 127.5 - 1, 3, axis=-1).astype(np.float32)
    resized = keras.ops.image.resize(scaled, (32, 32), "bilinear")
    before = keras.ops.conv(resized, kernel, 2, "same").numpy()
    np.testing.assert_allclose(norm.moving_mean, before.mean((0, 1, 2)), atol=0.02)
    np.testing.assert_allclose(norm.moving_variance, before.var((0, 1, 2)), rtol=0.1)


def test_class_weights_of_classes_without_an_image_are_there():
    weights = phases._class_weights(np.array([0, 0, 2]), 4)
    assert weights == pytest.approx({0: 0.75, 1: 1.0, 2: 1.5, 3: 1.0})


def test_class_weights_with_fewer_images_than_classes(tiny_backbone, tmp_path):
    x, y = np.zeros((40, 8, 8), np.uint8), np.arange(40) % 10
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    config = Config(
        backbone=tiny_backbone,
        data=str(tmp_path / "d.npz"),
        weights="none",
        image_size=32,
        finetune_epochs=1,
        limit=4,
        class_weights=True,
    )
    result = train(config, run_dir=tmp_path / "run", offline=True)
    assert [row["epoch"] for row in result.history] == [1]


def test_with_class_weights_the_validation_loss_is_the_mean_over_the_classes(config, tmp_path):
    rare = dataclasses.replace(config, class_weights=True, limit=90, head_epochs=1)
    data = load_data(rare, offline=True)
    splits = data.splits
    common = np.flatnonzero(splits.validation.labels == 0)
    few = np.flatnonzero(splits.validation.labels == 1)[:3]
    uneven = splits.validation.take(np.concatenate([common, few]))
    data = dataclasses.replace(data, splits=dataclasses.replace(splits, validation=uneven))
    for epochs, tolerance in ((0, 1e-2), (1, 1e-4)):  # features of the head phase are float16
        asked = dataclasses.replace(rare, finetune_epochs=epochs)
        result = train(asked, run_dir=tmp_path / str(epochs), data=data)
        last = result.history[-1]
        model = keras.models.load_model(tmp_path / str(epochs) / files.MODEL)
        y_prob = model.predict(make_evaluation_dataset(uneven, 32, 32, 2), verbose=0)
        loss = -np.log(y_prob[np.arange(len(uneven.labels)), uneven.labels])
        of_classes = [loss[uneven.labels == label].mean() for label in (0, 1)]
        assert last["val_loss"] == pytest.approx(np.mean(of_classes), rel=tolerance)
        assert np.mean(of_classes) != pytest.approx(loss.mean(), rel=2 * tolerance)


def test_folds_hold_each_image_out_once_and_near_duplicates_together(config, tmp_path, monkeypatch):
    path, pictures_in = write_copies(tmp_path / "copies", False)
    head = dataclasses.replace(config, data=path, finetune_epochs=0)
    plain = train(head, run_dir=tmp_path / "plain").summary
    learnt, held = [], []

    def watch(trained, features, splits, of_run):
        learnt.append(set(pictures_in(splits.train)))
        held.append(pictures_in(splits.validation))
        assert len(features.views[0]) == len(features.views[1]) == splits.train.num_images
        phases.fit_head(trained, features, splits, of_run)

    monkeypatch.setattr(folds, "fit_head", watch)
    result = train(dataclasses.replace(head, folds=3), run_dir=tmp_path / "run")
    kept = read_summary(result.run_dir)
    assert list(kept.folds) == ["1", "2", "3"] and kept == result.summary
    assert all(not one & set(other) for one, other in zip(learnt, held, strict=True))
    assert Counter(sum(held, [])) == Counter(sum(map(pictures_in, own_parts(path)), []))
    assert "3 folds of" in printed(print_summary, result) and "n = 3" in kept.tell_folds()
    assert kept.sha256 == plain.sha256 and not plain.tell_folds()  # of the head that is kept


def own_parts(path):
    splits = load_splits(path)
    return [splits.train, splits.validation]


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"folds": 3}, "give --finetune-epochs 0"),
        ({"folds": 1, "finetune_epochs": 0}, "from 2 on"),
        ({"folds": 90, "finetune_epochs": 0}, "at most .* class '0'"),
    ],
)
def test_folds_that_cannot_be_are_refused(config, tmp_path, changes, told):
    path, _ = write_copies(tmp_path / "copies", False)
    asked = dataclasses.replace(config, data=path, **changes)
    with pytest.raises(InputError, match=told) as caught:
        train(asked, run_dir=tmp_path / "run")
    assert "\n" not in str(caught.value)
