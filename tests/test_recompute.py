"""A report made by the real commands says what its predictions.csv says, to the last digit."""

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


def test_a_changed_prediction_is_found(report_dir, tmp_path, capsys):
    for name in ("metrics.json", "report.md"):
        (tmp_path / name).write_bytes((report_dir / name).read_bytes())
    rows = (report_dir / "predictions.csv").read_text().splitlines()
    true = next(row for row in rows[1:] if row.split(",")[1] == row.split(",")[2])
    cells = true.split(",")
    cells[4:] = cells[:3:-1]  # the probabilities of the classes from back to front
    changed = [",".join(cells) if row is true else row for row in rows]
    (tmp_path / "predictions.csv").write_text("\n".join(changed) + "\n")
    assert recompute_report.main([tmp_path]) == 1
    wrong = {line[0] for line in recompute_report.check_report(tmp_path) if not line[-1]}
    assert {"accuracy", "loss", "loss_interval[0]", "calibration.after.loss"} <= wrong
    assert "accuracy is 0." in capsys.readouterr().out
