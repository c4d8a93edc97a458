"""Says how good a trained classifier is, on test images it has never seen."""

import json
from pathlib import Path

import click

from transfer import cli


@click.command()
@click.argument("run_dirs", metavar="[RUN_DIR]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--report", is_flag=True, help="Compare with other runs and published results.")
@click.option("--all-baselines", is_flag=True, help="All published rows; implies --report.")
@click.option(
    "--measure-baselines",
    is_flag=True,
    help="Train five classic classifiers on the same images; implies --report.",
)
@click.option("--ensemble", is_flag=True, help="Add a row: the mean of all runs named.")
@click.option("--tta", is_flag=True, help="Add rows: the mean of each image and its mirror image.")
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as JSON, for programs.")
@cli.conduct_options
def main(
    run_dirs: tuple[Path, ...],
    report: bool,
    all_baselines: bool,
    measure_baselines: bool,
    ensemble: bool,
    tta: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Evaluate finished runs, by default the newest one in runs/, on their test images.

    Without any run it evaluates the model that comes with the package, unpacked into a run folder.

    Every test image is predicted once; the predictions are kept in the run. Of several runs the
    first is compared with each other one. --report also writes a report, as report.md and
    report.html, and a model card into the first run's folder.
    """
    from transfer import runs
    from transfer.evaluation import included

    if ensemble and len(run_dirs) < 2:
        raise click.UsageError("--ensemble is the mean of several runs; name at least two.")
    run_dirs = run_dirs or tuple(runs.finished_runs()[:1])
    for run_dir in run_dirs:
        runs.check_finished(run_dir)  # before anything slow
    console = cli.make_console(quiet or as_json)
    cli.load_tensorflow(verbose)
    from transfer.evaluation import comparison
    from transfer.evaluation.evaluate import evaluate_combinations, evaluate_run, to_json

    run_dirs = run_dirs or (included.unpack_included(console),)
    evaluated = [evaluate_run(run_dir, console) for run_dir in run_dirs]
    combined = evaluate_combinations(evaluated, console, ensemble=ensemble, tta=tta)
    for run in evaluated:
        comparison.print_run(run, console)
    if report or all_baselines or measure_baselines:
        comparison.report_runs(
            evaluated,
            combined,
            console,
            all_baselines=all_baselines,
            measure_baselines=measure_baselines,
        )
    elif evaluated[1:] or combined:
        comparison.print_side_by_side(evaluated + combined, console)
    if as_json:
        values = [to_json(run) for run in evaluated + combined]
        click.echo(json.dumps(values[0] if len(values) == 1 else values, indent=2))


if __name__ == "__main__":
    cli.run(main)
