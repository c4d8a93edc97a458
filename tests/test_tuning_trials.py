"""One trial: an ordinary run; what ends it, what is kept of it, and what is never looked at."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from transfer.config import Config
from transfer.data.splits import Split
from transfer.errors import DiskError, InputError
from transfer.runs import files
from transfer.runs.folder import create_run
from transfer.storage.atomic import read_json
from transfer.training import data, run
from transfer.training.heads import prepare_heads
from transfer.tuning import trials
from transfer.tuning.trials import TrialContext, TrialResult, full_budget, run_trial, with_budget


@pytest.fixture(scope="module")
def config(tiny_inputs):
    inputs = tiny_inputs | {"weights": "none"}
    return Config(**inputs, image_size=32, batch_size=32, finetune_epochs=2)


@pytest.fixture(scope="module")
def context(config):
    return TrialContext(data.load_data(config, True, with_test=False), offline=True)


@pytest.fixture(scope="module")
def trial(config, context, tmp_path_factory):
    """The folder of a trial, and its record."""
    folder = tmp_path_factory.mktemp("trial") / "trial_0000"
    return folder, run_trial(config, context, folder, "local")


def test_the_budget_is_of_the_fine_tune_phase_and_the_head_phase_is_granted_whole():
    config = Config(head_epochs=7, finetune_epochs=5)
    assert full_budget(config) == 5
    assert with_budget(config, 2) == Config(head_epochs=7, finetune_epochs=2)
    heads = Config(head_epochs=7, finetune_epochs=0)
    assert full_budget(heads) == 7
    assert with_budget(heads, 2) == Config(head_epochs=2, finetune_epochs=0)


def test_a_trial_is_the_run_that_train_would_make(config, trial, tmp_path):
    folder, record = trial
    run_dir = folder / trials.RUN
    alone = run.train(config, run_dir=tmp_path / "alone", offline=True)
    summary = read_json(run_dir / files.SUMMARY)
    assert summary["sha256"] == alone.summary.sha256
    kept = alone.summary.phases["fine-tune"]
    assert (record.val_accuracy, record.val_loss) == (kept.val_accuracy, kept.val_loss)
    assert (record.epochs, record.reason, record.worker) == (2, "", "local")
    assert record.settings == config.to_dict()
    assert not (run_dir / files.MODEL).exists() and (tmp_path / "alone" / files.MODEL).exists()
    assert TrialResult.from_text(record.to_text()) == record


@pytest.mark.parametrize("flip", [True, False])
def test_a_head_on_shared_features_is_the_one_that_train_would_make(
    config, context, tiny_inputs, tmp_path, flip
):
    config = dataclasses.replace(
        config,
        weights=tiny_inputs["weights"],
        head_epochs=2,
        finetune_epochs=0,
        dropout=0.3,
        flip=flip,
    )
    alone = run.train(config, run_dir=tmp_path / "alone", offline=True)
    start = prepare_heads(
        dataclasses.replace(config, flip=True, dropout=0.0), context.data, offline=True
    )
    context = dataclasses.replace(context, heads={config.backbone: start})
    for number in range(2):  # the second as the first
        run_trial(config, context, tmp_path / f"{number}", "local")
        summary = read_json(tmp_path / f"{number}" / trials.RUN / files.SUMMARY)
        for part in ("history", "optimizer"):
            assert summary["sha256"][part] == alone.summary.sha256[part]


def ends_with(error):
    def train(*arguments, run_dir, **options):
        create_run("tiny", run_dir)
        raise error

    return train


def test_a_run_that_had_finished_is_not_repeated(config, context, trial, tmp_path, monkeypatch):
    folder, first = shutil.copytree(trial[0], tmp_path / "trial_0000"), trial[1]
    monkeypatch.setattr(run, "train", lambda *a, **k: pytest.fail("trained again"))
    assert run_trial(config, context, folder, "local") == first
    # Another configuration under the same number is another trial.
    monkeypatch.setattr(run, "train", ends_with(InputError("trained anew")))
    other = run_trial(dataclasses.replace(config, dropout=0.5), context, folder, "local")
    assert (other.reason, other.settings["dropout"]) == ("trained anew", 0.5)


def test_a_diverging_trial_is_a_reason_not_an_end(config, context, tmp_path):
    rate = dataclasses.replace(config, finetune_learning_rate=10.0, optimizer="sgd", l2=10.0)
    record = run_trial(rate, context, tmp_path, "local")
    assert record.reason.endswith("is no longer a number in the fine-tune phase")
    assert not (tmp_path / trials.RUN / files.CHECKPOINTS).exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError("there is not enough memory; take less"), "there is not enough memory"),
        (MemoryError(), "MemoryError"),
        (tf.errors.ResourceExhaustedError(None, None, "OOM\nlong"), "ResourceExhaustedError: OOM"),
        (ValueError("of a\nlayer\x1b"), "ValueError: of a"),
    ],
)
def test_whatever_ends_a_trial_is_one_line(config, context, tmp_path, monkeypatch, error, reason):
    monkeypatch.setattr(run, "train", ends_with(error))
    record = run_trial(config, context, tmp_path, "local")
    assert reason in record.reason and record.reason.isprintable()
    assert record.val_accuracy is None


def test_a_full_disk_ends_the_search_and_not_each_trial(config, context, tmp_path, monkeypatch):
    error = DiskError("run: No space left on device")
    monkeypatch.setattr(run, "train", ends_with(error))
    with pytest.raises(InputError, match="No space left"):
        run_trial(config, context, tmp_path, "local")


def test_the_test_images_are_never_there(config, context, trial, tmp_path):
    assert context.data.splits.test.num_images == 0
    # Poisoned test images and labels change nothing.
    with np.load(config.data) as arrays:
        poisoned = dict(arrays)
    poisoned["x_test"] = 255 - poisoned["x_test"]
    poisoned["y_test"] = 1 - poisoned["y_test"]
    np.savez(tmp_path / "poisoned.npz", **poisoned)
    other = dataclasses.replace(config, data=str(tmp_path / "poisoned.npz"))
    there = TrialContext(data.load_data(other, True, with_test=False), offline=True)
    record = run_trial(other, there, tmp_path / "poisoned", "local")
    assert record.val_loss == trial[1].val_loss
    assert isinstance(there.data.splits.test, Split)
    facts = json.loads((tmp_path / "poisoned" / trials.RUN / files.CONFIG).read_text())
    assert facts["data"]["num_images"]["test"] == 0


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        tf.errors.ResourceExhaustedError(None, None, "run/logs; No space left on device"),
    ],
    ids=["system", "TensorFlow"],
)
def test_a_full_disk_ends_the_search_and_is_no_fault_of_the_trial(
    config, context, tmp_path, monkeypatch, error
):
    def full(*args):
        raise error

    monkeypatch.setattr(run, "fit_finetune", full)
    with pytest.raises(DiskError, match="No space left on device"):
        run_trial(config, context, tmp_path / "trial_0000", "local")


def test_of_an_attempt_that_was_killed_nobody_elses_file_is_removed(
    config, context, trial, tmp_path, monkeypatch
):
    run_dir = shutil.copytree(trial[0], tmp_path / "trial_0000") / trials.RUN
    (run_dir / files.SUMMARY).unlink()  # as of one that was killed
    run_trial(config, context, run_dir.parent, "local")
    assert (run_dir / files.SUMMARY).is_file()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "events.out.tfevents.1").write_text("theirs")
    (run_dir / files.LOGS / "linked").symlink_to(elsewhere)
    (run_dir / "notes.txt").write_text("mine")
    trials._remove_run(run_dir)
    assert sorted(path.name for path in run_dir.iterdir()) == [files.LOGS, "notes.txt"]
    assert (elsewhere / "events.out.tfevents.1").read_text() == "theirs"
