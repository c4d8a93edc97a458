"""What a search comes to: the table, trials.csv, best.json, words about the best, the picture."""

import csv

import numpy as np
import pytest

from tests.conftest import printed
from tests.test_tuning_oracles import SPACE, make_plan
from transfer import console
from transfer.config import Config, settings
from transfer.plots.style import png
from transfer.tuning import display, plots, results
from transfer.tuning.results import Row
from transfer.tuning.space import Choices, Range
from transfer.tuning.trials import TrialResult

OWN = Config(finetune_epochs=9, weights="none", limit=500)


def row(number, accuracy=None, *, reason="", epochs=9, further=None, **changes):
    config = Config.from_dict(OWN.to_dict() | changes | {"finetune_epochs": epochs})
    record = TrialResult(config.to_dict(), accuracy, 0.5, epochs, 61.0, "local", reason)
    ran = accuracy is not None or bool(reason)
    return Row(number, config, number == 1, further, record if ran else None)


@pytest.fixture
def plan(tmp_path):
    return make_plan(tmp_path / "p", config=OWN)


@pytest.fixture
def rows():
    return [
        row(1, 0.90),
        row(2, 0.92, epochs=3, finetune_learning_rate=0.01, dropout=0.0),
        row(3, reason="it diverged", finetune_learning_rate=0.1),
        row(4, 0.88, further=2, finetune_learning_rate=0.001),
        row(5, finetune_learning_rate=0.002),
    ]


def test_best_json_is_the_best_trial_on_all_images_for_all_epochs(plan, rows):
    results.write_results(plan.folder, rows, plan)
    best = Config.from_json(plan.folder / results.BEST)
    assert (best.finetune_learning_rate, best.dropout) == (0.01, 0.0)
    assert best.limit is None and best.finetune_epochs == 9
    assert best.weights == "none"


def test_of_a_loss_the_lowest_is_the_best(rows):
    assert [row.number for row in results.sort_rows(rows, "val_accuracy")] == [2, 1, 4]
    low = Row(6, OWN, False, None, TrialResult({}, 0.1, 0.01, 9))
    assert results.sort_rows([*rows, low], "val_loss")[0] is low


def test_trials_csv_has_a_row_for_each_trial_with_its_reason(plan, rows):
    results.write_results(plan.folder, rows, plan)
    with open(plan.folder / results.TRIALS, newline="") as file:
        read = list(csv.DictReader(file))
    assert [each["state"] for each in read] == [
        "finished",
        "finished",
        "failed",
        "finished",
        "running",
    ]
    assert read[2]["reason"] == "it diverged" and read[2]["val_accuracy"] == ""
    assert read[1]["val_accuracy"] == "0.92" and read[1]["finetune_epochs"] == "3"
    assert set(SPACE) < set(read[0]) and read[0]["own_settings"] == "true"


def test_lines_say_scores_and_values(plan, rows):
    assert results.describe_row(rows[1], plan) == (
        "Trial 2: validation accuracy 92.00 %, loss 0.5000; 3 epochs, 1 min 01 s; "
        "finetune_learning_rate 0.01, dropout 0, unfreeze all"
    )
    assert results.describe_row(rows[0], plan).startswith("Trial 1 (your own settings): ")
    assert "Trial 3: failed, it diverged; finetune_learning_rate 0.1" in results.describe_row(
        rows[2], plan
    )
    assert "Trial 4 (trial 2, taken further): " in results.describe_row(rows[3], plan)


def test_the_best_is_told_beside_the_users_own_with_its_noise(rows):
    lines = results.describe_best(rows, "val_accuracy", 6000)
    assert lines[0] == (
        "Best: trial 2, validation accuracy 92.00 %; your own settings: validation accuracy 90.00 %"
    )
    # 1.96 * sqrt((0.92 * 0.08 + 0.9 * 0.1) / 6000) = 1.02 points
    assert "+2.00 points on 6,000 validation images, on which up to 1.02 points" in lines[1]
    assert results.describe_best(rows[:1], "val_accuracy", 60) == [
        "No trial was better than your own settings."
    ]
    assert results.describe_best(rows[1:2], "val_loss", 60) == [
        "Best: trial 2, validation loss 0.5000"
    ]


def test_the_table_shows_the_ten_best_and_the_users_own(plan):
    rows = [row(1, 0.5), *(row(n, 0.5 + n / 100, dropout=0.0) for n in range(2, 14))]
    text = printed(console.show, display.top_table(rows, plan), width=100)
    assert len(text.splitlines()) == 12
    assert "(your own settings)" in text.splitlines()[-1]
    assert "dropout 0" in text.splitlines()[1] and " 63.00 %" in text.splitlines()[1]


def test_the_picture_has_an_axis_for_each_dimension_and_names_its_lines(plan, rows):
    figure = plots.plot_trials(rows, plan)
    [axes] = figure.axes
    ticks = [text.get_text() for text in axes.get_xticklabels()]
    assert ticks == ["finetune\nlearning\nrate", "dropout", "unfreeze", "validation\naccuracy (%)"]
    labels = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert labels == {"the best trial", "your own settings", "failed"}
    curves = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert len(curves) == 4  # the one that still runs is not drawn
    best = next(line for line in curves if line.get_linewidth() == 3)
    assert best.get_ydata()[-1] == 1.0
    assert png(figure).startswith(b"\x89PNG")


def test_the_picture_of_a_large_search_shows_the_settings_that_tell_most(tmp_path):
    names = [name for name, setting in settings().items() if setting.kind is float][:16]
    space = {name: Range(1e-3, 0.5) for name in names}
    plan = make_plan(tmp_path / "q", space=space, config=OWN)
    generator = np.random.default_rng(0)
    values = [dict(zip(names, generator.uniform(0.01, 0.5, 16), strict=True)) for _ in range(30)]
    rows = [row(n, 0.5 + one[names[5]] / 2, **one) for n, one in enumerate(values, start=2)]
    weights = plots.measure_importance(rows, plan)
    assert list(weights)[0] == names[5] and weights[names[5]] == pytest.approx(1)
    assert max(list(weights.values())[1:]) < 0.6
    assert plots.measure_importance(rows[:4], plan) == {}
    bars, axes = plots.plot_trials(rows, plan).axes
    assert "mostly chance: 30 trials are few for 16 settings" in bars.get_title()
    assert len(bars.patches) == 16 and len(axes.get_xticks()) == 9
    assert axes.get_xticklabels()[0].get_text().replace("\n", "_") == names[5]


def test_the_picture_of_one_trial_or_equal_scores_is_drawn(tmp_path):
    plan = make_plan(tmp_path / "q", space={"dropout": Choices((0.0, 0.3))}, config=OWN)
    for rows in ([row(1, 0.9)], [row(1, 0.9), row(2, 0.9)]):
        assert png(plots.plot_trials(rows, plan)).startswith(b"\x89PNG")
