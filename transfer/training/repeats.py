"""Runs that differ in their seed alone: one says how good a model is, several how much that varies.

Each repeat is a run like any other in a folder of its own, `<name>-seed<seed>`. All that binds
them together is what their config.json says under "repeats".
"""

import contextlib
import dataclasses
import signal
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from transfer import console
from transfer.config import Config
from transfer.errors import HOW_TO_GO_ON, Interrupted
from transfer.formatting import format_spread
from transfer.runs import files
from transfer.runs.facts import Facts, RepeatsFacts, read_facts
from transfer.runs.folder import check_new, default_run_dir, is_tidy
from transfer.training import distribution, run
from transfer.training.result import Describe, Result


def train_repeats(
    config: Config,
    count: int,
    *,
    run_dir: Path | None = None,
    offline: bool = False,
    command: str = "",
    given: Container[str] | None = None,
    describe: Describe | None = None,
    show_network: run.ShowNetwork | None = None,
) -> Iterator[Result]:
    """Trains runs with the seeds `config.seed`, `config.seed` + 1, ... one after another.

    Args:
        config: the settings of the first.
        count: number of runs, at least 1; a single one is not a repeat.
        run_dir: their folders are `<run_dir>-seed<seed>`, a single run's is `run_dir`; None for
            `runs/<time>-<backbone>`.
        offline: never use the network.
        command: the command line, kept in each run.
        given: names of the settings that must stay as they are; None for all.
        describe: called with what each run came to, before it counts as finished.
        show_network: called with how large a classifier is, before it is trained.

    Yields:
        What each run hands back, when it has finished.

    Raises:
        InputError: one of the folders exists already; or as `train.train`.
        Interrupted: Ctrl-C or SIGTERM came.
    """
    if count == 1:
        yield run.train(
            config,
            run_dir=run_dir,
            offline=offline,
            command=command,
            given=given,
            describe=describe,
            show_network=show_network,
        )
        return
    base = run_dir or default_run_dir(config.backbone)
    seeds = range(config.seed, config.seed + count)
    folders = {seed: base.with_name(f"{base.name}-seed{seed}") for seed in seeds}
    for folder in folders.values() if distribution.is_first() else ():
        check_new(folder)
    yield from _train_missing(config, folders, offline, command, describe, given, show_network)


def resume_repeats(
    run_dir: Path,
    *,
    given: Mapping[str, Any] | None = None,
    offline: bool = False,
    describe: Describe | None = None,
    show_network: run.ShowNetwork | None = None,
) -> Iterator[Result]:
    """Goes on with a run that was stopped and, where it is one of several, with those missing.

    Args:
        run_dir: a run that has begun; of several also one that has finished.
        given: settings that the user gave again; they must be those of the run.
        offline: never use the network.
        describe: called with what each run came to, before it counts as finished.
        show_network: called with how large a classifier is, before it is trained.

    Yields:
        What each run hands back, when it has finished.

    Raises:
        InputError: there is nothing to go on with; or as `train.resume`.
        Interrupted: Ctrl-C or SIGTERM came.
    """
    folders, facts = _folders_beside(run_dir)
    if all(map(is_tidy, folders.values())) or not is_tidy(run_dir):
        yield run.resume(
            run_dir, given=given, offline=offline, describe=describe, show_network=show_network
        )
    if facts and folders:
        yield from _train_missing(facts.settings, folders, offline, facts.command, describe)


def print_repeats(results: Sequence[Result]) -> None:
    """Prints mean, min, max and n of several runs; nothing of a single one."""
    if len(results) < 2:
        return
    phases = [result.summary.kept_phase for result in results]
    command = console.how_to("evaluate", *(result.run_dir for result in results), "--report")
    console.say(
        f"{len(results)} runs, each on validation images of its own: accuracy "
        f"{format_spread([phase.val_accuracy for phase in phases])}; loss "
        f"{format_spread([phase.val_loss for phase in phases], '{:.4f}'.format)}"
    )
    console.say(f"Next: {command}")


def _folders_beside(run_dir: Path) -> tuple[dict[int, Path], Facts | None]:
    """Returns seed to folder of a run and its repeats, empty of a single run; and its facts."""
    if not (run_dir / files.CONFIG).is_file():
        return {}, None
    facts = read_facts(run_dir)
    if facts.repeats is None:
        return {}, facts
    run_dir = run_dir if run_dir.name else run_dir.resolve()  # "." has no name to take apart
    name = run_dir.name.removesuffix(f"-seed{facts.settings.seed}")
    first = facts.repeats.first_seed
    seeds = range(first, first + facts.repeats.count)
    return {seed: run_dir.with_name(f"{name}-seed{seed}") for seed in seeds}, facts


def _train_missing(
    config: Config,
    folders: Mapping[int, Path],
    offline: bool,
    command: str,
    describe: Describe | None,
    given: Container[str] | None = None,
    show_network: run.ShowNetwork | None = None,
) -> Iterator[Result]:
    """Finishes what has begun and begins what has not, in the order of the seeds."""
    bound = RepeatsFacts(min(folders), len(folders))
    for number, (seed, folder) in enumerate(folders.items(), start=1):
        if distribution.first_says(is_tidy(folder)):
            continue
        keras.backend.clear_session()  # frees the network before
        console.say(f"Repeat {number} of {len(folders)}: seed {seed}")
        with _say_how_to_go_on(folder, folders):
            if distribution.first_says((folder / files.CONFIG).is_file()):
                result = run.resume(folder, offline=offline, describe=describe)
            else:
                result = run.train(
                    dataclasses.replace(config, seed=seed),
                    run_dir=folder,
                    offline=offline,
                    command=command,
                    given=given,
                    repeats=bound,
                    describe=describe,
                    show_network=show_network,
                )
        yield result


@contextlib.contextmanager
def _say_how_to_go_on(folder: Path, folders: Mapping[int, Path]) -> Iterator[None]:
    # A run that has begun says so itself; before that, a finished one leads to the others.
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        begun = [other for other in folders.values() if (other / files.CONFIG).is_file()]
        if folder in begun or not begun:
            raise
        told = f"Stopped. {HOW_TO_GO_ON}{console.how_to('train', '--resume', begun[-1])}"
        raise Interrupted(getattr(error, "number", signal.SIGINT), told) from error
