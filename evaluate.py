"""Says how good a trained classifier is, on test images it has never seen."""

import json
from pathlib import Path

import click

from transfer import cli


@click.command()
@click.argument("run_dirs", metavar="[RUN_DIR]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--report", is_flag=True, help="Compare with other runs and published results.")
@click.option("--all-baselines", is_flag=True, help="All 126 published rows; implies --report.")
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as JSON, for programs.")
@cli.conduct_options
def main(
    run_dirs: tuple[Path, ...],
    report: bool,
    all_baselines: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Evaluate finished runs, by default the newest one in runs/, on their test images.

    Every test image is predicted once; the predictions are kept in the run. --report also
    writes report.md and its pictures into the first run's folder.
    """
    from transfer import runs

    run_dirs = run_dirs or (runs.newest_finished_run(),)
    for run_dir in run_dirs:
        runs.check_finished(run_dir)  # before anything slow
    console = cli.make_console(quiet or as_json)
    cli.load_tensorflow(verbose)
    from transfer.evaluation import comparison
    from transfer.evaluation.report import print_metrics, print_table

    evaluated = [comparison.evaluate_run(run_dir, console) for run_dir in run_dirs]
    for run in evaluated:
        console.print(f"Run: {run.run_dir}", highlight=False, soft_wrap=True)
        console.print(f"Data: {run.facts['data']['provenance']}", highlight=False, soft_wrap=True)
        console.print(
            f"Weights: {run.facts['weights']['provenance']}", highlight=False, soft_wrap=True
        )
        print_metrics(run.metrics, console)
    if report or all_baselines:
        compared = evaluated + comparison.evaluate_others(evaluated, console)
        rows = comparison.table_rows(compared, all_baselines=all_baselines)
        print_table(rows, console, comparison.table_note(evaluated[0]))
        path = comparison.write_run_report(evaluated[0], rows)
        console.print(f"Report: {path}", highlight=False, soft_wrap=True)
    if as_json:
        values = [comparison.to_json(run) for run in evaluated]
        click.echo(json.dumps(values[0] if len(values) == 1 else values, indent=2))


if __name__ == "__main__":
    cli.run(main)
