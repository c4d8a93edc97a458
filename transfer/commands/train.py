"""`transfer train`: fine-tune a backbone and keep the result in a run folder."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from transfer import console, workers
from transfer.backend import load_keras
from transfer.commands import options
from transfer.commands.cache import say_if_large
from transfer.config import Config
from transfer.runs import files
from transfer.runs.files import RUNS_FOLDER

if TYPE_CHECKING:
    from transfer.training.result import Result

NEWEST = "the newest unfinished run"


@click.command(cls=options.GroupedCommand, context_settings=options.WIDTH)
@options.config_options
@click.option(
    "--run-dir",
    type=options.UserPath(),
    show_default="runs/<time>-<backbone>",
    help="Folder of the run; must be new or empty.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Train so many runs, with seeds from --seed on, in folders <run-dir>-seed<seed>.",
)
@click.option(
    "--resume",
    metavar="[RUN]",
    is_flag=False,
    flag_value=NEWEST,
    show_default="begin a new run",
    help="Go on with a run that was stopped: the newest unfinished one, or the folder named.",
)
@click.option(
    "--summary",
    is_flag=True,
    help="Show the network before it trains: layers, parameters, what each phase trains, cost.",
)
@click.option(
    "--find-learning-rate",
    is_flag=True,
    help="Train nothing: try rising learning rates in each phase, plot the loss, suggest one.",
)
@options.processes_options
@options.mlflow_option
@options.conduct_options
@options.offline_option
@click.pass_context
def main(
    ctx: click.Context,
    run_dir: Path | None,
    repeats: int,
    resume: str | None,
    summary: bool,
    find_learning_rate: bool,
    local_processes: int | None,
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    mlflow: bool,
    offline: bool,
    quiet: bool,
    verbose: bool,
    **settings: Any,
) -> int:
    """Fine-tune a pretrained backbone on images and keep the result in a run folder."""
    _check(resume, run_dir, repeats)
    config = options.make_config(settings)
    given = options.given_settings(ctx, settings)
    if find_learning_rate:
        _check_finder(resume, repeats, local_processes or coordinator)
        console.speak(quiet, verbose)
        return _find_learning_rate(config, given, run_dir, offline, verbose)
    if not workers.is_worker():
        together = options.places_of(local_processes, coordinator, num_processes, process_id)
        if together is not None:
            folder = run_dir or (Path(resume) if resume not in (None, NEWEST) else None)
            return _train_together(*together, folder, verbose)
    console.speak(quiet, verbose)
    load_keras(verbose)
    from transfer.report.tracking import Tracker
    from transfer.training.distribution import is_first, join_others
    from transfer.training.repeats import print_repeats
    from transfer.training.result import print_summary

    join_others()
    tracker = Tracker() if mlflow and is_first() else None  # missing? said before anything slow
    results = []
    for result in _train(config, given, repeats, run_dir, resume, offline, summary or verbose):
        print_summary(result)
        if tracker:
            tracker.log(result.run_dir)
        results.append(result)
    print_repeats(results)
    say_if_large()
    return 0


def _train(
    config: Config,
    given: dict[str, Any],
    repeats: int,
    run_dir: Path | None,
    resume: str | None,
    offline: bool,
    shows_network: bool,
) -> Iterator["Result"]:
    # Returns the results of runs that are trained one after the other.
    from transfer.report.document import show
    from transfer.report.network import network_section
    from transfer.report.training_report import write_training_report
    from transfer.runs.folder import newest_unfinished_run
    from transfer.training.repeats import resume_repeats, train_repeats

    show_network = (lambda counts: show(network_section(counts))) if shows_network else None
    if resume:
        return resume_repeats(
            newest_unfinished_run() if resume == NEWEST else Path(resume).expanduser(),
            given=given,
            offline=offline,
            describe=write_training_report,
            show_network=show_network,
        )
    return train_repeats(
        config,
        repeats,
        run_dir=run_dir,
        offline=offline,
        command=console.command_line(),
        given=frozenset(given),
        describe=write_training_report,
        show_network=show_network,
    )


def _find_learning_rate(
    config: Config, given: dict[str, Any], run_dir: Path | None, offline: bool, verbose: bool
) -> int:
    load_keras(verbose)
    from transfer.report.learning_rates import PLOT, write_learning_rates
    from transfer.training.learning_rates import STEPS, find_learning_rates

    tests = find_learning_rates(config, run_dir=run_dir, offline=offline, given=frozenset(given))
    folder = write_learning_rates(tests, run_dir)
    for test in tests:
        told = f"{test.option} {test.suggested:g}" if test.suggested else "no suggestion"
        why = f"none of {STEPS} rates raises the loss"
        if test.highest:
            why = f"a third of {test.highest:.2g}, the highest that does not raise the loss"
        console.say(f"{test.phase}: {told} ({why}; now {test.now:g})")
    console.say(f"Plot: {folder / PLOT}")
    return 0


def _train_together(
    places: list[workers.Place], words: list[str], folder: Path | None, verbose: bool
) -> int:
    """Trains in several processes and returns the exit code."""
    started = time.time()

    def how_to_go_on() -> str:
        begun = [folder / files.CONFIG] if folder else RUNS_FOLDER.glob(f"*/{files.CONFIG}")
        begun = [each for each in begun if each.is_file() and each.stat().st_mtime >= started]
        newest = max(begun, key=lambda each: each.stat().st_mtime, default=None)
        name = newest.parent if newest else folder
        if name is None or not (name / files.CONFIG).is_file():
            return "The run had not begun."
        command = console.how_to("train", "--resume", name, *words)
        return f"All finished epochs are kept. To go on: {command}"

    command = workers.command_of_worker()
    return workers.run_workers(command, places, words, how_to_go_on, verbose=verbose)


def _check(resume: str | None, run_dir: Path | None, repeats: int) -> None:
    if resume and run_dir:
        raise click.UsageError("--resume goes on in the run's own folder; leave --run-dir out.")
    if resume and repeats > 1:
        raise click.UsageError("--resume also goes on with the repeats; leave --repeats out.")


def _check_finder(resume: str | None, repeats: int, together: int | str | None) -> None:
    if resume or repeats > 1 or together:
        raise click.UsageError(
            "--find-learning-rate trains nothing, in one process; leave --resume, --repeats, "
            "--local-processes and --coordinator out."
        )
