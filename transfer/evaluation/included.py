"""The model that comes with the package, as a run folder like any other.

Who has trained nothing yet can evaluate it at once, on the Fashion-MNIST that is at hand.
"""

from pathlib import Path

from rich.console import Console

from transfer import runs
from transfer.config import Config, read_json
from transfer.data.sources import Splits, fingerprint, load_splits
from transfer.models import pretrained
from transfer.models.pretrained import FASHION, MADE_FROM, MANIFEST

BACKBONE = "mobilenetv2"
NAME = f"included-{BACKBONE}"


def unpack_included(console: Console, folder: Path = runs.RUNS_FOLDER) -> Path:
    """Makes the run folder of the included model, where there is none yet.

    Args:
        console: where it is told.
        folder: of the runs.

    Returns:
        The run folder.

    Raises:
        InputError: the package's file is damaged, or there is no Fashion-MNIST to test it on.
    """
    run_dir = folder / NAME
    console.print(
        f"No finished run in {folder}/: this is the model that comes with the package, "
        f"unpacked into {run_dir}",
        soft_wrap=True,
    )
    entry = read_json(MANIFEST)[FASHION][BACKBONE]
    made = {"name": FASHION, "provenance": f"the included model's, {MADE_FROM[FASHION]}"}
    facts = entry["facts"] | {"data": _describe_data(entry["facts"]), "weights": made}
    run_dir.mkdir(parents=True, exist_ok=True)
    with runs.lock_run(run_dir):
        _write_model(facts, run_dir)
        runs.write_json(run_dir / runs.CONFIG, facts)
        runs.write_history(run_dir, entry["history"])
        runs.write_json(run_dir / runs.SUMMARY, entry["summary"])
    return run_dir


def _write_model(facts: dict, run_dir: Path) -> None:
    from transfer.models.classifier import restore_classifier, save_classifier

    settled, num_classes = Config.from_dict(facts["settled"]), len(facts["data"]["class_names"])
    path = pretrained.find(FASHION, BACKBONE)
    classifier = restore_classifier(settled, num_classes, facts["precision"], path)
    save_classifier(classifier, settled, facts["precision"], run_dir / runs.MODEL)


def _describe_data(facts: dict) -> dict:
    # The test images at hand may be those of the embedded sample; it was trained on all.
    settings, trained_on = Config.from_dict(facts["settings"]), facts["data"]
    splits = load_splits(
        "auto", validation_fraction=settings.validation_fraction, seed=settings.seed, limit=None
    )
    parts = splits.parts()
    counts = {name: split.num_images for name, split in parts.items()}
    return {
        "name": splits.name,
        "location": splits.location,
        "provenance": _tell_provenance(splits, trained_on["fingerprints"]),
        "class_names": list(splits.class_names),
        "num_images": counts | {"train": trained_on["num_images"]["train"]},
        "fingerprints": {name: fingerprint(split) for name, split in parts.items()},
    }


def _tell_provenance(splits: Splits, trained_on: dict[str, str]) -> str:
    if fingerprint(splits.validation) == trained_on["validation"]:
        return splits.provenance
    return f"{splits.provenance}; the model has seen most of these validation images in training"
