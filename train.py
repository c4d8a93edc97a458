"""Fine-tunes a pretrained backbone on Fashion-MNIST or your own images."""

from pathlib import Path

import click

from transfer import cli

NEWEST = "the newest unfinished run"


@click.command(context_settings={"max_content_width": 100})
@cli.config_options
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    show_default="runs/<time>-<backbone>",
    help="Folder of the run; must be new.",
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
@cli.conduct_options
@click.option("--offline", is_flag=True, help="Never use the network.")
@click.pass_context
def main(
    ctx: click.Context,
    run_dir: Path | None,
    repeats: int,
    resume: str | None,
    offline: bool,
    quiet: bool,
    verbose: bool,
    **settings,
) -> None:
    """Fine-tune a pretrained backbone on images and keep the result in a run folder."""
    if resume and run_dir:
        raise click.UsageError("--resume goes on in the run's own folder; leave --run-dir out.")
    if resume and repeats > 1:
        raise click.UsageError("--resume also goes on with the repeats; leave --repeats out.")
    config = cli.make_config(settings)
    console = cli.make_console(quiet)
    cli.load_tensorflow(verbose)
    from transfer import runs
    from transfer.evaluation import plots
    from transfer.evaluation.card import model_card
    from transfer.training.record import print_summary
    from transfer.training.repeats import print_repeats, resume_repeats, train_repeats

    if resume:
        run_dir = runs.newest_unfinished_run() if resume == NEWEST else Path(resume)
        given = cli.given_settings(ctx, settings)
        trained = resume_repeats(run_dir, console, given=given, offline=offline)
    else:
        options = {"run_dir": run_dir, "offline": offline, "command": cli.command_line()}
        trained = train_repeats(config, repeats, console, **options)
    results = []
    for result in trained:
        curves = plots.png(plots.plot_history(result.history))
        runs.write_atomically(result.run_dir / runs.CURVES, curves)
        facts, name = runs.read_facts(result.run_dir), result.run_dir.resolve().name
        runs.write_atomically(result.run_dir / runs.CARD, model_card(name, facts, result.summary))
        print_summary(result, console)
        results.append(result)
    print_repeats(results, console)


if __name__ == "__main__":
    cli.run(main)
