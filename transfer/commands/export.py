"""`transfer export`: a run as a file for other runtimes, verified on the test images."""

import json
from pathlib import Path

import click

from transfer import console
from transfer.backend import load_keras
from transfer.commands import options
from transfer.deploy.choices import FORMATS, INCLUDED, LITERT, NONE, QUANTIZATIONS


@click.command(context_settings=options.WIDTH)
@click.argument("run", metavar="RUN")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS, case_sensitive=False),
    default=LITERT,
    show_default=True,
    help="LiteRT (TensorFlow Lite), ONNX, OpenVINO or TensorFlow's SavedModel.",
)
@click.option(
    "--quantize",
    type=click.Choice(QUANTIZATIONS, case_sensitive=False),
    default=NONE,
    show_default=True,
    help="Smaller numbers; auto is int8, and float16 where that loses too much.",
)
@click.option("--all", "every", is_flag=True, help="All formats, in one table.")
@click.option(
    "--output",
    type=options.UserPath(file_okay=False),
    show_default="RUN/exports/FORMAT",
    metavar="FOLDER",
    help="The folder to make.",
)
@click.option(
    "--most-loss",
    type=click.FloatRange(0, 100),
    default=0.5,
    show_default=True,
    help="Percentage points of accuracy that it may lose; beyond, it is refused.",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    show_default="all images",
    help="Verify it on so many test images.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was verified as JSON.")
@options.conduct_options
def main(
    run: str,
    form: str,
    quantize: str,
    every: bool,
    output: Path | None,
    most_loss: float,
    limit: int | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Export a finished run for other runtimes, and verify what was exported.

    RUN is a run folder, or "included" for the model that comes with the package. Size, colour
    and scaling are part of the model, which takes uint8 RGB; class names and thresholds stand in
    its file. It is run on the test images, and refused where it answers otherwise than the run.
    """
    from transfer.deploy.export import ExportOptions, check_free, check_known
    from transfer.runs.folder import check_finished

    if every and output:
        raise click.UsageError("--all writes into the folder of the run, not into --output.")
    check_known(form, quantize)
    if run != INCLUDED:
        check_finished(Path(run))
    if output:
        check_free(output)
    console.speak(quiet or as_json, verbose)
    load_keras(verbose)
    from transfer.deploy.export import Exporter, exports_table, sentence
    from transfer.deploy.verify import to_json
    from transfer.runs.finished import FinishedRun
    from transfer.runs.included import unpack_included

    exporter = Exporter(FinishedRun(unpack_included() if run == INCLUDED else Path(run)))
    how = ExportOptions(form, quantize, most_loss, limit)
    exports, left_out = exporter.export_all(how) if every else ([exporter.export(how, output)], [])
    if exports:
        exports_table(exports).show()
    for line in (*map(sentence, exports), *left_out):
        console.say(line)
    if as_json:
        rows = [
            {"path": str(one.path), "format": one.form, "quantize": one.quantize}
            | to_json(one.verification)
            for one in exports
        ]
        click.echo(json.dumps(rows if every else rows[0], indent=2))
    if not exports:
        raise click.ClickException("nothing could be exported.")
