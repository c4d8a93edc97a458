import contextlib
import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import printed
from transfer import console
from transfer.acceleration import doors
from transfer.acceleration.doors import pass_libraries
from transfer.config import Config
from transfer.errors import InputError, Interrupted
from transfer.evaluation.predictions import predict_run
from transfer.models.backbones import build_backbone
from transfer.report.training_report import write_training_report
from transfer.runs import files
from transfer.runs.facts import read_facts, read_summary
from transfer.runs.finished import FinishedRun
from transfer.runs.folder import newest_unfinished_run
from transfer.runs.history import read_history
from transfer.training import checkpoint as checkpoints
from transfer.training import phases, result
from transfer.training import run as training
from transfer.training.checkpoint import (
    CheckpointError,
    State,
    list_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)
from transfer.training.result import print_summary
from transfer.training.run import resume, train

ROW = {"phase": "head", "epoch": 1, "loss": 0.1 + 0.2, "accuracy": 0.5, "val_loss": 0.4}
ROW |= {"val_accuracy": 0.5, "learning_rate": 1e-3, "seconds": 1.5}


def make_state(phase="head", epoch=1):
    return State(phase, epoch, False, 1, 2.5, [ROW], {"EarlyStopping": {"wait": 1}})


VARIABLES = {"model/0": np.arange(6, dtype=np.float32).reshape(2, 3), "optimizer/0": np.int64(7)}


def silent(line):
    raise AssertionError(line)


def test_a_checkpoint_is_read_back_as_it_was(tmp_path):
    path = write_checkpoint(tmp_path / "c", make_state(), VARIABLES)
    checkpoint = read_checkpoint(path)
    assert checkpoint.state == make_state()
    for name, value in VARIABLES.items():
        np.testing.assert_array_equal(checkpoint.variables[name], value)
        assert checkpoint.variables[name].dtype == value.dtype


def test_no_checkpoint_is_none(tmp_path):
    assert newest_checkpoint(tmp_path / "none", silent) is None


def test_the_fine_tune_phase_comes_after_the_head_phase(tmp_path):
    for phase, epoch in (("fine-tune", 1), ("head", 12), ("fine-tune", 10), ("fine-tune", 9)):
        write_checkpoint(tmp_path, make_state(phase, epoch), VARIABLES)
    state = newest_checkpoint(tmp_path, silent).state
    assert (state.phase, state.epoch) == ("fine-tune", 10)


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a flipped byte in the variables": lambda path: flip_a_byte(path / checkpoints.VARIABLES),
    "a flipped byte in the state": lambda path: flip_a_byte(path / checkpoints.STATE),
    "truncated variables": lambda path: (path / checkpoints.VARIABLES).write_bytes(b"PK"),
    "no manifest": lambda path: (path / checkpoints.MANIFEST).unlink(),
    "no variables": lambda path: (path / checkpoints.VARIABLES).unlink(),
    "a manifest that is no JSON": lambda path: (path / checkpoints.MANIFEST).write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path, damage):
    write_checkpoint(tmp_path, make_state(epoch=1), VARIABLES)
    damage(write_checkpoint(tmp_path, make_state(epoch=2), VARIABLES))
    told = []
    assert newest_checkpoint(tmp_path, told.append).state.epoch == 1
    assert len(told) == 1 and "1-head-0002" in told[0] and "\n" not in told[0]


def test_a_write_that_fails_leaves_the_others_and_nothing_half(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, make_state(epoch=1), VARIABLES)
    before = sorted(tmp_path.rglob("*"))

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path, make_state(epoch=2), VARIABLES)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_killed_writer_left_is_no_checkpoint_and_is_removed(tmp_path):
    path = write_checkpoint(tmp_path, make_state(epoch=1), VARIABLES)
    shutil.copytree(path, tmp_path / ".partial-abc")
    assert newest_checkpoint(tmp_path, silent).path == path
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_not_ours_stays_and_no_link_is_followed(tmp_path):
    theirs, folder = tmp_path / "theirs", tmp_path / "run" / files.CHECKPOINTS
    other = write_checkpoint(theirs, make_state(epoch=7), VARIABLES)
    folder.parent.mkdir()
    mine = write_checkpoint(folder, make_state(epoch=1), VARIABLES)
    (folder / "1-head-0007").symlink_to(other)
    (folder / ".partial-0123abcd").symlink_to(other)
    (folder / "1-head-notes").mkdir()
    (mine / "notes.txt").write_text("mine")
    assert newest_checkpoint(folder, silent).path == mine
    remove_checkpoints(folder)
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]
    assert (folder / "1-head-notes").is_dir() and read_checkpoint(other).state.epoch == 7
    (tmp_path / "link").symlink_to(theirs)
    with pytest.raises(InputError, match="Received: a link"):
        newest_checkpoint(tmp_path / "link", silent)
    remove_checkpoints(tmp_path / "link")
    assert read_checkpoint(other).state.epoch == 7


def test_pickles_are_not_read(tmp_path):
    path = write_checkpoint(tmp_path, make_state(), {"model/0": np.array([{}], dtype=object)})
    with pytest.raises(CheckpointError, match="1-head-0001"):
        read_checkpoint(path)


def test_a_decompression_bomb_is_refused(tmp_path):
    path = write_checkpoint(tmp_path, make_state(), VARIABLES)
    np.savez_compressed(path / checkpoints.VARIABLES, bomb=np.zeros(1 << 20))
    sums = json.dumps(checkpoints._checksums(path))
    (path / checkpoints.MANIFEST).write_text(sums)
    with pytest.raises(CheckpointError, match="compressed"):
        read_checkpoint(path)


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the program sees it."""


@pytest.fixture(scope="module")
def config(tiny_inputs):
    """Both phases, with everything that has a state: plateau, early stopping, dropout, warps."""
    return Config(
        **tiny_inputs,
        image_size=32,
        batch_size=32,
        head_epochs=4,
        finetune_epochs=5,
        # High, so that in both phases the validation loss rises again and the plateau acts.
        head_learning_rate=10.0,
        finetune_learning_rate=0.1,
        plateau_patience=1,
        early_stopping_patience=3,
        dropout=0.5,
    )


def train_with_copies(config, folder, steps=(), describe=None):
    """Trains once and keeps the run folder as a SIGKILL would have left it at many moments.

    Args:
        config: the settings.
        folder: gets `whole`, the run itself, and a copy of it as it was right after each checkpoint
            was written, under the checkpoint's name, and after each of `steps`.
        steps: (phase, epoch, step) each, epoch and step from 0; their copy is "phase-epoch-step".
        describe: as of `train`.
    """
    run_dir, write, ordinary = folder / "whole", checkpoints.write_checkpoint, phases.Checkpointer

    def write_and_copy(*args):
        path = write(*args)
        shutil.copytree(run_dir, folder / path.name)
        return path

    class Copier(ordinary):
        def on_epoch_begin(self, at, logs=None):
            self.epoch = at

        def on_train_batch_end(self, batch, logs=None):
            moment = (self._recorder.phase, self.epoch, batch)
            if moment in steps:
                shutil.copytree(run_dir, folder / "{}-{}-{}".format(*moment))

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(checkpoints, "write_checkpoint", write_and_copy)
        monkeypatch.setattr(phases, "Checkpointer", Copier)
        monkeypatch.setattr(phases, "HEAD_STEPS_AT_A_TIME", 2)  # else an epoch is over in one go
        return train(config, run_dir=run_dir, describe=describe)


KILLS = {
    "after a head epoch": "1-head-0002",
    "after the last head epoch": "1-head-0004",
    "in the first head epoch": "head-0-3",
    "in the first fine-tune epoch": "fine-tune-0-3",
    "in a fine-tune epoch": "fine-tune-3-3",
    "after the last fine-tune epoch": "2-fine-tune-0005",
}
STEPS = (("head", 0, 3), ("fine-tune", 0, 3), ("fine-tune", 3, 3))


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    """What the run gives when nobody kills it; beside it what a kill would have left."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("KERAS_HOME", str(folder / "keras_home"))
        return train_with_copies(config, folder, STEPS)


@pytest.fixture
def killed(undisturbed, monkeypatch, tmp_path):
    """Returns a function that makes the run folder as a kill at a moment leaves it."""
    folder = undisturbed.run_dir.parent
    monkeypatch.setenv("KERAS_HOME", str(folder / "keras_home"))  # the features stay kept
    return lambda name: shutil.copytree(folder / name, tmp_path / name)


@pytest.mark.parametrize("name", KILLS.values(), ids=KILLS)
def test_a_killed_and_resumed_run_is_the_same_to_the_last_bit(undisturbed, killed, name):
    run_dir = killed(name)
    assert not (run_dir / files.SUMMARY).exists()
    done = resume(run_dir)
    assert done.summary.sha256 == undisturbed.summary.sha256
    epochs = [row["epoch"] for row in undisturbed.history]
    assert [row["epoch"] for row in done.history] == epochs
    assert read_history(run_dir) == done.history
    assert not (run_dir / files.CHECKPOINTS).exists()


def test_averages_schedules_and_mixes_go_on_where_they_were(config, tmp_path):
    config = dataclasses.replace(
        config,
        head_epochs=1,
        finetune_learning_rate=0.01,
        ema_momentum=0.9,
        schedule="cosine",
        warm_up_fraction=0.3,
        layer_decay=0.5,
        mixup_alpha=0.4,
        cutmix_alpha=1.0,
    )
    whole = train_with_copies(config, tmp_path)
    assert len(whole.history) == 6
    for name in ("2-fine-tune-0003", "2-fine-tune-0005"):
        assert resume(tmp_path / name).summary.sha256 == whole.summary.sha256


def test_small_images_come_first_on_one_schedule_and_go_on_where_they_were(config, tmp_path):
    config = dataclasses.replace(
        config,
        head_epochs=1,
        small_epochs=2,
        small_image_size=48,
        finetune_epochs=2,
        finetune_learning_rate=0.01,
        schedule="cosine",
    )
    whole = train_with_copies(config, tmp_path)
    without = dataclasses.replace(config, small_epochs=0, finetune_epochs=1)
    plain = train(without, run_dir=tmp_path / "without")
    assert plain.history[0]["loss"] == whole.history[0]["loss"]  # the head begins the same
    rows = [(row["phase"], row["epoch"]) for row in whole.history[1:]]
    assert rows == [(phase, n) for phase in ("small images", "fine-tune") for n in (1, 2)]
    rates = [row["learning_rate"] for row in whole.history[1:]]
    cosine = 0.005 * (1 + np.cos(np.pi * np.arange(1, 5) / 4))
    np.testing.assert_allclose(rates, np.maximum(cosine, 1e-6), rtol=0.01)
    for name in ("1-small-0001", "1-small-0002", "2-fine-tune-0001"):
        assert resume(tmp_path / name).summary.sha256 == whole.summary.sha256


def test_small_images_that_do_not_fit_the_head_are_refused_with_a_size_that_does(config, tmp_path):
    config = dataclasses.replace(
        config,
        head_features="multi",
        head_epochs=1,
        image_size=64,
        small_epochs=1,
        small_image_size=40,
        finetune_epochs=1,
    )
    with pytest.raises(InputError, match="Give --small-image-size 32, or --head-features last."):
        train(config, run_dir=tmp_path / "refused")
    assert not (tmp_path / "refused").exists()  # said before anything is trained
    train(dataclasses.replace(config, small_image_size=32), run_dir=tmp_path / "taken")
    with pytest.raises(InputError, match="Give --head-features last."):
        train(dataclasses.replace(config, image_size=80), run_dir=tmp_path / "no such size")


def test_the_undisturbed_run_uses_what_the_exactness_is_claimed_for(undisturbed):
    rates = [row["learning_rate"] for row in undisturbed.history]
    head, finetune = rates[:4], rates[4:]
    assert min(head) < max(head) and min(finetune) < max(finetune)  # the plateau acted


def test_the_last_two_checkpoints_and_the_best_are_kept(config, tmp_path):
    config = dataclasses.replace(
        config, head_epochs=6, finetune_epochs=0, early_stopping_patience=9
    )
    train_with_copies(config, tmp_path)
    run_dir = tmp_path / "1-head-0006"
    rows = json.loads((list_checkpoints(run_dir / "checkpoints")[-1] / "state.json").read_text())
    losses = [row["val_loss"] for row in rows["history"]]
    best = losses.index(min(losses)) + 1
    names = {path.name for path in list_checkpoints(run_dir / files.CHECKPOINTS)}
    # The killed epoch had no time to remove what it made superfluous.
    assert {"1-head-0005", "1-head-0006", f"1-head-{best:04d}"} <= names
    assert len(names) <= 4


def test_the_one_before_a_damaged_checkpoint_gives_the_same_run(undisturbed, killed, capsys):
    run_dir = killed("2-fine-tune-0002")
    flip_a_byte(list_checkpoints(run_dir / files.CHECKPOINTS)[-1] / checkpoints.VARIABLES)
    with console.speaking():
        done = resume(run_dir)
    out = capsys.readouterr().out
    assert "2-fine-tune-0002 is damaged" in out and "after epoch 1 of the fine-tune phase" in out
    assert done.summary.sha256 == undisturbed.summary.sha256


def test_a_changed_setting_is_named_and_refused(killed):
    run_dir = killed("1-head-0001")
    with pytest.raises(InputError, match=r"--batch-size 32 \(received: 64\)"):
        resume(run_dir, given={"batch_size": 64, "dropout": 0.5})


@pytest.mark.parametrize("installed", ["", "2.0"])
def test_a_run_goes_on_with_the_engine_of_its_passes_or_says_what_there_is(
    killed, monkeypatch, capsys, installed
):
    taken = []
    monkeypatch.setattr(doors, "has_accelerator", lambda: False)
    monkeypatch.setattr(doors, "installed_openvino", lambda: installed)
    monkeypatch.setattr(
        training, "_load_data_again", lambda *_: taken.append(pass_libraries()) or 1 / 0
    )
    for name, began in (("1-head-0001", {}), ("2-fine-tune-0001", {"openvino": "1.0"})):
        run_dir = killed(name)
        facts = read_facts(run_dir)
        others = {name: value for name, value in facts.versions.items() if name != "openvino"}
        dataclasses.replace(facts, versions=others | began).write(run_dir)
        with console.speaking(), pytest.raises(ZeroDivisionError):
            resume(run_dir)
    assert taken == [{}, {"openvino": installed} if installed else {}]
    assert f"began with openvino 1.0 (here {installed or 'none'})" in capsys.readouterr().out
    assert pass_libraries() == ({"openvino": installed} if installed else {})


@contextlib.contextmanager
def put_aside(path):
    """Keeps a file that all tests share while one writes another in its place."""
    content = Path(path).read_bytes()
    try:
        yield
    finally:
        Path(path).write_bytes(content)


def test_changed_data_are_refused(config, killed):
    run_dir = killed("2-fine-tune-0001")
    with np.load(config.data) as file:
        arrays = dict(file)
    arrays["x_train"] = 255 - arrays["x_train"]
    with put_aside(config.data):
        np.savez(config.data, **arrays)
        with pytest.raises(InputError, match="data .* have changed"):
            resume(run_dir)


def test_changed_weights_are_refused_where_they_are_still_needed(config, killed):
    head, finetune = killed("1-head-0001"), killed("2-fine-tune-0004")
    with put_aside(config.weights):
        build_backbone(config.backbone, 32).save_weights(config.weights)
        with pytest.raises(InputError, match="which differ"):
            resume(head)
        resume(finetune)


def test_a_finished_run_is_not_resumed(undisturbed):
    with pytest.raises(InputError, match="has finished"):
        resume(undisturbed.run_dir)


def test_a_kill_after_the_summary_is_tidied_up_by_resume(config, tmp_path, monkeypatch):
    config = dataclasses.replace(config, head_epochs=1, finetune_epochs=0)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(result, "remove_checkpoints", lambda folder: (_ for _ in ()).throw(Killed))
        train(config, run_dir=tmp_path / "run", describe=write_training_report)
    (tmp_path / "run" / files.CARD).unlink()  # as of a version that wrote it later
    assert newest_unfinished_run(tmp_path) == tmp_path / "run"
    done = resume(tmp_path / "run", describe=write_training_report)
    assert done.summary == read_summary(tmp_path / "run") and len(done.history) == 1
    assert (tmp_path / "run" / files.CARD).is_file()
    assert not (tmp_path / "run" / files.CHECKPOINTS).exists()
    with pytest.raises(InputError, match="has finished"):
        resume(tmp_path / "run")


def test_a_fine_tuning_that_ends_worse_than_the_head_gives_way_to_it(config, tmp_path):
    config = dataclasses.replace(
        config, head_learning_rate=0.01, finetune_epochs=2, finetune_learning_rate=10.0
    )
    whole = train_with_copies(config, tmp_path, describe=write_training_report)
    phases = whole.summary.phases
    assert whole.summary.kept == "head"
    assert phases["head"].val_loss < phases["fine-tune"].val_loss
    told = f"({phases['fine-tune'].val_loss:.4f} against {phases['head'].val_loss:.4f})"
    told = told.replace("(", "(validation loss ")
    assert told in printed(print_summary, whole, width=300)
    assert told in (tmp_path / "whole" / files.CARD).read_text().replace("\n", " ")
    run = FinishedRun(tmp_path / "whole")
    y_prob = predict_run(run, "validation").y_prob
    chosen = y_prob[np.arange(len(y_prob)), run.split("validation").labels]
    assert -np.log(chosen).mean() == pytest.approx(phases["head"].val_loss, abs=1e-3)
    # Killed when the better weights are those of the phase before, it comes to the same.
    resumed = resume(tmp_path / "2-fine-tune-0001")
    assert resumed.summary.sha256 == whole.summary.sha256 and resumed.summary.kept == "head"
    better = train(dataclasses.replace(config, finetune_learning_rate=1e-5), run_dir=tmp_path / "b")
    assert better.summary.kept == "fine-tune" and not better.summary.tell_kept()


def test_a_diverged_epoch_is_no_checkpoint(config, tmp_path):
    config = dataclasses.replace(
        config,
        head_learning_rate=1e-3,
        head_epochs=1,
        finetune_learning_rate=10.0,
        optimizer="sgd",
        l2=10.0,
    )
    with pytest.raises(InputError, match=r"last good state is .*1-head-000\d"):
        train(config, run_dir=tmp_path / "run")
    state = newest_checkpoint(tmp_path / "run" / files.CHECKPOINTS, silent).state
    assert state.phase == "head"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(30, "Read-only file system"), "Read-only file system"),
        (MemoryError(), "--batch-size 16"),
        (KeyboardInterrupt(), "train --resume"),
    ],
    ids=["disk full", "read-only", "no memory", "ctrl-c"],
)
def test_however_a_run_ends_the_last_checkpoint_is_named(killed, monkeypatch, error, told):
    def fail(self, epoch, logs=None):
        if epoch == 2:
            raise error

    run_dir = killed("1-head-0002")
    monkeypatch.setattr(phases.Checkpointer, "on_epoch_begin", fail)
    with pytest.raises((InputError, Interrupted)) as caught:
        resume(run_dir)
    message = str(caught.value)
    assert told in message and "1-head-0002" in message and "\n" not in message
    assert read_checkpoint(run_dir / files.CHECKPOINTS / "1-head-0002")


def test_memory_that_ends_in_the_first_process_names_the_last_checkpoint(
    config, monkeypatch, tmp_path
):
    def fail(self, epoch, logs=None):
        if epoch == 1:
            raise MemoryError

    monkeypatch.setattr(phases.Checkpointer, "on_epoch_begin", fail)
    with pytest.raises(InputError, match=r"--batch-size 16.* .*run/checkpoints/1-head-0001\."):
        train(config, run_dir=tmp_path / "run")
    assert read_checkpoint(tmp_path / "run" / files.CHECKPOINTS / "1-head-0001")


ODD_STATES = {
    "another epoch": {"epoch": 2},
    "an epoch that is a text": {"epoch": "1"},
    "an epoch that is none": {"epoch": True},
    "no phase": {"phase": "\x1b[2J"},
    "a best epoch to come": {"best_epoch": 2},
    "a callback's class": {"callbacks": {"EarlyStopping": {"__class__": 1}}},
    "another callback": {"callbacks": {"ModelCheckpoint": {"filepath": 1}}},
    "a patience that is a list": {"callbacks": {"EarlyStopping": {"wait": [1]}}},
    "callbacks in a list": {"callbacks": []},
    "a row that is a text": {"history": ["head"]},
    "a row of another kind": {"history": [ROW | {"loss": "0"}]},
    "a phase in a row that speaks": {"history": [ROW | {"phase": "\x1b[2J"}]},
    "seconds without end": {"seconds": 1e300},
    "an unknown key": {"more": 1},
}


@pytest.mark.parametrize("what", ODD_STATES)
def test_a_state_that_no_training_writes_is_told(tmp_path, what):
    path = write_checkpoint(tmp_path, make_state(), VARIABLES)
    state = json.loads((path / checkpoints.STATE).read_text()) | ODD_STATES[what]
    (path / checkpoints.STATE).write_text(json.dumps(state))
    (path / checkpoints.MANIFEST).write_text(json.dumps(checkpoints._checksums(path)))
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(path)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("name", [checkpoints.MANIFEST, checkpoints.STATE, checkpoints.VARIABLES])
def test_a_pipe_in_a_checkpoint_is_told(tmp_path, name):
    path = write_checkpoint(tmp_path, make_state(), VARIABLES)
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(CheckpointError, match="pipe"):
        read_checkpoint(path)


@pytest.mark.parametrize("arrays", [{"model/0": np.array(["a"])}, {"model/0": np.zeros(2, "c8")}])
def test_variables_that_are_no_numbers_are_told(tmp_path, arrays):
    path = write_checkpoint(tmp_path, make_state(), arrays)
    with pytest.raises(CheckpointError, match="no array of numbers"):
        read_checkpoint(path)
