"""The door for Python: the same walk as the commands, quiet, lazy, in Python's words."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import transfer
from tests.conftest import make_stripes
from transfer.config import Config
from transfer.runs import files

ROOT = Path(__file__).parents[1]
SHORT = {"weights": "none", "image_size": 32, "batch_size": 32, "finetune_epochs": 1}


@pytest.fixture
def short(tiny_backbone):
    return SHORT | {"backbone": tiny_backbone}


@pytest.fixture
def arrays():
    return {
        name: values
        for part, count, seed in (("train", 80, 0), ("test", 21, 1))
        for name, values in zip((f"x_{part}", f"y_{part}"), make_stripes(count, seed), strict=True)
    }


def test_the_import_is_quick_and_brings_nothing_heavy(tmp_path):
    code = (
        "import time; started = time.process_time(); import transfer; import sys\n"
        "assert time.process_time() - started < 0.2\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'matplotlib', 'sklearn', 'rich', 'click'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert {'train', 'tune', 'audit', 'load', 'Config'} <= set(dir(transfer))\n"
        "transfer.Config; transfer.train; transfer.audit"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_public_name_is_there_and_no_other():
    for name in transfer.__all__:
        assert callable(getattr(transfer, name))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = transfer.nothing


def test_no_room_has_the_name_of_a_function():
    """Python binds a room to its name in the package as soon as it is imported."""
    rooms = {path.stem for path in (ROOT / "transfer").iterdir()}
    assert not rooms & set(transfer.__all__)


def test_a_run_is_trained_evaluated_and_reported_in_silence(short, stripes_npz, tmp_path, capfd):
    run = transfer.train(stripes_npz, run_dir=tmp_path / "run", **short)
    kept = {path.name for path in run.run_dir.iterdir()}
    assert {files.CURVES, files.CARD, files.MODEL, files.SUMMARY} <= kept  # all of a run folder
    assert run.config.data == str(stripes_npz) and len(run.history) == 1
    evaluation = run.evaluate()
    assert evaluation.y_prob.shape == (61, 2)
    right = evaluation.y_prob.argmax(axis=1) == evaluation.y_true
    assert evaluation.accuracy == right.mean()
    page = run.report()
    assert page == run.run_dir / "report" / "report.html" and page.is_file()
    assert capfd.readouterr() == ("", "")
    again = transfer.load(run.run_dir)
    assert again.evaluate().accuracy == evaluation.accuracy
    images, labels = again.images("validation")
    assert images.shape == (24, 28, 28, 1) and labels.shape == (24,)
    assert again.model.output_shape == (None, 2)
    look_in_a_notebook(again)


def look_in_a_notebook(run):
    evaluation = run.evaluate()
    for figure in (
        run.plot_history(),
        evaluation.plot_confusion_matrix(),
        evaluation.plot_confusion_matrix(normalize=True),
        evaluation.plot_samples(2),
    ):
        assert isinstance(figure, Figure) and figure.axes
    assert f"{100 * evaluation.accuracy:.2f} %" in evaluation._repr_markdown_()
    assert "on 61 test images" in repr(evaluation) and str(run.run_dir) in repr(run)


def test_verbose_tells_what_the_command_tells(short, stripes_npz, tmp_path, capfd):
    transfer.train(stripes_npz, run_dir=tmp_path / "run", verbose=True, **short)
    told = capfd.readouterr().out
    assert "Data: stripes.npz: 216 training" in told and "fine-tune 1/1 " in told


@pytest.mark.parametrize("form", ["pair", "pairs", "dict"])
def test_arrays_are_data_and_the_run_keeps_them(short, arrays, tmp_path, form):
    train, test = ((arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test"))
    data = {"pair": train, "pairs": (train, test), "dict": arrays | {"class_names": ["-", "|"]}}
    run = transfer.train(data[form], run_dir=tmp_path / "run", **short)
    moved = run.run_dir.rename(tmp_path / "moved")
    again = transfer.load(moved)  # tomorrow, and elsewhere
    count = 16 if form == "pair" else 21  # a fifth held out, or the test part given
    assert len(again.evaluate().y_true) == count
    assert again.class_names == (("-", "|") if form == "dict" else ("0", "1"))
    if form == "pair":
        assert again.report().is_file()


def test_a_run_on_arrays_is_resumed_from_what_it_kept(short, arrays, tmp_path, monkeypatch):
    from transfer.training import run as training

    monkeypatch.setattr(training, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        transfer.train(arrays, run_dir=tmp_path / "run", **short)
    monkeypatch.undo()
    from tests.conftest import tiny_row
    from transfer.models.backbones import BACKBONES

    monkeypatch.setitem(BACKBONES, "tiny", tiny_row())
    training.resume(tmp_path / "run", offline=True)
    assert len(transfer.load(tmp_path / "run").evaluate().y_true) == 21


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([1, 2], "Received: list"),
        ({"x_train": np.zeros((4, 8, 8))}, "no y_train"),
        ((np.zeros((4, 8, 8)), np.zeros(3)), "as many labels as images"),
        ((np.full((4, 8, 8), 300.0), np.zeros(4)), "data, x_train 300 to 300"),
        ("nowhere", "data should be auto"),
    ],
)
def test_data_that_cannot_be_used_is_told(short, data, told, tmp_path):
    with pytest.raises(transfer.InputError, match=told):
        transfer.train(data, run_dir=tmp_path / "run", **short)
    assert not (tmp_path / "run").exists()


def test_errors_name_arguments_as_python_does(short, stripes_npz, tmp_path):
    for settings, told in (
        ({"optimizer": "magic"}, "optimizer should be one of"),
        ({"sead": 1}, "unknown setting 'sead'"),
        ({"finetune_epochs": 0, "head_epochs": 0}, "head_epochs and finetune_epochs are both 0"),
        ({"weights": "nowhere.h5"}, "weights should be auto, imagenet"),
    ):
        with pytest.raises(transfer.InputError, match=told) as raised:
            transfer.train(stripes_npz, run_dir=tmp_path / "run", **short | settings)
        assert "--" not in str(raised.value)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(transfer.InputError, match="name another run_dir"):
        transfer.train(stripes_npz, run_dir=tmp_path / "run", **short)
    with pytest.raises(transfer.InputError, match="not a run folder"):
        transfer.load(tmp_path)


def test_a_search_gives_settings_that_train_takes(short, stripes_npz, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = {"dropout": [0.1, 0.3]}
    found = transfer.tune(stripes_npz, tuner="random", trials=2, space=space, **short)
    assert len(found.trials) == 2 and found.trials[0]["own_settings"] == "true"
    assert isinstance(found.best, Config) and found.best.backbone == "tiny"
    run = transfer.train(stripes_npz, config=found.best, run_dir=tmp_path / "best")
    assert run.config == dataclasses.replace(found.best, data=str(stripes_npz))
    with pytest.raises(transfer.InputError, match="dropout should be"):
        transfer.tune(stripes_npz, trials=1, space={"dropout": [2.0, 3.0]}, **short)


def test_an_audit_counts_and_lists(arrays, tmp_path):
    arrays["x_test"][0] = arrays["x_train"][0]
    summary = transfer.audit(arrays, out=tmp_path / "audit")
    assert summary["num_images"] == {"train": 80, "test": 21}
    assert summary["duplicates"]["exact_pairs"] == 1
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["num_images"]["test"] == 21


def test_no_library_tells_its_makers_that_it_is_used():
    for name, word in (("GRADIO_ANALYTICS_ENABLED", "False"), ("MLFLOW_DISABLE_TELEMETRY", "true")):
        assert os.environ[name] == word
    with pytest.raises(ImportError):  # and then OpenVINO takes an empty one of its own
        importlib.import_module("openvino_telemetry")
