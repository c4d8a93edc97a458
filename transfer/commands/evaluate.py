"""`transfer evaluate`: how good a trained classifier is, on test images it has never seen."""

import json
from pathlib import Path

import click

from transfer import console
from transfer.backend import load_keras
from transfer.commands import options


@click.command(context_settings=options.WIDTH)
@click.argument("run_dirs", metavar="[RUN_DIR]...", nargs=-1, type=options.UserPath())
@click.option(
    "--data",
    show_default="the data of each run",
    help="Where the data is now, if it was moved; or other labelled images of the same classes, "
    "to score the runs on.",
)
@click.option("--report", is_flag=True, help="Compare with other runs and published results.")
@click.option("--all-baselines", is_flag=True, help="All published rows; implies --report.")
@click.option(
    "--measure-baselines",
    is_flag=True,
    help="Train five classic classifiers on the same images; implies --report.",
)
@click.option("--ensemble", is_flag=True, help="Add a row: the mean of all runs named.")
@click.option("--tta", is_flag=True, help="Add rows: the mean of each image and its mirror image.")
@click.option(
    "--against-first",
    is_flag=True,
    help="Compare the first run with each other one, not every two of up to four.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as JSON, for programs.")
@options.mlflow_option
@options.conduct_options
def main(
    run_dirs: tuple[Path, ...],
    data: str | None,
    report: bool,
    all_baselines: bool,
    measure_baselines: bool,
    ensemble: bool,
    tta: bool,
    against_first: bool,
    as_json: bool,
    mlflow: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Evaluate finished runs, by default the newest one in runs/, on their test images.

    Without any run it evaluates the model that comes with the package, unpacked into a run folder.

    Every test image is predicted once; the predictions are kept in the run. Of several runs there
    is a table, the best first, and which differences are more than noise; --verbose adds the page
    of each. --report also writes a report, as report.md and report.html, and a model card into the
    first run's folder.

    Of other images than the run's own (--data) nothing is kept but a report of its own.
    """
    from transfer.runs.folder import check_finished, finished_runs

    wants_report = report or all_baselines or measure_baselines
    _check(run_dirs, ensemble=ensemble, is_silent=quiet and not (as_json or wants_report))
    run_dirs = run_dirs or tuple(finished_runs()[:1])
    for run_dir in run_dirs:
        check_finished(run_dir)  # before anything slow
    console.speak(quiet or as_json, verbose)
    if wants_report:
        load_keras(verbose)  # its pictures look into the network
    from transfer.evaluation.evaluated import evaluate_combinations, evaluate_run, to_json
    from transfer.report import run_report
    from transfer.report.tracking import Tracker
    from transfer.runs.finished import FinishedRun
    from transfer.runs.included import unpack_included

    tracker = Tracker() if mlflow else None
    run_dirs = run_dirs or (unpack_included(),)
    evaluated = [evaluate_run(FinishedRun(run_dir, data)) for run_dir in run_dirs]
    combined = evaluate_combinations(evaluated, ensemble=ensemble, tta=tta)
    for one in evaluated if len(evaluated) == 1 or verbose else ():
        run_report.print_run(one)
    if wants_report:
        baselines = {"all_baselines": all_baselines, "measure_baselines": measure_baselines}
        run_report.report_runs(evaluated, combined, against_first=against_first, **baselines)
    elif evaluated[1:] or combined:
        run_report.print_side_by_side(evaluated + combined, against_first=against_first)
    if tracker:
        for one in evaluated:
            tracker.log(one.run_dir)
    if as_json:
        values = [to_json(one) for one in evaluated + combined]
        click.echo(json.dumps(values[0] if len(values) == 1 else values, indent=2))


def _check(run_dirs: tuple[Path, ...], *, ensemble: bool, is_silent: bool) -> None:
    if is_silent:
        raise click.UsageError("--quiet leaves nothing to say; add --json or --report.")
    options.check_different(run_dirs)
    if ensemble and len(run_dirs) < 2:
        raise click.UsageError("--ensemble is the mean of several runs; name at least two.")
