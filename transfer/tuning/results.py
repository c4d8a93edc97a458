"""What a search comes to: its trials in order, trials.csv, best.json, words about the best."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import keras_tuner
from keras_tuner.engine.trial import TrialStatus

from transfer.config import Config
from transfer.formatting import format_percent, format_seconds
from transfer.storage.atomic import write_atomically, write_json
from transfer.storage.csv_text import csv_text, original_cell
from transfer.tuning.oracles import BASELINE, BUDGET, FURTHER, Plan
from transfer.tuning.space import Space, decode, format_value
from transfer.tuning.trials import TrialResult, full_budget, with_budget

TRIALS, BEST, PICTURE = "trials.csv", "best.json", "search.png"


class Score(NamedTuple):
    """What a trial came to."""

    val_accuracy: float  # share in [0, 1]
    val_loss: float  # nats
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Row:
    """One trial, as it is shown."""

    number: int  # from 1, in the order they began
    config: Config
    is_own: bool  # of the user's own settings
    further: int | None  # number of the trial that Hyperband takes further here
    record: TrialResult | None  # None while it runs

    @property
    def finished(self) -> bool:
        """Whether it ended with a score."""
        return self.record is not None and not self.record.reason

    @property
    def failed(self) -> bool:
        """Whether it ended without a score."""
        return bool(self.reason)

    @property
    def reason(self) -> str:
        """Why it failed, one line; "" if it did not, or still runs."""
        return "" if self.record is None else self.record.reason

    @property
    def score(self) -> Score:
        """What it came to, where it has finished.

        Raises:
            ValueError: it has not.
        """
        record = self.record
        if record is None or record.val_accuracy is None or record.val_loss is None:
            raise ValueError(f"trial {self.number} should have finished. Received: no score.")
        return Score(record.val_accuracy, record.val_loss, record.epochs, record.seconds)


def trial_config(config: Config, space: Space, values: dict[str, Any]) -> Config:
    """Returns the settings of a trial.

    Args:
        config: the user's own settings.
        space: what is searched.
        values: of the trial, as the oracle keeps them.
    """
    if not values.get(BASELINE):
        config = Config.from_dict(config.to_dict() | decode(space, values))
    return with_budget(config, values[BUDGET]) if BUDGET in values else config


def read_rows(oracle: keras_tuner.Oracle) -> list[Row]:
    """Returns the trials that an oracle knows, in the order they began."""
    rows = []
    for number, trial_id in enumerate(list(oracle.start_order), 1):
        trial = oracle.trials[trial_id]
        values = trial.hyperparameters.values
        ended = trial.status in (TrialStatus.COMPLETED, TrialStatus.FAILED)
        rows.append(
            Row(
                number,
                trial_config(oracle.plan.config, oracle.plan.space, values),
                bool(values.get(BASELINE)),
                int(values[FURTHER]) + 1 if FURTHER in values else None,
                TrialResult.from_text(trial.message) if ended and trial.message else None,
            )
        )
    return rows


def sort_rows(rows: Sequence[Row], objective: str) -> list[Row]:
    """Returns the trials that ended with a score, the best first."""
    sign = -1 if objective == "val_accuracy" else 1
    return sorted(
        (row for row in rows if row.finished),
        key=lambda row: sign * getattr(row.score, objective),
    )


def best_config(best: Row, config: Config) -> Config:
    """Returns the settings to train with: the best trial's, on all images, for all epochs.

    Args:
        best: the best trial.
        config: the user's own settings.
    """
    values = with_budget(best.config, full_budget(config)).to_dict()
    return Config.from_dict(values | {"limit": None})


def write_results(folder: Path, rows: Sequence[Row], plan: Plan) -> None:
    """Writes trials.csv and, once a trial has a score, best.json.

    Args:
        folder: of the project.
        rows: all trials.
        plan: of the search.
    """
    write_atomically(folder / TRIALS, _csv(rows, list(plan.space)))
    best = sort_rows(rows, plan.objective)
    if best:
        write_json(folder / BEST, best_config(best[0], plan.config).to_dict())


def _csv(rows: Sequence[Row], names: list[str]) -> str:
    columns = ["trial", "state", "own_settings", "val_accuracy", "val_loss", "epochs", "seconds"]
    budget = ["head_epochs", "finetune_epochs"]
    lines = []
    for row in rows:
        record = row.record or TrialResult({})
        lines.append(
            [
                row.number,
                "finished" if row.finished else "failed" if row.failed else "running",
                str(row.is_own).lower(),
                *(record.val_accuracy, record.val_loss, record.epochs, round(record.seconds, 1)),
                *(record.worker, record.reason),
                *(getattr(row.config, name) for name in (*budget, *names)),
            ]
        )
    return csv_text([*columns, "worker", "reason", *budget, *names], lines)


def describe_row(row: Row, plan: Plan) -> str:
    """Returns a trial in one line: scores, epochs, time, and the values that were searched."""
    name = f"Trial {row.number}" + (" (your own settings)" if row.is_own else "")
    name += f" (trial {row.further}, taken further)" if row.further else ""
    config = plan.own if row.is_own else row.config
    values = ", ".join(f"{field} {format_value(getattr(config, field))}" for field in plan.space)
    if row.failed:
        return f"{name}: failed, {row.reason}; {values}"
    score = row.score
    return (
        f"{name}: validation accuracy {format_percent(score.val_accuracy)}, "
        f"loss {score.val_loss:.4f}; {score.epochs} "
        f"{'epoch' if score.epochs == 1 else 'epochs'}, {format_seconds(score.seconds)}; {values}"
    )


def describe_best(rows: Sequence[Row], objective: str, num_validation: int) -> list[str]:
    """Returns what the best trial is worth beside the user's own settings, in lines.

    Args:
        rows: all trials, at least one with a score.
        objective: "val_accuracy" or "val_loss".
        num_validation: images that the scores were taken on.
    """
    best = sort_rows(rows, objective)[0]
    own = next((row for row in rows if row.is_own and row.finished), None)
    if best.is_own:
        return ["No trial was better than your own settings."]
    lines = [f"Best: trial {best.number}, {_score(best, objective)}"]
    if own is None:
        return lines
    accuracy, before = best.score.val_accuracy, own.score.val_accuracy
    lines[0] += f"; your own settings: {_score(own, objective)}"
    if objective == "val_accuracy":
        # 95 % of the difference of two accuracies on the same images, taken as independent.
        variance = accuracy * (1 - accuracy) + before * (1 - before)
        noise = 1.96 * math.sqrt(variance / num_validation)
        lines.append(
            f"The difference is {100 * (accuracy - before):+.2f} points on {num_validation:,} "
            f"validation images, on which up to {100 * noise:.2f} points may be chance; and the "
            "best of many trials is a little lucky."
        )
    return lines


def _score(row: Row, objective: str) -> str:
    if objective == "val_loss":
        return f"validation loss {row.score.val_loss:.4f}"
    return f"validation accuracy {format_percent(row.score.val_accuracy)}"


def first_reason(rows: Sequence[Row]) -> str | None:
    """Returns why the first trial failed, or None if none did."""
    return next((row.reason for row in rows if row.failed), None)


def read_csv(folder: Path) -> list[dict[str, str]]:
    """Returns the rows of a search's trials.csv, by the names of their columns."""
    with (folder / TRIALS).open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return [{name: original_cell(cell) for name, cell in row.items()} for row in rows]
