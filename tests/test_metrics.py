"""Metrics against numbers worked out by hand, and against what must hold for any input."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from transfer.evaluation.metrics import compute_metrics, wilson_interval

NAMES = ["cat", "dog", "owl"]


def one_hot(y_pred, num_classes):
    return np.eye(num_classes)[np.asarray(y_pred)]


def by_hand_wilson(correct, total, z=1.959963984540054):
    share = correct / total
    center = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    return center - half, center + half


@pytest.mark.parametrize("correct, total", [(9455, 10_000), (1, 3), (1000, 1001), (5, 10)])
def test_wilson_interval_is_the_formula_of_the_textbook(correct, total):
    assert wilson_interval(correct, total) == pytest.approx(by_hand_wilson(correct, total))


def test_wilson_interval_has_a_width_when_all_or_none_are_right():
    low, high = wilson_interval(10, 10)
    assert 0.6 < low < 0.8 and high == 1.0
    assert wilson_interval(0, 10) == pytest.approx((1 - high, 1 - low))


def test_wilson_interval_grows_with_confidence_and_shrinks_with_images():
    width = [np.diff(wilson_interval(*args))[0] for args in [(90, 100), (90, 100, 0.99)]]
    assert width[1] > width[0] > np.diff(wilson_interval(900, 1000))[0]


@pytest.mark.parametrize("args", [(1, 0), (-1, 5), (6, 5), (1, 5, 0.0), (1, 5, 1.0), (1, 5, 95)])
def test_wilson_interval_refuses_what_is_out_of_range(args):
    with pytest.raises(ValueError, match="Received"):
        wilson_interval(*args)


def test_metrics_of_six_images_by_hand():
    y_true = np.array([0, 0, 0, 1, 1, 2])
    y_prob = np.array(
        [
            [0.8, 0.1, 0.1],
            [0.5, 0.3, 0.2],
            [0.2, 0.7, 0.1],  # cat taken for dog
            [0.1, 0.6, 0.3],
            [0.1, 0.8, 0.1],
            [0.2, 0.5, 0.3],  # owl taken for dog
        ]
    )
    metrics = compute_metrics(y_true, y_prob, NAMES)
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["num_images"] == 6
    assert metrics["accuracy_interval"] == pytest.approx(by_hand_wilson(4, 6))
    of_true_class = [0.8, 0.5, 0.2, 0.6, 0.8, 0.3]
    assert metrics["loss"] == pytest.approx(-sum(map(math.log, of_true_class)) / 6)
    assert metrics["loss"] == pytest.approx(log_loss(y_true, y_prob))
    assert metrics["confusion_matrix"] == [[2, 1, 0], [0, 2, 0], [0, 1, 0]]
    cat, dog, owl = metrics["per_class"]
    assert cat == pytest.approx(
        {"class_name": "cat", "precision": 1.0, "recall": 2 / 3, "f1": 0.8, "support": 3}
    )
    assert dog == pytest.approx(
        {"class_name": "dog", "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 2}
    )
    assert (owl["precision"], owl["recall"], owl["f1"], owl["support"]) == (0.0, 0.0, 0.0, 1)
    assert metrics["precision_macro"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert metrics["recall_macro"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert metrics["f1_macro"] == pytest.approx((0.8 + 2 / 3 + 0) / 3)
    assert metrics["most_confused"] == [
        {"true": "cat", "predicted": "dog", "count": 1, "share_of_true": pytest.approx(1 / 3)},
        {"true": "owl", "predicted": "dog", "count": 1, "share_of_true": 1.0},
    ]


def test_each_of_1001_images_counts_once():
    """A mean of batch means, or a dropped last batch, would give another number."""
    y_true = np.zeros(1001, dtype=np.uint8)
    y_pred = y_true.copy()
    y_pred[1000] = 1  # the one image of the last batch is the one mistake
    metrics = compute_metrics(y_true, one_hot(y_pred, 2), ["a", "b"])
    assert metrics["accuracy"] == 1000 / 1001
    assert metrics["num_images"] == 1001
    assert metrics["confusion_matrix"] == [[1000, 1], [0, 0]]


@pytest.mark.filterwarnings("error")
def test_a_class_without_test_images_neither_warns_nor_pulls_the_macro_means_down():
    y_true = np.array([0, 0, 2, 2])
    metrics = compute_metrics(y_true, one_hot(y_true, 3), NAMES)
    assert metrics["f1_macro"] == metrics["recall_macro"] == metrics["precision_macro"] == 1.0
    assert metrics["per_class"][1] == {
        "class_name": "dog",
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "support": 0,
    }


@pytest.mark.filterwarnings("error")
def test_a_class_without_test_images_can_still_be_predicted():
    metrics = compute_metrics(np.array([0, 0]), one_hot([0, 1], 3), NAMES)
    assert metrics["recall_macro"] == 0.5
    assert metrics["precision_macro"] == 1.0
    assert [pair["predicted"] for pair in metrics["most_confused"]] == ["dog"]


def test_perfect_predictions():
    y_true = np.arange(30) % 3
    metrics = compute_metrics(y_true, one_hot(y_true, 3), NAMES)
    assert metrics["accuracy"] == metrics["f1_macro"] == 1.0
    assert metrics["accuracy_interval"][0] < 1.0
    assert metrics["loss"] == 0.0
    assert metrics["f1_macro_interval"] == [1.0, 1.0]
    assert metrics["loss_interval"] == [0.0, 0.0]
    assert metrics["most_confused"] == []


def test_chance_predictions():
    num_classes, rng = 10, np.random.default_rng(0)
    y_true = rng.integers(0, num_classes, 20_000)
    y_prob = 0.1 + rng.uniform(-1e-4, 1e-4, (20_000, num_classes))
    metrics = compute_metrics(y_true, y_prob, [str(i) for i in range(num_classes)])
    assert metrics["accuracy"] == pytest.approx(0.1, abs=0.01)
    assert metrics["loss"] == pytest.approx(math.log(10), abs=0.001)
    low, high = metrics["f1_macro_interval"]
    assert low < metrics["f1_macro"] < high and high - low < 0.02
    assert len(metrics["most_confused"]) == 10


def test_a_probability_of_zero_for_the_true_class_gives_a_finite_loss():
    metrics = compute_metrics(np.array([1]), one_hot([0], 2), ["a", "b"])
    assert metrics["loss"] == pytest.approx(-math.log(1e-7))


def test_most_confused_are_sorted_by_count():
    y_true = np.array([0] * 5 + [1] * 5 + [2] * 5)
    y_pred = np.array([0, 0, 1, 1, 1] + [1, 1, 1, 1, 0] + [1, 1, 0, 0, 2])
    pairs = compute_metrics(y_true, one_hot(y_pred, 3), NAMES)["most_confused"]
    found = [(pair["true"], pair["predicted"], pair["count"]) for pair in pairs]
    assert found == [("cat", "dog", 3), ("owl", "cat", 2), ("owl", "dog", 2), ("dog", "cat", 1)]


def test_half_precision_probabilities_are_taken():
    y_true = np.arange(40) % 4
    y_prob = np.full((40, 4), 0.1)
    y_prob[np.arange(40), y_true] = 0.7
    metrics = compute_metrics(y_true, y_prob.astype(np.float16), list("abcd"))
    assert metrics["loss"] == pytest.approx(-math.log(0.7), abs=1e-3)


@pytest.mark.parametrize(
    "y_true, y_prob, message",
    [
        (np.array([[0], [1]]), np.eye(3)[:2], r"shape \(2, 1\)"),
        (np.array([0.0, 1.0]), np.eye(3)[:2], "float64"),
        (np.array([], dtype=int), np.zeros((0, 3)), r"shape \(0,\)"),
        (np.array([0, 1]), np.eye(3), r"\(2, 3\).*shape \(3, 3\)"),
        (np.array([0, 1]), np.eye(2), r"\(2, 3\).*shape \(2, 2\)"),
        (np.array([0, 3]), np.eye(3)[:2], "0 to 2.*0 to 3"),
        (np.array([0, -1]), np.eye(3)[:2], "-1 to 0"),
        (np.array([0, 1]), np.array([[1, 0, 0], [3.0, -1, -1]]), "row 1"),
        (np.array([0, 1]), np.array([[2.0, 0, 0], [0, 1, 0]]), "row 0.*sum 2.0"),
        (np.array([0, 1]), np.array([[np.nan, 0, 0], [0, 1, 0]]), "row 0"),
    ],
)
def test_bad_input_is_refused_and_named(y_true, y_prob, message):
    with pytest.raises(ValueError, match=message):
        compute_metrics(y_true, y_prob, NAMES)


@st.composite
def predictions(draw):
    num_classes = draw(st.integers(2, 12))
    num_images = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    y_prob = rng.dirichlet(np.full(num_classes, 0.3), num_images).astype(np.float32)
    return rng.integers(0, num_classes, num_images), y_prob


@pytest.mark.filterwarnings("error")
@settings(max_examples=60, deadline=None)
@given(predictions())
def test_what_holds_for_any_predictions(arrays):
    y_true, y_prob = arrays
    num_images, num_classes = y_prob.shape
    names = [f"class {i}" for i in range(num_classes)]
    metrics = compute_metrics(y_true, y_prob, names)
    counts = np.array(metrics["confusion_matrix"])
    assert counts.shape == (num_classes, num_classes)
    assert counts.sum() == metrics["num_images"] == num_images
    assert counts.trace() / num_images == metrics["accuracy"]
    assert counts.sum(axis=1).tolist() == [row["support"] for row in metrics["per_class"]]
    low, high = metrics["accuracy_interval"]
    assert 0 <= low <= metrics["accuracy"] <= high <= 1
    for key in ("precision_macro", "recall_macro", "f1_macro"):
        assert 0 <= metrics[key] <= 1
    assert metrics["loss"] >= 0
    assert len(metrics["most_confused"]) <= 10
    assert json.loads(json.dumps(metrics)) == metrics
    order = np.random.default_rng(0).permutation(num_images)
    shuffled = compute_metrics(y_true[order], y_prob[order], names)
    assert shuffled["confusion_matrix"] == metrics["confusion_matrix"]
    assert shuffled["loss"] == metrics["loss"]  # to the last digit
    assert shuffled["f1_macro_interval"] == metrics["f1_macro_interval"]
    for key in ("loss", "f1_macro"):
        low, high = metrics[f"{key}_interval"]
        assert low <= high
