"""`transfer runs`: which runs there are, and how good they are."""

import dataclasses
import json
from pathlib import Path

import click

from transfer import console
from transfer.commands import options
from transfer.formatting import format_age, format_bytes, format_percent
from transfer.runs import files


@click.command(context_settings=options.WIDTH)
@click.argument("folder", type=options.UserPath(), default=files.RUNS_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def main(folder: Path, as_json: bool) -> None:
    """List the runs in FOLDER, by default runs/, the newest first."""
    from transfer.report.document import Table, Text
    from transfer.runs.listing import list_runs

    rows = list_runs(folder)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
        return
    console.speak()
    if not rows:
        console.say(f"No run in {folder}/.")
        return
    header = ("run", "state", "data", "backbone", "weights", "val. %", "test %", "size", "age")
    cells: list[tuple[Text, ...]] = [
        (
            row.name,
            row.state,
            row.data,
            row.backbone,
            row.weights,
            *(_percent(share) for share in (row.validation_accuracy, row.test_accuracy)),
            format_bytes(row.num_bytes),
            format_age(row.age_seconds),
        )
        for row in rows
    ]
    Table(header, (*[False] * 5, *[True] * 4), cells).show()
    for row in rows:
        if row.problem:
            console.say(f"{row.name}: {row.problem}")


def _percent(share: float | None) -> str:
    return "–" if share is None else format_percent(share).removesuffix(" %")
