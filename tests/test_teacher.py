import dataclasses
import shutil

import keras
import numpy as np
import pytest
from conftest import make_stripes

from transfer import console
from transfer.config import Config
from transfer.errors import InputError
from transfer.evaluation.predictions import predict_run
from transfer.runs.finished import FinishedRun
from transfer.training import run as training
from transfer.training.data import load_data
from transfer.training.run import resume, train
from transfer.training.teacher import load_teacher


@pytest.fixture(scope="module")
def config(tiny_inputs):
    return Config(
        **tiny_inputs, image_size=32, batch_size=32, head_epochs=1, finetune_epochs=1, flip=False
    )


@pytest.fixture(scope="module")
def teacher(config, tmp_path_factory):
    """A run that sees images of another size."""
    sees_more = dataclasses.replace(config, image_size=48)
    return train(sees_more, run_dir=tmp_path_factory.mktemp("teacher") / "teacher").run_dir


def taught(config, *run_dirs):
    return dataclasses.replace(config, teacher=", ".join(map(str, run_dirs)))


def test_what_is_learnt_is_halfway_between_label_and_answer(config, teacher):
    data = load_data(config, offline=True)
    test = data.splits.test.take(np.arange(5))
    shown = np.repeat(np.float32(test.images), 4 // test.images.shape[3], axis=3)[..., :3]
    shown = keras.ops.image.resize(shown, (32, 32))
    labels = keras.ops.one_hot(test.labels, len(data.splits.class_names))
    one = load_teacher(taught(config, teacher), data)
    learnt = one.teach(shown, labels).numpy()
    larger = keras.ops.image.resize(shown, (48, 48), antialias=True)
    answer = np.asarray(FinishedRun(teacher).predictor(larger))
    np.testing.assert_allclose(learnt, (labels + answer) / 2, atol=1e-6)
    assert (learnt.argmax(axis=1) == test.labels).all()
    two = load_teacher(taught(config, teacher, teacher), data)
    np.testing.assert_allclose(two.teach(shown, labels), learnt, atol=1e-6)
    assert two.sha256 == f"{one.sha256},{one.sha256}"


def test_a_student_learns_what_its_teacher_says(config, teacher, tmp_path):
    alone = train(config, run_dir=tmp_path / "alone")
    student = train(taught(config, teacher), run_dir=tmp_path / "student")
    assert student.summary.sha256 != alone.summary.sha256
    heads = [result.history[0]["loss"] for result in (alone, student)]
    assert heads[0] == heads[1]  # the head phase is not taught

    def distance(run_dir):
        runs = FinishedRun(run_dir), FinishedRun(teacher)
        y_prob, expected = (predict_run(run).y_prob for run in runs)
        return np.abs(y_prob - expected).mean()

    assert distance(tmp_path / "student") < distance(tmp_path / "alone")


def test_a_taught_run_goes_on_only_with_its_own_teacher(config, teacher, tmp_path, monkeypatch):
    own = shutil.copytree(teacher, tmp_path / "teacher")
    student = taught(config, own)
    whole = train(student, run_dir=tmp_path / "whole")

    def stop(*args, **kwargs):
        raise InputError("stopped here")

    with monkeypatch.context() as stopping:
        stopping.setattr(training, "fit_finetune", stop)
        with pytest.raises(InputError, match="stopped here"):
            train(student, run_dir=tmp_path / "stopped")
    shutil.move(own, tmp_path / "kept")
    with pytest.raises(InputError, match="teacher"):
        resume(tmp_path / "stopped")
    shutil.copytree(whole.run_dir, own)
    with pytest.raises(InputError, match="has other weights than when the run began"):
        resume(tmp_path / "stopped")
    shutil.rmtree(own)
    shutil.move(tmp_path / "kept", own)
    assert resume(tmp_path / "stopped").summary.sha256 == whole.summary.sha256


def test_a_teacher_of_other_classes_is_refused(config, teacher, tmp_path):
    x, _ = make_stripes(40, seed=5)
    y = np.arange(40) % 3
    path = tmp_path / "three.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(InputError, match="--teacher should know the classes .*Received: .*teacher"):
        train(dataclasses.replace(taught(config, teacher), data=str(path)))


def test_a_teacher_without_a_phase_to_teach_in_is_refused(config):
    with pytest.raises(InputError, match="finetune_epochs 0: it teaches in the fine-tune phase"):
        dataclasses.replace(config, teacher="runs/first", finetune_epochs=0)


def test_a_teacher_that_is_no_finished_run_is_refused(config, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        train(taught(config, tmp_path / "nowhere"))


def test_a_teacher_that_may_know_validation_images_is_told(config, teacher, capsys):
    for seed, told in ((0, False), (3, True)):
        other = dataclasses.replace(taught(config, teacher), seed=seed)
        with console.speaking():
            load_teacher(other, load_data(other, offline=True))
        assert ("trained on other images" in capsys.readouterr().out) is told
