"""What a person sees while a search runs: a live table on a terminal, a line a trial elsewhere."""

import time
from collections.abc import Sequence

import keras_tuner
from keras_tuner.engine.trial import Trial
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from transfer import console
from transfer.formatting import format_about, format_percent, format_seconds
from transfer.runs import files
from transfer.training.checkpoint import list_checkpoints
from transfer.tuning import results
from transfer.tuning.oracles import TRIAL_PREFIX, Plan
from transfer.tuning.results import Row
from transfer.tuning.space import format_value
from transfer.tuning.trials import RUN

TOP = 10  # trials shown at the end, and while it runs


class Display:
    """Listens to an oracle; enter it as a context while the search runs.

    Args:
        oracle: tells of its trials.
        most_trials: that the search may take.
    """

    def __init__(self, oracle: keras_tuner.Oracle, most_trials: int) -> None:
        self.oracle, self.most_trials = oracle, most_trials
        self._began: dict[str, float] = {}
        self._rows: list[Row] = results.read_rows(oracle)
        self._live = Live(
            console=console.get(), get_renderable=self._render, refresh_per_second=2, transient=True
        )
        oracle.listener = self._listen

    def __enter__(self) -> "Display":
        if console.get().is_terminal and not console.get().quiet:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def _listen(self, event: str, trial: Trial) -> None:
        plan = self.oracle.plan
        self._rows = results.read_rows(self.oracle)
        if event != "ended":
            self._began[trial.trial_id] = time.monotonic()
            return
        self._began.pop(trial.trial_id, None)
        results.write_results(plan.folder, self._rows, plan)
        if not console.get().is_terminal:
            row = self._rows[int(trial.trial_id)]
            text = results.describe_row(row, plan)
            if row in results.sort_rows(self._rows, plan.objective)[:1] and row.number > 1:
                text += " (best so far)"
            console.say(f"{text}{self._time_left()}")

    def _time_left(self) -> str:
        # By the mean of the trials that ended; other processes' run at the same time as ours.
        seconds = [row.score.seconds for row in self._rows if row.finished]
        left = self.most_trials - sum(row.record is not None for row in self._rows)
        if not seconds or left <= 0:
            return ""
        each, now = sum(seconds) / len(seconds), time.monotonic()
        done = sum(min(now - began, each) for began in self._began.values())
        about = (each * left - done) / max(len(self._began), 1)
        return f"; {format_about(about)} left"

    def _tell_running(self, trial_id: str, began: float) -> Text:
        folder = self.oracle.plan.folder / f"{TRIAL_PREFIX}{trial_id}" / RUN / files.CHECKPOINTS
        told = f"running: trial {int(trial_id) + 1}"
        for newest in list_checkpoints(folder)[-1:]:  # such as 2-fine-tune-0003
            phase, _, number = newest.name.split("-", 1)[1].rpartition("-")
            told += f", {phase} epoch {int(number)} done"
        return Text(f"{told}, for {format_seconds(time.monotonic() - began)}")

    def _render(self) -> Group:
        rows, plan = self._rows, self.oracle.plan
        ended = sum(row.record is not None for row in rows)
        failed = sum(row.failed for row in rows)
        told = f"{ended} of {self.most_trials} trials" + (f", {failed} failed" if failed else "")
        lines = [self._tell_running(id, began) for id, began in list(self._began.items())]
        return Group(Text(told + self._time_left()), top_table(rows, plan), *lines)


def top_table(rows: Sequence[Row], plan: Plan) -> Table:
    """Returns a table of the best trials, the user's own settings in any case."""
    best = results.sort_rows(rows, plan.objective)
    shown = best[:TOP] + [row for row in best[TOP:] if row.is_own]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("trial", "accuracy", "loss", "epochs", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("what differs from your own settings", overflow="fold")
    for row in shown:
        table.add_row(
            str(row.number),
            format_percent(row.score.val_accuracy),
            f"{row.score.val_loss:.4f}",
            str(row.score.epochs),
            format_seconds(row.score.seconds),
            _differences(row, plan),
        )
    return table


def _differences(row: Row, plan: Plan) -> str:
    if row.is_own:
        return "(your own settings)"
    told = f"(trial {row.further}, taken further) " if row.further else ""
    return told + ", ".join(
        f"{name} {format_value(getattr(row.config, name))}"
        for name in plan.space
        if getattr(row.config, name) != getattr(plan.own, name)
    )
