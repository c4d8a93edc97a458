"""Classic classifiers: what they learn from, what they come to, and that it is kept."""

import dataclasses
import io
import json
import threading
import time

import numpy as np
import pytest
from rich.console import Console

from tests.conftest import make_stripes
from transfer import console
from transfer.data.splits import Split, Splits
from transfer.datasets.sources import load_splits
from transfer.evaluation import baselines, published


@pytest.fixture
def splits(stripes_npz):
    return load_splits(str(stripes_npz), limit=100)


def measure(splits):
    buffer = io.StringIO()
    with console.voice(Console(file=buffer, width=300)):
        measured = baselines.measure_baselines(splits.train, splits.validation, splits.test)
    return measured, buffer


def test_each_baseline_has_a_published_partner():
    published_ones = {(result.family, result.settings) for result in published.all_results()}
    families = [baseline.family for baseline in baselines.BASELINES]
    assert families == [
        "SVC",
        "MLPClassifier",
        "RandomForestClassifier",
        "KNeighborsClassifier",
        "LogisticRegression",
    ]
    assert {(one.family, one.settings) for one in baselines.BASELINES} <= published_ones


def test_the_classifiers_are_what_their_settings_say():
    made = {baseline.family: baseline.make().get_params() for baseline in baselines.BASELINES}
    svc, network = made["SVC"], made["MLPClassifier"]
    assert (svc["C"], svc["kernel"]) == (10, "rbf")
    assert (network["activation"], network["hidden_layer_sizes"]) == ("relu", (100,))
    forest, neighbours = made["RandomForestClassifier"], made["KNeighborsClassifier"]
    assert (forest["n_estimators"], forest["criterion"], forest["max_depth"]) == (
        100,
        "entropy",
        100,
    )
    assert (neighbours["weights"], neighbours["n_neighbors"], neighbours["p"]) == ("distance", 5, 1)
    assert made["LogisticRegression"]["estimator__C"] == 1


def test_all_images_but_the_test_images_are_learnt_from_and_results_are_kept(splits, monkeypatch):
    measured, output = measure(splits)
    count = splits.train.num_images + splits.validation.num_images
    assert {result.training_images for result in measured} == {count}
    assert {result.num_test_images for result in measured} == {61}
    assert measured[2].accuracy > 0.9  # a forest learns stripes
    assert f"{count} training and validation images, each of 784 values" in output.getvalue()
    assert "RandomForestClassifier (n_estimators=100" in output.getvalue()
    monkeypatch.setattr(baselines, "_test", lambda *args: pytest.fail("measured twice"))
    again, output = measure(splits)
    assert again == measured and output.getvalue().count("read from") == 5
    # The same images divided otherwise, as another seed does.
    swapped = dataclasses.replace(splits, train=splits.validation, validation=splits.train)
    assert measure(swapped)[0] == measured


def test_other_images_and_damaged_results_are_measured_again(splits, monkeypatch):
    monkeypatch.setattr(baselines, "_test", lambda classifier, data: 0.5)
    assert {result.accuracy for result in measure(splits)[0]} == {0.5}
    monkeypatch.setattr(baselines, "_test", lambda classifier, data: 0.25)
    other = dataclasses.replace(splits, test=splits.test.take(np.arange(60)))
    assert {result.accuracy for result in measure(other)[0]} == {0.25}
    for path in baselines.CACHE.folder.glob("*.json"):
        path.write_text(json.dumps({"family": "SVC"}))
    assert {result.accuracy for result in measure(splits)[0]} == {0.25}


def test_large_images_are_reduced(monkeypatch):
    seen = []
    monkeypatch.setattr(baselines, "_test", lambda classifier, data: seen.append(data) or 0.5)
    large, labels = make_stripes(12, size=64)
    large = np.repeat(large, 3, axis=-1)
    splits = Splits(
        Split(large, labels),
        Split(large[:4], labels[:4]),
        Split(large[:6], labels[:6]),
        ("a", "b"),
        "x",
        "",
    )
    measure(splits)
    assert seen[0].x_train.shape == (16, 32 * 32 * 3) and seen[0].x_test.shape == (6, 32 * 32 * 3)
    assert abs(seen[0].x_train.mean()) < 0.01 and seen[0].x_train.dtype == np.float32


def test_an_error_in_the_other_thread_comes_back():
    assert baselines._interruptible(lambda: 1.0) == 1.0
    with pytest.raises(ZeroDivisionError):
        baselines._interruptible(lambda: 1 / 0)


def test_ctrl_c_does_not_wait_for_the_end(monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(
        threading.Thread, "join", lambda thread: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        baselines._interruptible(lambda: ended.wait(5) and 0.0)
    assert time.monotonic() - started < 2
    ended.set()
