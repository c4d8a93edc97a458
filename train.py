"""Fine-tunes a pretrained backbone on Fashion-MNIST or your own images."""

from pathlib import Path

import click

from transfer import cli


@click.command(context_settings={"max_content_width": 100})
@cli.config_options
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    show_default="runs/<time>-<backbone>",
    help="Folder of the run; must be new.",
)
@cli.conduct_options
@click.option("--offline", is_flag=True, help="Never use the network.")
def main(run_dir: Path | None, offline: bool, quiet: bool, verbose: bool, **settings) -> None:
    """Fine-tune a pretrained backbone on images and keep the result in a run folder."""
    config = cli.make_config(settings)
    console = cli.make_console(quiet)
    cli.load_tensorflow(verbose)
    from transfer import runs
    from transfer.evaluation import plots
    from transfer.training.phases import print_summary, train

    result = train(config, console, run_dir=run_dir, offline=offline, command=cli.command_line())
    curves = plots.png(plots.plot_history(result.history))
    runs.write_atomically(result.run_dir / runs.CURVES, curves)
    print_summary(result, console)


if __name__ == "__main__":
    cli.run(main)
