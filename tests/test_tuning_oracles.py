"""The search methods: the first trial, the budget, and what survives a kill at any write."""

import dataclasses
import json
import math
import os
import shutil

import pytest
from keras_tuner.engine.trial import TrialStatus

from transfer.config import Config
from transfer.errors import InputError
from transfer.storage import atomic
from transfer.storage.atomic import write_atomically
from transfer.tuning import oracles, results
from transfer.tuning.oracles import RECORD, TUNERS, Plan, make_oracle
from transfer.tuning.space import Choices, Range
from transfer.tuning.trials import TrialResult

SPACE = {
    "finetune_learning_rate": Range(1e-4, 1e-1, log=True),
    "dropout": Choices((0.0, 0.2, 0.4)),
    "unfreeze": Choices((0.5, "all")),
}
CONFIG = Config(finetune_epochs=9, weights="none")


def make_plan(folder, tuner="random", space=SPACE, config=CONFIG):
    own = Config.from_dict(config.to_dict() | {"finetune_learning_rate": 2e-3})
    folder.mkdir(exist_ok=True)
    return Plan(folder, tuner, "val_accuracy", space, config, own, config.finetune_epochs, {})


def score(config):
    """Returns a made-up accuracy: best at a learning rate of 0.01 and no dropout."""
    rate = config.finetune_learning_rate
    far = abs(math.log10((2e-3 if rate == "auto" else rate) / 1e-2))
    return 0.9 - 0.1 * far - 0.1 * config.dropout + 0.001 * config.finetune_epochs


def run_search(plan, most_trials, *, ran=None, fails=lambda number: False):
    """Runs a search whose trials cost nothing; `ran` collects (trial_id, config)."""
    oracle = make_oracle(plan, most_trials=most_trials)
    while True:
        trial = oracle.create_trial("local")
        if trial.status == TrialStatus.STOPPED:
            return results.read_rows(oracle)
        config = results.trial_config(plan.config, plan.space, trial.hyperparameters.values)
        if ran is not None:
            ran.append((trial.trial_id, config))
        failed = fails(int(trial.trial_id))
        record = TrialResult(config.to_dict(), score(config), 0.1, config.finetune_epochs)
        if failed:
            record = TrialResult(config.to_dict(), reason="it failed")
        trial.status = TrialStatus.FAILED if failed else TrialStatus.COMPLETED
        trial.hyperparameters.values[RECORD] = record.to_text()
        oracle.end_trial(trial)


@pytest.mark.parametrize("tuner", TUNERS)
def test_the_first_trial_is_the_users_own_and_the_others_lie_in_the_space(tmp_path, tuner):
    rows = run_search(make_plan(tmp_path / "p", tuner), 9)
    assert [row.number for row in rows] == list(range(1, 10))
    assert rows[0].is_own and rows[0].config == CONFIG
    for row in rows[1:]:
        assert not row.is_own
        assert all(d.accepts(getattr(row.config, name)) for name, d in SPACE.items())
        same = {"finetune_learning_rate": "auto", "dropout": 0.2, "unfreeze": "all"}
        assert Config.from_dict(row.config.to_dict() | same | {"finetune_epochs": 9}) == CONFIG


def test_bayesian_search_learns_where_it_is_good(tmp_path):
    rows = run_search(make_plan(tmp_path / "p", "bayesian"), 13)
    first, rest = rows[1 : oracles.BAYESIAN_FIRST_POINTS], rows[oracles.BAYESIAN_FIRST_POINTS :]
    mean = [sum(row.record.val_accuracy for row in part) / len(part) for part in (first, rest)]
    assert mean[1] > mean[0] + 0.02
    assert results.sort_rows(rows, "val_accuracy")[0].config.dropout == 0.0


def test_hyperband_grants_few_epochs_to_many_and_all_to_the_best(tmp_path):
    # Nine epochs and a factor of three: rounds of 1, 3 and 9 epochs (Li et al. 2018, Table 1).
    rows = run_search(make_plan(tmp_path / "p", "hyperband"), 14)
    assert rows[0].config.finetune_epochs == 9  # the user's own settings, whole
    assert [row.config.finetune_epochs for row in rows[1:10]] == [1] * 9
    assert [row.config.finetune_epochs for row in rows[10:13]] == [3] * 3
    assert rows[13].config.finetune_epochs == 9
    best = results.sort_rows(rows[1:10], "val_accuracy")[:3]
    assert {row.further for row in rows[10:13]} == {row.number for row in best}
    taken = rows[rows[10].further - 1].config
    assert rows[10].config == Config.from_dict(taken.to_dict() | {"finetune_epochs": 3})


def test_a_grid_takes_every_combination_but_the_users_own_once(tmp_path):
    space = {"dropout": Choices((0.0, 0.2)), "unfreeze": Choices((0.5, "all"))}
    rows = run_search(make_plan(tmp_path / "p", "grid", space), 99)
    taken = [(row.config.dropout, row.config.unfreeze) for row in rows]
    assert taken == [(0.2, "all"), (0.0, 0.5), (0.0, "all"), (0.2, 0.5)]


def test_many_failures_in_a_row_do_not_end_a_search(tmp_path):
    rows = run_search(make_plan(tmp_path / "p"), 12, fails=lambda number: 0 < number < 9)
    assert [row.failed for row in rows] == [False] + [True] * 8 + [False] * 3
    assert results.first_reason(rows) == "it failed"
    assert len(run_search(make_plan(tmp_path / "q", "hyperband"), 20, fails=bool)) == 20


class Killed(BaseException):
    """As SIGKILL: nothing after it runs."""


def kill_at(monkeypatch, number, *, after):
    """Lets the process die at a write, before or after the file is in its place."""
    write, count = write_atomically, 0

    def write_or_die(path, content):
        nonlocal count
        count += 1
        if count == number and not after:
            raise Killed
        write(path, content)
        if count == number:
            raise Killed

    monkeypatch.setattr(atomic, "write_atomically", write_or_die)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """Does not wait for the disk: no power is cut here."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_write_loses_no_ended_trial(tmp_path, monkeypatch, after):
    number, killed = 0, True
    while killed:
        number += 1
        plan = make_plan(tmp_path / str(number), "hyperband")
        with monkeypatch.context() as patch:
            kill_at(patch, number, after=after)
            try:
                run_search(plan, 5)
                killed = False
            except Killed:
                pass
        before = {
            json.loads(path.read_text())["trial_id"]
            for path in plan.folder.glob("trial_*/trial.json")
            if json.loads(path.read_text())["status"] == "COMPLETED"
        }
        again = []
        rows = run_search(plan, 5, ran=again)
        assert len(rows) == 5 and all(row.finished for row in rows)
        assert not before & {trial_id for trial_id, _ in again}  # none is trained twice
        # What ran when the process died is run again, with the same values or others.
        assert {trial_id for trial_id, _ in again} | before == {f"{i:04}" for i in range(5)}
    assert number > 15


def test_a_trial_that_ran_is_run_again_with_the_same_values(tmp_path):
    plan = make_plan(tmp_path / "p")
    oracle = make_oracle(plan, most_trials=9)
    oracle.create_trial("local")
    first = oracle.create_trial("other")
    ran = []
    run_search(plan, 9, ran=ran)
    again = {trial_id: config for trial_id, config in ran}
    values = first.hyperparameters.values
    assert again["0000"] == CONFIG
    assert again["0001"] == results.trial_config(CONFIG, SPACE, values)
    assert len(ran) == 9


def test_a_longer_search_goes_on_where_a_shorter_ended(tmp_path):
    plan, ran = make_plan(tmp_path / "p", "bayesian"), []
    run_search(plan, 8)
    assert len(run_search(plan, 10, ran=ran)) == 10
    assert [trial_id for trial_id, _ in ran] == ["0008", "0009"]


@pytest.mark.parametrize("content", ["", "{", "{}", '{"ongoing_trials": 3}'])
def test_a_damaged_state_is_told_in_one_line(tmp_path, content):
    plan = make_plan(tmp_path / "p")
    run_search(plan, 2)
    (plan.folder / oracles.ORACLE).write_text(content)
    with pytest.raises(InputError, match="is damaged .* move it away"):
        make_oracle(plan, most_trials=9)


def test_keras_tuner_prints_nothing(tmp_path, capfd):
    for tuner in TUNERS:
        run_search(make_plan(tmp_path / tuner, tuner), 9, fails=lambda number: number == 3)
    assert capfd.readouterr() == ("", "")


ODD_TRIALS = {
    "another id": {"trial_id": "9999"},
    "an id that climbs": {"trial_id": "../../x"},
    "a status of no kind": {"status": "\x1b[2J"},
    "no record": {"message": None},
    "a record that is none": {"message": "[1]"},
    "a record without scores": {"message": json.dumps({"settings": {}, "epochs": 1})},
    "a huge score": {"score": 10**400},
    "a score that is a text": {"score": "best"},
    "values in a list": {"hyperparameters": {"space": [], "values": []}},
    "no values": {"hyperparameters": {"space": [], "values": {}}},
    "values of other bounds": {
        "hyperparameters": {
            "values": {"finetune_learning_rate": 1e-3, "dropout": "0.9", "unfreeze": "0.5"}
        }
    },
    "a budget of centuries": {
        "hyperparameters": {"values": {"tuner/baseline": True, "tuner/epochs": 10**12}}
    },
}
ODD_ORACLES = {
    "an order of numbers": {"start_order": [0, 1]},
    "an unknown trial": {"start_order": ["0000", "0777"]},
    "a trial twice": {"end_order": ["0000", "0000"]},
    "a queue of an unknown one": {"retry_queue": ["0777"]},
    "ongoing trials in a list": {"ongoing_trials": ["0000"]},
    "a huge seed": {"seed": 10**400},
    "a seed that is a text": {"seed_state": "x"},
    "tried values that are numbers": {"tried_so_far": [1]},
    "brackets of no kind": {"brackets": [{"bracket_num": 10**9, "rounds": [[]]}]},
}


def refuses(plan):
    with pytest.raises(InputError, match="is damaged") as raised:
        make_oracle(plan, most_trials=9)
    assert str(raised.value).isprintable() and len(str(raised.value)) <= 2100


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    plan = make_plan(tmp_path_factory.mktemp("searched") / "p", "hyperband")
    run_search(plan, 3)
    return plan


@pytest.fixture
def plan(searched, tmp_path):
    folder = shutil.copytree(searched.folder, tmp_path / "p")
    return dataclasses.replace(searched, folder=folder)


@pytest.mark.parametrize("what", ODD_TRIALS)
def test_a_trial_of_a_stranger_is_told(plan, what):
    path = plan.folder / "trial_0001" / oracles.TRIAL
    path.write_text(json.dumps(json.loads(path.read_text()) | ODD_TRIALS[what]))
    refuses(plan)


@pytest.mark.parametrize("what", ODD_ORACLES)
def test_an_oracle_of_a_stranger_is_told(plan, what):
    path = plan.folder / oracles.ORACLE
    path.write_text(json.dumps(json.loads(path.read_text()) | ODD_ORACLES[what]))
    refuses(plan)


@pytest.mark.parametrize("name", [oracles.ORACLE, f"trial_0001/{oracles.TRIAL}"])
def test_a_pipe_in_a_search_is_told(plan, name):
    (plan.folder / name).unlink()
    os.mkfifo(plan.folder / name)
    refuses(plan)


def test_what_is_searched_comes_from_the_search_and_not_from_its_files(plan):
    path = plan.folder / oracles.ORACLE
    state = json.loads(path.read_text())
    space = [{"class_name": "Lambda", "config": {}}]
    odd = {"max_epochs": 10**9, "factor": 1, "hyperparameters": {"space": space, "values": {}}}
    path.write_text(json.dumps(state | odd | {"display": "x"}))
    oracle = make_oracle(plan, most_trials=9)
    assert (oracle.max_epochs, oracle.factor) == (plan.budget, oracles.HYPERBAND_FACTOR)
    assert len(results.read_rows(oracle)) == 3
