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
    resume: str | None,
    offline: bool,
    quiet: bool,
    verbose: bool,
    **settings,
) -> None:
    """Fine-tune a pretrained backbone on images and keep the result in a run folder."""
    if resume and run_dir:
        raise click.UsageError("--resume goes on in the run's own folder; leave --run-dir out.")
    config = cli.make_config(settings)
    console = cli.make_console(quiet)
    cli.load_tensorflow(verbose)
    from transfer import runs
    from transfer.evaluation import plots
    from transfer.training import train

    if resume:
        run_dir = runs.newest_unfinished_run() if resume == NEWEST else Path(resume)
        given = cli.given_settings(ctx, settings)
        result = train.resume(run_dir, console, given=given, offline=offline)
    else:
        command = cli.command_line()
        result = train.train(config, console, run_dir=run_dir, offline=offline, command=command)
    curves = plots.png(plots.plot_history(result.history))
    runs.write_atomically(result.run_dir / runs.CURVES, curves)
    train.print_summary(result, console)


if __name__ == "__main__":
    cli.run(main)
