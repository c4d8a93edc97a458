"""`transfer runs`: every run of a folder, the newest first, whatever state it is in."""

import dataclasses
import json
import os

import numpy as np
import pytest
from click.testing import CliRunner

from tests.conftest import make_facts
from transfer.commands.runs import main
from transfer.config import Config
from transfer.errors import InputError
from transfer.runs import files
from transfer.runs.facts import PhaseSummary, Summary
from transfer.runs.folder import lock_run
from transfer.runs.listing import list_runs
from transfer.runs.predictions import TEST, Predictions, keep_predictions

FACTS = make_facts(Config())
OTHER_IMAGES = dataclasses.replace(
    FACTS,
    data=dataclasses.replace(FACTS.data, fingerprints=FACTS.data.fingerprints | {"test": "x"}),
)
SUMMARY = Summary({"fine-tune": PhaseSummary(2, 1, 0.5, 0.875, 1.5)}, 3.0)


@pytest.fixture
def folder(tmp_path):
    """Four runs: evaluated, finished, unfinished, damaged; each older than the one before."""
    runs = tmp_path / "runs"
    for age, name in enumerate(("evaluated", "finished", "unfinished", "damaged")):
        run_dir = runs / name
        run_dir.mkdir(parents=True)
        make_facts(Config()).write(run_dir)
        if name in ("evaluated", "finished"):
            SUMMARY.write(run_dir)
        os.utime(run_dir / files.CONFIG, (1e9 - age, 1e9 - age))
    y_prob = np.array([[0.9, 0.1], [0.8, 0.2]], np.float32)
    (runs / "evaluated" / files.MODEL).write_bytes(b"a model")
    keep_predictions(runs / "evaluated", FACTS, Predictions(np.array([0, 1]), y_prob), TEST)
    (runs / "damaged" / files.CONFIG).write_text("{}")
    os.utime(runs / "damaged" / files.CONFIG, (1e9 - 9, 1e9 - 9))
    (runs / "no run").mkdir()
    return runs


def test_each_run_is_a_row_the_newest_first(folder):
    rows = list_runs(folder)
    assert [(row.name, row.state) for row in rows] == [
        ("evaluated", "finished"),
        ("finished", "finished"),
        ("unfinished", "unfinished"),
        ("damaged", "damaged"),
    ]
    first, second, third, last = rows
    assert (first.validation_accuracy, first.test_accuracy) == (0.875, 0.5)
    assert (second.validation_accuracy, second.test_accuracy) == (0.875, None)
    assert third.validation_accuracy is None and third.backbone == "mobilenetv2"
    assert "should hold settings" in last.problem
    assert first.num_bytes == sum(
        path.stat().st_size for path in (folder / "evaluated").rglob("*") if path.is_file()
    )


def test_a_run_that_trains_says_so(folder):
    with lock_run(folder / "unfinished"):
        states = {row.name: row.state for row in list_runs(folder)}
    assert states["unfinished"] == "training"


def forge(run_dir):
    path = run_dir / files.PREDICTIONS
    with np.load(path) as kept:
        np.savez(path, **{**kept, "y_prob": np.eye(2, dtype=np.float32)})


FORGERIES = {
    "other predictions": forge,
    "another model": lambda run_dir: (run_dir / files.MODEL).write_bytes(b"another"),
    "no model": lambda run_dir: (run_dir / files.MODEL).unlink(),
    "other images": lambda run_dir: OTHER_IMAGES.write(run_dir),
    "damage": lambda run_dir: (run_dir / files.PREDICTIONS).write_bytes(b"PK"),
}


@pytest.mark.parametrize("change", FORGERIES.values(), ids=FORGERIES)
def test_predictions_of_something_else_are_no_result(folder, change):
    change(folder / "evaluated")
    (row,) = [row for row in list_runs(folder) if row.name == "evaluated"]
    assert row.test_accuracy is None and row.state == "finished"


def test_the_command_shows_a_table_or_json(folder, tmp_path):
    done = CliRunner().invoke(main, [str(folder)])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert [line.split()[0] for line in lines[2:6]] == [row.name for row in list_runs(folder)]
    assert "87.50" in lines[2] and "50.00" in lines[2] and "–" in lines[3]
    assert any(line.startswith("damaged: ") for line in lines)
    values = json.loads(CliRunner().invoke(main, [str(folder), "--json"]).output)
    assert [value["name"] for value in values] == [row.name for row in list_runs(folder)]
    assert values[0]["test_accuracy"] == 0.5
    (tmp_path / "empty").mkdir()
    assert "No run in" in CliRunner().invoke(main, [str(tmp_path / "empty")]).output
    with pytest.raises(InputError, match="no such folder"):
        list_runs(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"Received: a file\."):
        list_runs(tmp_path / "notes.txt")
