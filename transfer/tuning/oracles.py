"""KerasTuner's search methods, made to survive a kill and to begin with the user's own settings.

An oracle says which values to try next and learns the score. KerasTuner writes its state in
place and, when it starts again, retries the trial that ended last; here each file is replaced
whole, and what a killed process left between two files is put right (`_Durable.reload`).
"""

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus
from threadpoolctl import threadpool_limits

from transfer.config import Config
from transfer.errors import InputError, shortened
from transfer.storage.atomic import read_json, write_json
from transfer.tuning import space as spaces
from transfer.tuning import states
from transfer.tuning.space import Space
from transfer.tuning.trials import TrialResult

TUNERS = ("hyperband", "bayesian", "random", "grid")
ORACLE, TRIAL, TRIAL_PREFIX = "oracle.json", "trial.json", "trial_"

# Values that travel with a trial beside those of the space.
BASELINE, PROJECT, RECORD = "tuner/baseline", "tuner/project", "tuner/record"
BUDGET, FURTHER = "tuner/epochs", "tuner/trial_id"  # Hyperband's own

HYPERBAND_FACTOR = 3
# A Gaussian process learns little from fewer points; KerasTuner's own three for each dimension
# would make 30 trials a random search.
BAYESIAN_FIRST_POINTS = 8
BAYESIAN_BETA = 1.0  # of its 2.6: with few trials, look where it is good rather than unknown


@dataclass(frozen=True)
class Plan:
    """What an oracle needs to know about a search."""

    folder: Path  # of the project
    tuner: str  # one of TUNERS
    objective: str  # "val_accuracy" or "val_loss"
    space: Space
    config: Config  # the user's own settings, which the first trial takes
    own: Config  # the same, "auto" settled: where they stand in the space
    budget: int  # epochs of a full trial: see `trials.with_budget`
    facts: dict  # all that makes this search another than others, as plain JSON values

    @property
    def project(self) -> str:
        """Name that chief and workers must agree on."""
        return self.folder.name

    @property
    def direction(self) -> str:
        """Whether a better score is higher, "max", or lower, "min"."""
        return "max" if self.objective == "val_accuracy" else "min"


class _Durable(keras_tuner.Oracle):
    """Comes before one of KerasTuner's oracles in the list of bases.

    Attributes:
        most_trials: no more are begun.
        closed: set to hand out no further trial.
        listener: called with ("began" or "ended", trial).
    """

    plan: Plan
    most_trials: int = sys.maxsize
    closed: bool = False
    trials: dict[str, Trial]  # by their ids
    ongoing_trials: dict[str, Trial]  # by the names of those who run them
    _retry_queue: list[str]
    listener: Callable[[str, Trial], None] = staticmethod(lambda event, trial: None)

    def populate_space(self, trial_id: str) -> dict:
        if len(self.trials) >= self.most_trials:
            return {"status": TrialStatus.STOPPED, "values": None}
        if not self.start_order:
            values = spaces.encode(self.plan.space, vars(self.plan.own))
            response = {"status": TrialStatus.RUNNING, "values": values | {BASELINE: True}}
        else:
            # A Gaussian process with few points warns, and its small matrices are slower on several
            # cores than on one.
            with warnings.catch_warnings(), threadpool_limits(1):
                warnings.simplefilter("ignore")
                response = super().populate_space(trial_id)
        return response

    def create_trial(self, tuner_id: str) -> Trial:
        if self.closed:
            self.tuner_ids.discard(tuner_id)
            return Trial(self.get_space(), status=TrialStatus.STOPPED)
        ongoing = tuner_id in self.ongoing_trials  # its worker was started again
        trial = super().create_trial(tuner_id)
        if trial.status == TrialStatus.RUNNING:
            self.listener("again" if ongoing else "began", trial)
        return trial

    def end_trial(self, trial: Trial) -> None:
        # gRPC carries no message, and numbers of 32 bits: the record is one text.
        own = self.trials[trial.trial_id]
        trial.message = trial.hyperparameters.values.get(RECORD, trial.message)
        trial.hyperparameters = own.hyperparameters
        super().end_trial(trial)
        self.listener("ended", own)

    def score_trial(self, trial: Trial) -> None:
        record = TrialResult.from_text(trial.message)
        trial.score, trial.best_step = getattr(record, self.objective.name), record.epochs

    def save(self) -> None:
        write_json(self.plan.folder / ORACLE, self.get_state())

    def _save_trial(self, trial: Trial) -> None:
        folder = self.plan.folder / f"{TRIAL_PREFIX}{trial.trial_id}"
        folder.mkdir(exist_ok=True)
        write_json(folder / TRIAL, trial.get_state())

    def reload(self) -> None:
        """Takes up the state on the disk: finished trials stay, running ones are queued again.

        Raises:
            InputError: a file is damaged.
        """
        path = self.plan.folder / ORACLE
        if not path.exists():  # killed before the first trial
            return
        try:
            self._read_states(path)
        except Exception as error:  # of KerasTuner, for what no check foresaw
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            told = str(error).removesuffix(".")
            raise InputError(
                f"{self.plan.folder} is damaged ({kind}{told}); move it away to begin the search "
                "again."
            ) from error
        # Killed between the files of a new trial: nobody knows of it yet.
        self.trials = {id: trial for id, trial in self.trials.items() if id in self.start_order}
        # Killed between the files of a trial that had ended.
        ended = (TrialStatus.COMPLETED, TrialStatus.FAILED)
        for trial_id in [id for id in self._retry_queue if self.trials[id].status in ended]:
            self._retry_queue.remove(trial_id)
        self.end_order += [
            id
            for id, trial in self.trials.items()
            if trial.status in ended and id not in self.end_order
        ]
        self._retry_queue = sorted(set(self._retry_queue), reverse=True)  # taken from the end

    def _read_states(self, path: Path) -> None:
        hyperparameters, kept = self.hyperparameters, self._own_arguments()
        own_space = hyperparameters.get_config()["space"]
        for trial_path in sorted(self.plan.folder.glob(f"{TRIAL_PREFIX}*/{TRIAL}")):
            state = states.read_trial(trial_path, own_space, self._check_values)
            self.trials[state["trial_id"]] = Trial.from_state(state)
        state = states.check_oracle(read_json(path), self.trials, path)
        self.set_state(state | kept | {"hyperparameters": hyperparameters.get_config()})
        for trial in self.ongoing_trials.values():
            self._retry_queue.append(trial.trial_id)
        self.ongoing_trials = {}

    def _own_arguments(self) -> dict[str, Any]:
        # What the search was made with stands in the file too; it is the search that says it.
        hyperband = ("max_epochs", "min_epochs", "factor", "hyperband_iterations")
        bayesian = ("num_initial_points", "alpha", "beta")
        names = (*hyperband, *bayesian)
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def _check_values(self, values: Mapping[str, Any]) -> None:
        if not values.get(BASELINE):
            decoded = spaces.decode(self.plan.space, values)
            for name, dimension in self.plan.space.items():
                if not dimension.accepts(decoded[name]):
                    raise ValueError(f"{name} is {shortened(decoded[name])}")
            Config.from_dict(self.plan.config.to_dict() | decoded)
        budget, further = values.get(BUDGET, 1), values.get(FURTHER, "0")
        if type(budget) is not int or not 1 <= budget <= self.plan.budget:
            raise ValueError(f"{BUDGET} is {shortened(budget)}")
        if not isinstance(further, str) or not further.isdecimal() or len(further) > 6:
            raise ValueError(f"{FURTHER} is {shortened(further)}")


class _Random(_Durable, keras_tuner.oracles.RandomSearchOracle):
    pass


class _Bayesian(_Durable, keras_tuner.oracles.BayesianOptimizationOracle):
    pass


class _Hyperband(_Durable, keras_tuner.oracles.HyperbandOracle):
    pass


class _GridOracle(keras_tuner.Oracle):
    # KerasTuner's own grid has ten points in each range and begins with values of its choice.
    def populate_space(self, trial_id: str) -> dict:
        number = len(self.start_order) - 1  # the first trial took the user's own settings
        own = spaces.grid_number(self.plan.space, vars(self.plan.own))
        number += own is not None and number >= own
        if number >= spaces.grid_size(self.plan.space):
            return {"status": TrialStatus.STOPPED, "values": None}
        values = spaces.grid_values(self.plan.space, number)
        return {"status": TrialStatus.RUNNING, "values": spaces.encode(self.plan.space, values)}


class _Grid(_Durable, _GridOracle):
    pass


def make_oracle(plan: Plan, *, most_trials: int) -> keras_tuner.Oracle:
    """Returns the oracle of a search, with what is on the disk of an earlier one.

    Args:
        plan: of the search.
        most_trials: the search ends with so many.

    Raises:
        InputError: the state on the disk is damaged.
    """
    hyperparameters = spaces.make_hyperparameters(plan.space, plan.own)
    hyperparameters.Fixed(PROJECT, plan.project)  # by which a worker knows its chief
    arguments: dict[str, Any] = {
        "objective": keras_tuner.Objective(plan.objective, plan.direction),
        "hyperparameters": hyperparameters,
        "seed": plan.config.seed + 1,  # KerasTuner takes 0 for none
        "max_consecutive_failed_trials": sys.maxsize,  # a failure never ends the search
    }
    if plan.tuner == "hyperband":
        oracle = _Hyperband(
            max_epochs=plan.budget,
            factor=HYPERBAND_FACTOR,
            hyperband_iterations=None,  # until there are enough trials
            **arguments,
        )
    elif plan.tuner == "bayesian":
        oracle = _Bayesian(
            max_trials=None,
            num_initial_points=BAYESIAN_FIRST_POINTS,
            beta=BAYESIAN_BETA,
            **arguments,
        )
    elif plan.tuner == "random":
        oracle = _Random(max_trials=None, **arguments)
    else:
        oracle = _Grid(**arguments)
    oracle.verbose = 0
    oracle.plan, oracle.most_trials = plan, most_trials
    oracle._set_project_dir(str(plan.folder.parent), plan.folder.name)
    oracle.reload()
    return oracle
