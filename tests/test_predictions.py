import dataclasses

import numpy as np
import pytest
from conftest import make_stripes
from rich.console import Console

from transfer import runs
from transfer.config import Config
from transfer.errors import InputError
from transfer.evaluation import comparison, predictions
from transfer.evaluation.metrics import compute_metrics
from transfer.evaluation.predictions import load_predictions, predict_run
from transfer.training.phases import train


@pytest.fixture
def console():
    return Console(quiet=True)


@pytest.fixture
def config(tiny_backbone, tmp_path):
    """A test set of 1,001 images: no batch size divides it."""
    x_train, y_train = make_stripes(120)
    x_test, y_test = make_stripes(1001, seed=1)
    path = tmp_path / "data" / "stripes.npz"
    path.parent.mkdir()
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return Config(
        backbone=tiny_backbone,
        data=str(path),
        weights="none",
        image_size=32,
        batch_size=32,
        finetune_epochs=2,
    )


@pytest.fixture
def run_dir(config, console, tmp_path):
    return train(config, console, run_dir=tmp_path / "runs" / "first").run_dir


def test_every_test_image_is_counted_once_in_order(run_dir, console):
    kept = predict_run(run_dir, console)
    images, labels = make_stripes(1001, seed=1)
    assert kept.y_prob.shape == (1001, 2) and kept.y_prob.dtype == np.float32
    np.testing.assert_array_equal(kept.y_true, labels)
    metrics = compute_metrics(kept.y_true, kept.y_prob, ["0", "1"])
    correct = int((kept.y_prob.argmax(axis=1) == labels).sum())
    assert metrics["num_images"] == 1001 == np.sum(metrics["confusion_matrix"])
    assert metrics["accuracy"] == correct / 1001
    again = load_predictions(run_dir)
    np.testing.assert_array_equal(again.y_prob, kept.y_prob)


def test_kept_predictions_are_read_not_made_again(run_dir, console, monkeypatch):
    predict_run(run_dir, console)
    monkeypatch.setattr(predictions, "_predict", lambda *args: pytest.fail("predicted twice"))
    predict_run(run_dir, console)


def test_changed_test_images_are_refused(run_dir, config, console):
    x_train, y_train = make_stripes(120)
    x_test, y_test = make_stripes(1001, seed=2)
    np.savez(config.data, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    with pytest.raises(InputError, match="changed since it was trained"):
        predict_run(run_dir, console)


def test_a_config_that_lacks_a_part_is_told(run_dir, console):
    facts = runs.read_facts(run_dir)
    del facts["weights"]
    runs.write_json(run_dir / runs.CONFIG, facts)
    with pytest.raises(InputError, match="no weights"):
        comparison.evaluate_run(run_dir, console)


def test_damaged_predictions_are_told(run_dir):
    (run_dir / runs.PREDICTIONS).write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="Delete it"):
        load_predictions(run_dir)


def test_other_runs_on_the_same_images_join_the_table(run_dir, config, console, tmp_path):
    train(config, console, run_dir=tmp_path / "runs" / "same")
    limited = dataclasses.replace(config, limit=50)
    train(limited, console, run_dir=tmp_path / "runs" / "other_images")
    (tmp_path / "runs" / "unfinished").mkdir()
    evaluated = [comparison.evaluate_run(run_dir, console)]
    others = comparison.evaluate_others(evaluated, console)
    assert [run.run_dir.name for run in others] == ["same"]
    rows = comparison.table_rows(evaluated + others, all_baselines=False)
    assert [row.source for row in rows] == [str(run_dir), str(tmp_path / "runs" / "same")]
    assert rows[0].training_images == 108 and rows[0].num_test_images == 1001


def test_published_rows_stand_beside_fashion_mnist_alone(run_dir, console):
    run = comparison.evaluate_run(run_dir, console)
    assert "nothing is published" in comparison.table_note(run)
    fashion = dataclasses.replace(
        run, facts=run.facts | {"data": run.facts["data"] | {"name": "fashion-mnist"}}
    )
    assert len(comparison.table_rows([fashion], all_baselines=False)) == 1 + 13
    assert len(comparison.table_rows([fashion], all_baselines=True)) == 1 + 126
    assert "our rows on 1,001 of them" in comparison.table_note(fashion)
    full = dataclasses.replace(fashion, metrics=run.metrics | {"num_images": 10_000})
    assert comparison.table_note(full) is None


def test_the_report_names_what_was_used_and_shows_its_pictures(run_dir, console):
    run = comparison.evaluate_run(run_dir, console)
    path = comparison.write_run_report(run, comparison.table_rows([run], all_baselines=False))
    text = path.read_text()
    assert run.facts["data"]["provenance"].split(":")[0] in text
    assert "random weights" in text
    for picture in ("learning_curves", "confusion_matrix_counts", "confusion_matrix_shares"):
        assert f"({picture}.png)" in text and (path.parent / f"{picture}.png").is_file()


def test_augmented_views_are_those_of_training(run_dir, config, console):
    splits = comparison.load_run_splits(runs.read_facts(run_dir))
    originals, augmented = comparison.augmented_views(splits.train, config)
    assert originals.shape == (4, 28, 28, 1) and augmented.shape == (4, 6, 32, 32, 3)
    assert not np.allclose(augmented[:, 0], augmented[:, 1])
