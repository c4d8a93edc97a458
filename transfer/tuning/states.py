"""What the files of a search may say, checked before a search method takes it up again.

A search's folder may come from a stranger, as a run folder may. KerasTuner believes whatever
oracle.json and trial.json hold; here each value has its type, each trial its values within the
settings' bounds, and what belongs to the search itself comes from the search, not from a file.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keras_tuner.engine.trial import TrialStatus

from transfer.errors import shortened
from transfer.runs.checked import Reader
from transfer.storage.atomic import read_json
from transfer.tuning.trials import TrialResult

State = dict[str, Any]
MOST_TRIALS = 100_000

_ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)
_STATUSES = (*_ENDED, TrialStatus.RUNNING, TrialStatus.IDLE, TrialStatus.INVALID)
_TRIAL_ID = re.compile(r"\d{4,6}")
_LOWEST, _HIGHEST = -(2**53), 2**53


def read_trial(path: Path, space: list, check_values: Callable[[Mapping], object]) -> State:
    """Reads a trial.json.

    Args:
        path: of the file, in the folder `trial_<id>`.
        space: of the search, as KerasTuner's hyperparameters tell it.
        check_values: raises an error for values that are no settings of this search.

    Returns:
        What `Trial.from_state` takes.

    Raises:
        InputError, ValueError, LookupError, TypeError: the file holds something else.
    """
    read = Reader(read_json(path), str(path))
    trial_id, status = read.text("trial_id"), read.choice("status", _STATUSES)
    if not _TRIAL_ID.fullmatch(trial_id) or not path.parent.name.endswith(f"_{trial_id}"):
        raise read.refusal("trial_id", f"that of {path.parent.name}", trial_id)
    values = dict(read.part("hyperparameters").part("values").values)
    check_values(values)
    message = read.text("message") if read.values.get("message") is not None else None
    record = TrialResult.from_text(message) if status in _ENDED and message else None
    if status == TrialStatus.COMPLETED and (record is None or record.reason):
        raise read.refusal("message", "the record of a trial with a score", message)
    has_score = read.values.get("score") is not None
    return {
        "trial_id": trial_id,
        "status": status,
        "hyperparameters": {"space": space, "values": values},
        "metrics": {"metrics": {}},
        "score": read.number("score") if has_score else None,
        "best_step": read.count("best_step") if has_score else 0,
        "message": message,
    }


def check_oracle(state: State, trials: Mapping[str, object], where: Path) -> State:
    """Returns what oracle.json holds, if its parts are of the types that KerasTuner writes.

    Args:
        state: the content.
        trials: those that are there, by their ids.
        where: the file, for errors.

    Raises:
        InputError, ValueError, LookupError, TypeError: it is something else.
    """
    for key in ("start_order", "end_order", "retry_queue"):
        ids = state[key]
        if not _are_texts(ids) or not set(ids) <= set(trials) or len(set(ids)) < len(ids):
            raise ValueError(f"{where}, {key}: {shortened(ids)}")
    ongoing = state["ongoing_trials"]
    if not _are_texts(list(ongoing.values())) or not set(ongoing.values()) <= set(trials):
        raise ValueError(f"{where}, ongoing_trials: {shortened(ongoing)}")
    for key in ("seed", "seed_state"):
        _check_whole(state[key], f"{where}, {key}")
    for name, count in state["run_times"].items():
        _check_whole(count, f"{where}, run_times of {shortened(name)}")
    if not _are_texts(state["tried_so_far"]) or not isinstance(state["id_to_hash"], dict):
        raise ValueError(f"{where}, tried_so_far: {shortened(state['tried_so_far'])}")
    if "brackets" in state:
        _check_brackets(state, trials, where)
    display: State = {"search_start": None, "trial_start": {}, "trial_number": {}}
    return state | {"display": display}


def _check_brackets(state: State, trials: Mapping[str, object], where: Path) -> None:
    # Hyperband's: rounds of trials, each taken further from one of the round before.
    for key in ("current_bracket", "current_iteration"):
        _check_whole(state[key], f"{where}, {key}")
    for bracket in state["brackets"]:
        _check_whole(bracket["bracket_num"], f"{where}, bracket_num")
        if not 0 <= bracket["bracket_num"] <= _TALLEST_BRACKET or not bracket["rounds"]:
            raise ValueError(f"{where}, brackets: {shortened(bracket)}")
        for info in (info for each in bracket["rounds"] for info in each):
            if not {info["id"], info["past_id"]} <= {*trials, None}:
                raise ValueError(f"{where}, rounds: {shortened(info)}")
    if not 0 <= state["current_bracket"] <= _TALLEST_BRACKET:
        raise ValueError(f"{where}, current_bracket: {state['current_bracket']}")


_TALLEST_BRACKET = 20  # 3 ** 20 epochs


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _check_whole(value: Any, where: str) -> None:
    if type(value) is not int or not _LOWEST <= value <= _HIGHEST:
        raise ValueError(f"{where}: {shortened(value)}")
