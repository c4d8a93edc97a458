import json

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_stripes
from rich.console import Console

import evaluate
from transfer import runs
from transfer.config import Config
from transfer.data import sources
from transfer.evaluation import included
from transfer.evaluation.predictions import predict_run
from transfer.models import pretrained
from transfer.models.pretrained import pack
from transfer.training.train import train


@pytest.fixture
def console():
    return Console(quiet=True)


@pytest.fixture
def package(monkeypatch, tmp_path, tiny_backbone, stripes_npz, console):
    """A package whose included model is a tiny one, trained on stripes; returns its run."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    for module in (pretrained, pack, included):
        monkeypatch.setattr(module, "MANIFEST", folder / "manifest.json")
    for module in (pretrained, pack):
        monkeypatch.setattr(module, "FOLDER", folder)
    config = Config(
        backbone=tiny_backbone,
        data=str(stripes_npz),
        weights="none",
        image_size=32,
        batch_size=32,
        finetune_epochs=4,
    )
    run_dir = train(config, console, run_dir=tmp_path / "trained").run_dir
    pack.pack("fashion", run_dir)
    return run_dir


@pytest.fixture
def auto_finds(monkeypatch, tmp_path, stripes_npz):
    """What `--data auto` finds: the stripes it was trained on, or others."""

    def find(path=stripes_npz):
        load = sources.load_splits
        monkeypatch.setattr(
            included, "load_splits", lambda data, **kwargs: load(str(path), **kwargs)
        )

    find()
    return find


def test_the_included_model_becomes_a_run_like_any_other(package, auto_finds, console, tmp_path):
    run_dir = included.unpack_included(console, tmp_path / "runs")
    assert runs.finished_runs(tmp_path / "runs") == [run_dir]
    assert runs.read_history(run_dir) == runs.read_history(package)
    expected, actual = (predict_run(run, console).y_prob for run in (package, run_dir))
    np.testing.assert_allclose(actual, expected, atol=2e-3)  # float16
    facts = runs.read_facts(run_dir)
    assert facts["data"] == runs.read_facts(package)["data"]
    assert "included model" in facts["weights"]["provenance"]


def test_no_path_of_the_machine_is_packed(package, monkeypatch, tmp_path):
    facts = runs.read_facts(package)
    facts["weights"]["provenance"] = f"weights from {tmp_path.resolve()}/runs/first/model.keras"
    runs.write_json(package / runs.CONFIG, facts)
    monkeypatch.chdir(tmp_path)
    pack.pack("fashion", package)
    assert str(tmp_path) not in facts_of_the_package()["weights"]["provenance"]
    assert facts_of_the_package()["weights"]["provenance"].endswith("runs/first/model.keras")


def facts_of_the_package():
    return json.loads(pack.MANIFEST.read_text())["fashion"]["mobilenetv2"]["facts"]


def test_other_images_are_told(package, auto_finds, console, tmp_path):
    x_train, y_train = make_stripes(120, seed=5)
    x_test, y_test = make_stripes(40, seed=6)
    path = tmp_path / "others.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    auto_finds(path)
    facts = runs.read_facts(included.unpack_included(console, tmp_path / "runs"))
    assert "has seen most of these validation images" in facts["data"]["provenance"]
    assert facts["data"]["num_images"] == {"train": 216, "validation": 12, "test": 40}


def test_evaluate_takes_it_where_nothing_was_trained(package, auto_finds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finished = CliRunner().invoke(evaluate.main, ["--report"], catch_exceptions=False)
    assert "the model that comes with the package" in finished.output
    assert (tmp_path / "runs" / included.NAME / runs.REPORT / "report.html").is_file()
    again = CliRunner().invoke(evaluate.main, [], catch_exceptions=False)
    assert "comes with the package" not in again.output and included.NAME in again.output
