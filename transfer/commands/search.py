"""`transfer search`: the images of a catalogue that are most like a photo."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from transfer import console
from transfer.backend import load_keras
from transfer.commands import options
from transfer.deploy.choices import INCLUDED, INVERT
from transfer.formatting import format_count

if TYPE_CHECKING:
    from transfer.deploy.similar import Index, Searcher
    from transfer.runs.finished import FinishedRun

_FILE = options.NewFile()


@click.command(context_settings=options.WIDTH)
@click.argument("run", metavar="RUN")
@click.argument("photos", metavar="[PHOTO]...", nargs=-1)
@click.option(
    "--index",
    "catalogue",
    multiple=True,
    metavar="FOLDER",
    show_default="none",
    help="First make the index of this catalogue, in place of the one before.",
)
@click.option(
    "--top",
    default=12,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Images found for each photo.",
)
@click.option(
    "--csv", "csv_file", type=_FILE, metavar="FILE", show_default="none", help="Write them as CSV."
)
@click.option(
    "--html", type=_FILE, metavar="FILE", show_default="none", help="Write a page of pictures."
)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON, for programs.")
@click.option(
    "--invert",
    type=click.Choice(INVERT, case_sensitive=False),
    default=INVERT[0],
    show_default=True,
    help="Make negatives, as predict does.",
)
@options.conduct_options
def main(
    run: str,
    photos: tuple[str, ...],
    catalogue: tuple[str, ...],
    top: int,
    csv_file: Path | None,
    html: Path | None,
    as_json: bool,
    invert: str,
    quiet: bool,
    verbose: bool,
) -> None:
    """Find the images of a catalogue that are most like a photo.

    RUN is a run folder, or "included". --index FOLDER computes the features of all images in the
    folder once and keeps them in the run; then PHOTO is compared with all of them.
    """
    if not photos and not catalogue:
        raise click.UsageError("name a photo, or make an index: --index FOLDER.")
    from transfer.deploy.photos import find_photos
    from transfer.runs.folder import check_finished

    if run != INCLUDED:
        check_finished(Path(run))
    listed = find_photos(catalogue).paths if catalogue else ()
    found = find_photos(photos).paths if photos else ()
    console.speak(quiet or as_json, verbose)
    load_keras(verbose)
    from transfer.deploy import similar

    searcher = similar.Searcher(_open(run), invert)
    index = _build(searcher, listed) if catalogue else searcher.load()
    if not found:
        return
    matches, bad = similar.search_photos(searcher, index, found, top)
    for line in bad:
        console.say(f"Not readable: {line}")
    similar.matches_table(matches).show()
    rows = [dataclasses.asdict(match) for match in matches]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    if csv_file:
        _write_csv(rows, csv_file)
    if html:
        similar.write_page(matches, html)
        console.say(f"Page: {html}")
    if not matches:
        raise click.ClickException(f"no photo could be read: {bad[0]}")


def _open(run: str) -> "FinishedRun":
    from transfer.runs.finished import FinishedRun
    from transfer.runs.included import unpack_included

    return FinishedRun(unpack_included() if run == INCLUDED else Path(run))


def _build(searcher: "Searcher", paths: tuple[str, ...]) -> "Index":
    from rich.progress import Progress

    voice = console.get()
    with Progress(console=voice, transient=True, disable=not voice.is_terminal) as progress:
        task = progress.add_task("index", total=len(paths))
        index = searcher.build(paths, lambda count: progress.update(task, completed=count))
    for line in index.bad[:10]:
        console.say(f"Not readable, left out: {line}")
    left_out = f", {len(index.bad):,} not readable" if index.bad else ""
    console.say(f"Index: {format_count(len(index.paths), 'image')}{left_out}, {searcher.path}")
    return index


def _write_csv(rows: list[dict], path: Path) -> None:
    from transfer.storage.atomic import write_output
    from transfer.storage.csv_text import csv_text

    columns = ("photo", "place", "path", "cosine")
    text = csv_text(columns, [[row[name] for name in columns] for row in rows])
    write_output(path, text.encode("utf-8", "surrogateescape"))
    console.say(f"Matches: {path}")
