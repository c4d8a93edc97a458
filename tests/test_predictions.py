"""Predictions of a finished run, and what evaluation makes of several."""

import csv
import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.conftest import make_stripes, printed
from transfer import machine
from transfer.commands.evaluate import main as evaluate_command
from transfer.config import Config
from transfer.data.fingerprints import fingerprint
from transfer.data.pipeline import make_training_dataset
from transfer.datasets.sources import load_splits
from transfer.errors import InputError
from transfer.evaluation import comparison, predictions
from transfer.evaluation.calibration import LEAST_IMAGES, fit_calibration
from transfer.evaluation.evaluated import evaluate_combinations, evaluate_run, to_json
from transfer.evaluation.metrics import compute_metrics
from transfer.evaluation.predictions import (
    mean_predictions,
    predict_run,
    predictions_csv,
)
from transfer.machine import has_accelerator
from transfer.models import precision
from transfer.report import run_report
from transfer.report.pictures import augmented_views, class_counts
from transfer.runs import files
from transfer.runs.facts import read_facts
from transfer.runs.finished import FinishedRun
from transfer.runs.predictions import Predictions, load_predictions
from transfer.storage.atomic import read_json, write_json
from transfer.storage.csv_text import original_cell
from transfer.training.run import train

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A test set of 1,001 images: no batch size divides it."""
    x_train, y_train = make_stripes(120)
    x_test, y_test = make_stripes(1001, seed=1)
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


@pytest.fixture
def config(tiny_backbone, data):
    return Config(
        backbone=tiny_backbone,
        data=str(data),
        weights="none",
        image_size=32,
        batch_size=32,
        finetune_epochs=2,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Where the one training of this module leaves its run."""
    return tmp_path_factory.mktemp("trained") / "first"


@pytest.fixture
def run_dir(config, trained, tmp_path):
    """A copy of a finished run, trained once."""
    if not trained.is_dir():
        train(config, run_dir=trained)
    return shutil.copytree(trained, tmp_path / "runs" / "first")


def change_facts(run_dir, **data):
    """Changes what a run says of its data."""
    facts = read_facts(run_dir)
    dataclasses.replace(facts, data=dataclasses.replace(facts.data, **data)).write(run_dir)


def test_every_test_image_is_counted_once_in_order(run_dir):
    kept = predict_run(FinishedRun(run_dir))
    images, labels = make_stripes(1001, seed=1)
    assert kept.y_prob.shape == (1001, 2) and kept.y_prob.dtype == np.float32
    np.testing.assert_array_equal(kept.y_true, labels)
    metrics = compute_metrics(kept.y_true, kept.y_prob, ["0", "1"])
    correct = int((kept.y_prob.argmax(axis=1) == labels).sum())
    assert metrics["num_images"] == 1001 == np.sum(metrics["confusion_matrix"])
    assert metrics["accuracy"] == correct / 1001
    again = load_predictions(run_dir, read_facts(run_dir))
    np.testing.assert_array_equal(again.y_prob, kept.y_prob)


def test_kept_predictions_are_read_not_made_again(run_dir, monkeypatch):
    predict_run(FinishedRun(run_dir))
    monkeypatch.setattr(predictions, "_predict", lambda *args: pytest.fail("predicted twice"))
    predict_run(FinishedRun(run_dir))


WITHOUT_TENSORFLOW = """
import sys

from transfer.commands.main import main

runs = sys.argv[1:]
for words in (["evaluate", *runs], ["compare", *runs], ["runs", "runs"], ["weights"], ["cache"]):
    main(words, standalone_mode=False)
    assert not {"tensorflow", "keras", "jax"} & set(sys.modules), words
"""


def test_what_is_kept_is_told_without_tensorflow(run_dir, tmp_path):
    settings = {"backbone": "mobilenetv2"}  # the tiny one is not known to another process
    written = read_json(run_dir / files.CONFIG)
    for part in ("settings", "settled"):
        written[part] |= settings
    predict_run(FinishedRun(run_dir))
    write_json(run_dir / files.CONFIG, written)
    shutil.copytree(run_dir, run_dir.parent / "second")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, run_dir, run_dir.parent / "second"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Accuracy on the test images" in done.stdout and "second" in done.stdout


@pytest.mark.parametrize("part", ["test", "validation"])
def test_changed_images_are_refused(run_dir, tmp_path, part):
    x_train, y_train = make_stripes(120, seed=0 if part == "test" else 2)
    x_test, y_test = make_stripes(1001, seed=2 if part == "test" else 1)
    path = tmp_path / "changed.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    change_facts(run_dir, location=str(path))
    with pytest.raises(InputError, match=f"the {part} images .* changed since it was trained"):
        predict_run(FinishedRun(run_dir), part)


def test_validation_and_mirrored_images_are_predicted_and_kept_apart(run_dir, config, monkeypatch):
    run = FinishedRun(run_dir)
    test = predict_run(run)
    validation = predict_run(run, predictions.VALIDATION)
    np.testing.assert_array_equal(validation.y_true, run.split("validation").labels)
    assert validation.y_prob.shape == (12, 2)
    flipped = predict_run(run, predictions.FLIPPED)
    np.testing.assert_array_equal(flipped.y_true, test.y_true)
    mirrored = run.split("test")
    mirrored = dataclasses.replace(mirrored, images=mirrored.images[:, :, ::-1])
    expected = predictions.predict_split(run.predictor, mirrored, config)
    np.testing.assert_allclose(flipped.y_prob, expected, atol=1e-5)
    assert not np.allclose(flipped.y_prob, test.y_prob, atol=1e-4)
    monkeypatch.setattr(predictions, "_predict", lambda *args: pytest.fail("predicted twice"))
    for part, kept in (("test", test), ("validation", validation), ("flipped", flipped)):
        again = load_predictions(run_dir, run.facts, part)
        np.testing.assert_array_equal(again.y_prob, kept.y_prob)


def test_the_mean_of_predictions_is_of_probabilities_and_of_the_same_images():
    y_true = np.array([0, 1])
    first = Predictions(y_true, np.array([[0.9, 0.1], [0.6, 0.4]], np.float32))
    second = Predictions(y_true, np.array([[0.5, 0.5], [0.2, 0.8]], np.float32))
    mean = mean_predictions([first, second])
    assert mean.y_prob.dtype == np.float32
    np.testing.assert_allclose(mean.y_prob, [[0.7, 0.3], [0.4, 0.6]], rtol=1e-6)
    with pytest.raises(ValueError, match="other labels"):
        mean_predictions([first, Predictions(y_true[::-1], second.y_prob)])


def test_csv_of_predictions_keeps_every_digit_and_any_name():
    y_prob = np.array([[0.1, 0.9], [2 / 3, 1 / 3]], np.float32)
    text = predictions_csv(np.array([0, 0]), y_prob, ["a, b", 'c "d"'], temperature=2.0)
    header, *rows = csv.reader(io.StringIO(text))
    columns = ["index", "true", "predicted", "confidence", "calibrated_confidence"]
    assert header == [*columns, "p a, b", 'p c "d"']
    assert [row[:3] for row in rows] == [["0", "a, b", 'c "d"'], ["1", "a, b", "a, b"]]
    assert [float(row[3]) for row in rows] == y_prob.max(axis=1).tolist()
    assert [[float(cell) for cell in row[5:]] for row in rows] == y_prob.tolist()
    # softmax(log(p) / 2) is in proportion to the square roots
    roots = np.sqrt(y_prob.astype(float))
    expected = (roots / roots.sum(axis=1, keepdims=True)).max(axis=1)
    assert [float(row[4]) for row in rows] == pytest.approx(expected)
    without = predictions_csv(np.array([0, 0]), y_prob, ["a", "b"])
    assert [row["calibrated_confidence"] for row in csv.DictReader(io.StringIO(without))] == [
        ""
    ] * 2


def test_no_class_is_a_formula_in_a_csv():
    names = ['=HYPERLINK("x")', "@SUM(A1)", "+1", "-2", "'=3", "'quoted", "\tx", "a=b"]
    text = predictions_csv(np.arange(8), np.eye(8, dtype=np.float32), names)
    rows = list(csv.DictReader(io.StringIO(text)))
    for row, name in zip(rows, names, strict=True):
        assert row["true"][0] not in "=+-@\t" and row["true"] == row["predicted"]
        assert original_cell(row["true"]) == name


def test_a_config_that_lacks_a_part_is_told(run_dir):
    facts = read_json(run_dir / files.CONFIG)
    del facts["weights"]
    write_json(run_dir / files.CONFIG, facts)
    with pytest.raises(InputError, match="no weights"):
        FinishedRun(run_dir)


@pytest.mark.skipif(has_accelerator(), reason="with a GPU XLA is fast")
def test_no_xla_on_a_cpu(run_dir):
    assert FinishedRun(run_dir).predictor.jit_compile is False


@pytest.mark.parametrize("to_predict", [True, False])
def test_it_predicts_in_the_format_that_is_fastest_and_explains_in_that_of_the_training(
    run_dir, monkeypatch, to_predict
):
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset({precision.AVX512}))
    monkeypatch.setattr(precision, "has_accelerator", lambda: False)
    run = FinishedRun(run_dir)
    classifier = run.predictor if to_predict else run.classifier
    formats = {layer.compute_dtype for layer in classifier.get_layer("backbone").layers}
    assert ("bfloat16" in formats) == to_predict


def test_predictions_that_are_damaged_or_forged_are_made_again_and_that_is_said(run_dir):
    run, path = FinishedRun(run_dir), run_dir / files.PREDICTIONS
    kept = predict_run(run)
    content = path.read_bytes()
    with np.load(path) as arrays:
        forged = {**arrays, "y_prob": np.eye(2, dtype=np.float32)[kept.y_true]}
    np.savez(path, **forged)
    assert "not of this model" in printed(predict_run, run, width=300)
    np.testing.assert_array_equal(predict_run(run).y_prob, kept.y_prob)
    path.write_bytes(content[:-30])
    assert "predicted again" in printed(predict_run, run, width=300)
    assert printed(predict_run, run) == ""


def test_predictions_of_versions_that_named_no_engine_are_read(run_dir, tmp_path):
    folder = shutil.copytree(run_dir, tmp_path / "older")
    facts, path = read_facts(folder), folder / files.PREDICTIONS
    now = predict_run(FinishedRun(folder))
    assert now.engine and load_predictions(folder, facts).engine == now.engine
    digest = hashlib.sha256(hashlib.sha256((folder / files.MODEL).read_bytes()).digest())
    digest.update(f"test {facts.data.fingerprints['test']} {now.y_prob.shape}\n".encode())
    digest.update(now.y_true.tobytes() + now.y_prob.tobytes())
    sha256 = np.frombuffer(digest.digest(), np.uint8)
    np.savez(path, y_true=now.y_true, y_prob=now.y_prob, sha256=sha256)
    assert load_predictions(folder, facts).engine == ""
    for engine in (np.frombuffer(b"another", np.uint8), np.float64(1)):  # bound like all else
        np.savez(path, y_true=now.y_true, y_prob=now.y_prob, sha256=sha256, engine=engine)
        assert load_predictions(folder, facts) is None


def test_predictions_that_cannot_be_kept_are_a_result_all_the_same(run_dir, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device", str(run_dir))

    monkeypatch.setattr(predictions, "keep_predictions", full)
    told = printed(predict_run, FinishedRun(run_dir), width=500)
    assert "are not kept" in told and "No space left on device" in told


def test_other_runs_on_the_same_images_join_the_table(run_dir):
    predict_run(FinishedRun(run_dir))
    same = shutil.copytree(run_dir, run_dir.with_name("same"))
    elsewhere = shutil.copytree(run_dir, run_dir.with_name("other_images"))
    prints = read_facts(run_dir).data.fingerprints
    change_facts(elsewhere, fingerprints=prints | {"test": "of other images"})
    run_dir.with_name("unfinished").mkdir()
    evaluated = [evaluate_run(FinishedRun(run_dir))]
    others = comparison.evaluate_others(evaluated)
    assert [run.run_dir.name for run in others] == ["same"]
    rows = run_report.table_rows(evaluated + others, all_baselines=False)
    assert [row.source for row in rows] == [str(run_dir), str(same)]
    assert rows[0].training_images == 108 and rows[0].num_test_images == 1001


@pytest.fixture
def two_runs(run_dir):
    """Two runs on the same images that predict differently, without a network."""
    generator = np.random.default_rng(0)
    y_true = make_stripes(1001, seed=1)[1]
    evaluated = []
    for name, skill in (("a", 0.9), ("b", 0.3)):
        folder = shutil.copytree(run_dir, run_dir.with_name(name))
        for part in (predictions.TEST, predictions.FLIPPED):
            y_prob = generator.dirichlet(np.ones(2), 1001) * (1 - skill) + np.eye(2)[y_true] * skill
            y_prob[:100] = y_prob[:100, ::-1]  # mistakes of both
            made = Predictions(y_true, y_prob.astype(np.float32))
            predictions.keep_predictions(folder, read_facts(folder), made, part)
        evaluated.append(evaluate_run(FinishedRun(folder)))
    return evaluated


def test_ensembles_and_flips_are_rows_of_their_own(two_runs):
    a, b = two_runs
    combined = evaluate_combinations(two_runs, ensemble=True, tta=True)
    flips_a, flips_b, ensemble, ensemble_of_flips = combined
    for run in (a, b):  # the runs' own numbers are what they were
        again = evaluate_run(FinishedRun(run.run_dir))
        assert again.metrics == run.metrics
    mean = (a.predictions.y_prob + b.predictions.y_prob) / 2
    np.testing.assert_allclose(ensemble.predictions.y_prob, mean, rtol=1e-6)
    flipped = load_predictions(a.run_dir, a.facts, predictions.FLIPPED).y_prob
    mean = (a.predictions.y_prob + flipped) / 2
    np.testing.assert_allclose(flips_a.predictions.y_prob, mean, rtol=1e-6)
    mean = (flips_a.predictions.y_prob + flips_b.predictions.y_prob) / 2
    np.testing.assert_allclose(ensemble_of_flips.predictions.y_prob, mean, rtol=1e-6)
    rows = run_report.table_rows([*two_runs, *combined], all_baselines=False)
    single = "tiny, 32 px, from scratch"
    assert {(row.model, row.source) for row in rows} == {
        (f"a: {single}", str(a.run_dir)),
        (f"b: {single}", str(b.run_dir)),
        (f"a: {single}, with flips", str(a.run_dir)),
        (f"b: {single}, with flips", str(b.run_dir)),
        ("ensemble of 2 runs", f"{a.run_dir} + {b.run_dir}"),
        ("ensemble of 2 runs, with flips", f"{a.run_dir} + {b.run_dir}"),
    }
    assert len(rows) == 6
    assert rows == sorted(rows, key=lambda row: -row.accuracy)  # the best first
    assert len({(row.accuracy, row.loss) for row in rows}) == 6
    values = [to_json(run) for run in (a, flips_a, ensemble)]
    assert [value["test_time_flips"] for value in values] == [False, True, False]
    assert [value.get("ensemble_of") for value in values] == [
        None,
        None,
        [str(a.run_dir), str(b.run_dir)],
    ]


def test_the_first_run_is_compared_with_what_saw_the_same_images(two_runs):
    a, b = two_runs
    (ensemble,) = evaluate_combinations(two_runs, ensemble=True, tta=False)
    change_facts(b.run_dir, class_names=["other", "names"])
    other = evaluate_run(FinishedRun(b.run_dir))
    found = comparison.compare_runs([a, b, ensemble, other])
    assert [pair.name_b for pair in found] == [str(b.run_dir), "the ensemble of 2 runs"]
    assert found[0].accuracy_a == a.metrics["accuracy"]
    assert found[0].accuracy_b == b.metrics["accuracy"]
    assert run_report.OTHER_IMAGES in run_report.table_note([a, other])
    assert run_report.OTHER_IMAGES not in run_report.table_note([a, b, ensemble])


def change_settings(run_dir, **values):
    facts = read_facts(run_dir)
    settings = dataclasses.replace(facts.settings, **values)
    dataclasses.replace(facts, settings=settings).write(run_dir)


def change_seed(run_dir, seed):
    change_settings(run_dir, seed=seed)


def test_runs_that_differ_in_their_seed_alone_are_repeats(two_runs):
    a, b = two_runs
    assert comparison.group_repeats(two_runs) == []  # the same seed twice is no repeat
    change_seed(b.run_dir, 7)
    again = evaluate_run(FinishedRun(b.run_dir))
    combined = evaluate_combinations([a, again], ensemble=True, tta=True)
    alone, flipped = comparison.group_repeats([again, a, *combined])
    assert alone.model == "tiny, 32 px, from scratch" and alone.seeds == (0, 7)
    assert alone.accuracies == (a.metrics["accuracy"], b.metrics["accuracy"])
    assert alone.losses == (a.metrics["loss"], b.metrics["loss"])
    assert flipped.model == "tiny, 32 px, from scratch, with flips"
    change_settings(b.run_dir, dropout=0.123)
    assert comparison.group_repeats([a, evaluate_run(FinishedRun(b.run_dir))]) == []


def test_an_ensemble_of_other_images_is_refused(two_runs):
    a, b = two_runs
    prints = read_facts(b.run_dir).data.fingerprints
    change_facts(b.run_dir, fingerprints=prints | {"test": "of other images"})
    facts = read_facts(b.run_dir)
    predictions.keep_predictions(b.run_dir, facts, b.predictions, predictions.TEST)
    other = evaluate_run(FinishedRun(b.run_dir))
    with pytest.raises(InputError, match="the same test images and classes"):
        evaluate_combinations([a, other], ensemble=True, tta=False)


def test_the_command_prints_each_row_of_its_own_as_json(two_runs):
    folders = [str(run.run_dir) for run in two_runs]
    done = CliRunner().invoke(evaluate_command, [*folders, "--ensemble", "--tta", "--json"])
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    kinds = [(value["test_time_flips"], "ensemble_of" in value) for value in values]
    assert kinds == [(False, False)] * 2 + [(True, False)] * 2 + [(False, True), (True, True)]
    assert values[0] == json.loads(json.dumps(to_json(two_runs[0])))


def test_an_ensemble_of_one_run_is_wrong_usage(run_dir):
    done = CliRunner().invoke(evaluate_command, [str(run_dir), "--ensemble"])
    assert done.exit_code == 2 and "name at least two" in done.stderr


def test_runs_side_by_side_are_told_apart_from_noise(two_runs):
    text = printed(run_report.print_run, two_runs[0], width=400)
    text += printed(run_report.print_side_by_side, two_runs, width=400)
    assert text.startswith(f"Run: {two_runs[0].run_dir}\nData: ")
    assert f"{two_runs[0].run_dir} is better than {two_runs[1].run_dir}: " in text
    assert ", p < 0.001\n" in text
    assert "McNemar" in text and "quoted" not in text


def test_published_rows_stand_beside_fashion_mnist_alone(run_dir):
    run = evaluate_run(FinishedRun(run_dir))
    assert "nothing is published" in run_report.table_note([run])
    change_facts(run_dir, name="fashion-mnist")
    fashion = evaluate_run(FinishedRun(run_dir))
    assert len(run_report.table_rows([fashion], all_baselines=False)) == 1 + 13 + 10
    assert len(run_report.table_rows([fashion], all_baselines=True)) == 1 + 126 + 10
    assert "our rows on 1,001 of them" in run_report.table_note([fashion])
    full = dataclasses.replace(fashion, metrics=run.metrics | {"num_images": 10_000})
    assert run_report.table_note([full]) is None


def test_the_report_names_what_was_used_and_shows_its_pictures(run_dir, monkeypatch, tmp_path):
    monkeypatch.setattr("transfer.plots.style.PICTURE_DPI", 30)  # half the time
    evaluated = [evaluate_run(FinishedRun(run_dir))]
    shutil.copytree(run_dir, run_dir.with_name("second"))
    shown = printed(run_report.report_runs, evaluated, [], width=400, all_baselines=False)
    path = run_dir / "report" / "report.md"
    text = path.read_text()
    assert evaluated[0].facts.data.provenance.split(":")[0] in text
    assert "random weights" in text
    for picture in ("learning_curves", "confusion_matrix_counts", "reject_curve"):
        assert f"({picture}.png)" in text and (path.parent / f"{picture}.png").is_file()
    sentence = f"{run_dir} and {run_dir.with_name('second')} are within noise: "
    assert sentence in shown and "are within noise" in text
    assert f"Report: {path}\nReport: {path.with_suffix('.html')}\n" in shown
    kept_epoch = r"kept the weights of epoch \d+, which has the lowest validation loss, [\d.]+, and"
    assert re.search(rf"{kept_epoch} validation accuracy [\d.]+ % \[[\d.]+, [\d.]+\]", text)
    kept = read_json(run_dir / files.CALIBRATION)
    validation = load_predictions(run_dir, read_facts(run_dir), predictions.VALIDATION)
    assert len(kept.pop("sha256")) == 64
    assert kept == fit_calibration(validation.y_true, validation.y_prob)
    assert kept["temperature"] is None and len(validation.y_true) < LEAST_IMAGES
    assert f"{len(validation.y_true)} validation images are too few" in text
    values = read_json(path.parent / "metrics.json")
    assert values["run_dir"] == str(run_dir) and values["calibration"]["temperature"] is None
    assert values["accuracy"] == evaluated[0].metrics["accuracy"]
    card = (run_dir / files.CARD).read_text()
    assert card.startswith("---\nlibrary_name: keras\n") and "\n# first\n" in card


def test_augmented_views_are_those_of_training(run_dir, config):
    run = FinishedRun(run_dir)
    originals, augmented = augmented_views(run)
    batches = make_training_dataset(run.split("train"), run.facts.settled, 2).take(4)
    shown = np.concatenate([images for images, _ in batches.as_numpy_iterator()])  # of epoch 0
    for view in augmented[:, 0]:
        assert (shown == view).all(axis=(1, 2, 3)).any()
    assert originals.shape == (4, 28, 28, 1) and augmented.shape == (4, 6, 32, 32, 3)
    assert not np.allclose(augmented[:, 0], augmented[:, 1])


# --- Data named by --data -------------------------------------------------------------------


def write_photos(root, count=12, names=("0", "1")):
    """Writes stripes as image files of classes, and returns images and labels in their order."""
    images, labels = make_stripes(count, seed=7)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / names[label] / "more"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / f"{number:02}.png")
    order = np.argsort(labels, kind="stable")
    return images[order], labels[order]


def test_data_that_was_moved_is_known_by_its_fingerprint(run_dir, data, tmp_path):
    expected = predict_run(FinishedRun(run_dir))
    (run_dir / files.PREDICTIONS).unlink()
    change_facts(run_dir, location=str(tmp_path / "gone.npz"))
    with pytest.raises(InputError, match="name where it is now: --data PATH"):
        predict_run(FinishedRun(run_dir))
    moved = shutil.copy(data, tmp_path / "moved.npz")
    run = FinishedRun(run_dir, str(moved))
    np.testing.assert_array_equal(predict_run(run).y_prob, expected.y_prob)
    assert not run.has_other_test and "the same test images" in run.facts.data.provenance
    assert run.images("validation").num_images == 12 and (run_dir / files.PREDICTIONS).exists()


def test_a_batch_to_predict_is_bounded_and_says_the_same(run_dir, monkeypatch):
    assert predictions.prediction_batch_size(Config(image_size=1024, batch_size=65_536)) == 6
    assert predictions.prediction_batch_size(Config(image_size=96, batch_size=256)) == 256
    expected = predict_run(FinishedRun(run_dir))
    (run_dir / files.PREDICTIONS).unlink()
    monkeypatch.setattr(
        predictions, "MOST_PIXELS", 5 * FinishedRun(run_dir).settings.image_size ** 2
    )
    np.testing.assert_allclose(predict_run(FinishedRun(run_dir)).y_prob, expected.y_prob, atol=1e-5)


def test_other_images_of_the_same_classes_are_scored_and_nothing_of_them_is_kept(
    run_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(run_report, "draw_pictures", lambda *args: [])  # most of the time
    own = predict_run(FinishedRun(run_dir))
    before = {path.name: path.read_bytes() for path in run_dir.iterdir() if path.is_file()}
    _, labels = write_photos(tmp_path / "photos")
    options = [str(run_dir), "--data", str(tmp_path / "photos"), "--report"]
    result = CliRunner().invoke(evaluate_command, options)
    assert result.exit_code == 0, result.output
    assert "OTHER DATA than the run's own: 12 images, all there are" in result.output
    report = run_dir / "report-on-photos"
    assert "OTHER DATA than the run's own" in (report / "report.md").read_text("utf-8")
    rows = list(csv.DictReader((report / "predictions.csv").open(newline="", encoding="utf-8")))
    assert [row["true"] for row in rows] == [str(label) for label in labels]
    assert [row["image"] for row in rows][:2] == ["0/more/00.png", "0/more/02.png"]
    assert json.loads((report / "metrics.json").read_text())["num_images"] == 12
    kept = {name: content for name, content in before.items() if name != files.CALIBRATION}
    assert all((run_dir / name).read_bytes() == content for name, content in kept.items())
    again = load_predictions(run_dir, FinishedRun(run_dir).facts)
    np.testing.assert_array_equal(again.y_prob, own.y_prob)


def test_labels_of_other_images_are_those_of_the_run_by_name(run_dir, tmp_path):
    change_facts(run_dir, class_names=("wide", "tall"))
    _, labels = write_photos(tmp_path / "photos", names=("wide", "tall"))
    run = FinishedRun(run_dir, str(tmp_path / "photos"))
    split = run.images("test")  # the folder's classes come in the order of their names
    assert sorted(split.labels.tolist()) == sorted(labels.tolist())
    assert all(
        ("wide", "tall")[y] in name for y, name in zip(split.labels, split.names, strict=True)
    )
    csv_path = tmp_path / "numbers.csv"
    rows = [",".join(["label", *(f"p{i}" for i in range(4))]), "1,0,255,0,0", "0,0,255,0,0"]
    csv_path.write_text("\n".join([*rows, ""]))
    run = FinishedRun(run_dir, str(csv_path))
    assert run.split("test").labels.tolist() == [1, 0]
    assert "taken for the run's classes in order" in run.facts.data.provenance
    write_photos(tmp_path / "others", names=("wide", "round"))
    with pytest.raises(InputError, match="classes of the run, wide, tall.*'round' besides"):
        FinishedRun(run_dir, str(tmp_path / "others"))
    with pytest.raises(InputError, match="does not exist"):
        FinishedRun(run_dir, str(tmp_path / "nowhere"))


def test_pictures_show_and_count_no_file_that_was_left_out(run_dir, tmp_path):
    write_photos(tmp_path / "photos", count=40)
    found = load_splits(str(tmp_path / "photos"))
    for path in found.train.images[[0, -1]]:  # some that would be shown
        Path(path).unlink()
        Path(path).symlink_to("nowhere")
    found = load_splits(str(tmp_path / "photos"))
    prints = {name: fingerprint(split) for name, split in found.parts().items()}
    change_facts(run_dir, location=str(tmp_path / "photos"), fingerprints=prints)
    facts = read_facts(run_dir)
    settings = dataclasses.replace(facts.settings, skip_bad_images=True)
    dataclasses.replace(facts, settings=settings).write(run_dir)
    run = FinishedRun(run_dir)
    assert sum(counts.sum() for counts in class_counts(run).values()) == 38
    originals, views = augmented_views(run)
    assert len(originals) == len(views) == 4
