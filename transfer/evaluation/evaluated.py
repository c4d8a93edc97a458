"""A finished run with what it says of its test images, alone, with flips or in an ensemble."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.errors import InputError
from transfer.evaluation.metrics import compute_metrics
from transfer.evaluation.predictions import mean_predictions, predict_run
from transfer.runs.facts import Facts
from transfer.runs.finished import FinishedRun
from transfer.runs.predictions import FLIPPED, Predictions


@dataclass(frozen=True)
class EvaluatedRun:
    """A finished run, or an ensemble of several, with what it says of its test images.

    Attributes:
        run: the run; of an ensemble its first member.
        predictions: of the test images.
        metrics: as `compute_metrics` returns them.
        members: of an ensemble.
        has_flips: mean of each image and its mirror image.
    """

    run: FinishedRun
    predictions: Predictions
    metrics: dict[str, Any]
    members: tuple["EvaluatedRun", ...] = ()
    has_flips: bool = False

    @property
    def facts(self) -> Facts:
        """What the run knows of itself."""
        return self.run.facts

    @property
    def run_dir(self) -> Path:
        """The folder of the run."""
        return self.run.run_dir

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        what = f"the ensemble of {len(self.members)} runs" if self.members else str(self.run_dir)
        return f"{what} with flips" if self.has_flips else what


def evaluate_run(run: FinishedRun) -> EvaluatedRun:
    """Predicts each test image of a finished run once, or takes the predictions kept in it.

    Raises:
        InputError: its data or model cannot be used.
    """
    predictions = predict_run(run)
    metrics = compute_metrics(predictions.y_true, predictions.y_prob, run.class_names)
    return EvaluatedRun(run, predictions, metrics)


def with_flips(run: EvaluatedRun) -> EvaluatedRun:
    """Returns the run with the mean of its predictions for each test image and its mirror image.

    Raises:
        InputError: its data or model cannot be used.
    """
    flipped = predict_run(run.run, FLIPPED)
    predictions = mean_predictions([run.predictions, flipped])
    return dataclasses.replace(_with_predictions(run, predictions), has_flips=True)


def _with_predictions(run: EvaluatedRun, predictions: Predictions) -> EvaluatedRun:
    metrics = compute_metrics(predictions.y_true, predictions.y_prob, run.run.class_names)
    return dataclasses.replace(run, predictions=predictions, metrics=metrics)


def ensemble_of(members: Sequence[EvaluatedRun]) -> EvaluatedRun:
    """Returns the mean of the runs' probabilities, as a run of its own.

    Raises:
        InputError: the runs were not tested on the same images with the same classes.
    """
    first, *others = members
    for other in others:
        if not is_comparable(first, other):
            raise InputError(
                f"the runs of an ensemble should have the same test images and classes; those of "
                f"{other.run_dir} are not those of {first.run_dir}."
            )
    predictions = mean_predictions([member.predictions for member in members])
    return dataclasses.replace(_with_predictions(first, predictions), members=tuple(members))


def is_comparable(run: EvaluatedRun, other: EvaluatedRun) -> bool:
    """Says whether two runs were tested on the same images with the same classes."""
    same_names = run.run.class_names == other.run.class_names
    return same_names and have_same_test_images(run.facts, other.facts)


def have_same_test_images(facts: Facts, others: Facts) -> bool:
    """Says whether two runs have the same test images."""
    return facts.data.fingerprints["test"] == others.data.fingerprints["test"]


def evaluate_combinations(
    evaluated: Sequence[EvaluatedRun], *, ensemble: bool, tta: bool
) -> list[EvaluatedRun]:
    """Returns what is made of runs beside themselves: with flips, as an ensemble, and both.

    Args:
        evaluated: the runs.
        ensemble: add the mean of all runs.
        tta: add each run with flips, and with `ensemble` the mean of all of these.

    Raises:
        InputError: the runs do not go together, or their data or models cannot be used.
    """
    flipped = [with_flips(run) for run in evaluated] if tta else []
    groups = [group for group in (evaluated, flipped) if group] if ensemble else []
    return flipped + [ensemble_of(group) for group in groups]


def to_json(run: EvaluatedRun) -> dict[str, Any]:
    """Returns a run's metrics with where its data and weights came from, as JSON values."""
    facts = run.facts.to_json()
    data = {name: facts["data"][name] for name in ("name", "location", "provenance")}
    values = run.metrics | {
        "run_dir": str(run.run_dir),
        "data": data,
        "weights": facts["weights"],
        "test_time_flips": run.has_flips,
    }
    members = [str(member.run_dir) for member in run.members]
    return values | ({"ensemble_of": members} if members else {})
