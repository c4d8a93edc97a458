"""`transfer app`: a page on this machine on which photos are named."""

import importlib.util
import sys

import click

from transfer import console
from transfer.commands import options


@click.command(context_settings=options.WIDTH)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Whom it listens to; 0.0.0.0 is everybody who reaches this machine.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    show_default="the first free from 7860",
    help="Where it listens.",
)
@options.conduct_options
def main(models: tuple[str, ...], host: str, port: int | None, quiet: bool, verbose: bool) -> None:
    """Serve a page on which photos are named, until Ctrl-C.

    MODEL is a run folder, a file made by `transfer export`, or "included"; of several one is
    chosen on the page. Nothing is fetched from the network, and nothing sent to it.
    """
    if importlib.util.find_spec("gradio") is None:
        raise click.ClickException('gradio is not installed; run `pip install ".[app]"`.')
    console.speak(quiet, verbose)
    from transfer.deploy.app import build_app, launch, make_page
    from transfer.deploy.opening import open_classifier
    from transfer.storage.atomic import scratch_folder

    classifiers = [open_classifier(one) for one in models]
    with scratch_folder() as folder:
        app = build_app(make_page(classifiers, folder))
        console.say(f"Serving on {launch(app, host, port, block=False)} until Ctrl-C.")
        if not verbose:  # of malformed requests Gradio prints every line that led there
            sys.tracebacklimit = 0
        app.block_thread()
