import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_stripes, tiny_row, write_stripes

from tools import pack_weights
from transfer.commands.evaluate import main as evaluate_command
from transfer.config import Config
from transfer.datasets import sources
from transfer.evaluation.predictions import predict_run
from transfer.models import pretrained
from transfer.models.backbones import BACKBONES
from transfer.runs import files, included
from transfer.runs.facts import read_facts
from transfer.runs.finished import FinishedRun
from transfer.runs.folder import finished_runs
from transfer.runs.history import read_history
from transfer.storage.atomic import read_json, write_json
from transfer.training.run import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny model trained on stripes."""
    folder = tmp_path_factory.mktemp("included")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", tiny_row())
        config = Config(
            backbone="tiny",
            data=str(write_stripes(folder)),
            weights="none",
            image_size=32,
            batch_size=32,
            finetune_epochs=4,
        )
        return train(config, run_dir=folder / "trained").run_dir


@pytest.fixture
def package(monkeypatch, tmp_path, tiny_backbone, trained):
    """A package whose included model is that one; returns its run."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    for module in (pretrained, pack_weights):
        monkeypatch.setattr(module, "MANIFEST", folder / "manifest.json")
        monkeypatch.setattr(module, "FOLDER", folder)
    run_dir = shutil.copytree(trained, tmp_path / "trained")
    pack_weights.pack("fashion", run_dir)
    return run_dir


@pytest.fixture
def auto_finds(monkeypatch, trained):
    """What `--data auto` finds: the stripes it was trained on, or others."""

    def find(path=trained.parent / "stripes.npz"):
        load = sources.load_splits
        monkeypatch.setattr(
            included, "load_splits", lambda data, **kwargs: load(str(path), **kwargs)
        )

    find()
    return find


def test_the_included_model_becomes_a_run_like_any_other(package, auto_finds, tmp_path):
    run_dir = included.unpack_included(tmp_path / "runs")
    assert finished_runs(tmp_path / "runs") == [run_dir]
    assert read_history(run_dir) == read_history(package)
    expected, actual = (predict_run(FinishedRun(run)).y_prob for run in (package, run_dir))
    np.testing.assert_allclose(actual, expected, atol=2e-3)  # float16
    facts = read_facts(run_dir)
    assert facts.data == read_facts(package).data
    assert "included model" in facts.weights.provenance


def test_no_path_of_the_machine_is_packed(package, monkeypatch, tmp_path):
    facts = read_json(package / files.CONFIG)
    facts["weights"]["provenance"] = f"weights from {tmp_path.resolve()}/runs/first/model.keras"
    write_json(package / files.CONFIG, facts)
    monkeypatch.chdir(tmp_path)
    pack_weights.pack("fashion", package)
    assert str(tmp_path) not in facts_of_the_package()["weights"]["provenance"]
    assert facts_of_the_package()["weights"]["provenance"].endswith("runs/first/model.keras")


def facts_of_the_package():
    return json.loads(pack_weights.MANIFEST.read_text())["fashion"]["mobilenetv2"]["facts"]


def test_other_images_are_told(package, auto_finds, tmp_path):
    x_train, y_train = make_stripes(120, seed=5)
    x_test, y_test = make_stripes(40, seed=6)
    path = tmp_path / "others.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    auto_finds(path)
    facts = read_facts(included.unpack_included(tmp_path / "runs"))
    assert "has seen most of these validation images" in facts.data.provenance
    assert facts.data.num_images == {"train": 216, "validation": 12, "test": 40}


def test_evaluate_takes_it_where_nothing_was_trained(package, auto_finds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finished = CliRunner().invoke(evaluate_command, ["--report"], catch_exceptions=False)
    assert "the model that comes with the package" in finished.output
    assert (tmp_path / "runs" / included.NAME / files.REPORT / "report.html").is_file()
    again = CliRunner().invoke(evaluate_command, [], catch_exceptions=False)
    assert "comes with the package" not in again.output and included.NAME in again.output
