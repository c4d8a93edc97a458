"""Data that a finished run is evaluated on by name: its own, moved, or others of the same classes.

The fingerprint of the test images says which of the two it is.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from transfer.data.decode import describe_fit_of
from transfer.data.division import data_name, divide
from transfer.data.fingerprints import fingerprint
from transfer.data.splits import Loaded, Split, Splits
from transfer.datasets.sources import describe_origin, load_undivided
from transfer.errors import InputError
from transfer.runs.facts import DataFacts, Facts


@dataclass(frozen=True, eq=False)
class GivenData:
    """What was found where the user said.

    Attributes:
        facts: of the data, as a report tells them.
        splits: the run's own data, found again; None where it is other data.
        other_test: other labelled images, to be tested on; None where it is the run's own data.
    """

    facts: DataFacts
    splits: Splits | None = None
    other_test: Split | None = None


def find_given_data(data: str, facts: Facts) -> GivenData:
    """Loads data and says whether it is that of a run.

    Args:
        data: what `load_splits` takes.
        facts: of the run.

    Raises:
        InputError: it cannot be used, or has a class that the run does not know.
    """
    loaded = load_undivided(data, offline=True)
    splits = _divide_alike(loaded, facts)
    kept = facts.data.fingerprints["test"]
    if splits is not None and fingerprint(splits.test, like=kept) == kept:
        told = f"{facts.data.provenance}; now {loaded.location}, the same test images"
        same = dataclasses.replace(facts.data, location=loaded.location, provenance=told)
        return GivenData(same, splits=splits)
    return _take_other(loaded, facts.data)


def _divide_alike(loaded: Loaded, facts: Facts) -> Splits | None:
    settings = facts.settings
    try:
        return divide(
            loaded,
            settings.validation_fraction,
            settings.seed,
            settings.limit,
            keeps_duplicates_together=facts.data.keeps_duplicates_together,
        )
    except InputError:  # as few images as nothing can be trained on
        return None


def _take_other(loaded: Loaded, kept: DataFacts) -> GivenData:
    # Its test part where it has one, else all of it: the run has been trained on none of it.
    own = loaded.test or loaded.train
    labels, note = _translate_labels(own.labels, loaded, kept.class_names)
    test = dataclasses.replace(own, labels=labels)
    what = "test images" if loaded.test else "images, all there are"
    told = (
        f"OTHER DATA than the run's own: {test.num_images:,} {what}, of {describe_origin(loaded)}"
        f"{note}"
    )
    if kept.geometry and (fit := describe_fit_of(test, kept.geometry)):
        told += f"; {fit}"
    facts = dataclasses.replace(
        kept,
        name=data_name(loaded),
        location=loaded.location,
        provenance=told,
        num_images=kept.num_images | {"test": test.num_images},
        fingerprints=kept.fingerprints | {"test": fingerprint(test)},
    )
    return GivenData(facts, other_test=test)


def _translate_labels(
    labels: np.ndarray, loaded: Loaded, class_names: tuple[str, ...]
) -> tuple[np.ndarray, str]:
    # Returns the run's labels for the same classes, and a note on what was guessed.
    numbers = tuple(map(str, range(len(class_names))))
    if loaded.class_names == numbers != class_names:
        return labels, "; its labels are numbers, taken for the run's classes in order"
    if unknown := [name for name in loaded.class_names if name not in class_names]:
        raise InputError(
            f"--data should have the classes of the run, {', '.join(class_names[:10])}"
            f"{', ...' if len(class_names) > 10 else ''}. Received: {loaded.location} with "
            f"{', '.join(map(repr, unknown[:10]))} besides."
        )
    return np.array([class_names.index(name) for name in loaded.class_names])[labels], ""
