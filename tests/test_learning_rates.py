"""The learning-rate finder: what it suggests, where it stops, what it leaves as it was."""

import csv
import dataclasses

import numpy as np
import pytest
from click.testing import CliRunner

from transfer.commands import train as command
from transfer.config import Config
from transfer.errors import InputError
from transfer.report.learning_rates import write_learning_rates
from transfer.training import learning_rates
from transfer.training.learning_rates import RateTest, find_learning_rates

RATES = np.geomspace(1e-6, 1, 100)


def losses(least, noise=0.02):
    """Returns losses that fall from 2 to their least at a rate, and rise from there."""
    apart = (np.log10(RATES) - np.log10(least)) / 6
    smooth = np.where(apart < 0, 0.5 + 1.5 * np.abs(apart), 0.5 + 30 * apart**2)
    return smooth + noise * np.random.default_rng(0).standard_normal(100)


@pytest.mark.parametrize("least", [1e-4, 1e-2])
def test_a_third_of_the_highest_rate_that_does_not_raise_the_loss_is_suggested(least):
    test = RateTest("head", RATES, losses(least), now=1e-3)
    assert least < test.highest < 6 * least
    assert test.suggested == pytest.approx(test.highest / 3, rel=0.05)
    known = 0.2 + losses(least).clip(max=0.52) * 0.1  # falls by nothing worth a word
    rises = np.where(RATES > 3 * least, 1.0, known)
    assert least < RateTest("fine-tune", RATES, rises, now=1e-4).highest < 4 * least


@pytest.mark.parametrize("values", [np.linspace(3, 1, 100), np.ones(100)])
def test_losses_that_never_rise_suggest_nothing(values):
    assert RateTest("head", RATES, values, now=1e-3).suggested is None


def test_each_phase_is_tried_and_no_run_is_made(tiny_inputs, tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(learning_rates, "LOWEST", 1e-3)
    monkeypatch.setattr(learning_rates, "HIGHEST", 1e3)
    seen = []
    for name in ("compile_head", "fit_head"):
        plain = getattr(learning_rates, name)

        def spy(head, *args, plain=plain, **options):
            seen.append(head.get_weights())
            return plain(head, *args, **options)

        monkeypatch.setattr(learning_rates, name, spy)
    config = Config(**tiny_inputs, image_size=32, batch_size=32, head_epochs=2, schedule="cosine")
    tests = find_learning_rates(config)
    folder = write_learning_rates(tests, tmp_path / "rates")
    assert [test.phase for test in tests] == ["head", "fine-tune"]
    assert tests[0].suggested  # stripes are easy, and at the highest rates nothing is learnt
    for test in tests:
        np.testing.assert_allclose(np.diff(np.log(test.rates)), np.log(1e6) / 99, rtol=1e-6)
        assert np.isfinite(test.losses).all()
    assert [test.now for test in tests] == [1e-3, 3e-4]
    for before, after in zip(*seen, strict=True):  # the head's own test did not spoil it
        np.testing.assert_array_equal(before, after)
    assert sorted(path.name for path in folder.iterdir()) == [
        "learning_rates.csv",
        "learning_rates.png",
    ]
    with open(folder / "learning_rates.csv") as file:
        assert len(list(csv.DictReader(file))) == sum(len(test.losses) for test in tests)
    with pytest.raises(InputError, match="exists"):
        find_learning_rates(config, run_dir=folder)
    alone = dataclasses.replace(config, head_epochs=0)
    [only] = find_learning_rates(alone)
    assert only.phase == "fine-tune"


def test_the_command_says_what_to_type(tiny_inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(learning_rates, "HIGHEST", 1e4)
    words = [f"--data={tiny_inputs['data']}", "--batch-size=32", "--offline", "--backbone=mlp"]
    words += ["--find-learning-rate", f"--run-dir={tmp_path / 'rates'}"]
    told = CliRunner().invoke(command.main, words)
    assert told.exit_code == 0, told.output
    assert "fine-tune: " in told.output and "; now 0.001)" in told.output
    assert f"Plot: {tmp_path / 'rates' / 'learning_rates.png'}" in told.output
    both = CliRunner().invoke(command.main, ["--find-learning-rate", "--repeats=2"])
    assert both.exit_code == 2 and "leave --resume, --repeats" in both.output
