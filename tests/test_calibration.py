"""Calibration against classifiers whose temperature is known, and numbers worked out by hand."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from transfer.evaluation import calibration
from transfer.evaluation.metrics import mean_cross_entropy
from transfer.evaluation.temperature import apply_temperature


def drawn(num_images=4_000, num_classes=5, temperature=1.0, seed=0):
    """Labels drawn from a classifier's own probabilities, and these at another temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2.0, size=(num_images, num_classes))
    cumulated = softmax(logits, axis=1).cumsum(axis=1)
    y_true = (rng.random((num_images, 1)) > cumulated).sum(axis=1)
    return y_true, softmax(logits * temperature, axis=1).astype(np.float32)


def test_expected_calibration_error_by_hand():
    y_true = np.array([0, 0, 0, 1])
    y_prob = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.45, 0.55]])
    # Ten bins: (0.5, 0.6] holds 0.6, wrong, and 0.55, right; (0.8, 0.9] holds two, right.
    bins = calibration.reliability_bins(y_true, y_prob, num_bins=10)
    assert bins.count.tolist() == [0] * 5 + [2, 0, 0, 2, 0]
    assert bins.confidence[[5, 8]] == pytest.approx([0.575, 0.9])
    assert bins.accuracy[[5, 8]] == pytest.approx([0.5, 1.0])
    assert np.isnan(bins.accuracy[0])
    error = calibration.expected_calibration_error(y_true, y_prob, num_bins=10)
    assert error == pytest.approx((0.075 + 0.1) / 2)


def test_certainty_is_the_last_bin_and_its_mistakes_are_all_of_the_error():
    y_prob = np.array([[1.0, 0.0]] * 4)
    assert calibration.reliability_bins(np.zeros(4, int), y_prob).count[-1] == 4
    assert calibration.expected_calibration_error(np.array([0, 0, 0, 1]), y_prob) == 0.25


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_spoilt_the_probabilities_is_found(temperature):
    y_true, y_prob = drawn(temperature=temperature)
    found = calibration.fit_temperature(y_true, y_prob)
    assert found == pytest.approx(temperature, rel=0.06)
    after = apply_temperature(y_prob, found)
    assert calibration.expected_calibration_error(y_true, after) < 0.025
    assert mean_cross_entropy(y_true, after) <= mean_cross_entropy(y_true, y_prob) + 1e-9


def test_a_temperature_of_one_changes_nothing_and_none_changes_the_order():
    y_prob = drawn(200)[1]
    np.testing.assert_allclose(apply_temperature(y_prob, 1.0), y_prob, atol=1e-6)
    for temperature in (0.3, 4.0):
        after = apply_temperature(y_prob, temperature)
        assert after.sum(axis=1) == pytest.approx(np.ones(200))
        np.testing.assert_array_equal(after.argsort(axis=1), y_prob.argsort(axis=1))


def test_probabilities_that_rounded_to_zero_are_finite_with_a_temperature():
    after = apply_temperature(np.array([[1.0, 0.0]], np.float32), 2.0)
    assert np.isfinite(after).all() and after[0, 0] > 0.999


def test_validation_images_without_a_mistake_call_for_no_endless_certainty():
    y_prob = np.array([[0.9, 0.1]] * 8)
    found = calibration.fit_temperature(np.zeros(8, int), y_prob)
    assert found == pytest.approx(calibration.LOWEST_TEMPERATURE, rel=1e-3)


def test_reject_curve_by_hand_with_images_of_one_confidence_answered_together():
    y_true = np.array([0, 0, 1, 0, 1])
    y_prob = np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    curve = calibration.reject_curve(y_true, y_prob)
    assert curve.threshold.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert curve.share_answered == pytest.approx([0.2, 0.6, 0.8, 1.0])
    assert curve.accuracy == pytest.approx([1, 2 / 3, 3 / 4, 4 / 5])


@pytest.mark.parametrize(
    ("accuracy", "threshold"), [(0.5, 0.6), (0.8, 0.6), (0.81, 0.9), (1.0, 0.9)]
)
def test_the_threshold_is_the_lowest_that_reaches_the_accuracy(accuracy, threshold):
    y_true = np.array([0, 0, 1, 0, 1])
    y_prob = np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    assert calibration.threshold_for_accuracy(y_true, y_prob, accuracy) == threshold


def test_there_is_no_threshold_where_the_surest_image_is_wrong():
    y_prob = np.array([[0.9, 0.1], [0.8, 0.2]])
    assert calibration.threshold_for_accuracy(np.array([1, 0]), y_prob) is None
    fitted = calibration.fit_calibration(np.array([1, 0]), y_prob)
    measured = calibration.measure_calibration(fitted, np.array([0, 0]), y_prob)
    assert measured["threshold"] is None and measured["answered"] is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 150))
def test_what_holds_for_any_predictions(seed, num_classes, num_images):
    rng = np.random.default_rng(seed)
    y_prob = rng.dirichlet(np.full(num_classes, 0.4), num_images).astype(np.float32)
    y_true = rng.integers(0, num_classes, num_images)
    assert 0 <= calibration.expected_calibration_error(y_true, y_prob) <= 1
    curve = calibration.reject_curve(y_true, y_prob)
    assert curve.share_answered[-1] == 1 and (np.diff(curve.share_answered) > 0).all()
    assert (np.diff(curve.threshold) < 0).all()
    assert curve.accuracy[-1] == np.mean(y_prob.argmax(axis=1) == y_true)
    fitted = calibration.fit_calibration(y_true, y_prob)
    assert (fitted["temperature"] is None) == (num_images < calibration.LEAST_IMAGES)
    assert fitted["temperature"] is None or 0.1 <= fitted["temperature"] <= 10
    measured = calibration.measure_calibration(fitted, y_true, y_prob)
    assert json.loads(json.dumps(measured)) == measured
    if fitted["threshold"] is not None:  # on the images it was fitted on
        assert measured["answered"]["accuracy"] >= 0.99


def test_the_test_images_only_measure_what_the_validation_images_chose():
    validation, test = drawn(2_000, temperature=2.0), drawn(1_000, temperature=2.0, seed=1)
    fitted = calibration.fit_calibration(*validation)
    measured = calibration.measure_calibration(fitted, *test)
    assert {name: measured[name] for name in fitted} == fitted
    assert fitted["num_validation_images"] == 2_000 and fitted["target_accuracy"] == 0.99
    before, after = measured["before"], measured["after"]
    assert after["expected_calibration_error"] < before["expected_calibration_error"]
    assert after["loss"] < before["loss"] == mean_cross_entropy(*test)
    assert after["mean_confidence"] < before["mean_confidence"]
    answered = measured["answered"]
    confidence = apply_temperature(test[1], fitted["temperature"]).max(axis=1)
    is_right = test[1].argmax(axis=1) == test[0]
    chosen = confidence >= fitted["threshold"]
    assert answered["num_images"] == chosen.sum() and answered["share"] == chosen.mean()
    assert answered["accuracy"] == is_right[chosen].mean() > 0.95
    low, high = answered["accuracy_interval"]
    assert low < answered["accuracy"] < high


def test_a_threshold_above_every_test_image_answers_none():
    fitted = {"temperature": 1.0, "threshold": 0.99, "target_accuracy": 0.99}
    measured = calibration.measure_calibration(fitted, np.array([0]), np.array([[0.6, 0.4]]))
    assert measured["answered"] == {
        "num_images": 0,
        "share": 0.0,
        "accuracy": None,
        "accuracy_interval": None,
    }
