"""A run in MLflow: settings, metrics by epoch, model and report. Needs the extra `mlflow`.

Where MLflow keeps it is MLflow's own business: $MLFLOW_TRACKING_URI and its kin.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transfer.errors import InputError
from transfer.runs import files
from transfer.runs.facts import read_facts, read_summary
from transfer.runs.history import read_history
from transfer.runs.predictions import load_predictions

if TYPE_CHECKING:
    pass

EXPERIMENT = "transfer"  # where $MLFLOW_EXPERIMENT_NAME says nothing
FOLDER_TAG = "transfer.run_dir"
_FILES = (files.CONFIG, files.SUMMARY, files.HISTORY, files.CURVES, files.CARD, files.MODEL)
_AT_ONCE = 500  # metrics; MLflow takes up to 1,000
_NUMBERS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


class Tracker:
    """Keeps runs in MLflow; opened before anything slow, so that what is missing is said at once.

    Raises:
        InputError: MLflow is not installed, or its store cannot be used.
    """

    def __init__(self) -> None:
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise InputError(
                "--mlflow needs the package mlflow: pip install '.[mlflow]'."
            ) from error
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        with _told():
            self._client: MlflowClient = MlflowClient()
            known = self._client.get_experiment_by_name(name)
            self._experiment = (
                known.experiment_id if known else self._client.create_experiment(name)
            )

    def log(self, run_dir: Path) -> None:
        """Keeps a finished run; of one that is kept already what is new, as its report.

        Args:
            run_dir: the folder.

        Raises:
            InputError: MLflow's store cannot be used.
        """
        with _told():
            run_id = self._find(run_dir) or self._begin(run_dir)
            tested = load_predictions(run_dir, read_facts(run_dir))
            if tested is not None:
                right = tested.y_prob.argmax(axis=1) == tested.y_true
                self._client.log_metric(run_id, "test_accuracy", float(np.mean(right)))
            for name in (*_FILES, files.REPORT):
                if (path := run_dir / name).is_dir():
                    self._client.log_artifacts(run_id, str(path), name)
                elif path.is_file():
                    self._client.log_artifact(run_id, str(path))
            self._client.set_terminated(run_id)

    def _find(self, run_dir: Path) -> str | None:
        folder = str(run_dir.resolve()).replace("'", "''")
        found = self._client.search_runs(
            [self._experiment], f"tags.`{FOLDER_TAG}` = '{folder}'", max_results=1
        )
        return str(found[0].info.run_id) if found else None

    def _begin(self, run_dir: Path) -> str:
        from mlflow.entities import Metric, Param

        facts, folder = read_facts(run_dir), str(run_dir.resolve())
        run = self._client.create_run(
            self._experiment, tags={FOLDER_TAG: folder}, run_name=run_dir.resolve().name
        )
        params = [Param(name, str(value)) for name, value in facts.settled.to_dict().items()]
        metrics = [
            Metric(name, row[name], 0, step)
            for step, row in enumerate(read_history(run_dir), start=1)
            for name in _NUMBERS
        ]
        kept = read_summary(run_dir).kept_phase
        metrics.append(Metric("kept_val_accuracy", kept.val_accuracy, 0, 0))
        run_id: str = run.info.run_id
        self._client.log_batch(run_id, params=params)
        for start in range(0, len(metrics), _AT_ONCE):
            self._client.log_batch(run_id, metrics=metrics[start : start + _AT_ONCE])
        return run_id


@contextlib.contextmanager
def _told() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise InputError(f"MLflow: {str(error).splitlines()[0]}") from error
