"""`transfer tune`: search for better settings with many short training runs."""

import functools
import math
from pathlib import Path
from typing import Any

import click

from transfer import console
from transfer.backend import load_keras
from transfer.commands import options


@click.command(cls=options.GroupedCommand, context_settings=options.WIDTH)
@click.option(
    "--tuner",
    type=click.Choice(("hyperband", "bayesian", "random", "grid"), case_sensitive=False),
    default="hyperband",
    show_default=True,
    help="How values are chosen.",
)
@click.option(
    "--trials",
    type=click.IntRange(1, 9999),
    default=30,
    show_default=True,
    help="End with so many; the first takes your own settings.",
)
@click.option(
    "--objective",
    type=click.Choice(("val_accuracy", "val_loss"), case_sensitive=False),
    default="val_accuracy",
    show_default=True,
    help="What to look for, on the validation images.",
)
@click.option(
    "--space",
    type=options.UserPath(dir_okay=False),
    show_default="the usual settings",
    help="A JSON file that fixes or narrows what is searched.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(0, min_open=True),
    default=math.inf,
    show_default="none",
    help="Minutes after which to end with what was found.",
)
@click.option(
    "--role",
    type=click.Choice(("chief", "worker"), case_sensitive=False),
    show_default="search in this process alone",
    help="Share the search: a chief hands out trials, workers run them.",
)
@click.option(
    "--address",
    metavar="HOST:PORT",
    default="127.0.0.1:8765",
    show_default=True,
    help="Where the chief listens; neither encrypted nor authenticated.",
)
@click.option("--id", "worker", show_default="none", help="Name of a worker, each its own.")
@functools.partial(options.config_options, several=("backbone",))
@options.conduct_options
@options.offline_option
@click.pass_context
def main(
    ctx: click.Context,
    tuner: str,
    trials: int,
    objective: str,
    space: Path | None,
    time_limit: float,
    role: str | None,
    address: str,
    worker: str | None,
    offline: bool,
    quiet: bool,
    verbose: bool,
    **settings: Any,
) -> None:
    """Search for better settings, and write them to a file for train.py --config.

    A setting that you give here is kept as given; the others are searched. --backbone may be given
    several times. The same command goes on with a search that was stopped.
    """
    _check_roles(role, address, worker)
    backbones = tuple(dict.fromkeys(settings.pop("backbone")))
    config = options.make_config(settings | {"backbone": backbones[0]})
    console.speak(quiet, verbose)
    load_keras(verbose)
    from transfer.tuning import search
    from transfer.tuning.space import read_space

    chosen = search.SearchOptions(
        config,
        given=options.given_options(ctx, settings),
        kept=frozenset(options.given_settings(ctx, settings)),
        backbones=backbones,
        tuner=tuner,
        trials=trials,
        objective=objective,
        space=read_space(space) if space else None,
        time_limit=60 * time_limit,
        command=console.command_line(),
        offline=offline,
    )
    if role == "chief":
        search.lead(chosen, address)
    elif worker is not None:  # only a worker has a name
        search.follow(chosen, address, worker)
    else:
        search.search(chosen)


def _check_roles(role: str | None, address: str, worker: str | None) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise click.UsageError(f"--address should be HOST:PORT. Received: {address!r}.")
    if role == "worker" and worker is None:
        raise click.UsageError("--role worker needs a name of its own, such as --id first.")
    if worker is not None and role != "worker":
        raise click.UsageError("--id names a worker; give --role worker besides, or leave it out.")
