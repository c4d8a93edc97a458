"""Intervals and tests against brute force, SciPy and numbers worked out by hand."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap
from sklearn.metrics import confusion_matrix, f1_score

from transfer.evaluation.metrics import cross_entropies
from transfer.evaluation.significance import (
    PairedComparison,
    bootstrap_macro_f1,
    bootstrap_mean,
    compare_pairs,
    holm,
    mcnemar_exact,
)


def test_the_interval_of_a_mean_is_that_of_scipy():
    values = np.random.default_rng(0).exponential(size=400)
    expected = bootstrap(
        (values,), np.mean, n_resamples=4_000, method="percentile", rng=1
    ).confidence_interval
    assert bootstrap_mean(values) == pytest.approx(tuple(expected), abs=0.02)


def test_the_interval_of_macro_f1_is_that_of_images_drawn_again_and_again():
    rng = np.random.default_rng(0)
    y_true = rng.integers(0, 4, 300)
    y_pred = np.where(rng.random(300) < 0.7, y_true, rng.integers(0, 4, 300))
    scores = []
    for _ in range(250):
        drawn = rng.integers(300, size=300)
        scores.append(f1_score(y_true[drawn], y_pred[drawn], average="macro"))
    expected = np.quantile(scores, [0.025, 0.975])
    found = bootstrap_macro_f1(confusion_matrix(y_true, y_pred))
    assert found == pytest.approx(expected, abs=0.012)


def test_intervals_are_the_same_every_time_and_wider_with_more_confidence():
    values, counts = np.arange(50.0), [[20, 5], [8, 17]]
    for make, data in ((bootstrap_mean, values), (bootstrap_macro_f1, counts)):
        low, high = make(data)
        assert make(data) == (low, high) != make(data, seed=1)
        wider = make(data, confidence=0.99)
        assert wider[0] < low < high < wider[1]


@pytest.mark.filterwarnings("error")
def test_a_class_that_a_resample_lacks_does_not_pull_its_mean_down():
    # One image of class b: a third of the resamples have none, and their mean is that of a.
    low, high = bootstrap_macro_f1([[200, 0, 0], [0, 1, 0], [0, 0, 0]])
    assert (low, high) == (1.0, 1.0)
    assert bootstrap_macro_f1([[1]]) == (1.0, 1.0)


def test_ten_thousand_images_take_less_than_five_seconds():
    rng = np.random.default_rng(0)
    y_true = rng.integers(0, 10, 10_000)
    y_prob = rng.dirichlet(np.ones(10), 10_000)
    started = time.process_time()
    bootstrap_mean(cross_entropies(y_true, y_prob))
    bootstrap_macro_f1(confusion_matrix(y_true, y_prob.argmax(axis=1)))
    assert time.process_time() - started < 5


def flags(only_a, only_b, both=3, neither=2):
    a = [True] * (only_a + both) + [False] * (only_b + neither)
    b = [False] * only_a + [True] * (both + only_b) + [False] * neither
    return np.array(a), np.array(b)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [(0, 0, 1.0), (5, 0, 2 / 2**5), (1, 8, 2 * (1 + 9) / 2**9), (4, 4, 1.0)],
)
def test_mcnemar_is_the_throw_of_a_coin_for_each_image_they_differ_on(only_a, only_b, p_value):
    assert mcnemar_exact(*flags(only_a, only_b)) == pytest.approx(p_value)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_knows_no_side_and_ignores_what_both_get_right_or_wrong(only_a, only_b):
    a, b = flags(only_a, only_b)
    p_value = mcnemar_exact(a, b)
    assert 0 < p_value <= 1
    assert mcnemar_exact(b, a) == pytest.approx(p_value)
    assert mcnemar_exact(*flags(only_a, only_b, both=500, neither=90)) == p_value


def test_mcnemar_refuses_other_images():
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        mcnemar_exact(np.ones(2), np.ones(3))


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]


def test_a_sentence_names_the_better_one_first_or_says_noise():
    def sentence(accuracy_a, accuracy_b, p_value):
        return PairedComparison("A", "B", accuracy_a, accuracy_b, p_value).sentence()

    assert sentence(0.946, 0.941, 0.01) == "A is better than B: 94.60 % against 94.10 %, p = 0.01"
    assert sentence(0.90, 0.941, 1e-9) == "B is better than A: 94.10 % against 90.00 %, p < 0.001"
    noise = "A and B are within noise: 94.60 % against 94.50 %, p = 0.41"
    assert sentence(0.946, 0.945, 0.412) == noise
    assert "within noise" in sentence(0.946, 0.945, 0.05)


def test_the_first_is_compared_with_each_other_one():
    a, b = flags(12, 1)
    found = compare_pairs([("A", a), ("B", b), ("again A", a)], with_first_alone=True)
    assert [(pair.name_a, pair.name_b) for pair in found] == [("A", "B"), ("A", "again A")]
    assert found[0].p_value == pytest.approx(2 * mcnemar_exact(a, b))  # Holm, of two
    assert found[1].p_value == 1.0
    assert (found[0].accuracy_a, found[0].accuracy_b) == (a.mean(), b.mean())
    assert compare_pairs([("A", a)]) == []
    assert math.isclose(compare_pairs([("A", a), ("B", b)])[0].p_value, mcnemar_exact(a, b))
