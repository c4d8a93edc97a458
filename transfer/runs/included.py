"""The model that comes with the package, as a run folder like any other.

Who has trained nothing yet can evaluate it at once, on the Fashion-MNIST that is at hand.
"""

import dataclasses
from pathlib import Path

from transfer import console
from transfer.backend import load_keras
from transfer.data.decode import measure_geometry
from transfer.data.fingerprints import fingerprint
from transfer.data.splits import Splits
from transfer.datasets.sources import load_splits
from transfer.models import pretrained
from transfer.models.pretrained import FASHION, MADE_FROM
from transfer.runs import files
from transfer.runs.facts import DataFacts, Facts, WeightsFacts, parse_facts, parse_summary
from transfer.runs.folder import is_finished, lock_run
from transfer.runs.history import write_history
from transfer.storage.atomic import read_json

BACKBONE = "mobilenetv2"
NAME = f"included-{BACKBONE}"


def unpack_included(folder: Path = files.RUNS_FOLDER) -> Path:
    """Makes the run folder of the included model, where there is none yet.

    Args:
        folder: of the runs.

    Returns:
        The run folder.

    Raises:
        InputError: the package's file is damaged, or there is no Fashion-MNIST to test it on.
    """
    run_dir = folder / NAME
    if is_finished(run_dir):
        return run_dir
    console.say(f"This is the model that comes with the package, unpacked into {run_dir}")
    entry = read_json(pretrained.MANIFEST)[FASHION][BACKBONE]
    kept = parse_facts(entry["facts"], pretrained.MANIFEST)
    made = f"the included model's, {MADE_FROM[FASHION]}"
    facts = dataclasses.replace(
        kept, data=_describe_data(kept), weights=WeightsFacts(FASHION, made)
    )
    run_dir.mkdir(parents=True, exist_ok=True)
    with lock_run(run_dir):
        _write_model(facts, run_dir)
        facts.write(run_dir)
        write_history(run_dir, entry["history"])
        parse_summary(entry["summary"], pretrained.MANIFEST).write(run_dir)
    return run_dir


def _write_model(facts: Facts, run_dir: Path) -> None:
    load_keras(console.is_verbose())
    from transfer.models.saving import restore_classifier, save_classifier

    settled, policy = facts.settled, facts.precision
    path = pretrained.find(FASHION, BACKBONE)
    classifier = restore_classifier(settled, facts.data.num_classes, policy, path)
    save_classifier(classifier, settled, policy, run_dir / files.MODEL)


def _describe_data(kept: Facts) -> DataFacts:
    # The test images at hand may be those of the embedded sample; it was trained on all.
    settings, trained_on = kept.settings, kept.data
    splits = load_splits(
        "auto", validation_fraction=settings.validation_fraction, seed=settings.seed, limit=None
    )
    parts = splits.parts()
    counts = {name: split.num_images for name, split in parts.items()}
    return DataFacts(
        name=splits.name,
        location=splits.location,
        provenance=_tell_provenance(splits, trained_on.fingerprints),
        class_names=splits.class_names,
        num_images=counts | {"train": trained_on.num_images["train"]},
        fingerprints={name: fingerprint(split) for name, split in parts.items()},
        geometry=measure_geometry(parts.values(), settings.image_size),
    )


def _tell_provenance(splits: Splits, trained_on: dict[str, str]) -> str:
    if fingerprint(splits.validation) == trained_on["validation"]:
        return splits.provenance
    return f"{splits.provenance}; the model has seen most of these validation images in training"
