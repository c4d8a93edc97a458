"""`transfer weights`: what backbones can start from, what is on this machine, and fetching it."""

import dataclasses
import json

import click

from transfer import console
from transfer.commands import options
from transfer.errors import InputError
from transfer.models.backbones import BACKBONES

_KINDS = ("imagenet", "photos")  # those that are fetched, in the order of "auto"


@click.group(invoke_without_command=True, context_settings=options.WIDTH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def main(ctx: click.Context, as_json: bool) -> None:
    """List the weights that backbones can start from, and which of them are here."""
    from transfer.models.weights import list_weights
    from transfer.report.document import Table

    if ctx.invoked_subcommand:
        return
    rows = list_weights()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
        return
    console.speak()
    header = ("backbone", "--weights", "here", "what they know, and from where")
    cells = [
        (row.backbone, row.kind, "yes" if row.is_here else "no", f"{row.knows}; {row.source}")
        for row in rows
    ]
    Table(header, (False,) * len(header), cells).show()


@main.command(context_settings=options.WIDTH)
@click.argument(
    "backbones",
    metavar="BACKBONE...",
    nargs=-1,
    required=True,
    type=click.Choice(list(BACKBONES), case_sensitive=False),
)
@click.option(
    "--weights",
    type=click.Choice(["auto", *_KINDS], case_sensitive=False),
    default="auto",
    show_default=True,
    help="Which; auto takes the first of the others that can be had.",
)
@click.option(
    "--image-size",
    type=click.IntRange(32, 1024),
    default=96,
    show_default=True,
    help="Side of the images in pixels; ImageNet's files of MobileNetV2 differ by it.",
)
def fetch(backbones: tuple[str, ...], weights: str, image_size: int) -> None:
    """Fetch weights of each BACKBONE, for a machine that will be offline."""
    from transfer.backend import load_keras

    load_keras()
    console.speak()
    for backbone in backbones:
        console.say(f"{backbone}: {_fetch(backbone, weights, image_size)}")


def _fetch(backbone: str, weights: str, image_size: int) -> str:
    from transfer.models.weights import load_backbone

    reasons = []
    for kind in _KINDS if weights == "auto" else [weights]:
        try:
            return load_backbone(backbone, image_size, kind)[1].short
        except InputError as error:
            reasons.append(str(error))
    raise InputError(" ".join(reasons))
