"""`transfer compare`: what differs in the settings of runs, beside what they came to."""

from pathlib import Path

import click

from transfer import console
from transfer.commands import options


@click.command(context_settings=options.WIDTH)
@click.argument("run_dirs", metavar="RUN RUN...", nargs=-1, type=options.UserPath())
def main(run_dirs: tuple[Path, ...]) -> None:
    """Show what differs between finished runs: their settings, and what they came to.

    Of runs that were evaluated on the same test images it also says whether the difference is more
    than noise. `transfer runs` lists the runs there are.
    """
    from transfer.evaluation.significance import compare_pairs
    from transfer.report.document import Paragraph, Table, show
    from transfer.report.sections import comparisons_section
    from transfer.runs import differences

    if len(run_dirs) < 2:
        raise click.UsageError(f"name at least two runs; {console.how_to('runs')} lists them.")
    options.check_different(run_dirs)
    console.speak()
    runs = [differences.read_run(run_dir) for run_dir in run_dirs]
    names = [str(run_dir) for run_dir in run_dirs]
    numeric = (False, *[True] * len(runs))
    short = [run_dir.resolve().name for run_dir in run_dirs]  # where they tell the runs apart
    titles = short if len(set(short)) == len(short) else names
    results = [(name, *values) for name, values in differences.results_of(runs)]
    show([Table(("result", *titles), numeric, results)])
    console.say()
    settings = [(name, *values) for name, values in differences.differing_settings(runs)]
    if settings:
        show([Table(("what differs", *titles), (False, *[False] * len(runs)), settings)])
    else:
        show([Paragraph("They were made with the same settings, data, weights and versions.")])
    if differences.have_same_test(runs):
        right = [(name, run.is_right()) for name, run in zip(names, runs, strict=True)]
        show(comparisons_section(compare_pairs(right)))
    elif not all(run.tested is not None for run in runs):
        missing = [name for name, run in zip(names, runs, strict=True) if run.tested is None]
        console.say(f"Next: {console.how_to('evaluate', *missing)}")
