"""Runs that differ in their seed alone: one says how good a model is, several how much that varies.

Each repeat is a run like any other in a folder of its own, `<name>-seed<seed>`. All that binds
them together is what their config.json says under "repeats".
"""

import contextlib
import dataclasses
import shlex
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
from rich.console import Console

from transfer import runs
from transfer.config import Config
from transfer.errors import Interrupted
from transfer.formatting import format_spread
from transfer.training import train
from transfer.training.record import Result


def train_repeats(
    config: Config,
    count: int,
    console: Console,
    *,
    run_dir: Path | None = None,
    offline: bool = False,
    command: str = "",
) -> Iterator[Result]:
    """Trains runs with the seeds `config.seed`, `config.seed` + 1, ... one after another.

    Args:
        config: the settings of the first.
        count: number of runs, at least 1; a single one is not a repeat.
        console: where progress is told.
        run_dir: their folders are `<run_dir>-seed<seed>`, a single run's is `run_dir`; None for
            `runs/<time>-<backbone>`.
        offline: never use the network.
        command: the command line, kept in each run.

    Yields:
        What each run hands back, when it has finished.

    Raises:
        InputError: one of the folders exists already; or as `train.train`.
        Interrupted: Ctrl-C or SIGTERM came.
    """
    if count == 1:
        yield train.train(config, console, run_dir=run_dir, offline=offline, command=command)
        return
    base = run_dir or runs.default_run_dir(config.backbone)
    seeds = range(config.seed, config.seed + count)
    folders = {seed: base.with_name(f"{base.name}-seed{seed}") for seed in seeds}
    for folder in folders.values():
        runs.check_new(folder)
    yield from _train_missing(config, folders, console, offline, command)


def resume_repeats(
    run_dir: Path, console: Console, *, given: dict | None = None, offline: bool = False
) -> Iterator[Result]:
    """Goes on with a run that was stopped and, where it is one of several, with those missing.

    Args:
        run_dir: a run that has begun; of several also one that has finished.
        console: where progress is told.
        given: settings that the user gave again; they must be those of the run.
        offline: never use the network.

    Yields:
        What each run hands back, when it has finished.

    Raises:
        InputError: there is nothing to go on with; or as `train.resume`.
        Interrupted: Ctrl-C or SIGTERM came.
    """
    folders, facts = _folders_beside(run_dir)
    if all(map(runs.is_finished, folders.values())) or not runs.is_finished(run_dir):
        yield train.resume(run_dir, console, given=given, offline=offline)
    if folders:
        config = Config.from_dict(facts["settings"])
        yield from _train_missing(config, folders, console, offline, facts["command"])


def print_repeats(results: Sequence[Result], console: Console) -> None:
    """Prints mean, min, max and n of several runs; nothing of a single one."""
    if len(results) < 2:
        return
    last_phases = [list(result.summary["phases"].values())[-1] for result in results]
    folders = shlex.join(str(result.run_dir) for result in results)
    console.print(
        f"{len(results)} runs, each on validation images of its own: accuracy "
        f"{format_spread([phase['val_accuracy'] for phase in last_phases])}; loss "
        f"{format_spread([phase['val_loss'] for phase in last_phases], '{:.4f}'.format)}\n"
        f"Next: python evaluate.py {folders} --report",
        soft_wrap=True,
    )


def _folders_beside(run_dir: Path) -> tuple[dict[int, Path], dict]:
    """Returns seed to folder of a run and its repeats, empty of a single run; and its facts."""
    if not (run_dir / runs.CONFIG).is_file():
        return {}, {}
    facts = runs.read_json(run_dir / runs.CONFIG)
    bound = facts.get("repeats")
    if not bound:
        return {}, facts
    run_dir = run_dir if run_dir.name else run_dir.resolve()  # "." has no name to take apart
    name = run_dir.name.removesuffix(f"-seed{facts['settings']['seed']}")
    seeds = range(bound["first_seed"], bound["first_seed"] + bound["count"])
    return {seed: run_dir.with_name(f"{name}-seed{seed}") for seed in seeds}, facts


def _train_missing(
    config: Config, folders: dict[int, Path], console: Console, offline: bool, command: str
) -> Iterator[Result]:
    """Finishes what has begun and begins what has not, in the order of the seeds."""
    bound = {"first_seed": min(folders), "count": len(folders)}
    for number, (seed, folder) in enumerate(folders.items(), start=1):
        if runs.is_finished(folder):
            continue
        keras.backend.clear_session()  # frees the network before
        console.print(f"Repeat {number} of {len(folders)}: seed {seed}")
        with _say_how_to_go_on(folder, folders):
            if (folder / runs.CONFIG).is_file():
                result = train.resume(folder, console, offline=offline)
            else:
                result = train.train(
                    dataclasses.replace(config, seed=seed),
                    console,
                    run_dir=folder,
                    offline=offline,
                    command=command,
                    repeats=bound,
                )
        yield result


@contextlib.contextmanager
def _say_how_to_go_on(folder: Path, folders: dict[int, Path]) -> Iterator[None]:
    # A run that has begun says so itself; before that, a finished one leads to the others.
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        begun = [other for other in folders.values() if (other / runs.CONFIG).is_file()]
        if folder in begun or not begun:
            raise
        told = f"Stopped. To go on: python train.py --resume {shlex.quote(str(begun[-1]))}"
        raise Interrupted(getattr(error, "number", signal.SIGINT), told) from error
