"""`transfer audit`: what is wrong with a data set."""

from pathlib import Path

import click

from transfer import console
from transfer.commands import options


@click.command(cls=options.GroupedCommand, context_settings=options.WIDTH)
@options.setting_options("data", "limit")
@click.option(
    "--out",
    type=options.UserPath(file_okay=False),
    default=Path("runs/audit"),
    show_default=True,
    help="Folder for lists and pictures; those of an earlier audit are replaced.",
)
@click.option(
    "--weights",
    default="auto",
    show_default=True,
    help="By what label errors are found: a backbone's features with these weights, such as "
    "photos or a weights file; none for the images' gradients and pixels; auto takes features "
    "of images in colour where the weights have seen photos, else gradients and pixels.",
)
@options.setting_options("backbone", "image_size")
@options.offline_option
@options.conduct_options
def main(
    data: str,
    limit: int | None,
    out: Path,
    weights: str,
    backbone: str,
    image_size: int,
    offline: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Look for what is wrong with a data set: duplicates, leaks into the test, wrong labels.

    Also files that cannot be read, images that show next to nothing, are dark, light, blurred or
    of an odd size, and classes of unequal size. Nothing is changed; what is found is listed in
    --out, with pictures.
    """
    from transfer.auditing.report import print_audit
    from transfer.auditing.run import audit

    config = options.make_config(
        {
            "data": data,
            "limit": limit,
            "weights": weights,
            "backbone": backbone,
            "image_size": image_size,
        }
    )
    console.speak(quiet, verbose)
    summary = audit(config, out, offline=offline, verbose=verbose, command=console.command_line())
    console.say()
    print_audit(summary)
    console.say(f"\nLists and pictures: {out}")
