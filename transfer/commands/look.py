"""`transfer look`: a data set before anything is trained on it."""

from pathlib import Path
from typing import Any

import click

from transfer import console
from transfer.commands import options
from transfer.config import groups

PAGE = "look.html"


@click.command(cls=options.GroupedCommand, context_settings=options.WIDTH)
@click.argument("data", default="auto", metavar="[DATA]")
@click.option(
    "--html",
    metavar="[FILE]",
    is_flag=False,
    flag_value=PAGE,
    type=options.NewFile(),
    show_default="no page",
    help=f"Write a page with pictures as well, {PAGE} where no file is named.",
)
@options.setting_options("limit", "validation_fraction", "fit", "image_size", "seed")
@options.setting_options(*groups()["augmentation"])
@options.offline_option
@options.conduct_options
def main(
    data: str, html: Path | None, offline: bool, quiet: bool, verbose: bool, **settings: Any
) -> None:
    """Show what is in a data set: images of each class, sizes, colours, duplicates.

    DATA is what train.py takes as --data. The page has samples of each class besides, and what
    augmentation makes of ten training images.
    """
    from transfer.report import document, look
    from transfer.storage.atomic import write_atomically

    config = options.make_config({"data": data, **settings})
    console.speak(quiet, verbose)
    with console.status("Looking at the images"):
        looked = look.look_at(config, offline=offline)
    blocks = look.look_blocks(looked)
    document.show(blocks)
    if html:
        from transfer.backend import load_keras

        load_keras(verbose)
        with console.status("Drawing the pictures"):
            pictures = look.look_pictures(looked)
        title = f"A look at {looked.splits.name}"
        page = document.to_html(title, [*blocks, document.Heading("Pictures"), *pictures])
        write_atomically(html, page)
        console.say(f"\nPage: {html}")
