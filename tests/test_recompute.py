"""A report made by the real commands says what its predictions.csv says, to the last digit."""

import json
import shutil

import pytest

from tests.test_end_to_end import QUICK, run_command, use_small_networks
from tools import recompute_report


@pytest.fixture(scope="module")
def report_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recompute")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSFER_OFFLINE", "1")
        patch.setenv("KERAS_HOME", str(folder / "keras_home"))
        words = ["python", "train.py", *QUICK, "--data", "sample", "--limit", "300"]
        run_command([*words, "--run-dir", "run", "--quiet"], folder, prepare=use_small_networks)
        words = ["python", "evaluate.py", "run", "--report", "--quiet"]
        run_command(words, folder, prepare=use_small_networks)
    return folder / "run" / "report"


def test_the_numbers_of_a_report_are_those_of_its_predictions(report_dir, capsys):
    assert recompute_report.main([report_dir]) == 0
    told = capsys.readouterr().out
    lines = recompute_report.check_report(report_dir)
    assert len(lines) > 150 and f"{len(lines)} of {len(lines)} agree" in told


@pytest.fixture
def copied(report_dir, tmp_path):
    shutil.copytree(report_dir.parent, tmp_path / "run")
    return tmp_path / "run" / "report"


def wrong_in(report_dir):
    assert recompute_report.main([report_dir]) == 1
    return {line[0] for line in recompute_report.check_report(report_dir) if not line[-1]}


def test_a_changed_prediction_is_found(copied, capsys):
    rows = (copied / "predictions.csv").read_text().splitlines()
    true = next(row for row in rows[1:] if row.split(",")[1] == row.split(",")[2])
    cells = true.split(",")
    first = rows[0].split(",").index("confidence") + 2
    cells[first:] = cells[: first - 1 : -1]  # the probabilities of the classes from back to front
    changed = [",".join(cells) if row is true else row for row in rows]
    (copied / "predictions.csv").write_text("\n".join(changed) + "\n")
    wrong = wrong_in(copied)
    assert {"accuracy", "loss", "loss_interval[0]", "calibration.after.loss"} <= wrong
    assert "accuracy is 0." in capsys.readouterr().out


def test_a_threshold_of_the_other_confidence_is_found(copied):
    rows = [row.split(",") for row in (copied / "predictions.csv").read_text().splitlines()]
    calibrated = rows[0].index("calibrated_confidence")
    for row in rows[1:]:
        row[calibrated] = row[calibrated - 1]
    (copied / "predictions.csv").write_text("\n".join(map(",".join, rows)) + "\n")
    assert wrong_in(copied) == {"the column calibrated_confidence"}


@pytest.mark.parametrize("name", ["report.md", "report.html", "../README.md"])
def test_a_page_that_says_another_thing_is_found(copied, name):
    path = copied / name
    text = path.read_text()
    assert "a calibrated confidence of" in text or "No calibrated confidence" in text
    path.write_text(text.replace("calibrated confidence", "confidence"))
    assert wrong_in(copied) == {path.name}


def test_a_network_of_other_size_is_found(copied):
    path = copied.parent / "config.json"
    facts = json.loads(path.read_text())
    for part, name in (("network", "layers"), ("trained", "head")):
        changed = facts | {part: facts[part] | {name: facts[part].get(name, 0) + 1}}
        path.write_text(json.dumps(changed))
        assert wrong_in(copied) == {"README.md"}


def test_the_accuracy_of_an_epoch_that_was_not_kept_is_found(copied):
    history = copied.parent / "history.csv"
    lines = [row.split(",") for row in history.read_text().splitlines()]
    place = lines[0].index("val_accuracy")
    for row in lines[1:]:
        row[place] = "0.123"
    history.write_text("\n".join(map(",".join, lines)) + "\n")
    assert wrong_in(copied) == {"report.md", "report.html"}
