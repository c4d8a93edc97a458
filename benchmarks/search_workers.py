"""A search side by side: what its chief takes of a trial, with 1, 2, 4 and 8 workers.

    python -m benchmarks.search_workers

Trials cost nothing here: each worker asks the chief for one and tells its score at once, by
KerasTuner's own client over loopback, so that the chief is all that they wait for.
"""

import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import click

from transfer.backend import load_keras
from transfer.config import Config
from transfer.workers import local_places

WORKERS = (1, 2, 4, 8)
IDLE_SECONDS = 0.01  # where Hyperband waits for the trials of others


def measure(tuner: str, num_workers: int, num_trials: int) -> float:
    """Returns how many trials a second a chief hands out and takes back.

    Args:
        tuner: one of `transfer.tuning.oracles.TUNERS`.
        num_workers: each a process.
        num_trials: of all workers together.
    """
    from keras_tuner.src.distribute import oracle_chief

    from transfer.tuning import parallel
    from transfer.tuning.oracles import Plan, make_oracle
    from transfer.tuning.space import default_space

    config = Config(backbone="mobilenetv2", finetune_epochs=8)
    own = Config.from_dict(config.to_dict() | {"finetune_learning_rate": 2e-3})
    space = default_space(config, [1e-4, 1e-2], from_scratch=False)
    address, context = local_places(1)[0].coordinator, multiprocessing.get_context("fork")
    ready = context.Event()
    workers = [
        context.Process(target=_work, args=(address, f"worker{number}", ready))
        for number in range(num_workers)
    ]
    for worker in workers:  # before there is a thread of gRPC's
        worker.start()
    with tempfile.TemporaryDirectory() as name:
        plan = Plan(Path(name), tuner, "val_accuracy", space, config, own, 8, {})
        oracle = make_oracle(plan, most_trials=num_trials)
        with parallel.serving(oracle_chief.OracleServicer(oracle), address):
            started = time.perf_counter()
            ready.set()
            for worker in workers:
                worker.join()
            return len(oracle.end_order) / (time.perf_counter() - started)


def _work(address: str, name: str, ready: Event) -> None:
    from transfer.tuning import parallel
    from transfer.tuning.oracles import RECORD
    from transfer.tuning.trials import TrialResult

    ready.wait()
    with parallel.connection(address, name) as oracle:
        while (trial := oracle.create_trial(name)).status != "STOPPED":
            if trial.status == "IDLE":
                time.sleep(IDLE_SECONDS)
                continue
            score = int(trial.trial_id) * 7 % 10 / 10
            record = TrialResult({}, score, 1 - score, 1, 1.0, name)
            trial.hyperparameters.values[RECORD] = record.to_text()
            trial.status = "COMPLETED"
            oracle.end_trial(trial)


def _measure(answer: Connection, *task: Any) -> None:
    answer.send(measure(*task))


@click.command()
@click.option("--trials", default=200, show_default=True, help="Of each measurement.")
def main(trials: int) -> None:
    """Measure how many trials a second a search's chief hands out and takes back."""
    load_keras()
    import keras_tuner  # noqa: F401  # once for all

    context = multiprocessing.get_context("fork")
    for tuner in ("hyperband", "random", "bayesian"):
        for num_workers in WORKERS:
            # In a process of its own: workers are forked where gRPC was never used.
            ours, theirs = context.Pipe()
            context.Process(target=_measure, args=(theirs, tuner, num_workers, trials)).start()
            click.echo(f"{tuner:9}  {num_workers} workers  {ours.recv():7.1f} trials/s")


if __name__ == "__main__":
    main()
