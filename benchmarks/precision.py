"""Measures what bfloat16 inference costs in accuracy: `python -m benchmarks.precision RUN`."""

import json
from pathlib import Path

import click
import numpy as np

from transfer.backend import load_keras
from transfer.commands.exit_codes import run
from transfer.formatting import format_percent
from transfer.runs.folder import check_finished

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # name -> Keras's


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def main(run_dir: Path, as_json: bool) -> None:
    """Predict the test images of a finished run in float32 and in bfloat16, BatchNorm folded."""
    check_finished(run_dir)
    load_keras()
    values = compare_precisions(run_dir)
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    for name in POLICIES:
        click.echo(f"{name:9} {format_percent(values[name])} of {values['num_images']:,} images")
    click.echo(
        f"difference {100 * values['difference']:+.2f} points; the predicted class differs for "
        f"{values['num_differing']:,} images"
    )


def compare_precisions(run_dir: Path) -> dict:
    """Returns the accuracy of a run on its test images in both number formats.

    Returns:
        float32, bfloat16: accuracies in [0, 1]; difference: the second less the first;
        num_differing: images whose predicted class is another; num_images.
    """
    from transfer.evaluation.predictions import predict_split
    from transfer.models.folding import fold_classifier
    from transfer.runs.finished import FinishedRun

    run = FinishedRun(run_dir)
    config, split, classifier = run.facts.settled, run.images("test"), run.trained
    predicted = {
        name: predict_split(fold_classifier(classifier, policy), split, config).argmax(axis=1)
        for name, policy in POLICIES.items()
    }
    accuracies = {name: float((p == split.labels).mean()) for name, p in predicted.items()}
    return accuracies | {
        "difference": accuracies["bfloat16"] - accuracies["float32"],
        "num_differing": int(np.count_nonzero(predicted["float32"] != predicted["bfloat16"])),
        "num_images": split.num_images,
    }


if __name__ == "__main__":
    run(main)
