"""What others have reported on Fashion-MNIST, to stand beside our own runs in a table.

The numbers are quoted, not measured here. Table 3 of the paper that introduced the data set
lies beside this file as `paper_table3.csv`; a result from any other source is one more row in
`OTHER_RESULTS`, with its caveat where it has one.
"""

import csv
import functools
import importlib.resources
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

PAPER_NAME = "Xiao et al. 2017, Table 3"
PAPER_URL = "https://arxiv.org/abs/1708.07747"
FIRST_FAMILIES = ("SVC", "MLPClassifier")  # the two baselines that most readers look for

README_NAME = "Fashion-MNIST README"
README_URL = "https://github.com/zalandoresearch/fashion-mnist#benchmark"
README_NOTE = (
    "The list in the Fashion-MNIST README has results as they were submitted, not tested by its "
    "authors."
)
# The history of the data set's repository dates each entry, and the new files: commit 658ec8c.
FIRST_RELEASE = "first release of the data"
FIRST_RELEASE_NOTE = (
    "First release of the data: replaced on 31 August 2017, because images of the test part were "
    "in the training part too (https://github.com/zalandoresearch/fashion-mnist/issues/44); "
    "numbers on it are too high."
)


@dataclass(frozen=True)
class PublishedResult:
    """One accuracy that others have published.

    Attributes:
        family: kind of model, for example "SVC".
        settings: its settings as the source writes them, "" where it gives none.
        accuracy: share of the test images, in [0, 1].
        source_name: short name of the source.
        source_url: where to read it.
        training_images: how many images it was trained on.
        num_test_images: how many images it was tested on.
        caveat: what a reader must know before comparing, "" where there is nothing.
    """

    family: str
    settings: str
    accuracy: float
    source_name: str
    source_url: str
    training_images: int | None = 60_000
    num_test_images: int = 10_000
    caveat: str = ""


_STANDARD = "random crops and flips"


def _of_readme(
    family: str, settings: str, accuracy: float, caveat: str = "", **values: Any
) -> PublishedResult:
    return PublishedResult(
        family, settings, accuracy, README_NAME, README_URL, caveat=caveat, **values
    )


# One row each; `family` must differ from those of Table 3 to stand beside them. Entries that the
# README listed up to 30 August 2017 were measured on the first release of the data.
OTHER_RESULTS: tuple[PublishedResult, ...] = (
    _of_readme("WRN-40-4", _STANDARD, 0.967, FIRST_RELEASE),
    _of_readme(
        "WRN-28-10",
        "random erasing",
        0.963,
        # Listed later, but see https://github.com/zhunzhong07/Random-Erasing/issues/9
        f"{FIRST_RELEASE}, 0.4 points less on the next, says its author",
    ),
    _of_readme("Dual path network", f"with WRN-28-10, {_STANDARD}", 0.957, FIRST_RELEASE),
    _of_readme("DenseNet-BC", f"768 K parameters, {_STANDARD}", 0.954, FIRST_RELEASE),
    _of_readme("MobileNet", "random flips", 0.950, FIRST_RELEASE),
    _of_readme("ResNet18", "random flips, shifts and rotations", 0.949, FIRST_RELEASE),
    _of_readme("Capsule network", "8 M parameters, shifts and flips", 0.936),
    _of_readme("VGG16", "26 M parameters", 0.935, "release of the data not stated"),
    _of_readme("HOG and SVM", "", 0.926),
    _of_readme(
        "Human",
        "majority of 3 people without expertise",
        0.835,
        "1,000 of the test images",
        training_images=None,
        num_test_images=1_000,
    ),
)


def notes(sources: Iterable[str]) -> list[str]:
    """Returns, once each, the sentences that a reader of these sources and caveats needs."""
    text = " ".join(sources)
    kept = {README_NAME: README_NOTE, FIRST_RELEASE: FIRST_RELEASE_NOTE}
    return [note for words, note in kept.items() if words in text]


@functools.cache
def _paper_results() -> tuple[PublishedResult, ...]:
    text = importlib.resources.files(__package__).joinpath("paper_table3.csv").read_text("utf-8")
    return tuple(
        PublishedResult(
            family=row["classifier"],
            settings=row["parameters"],
            accuracy=float(row["fashion_mnist_test_accuracy"]),
            source_name=PAPER_NAME,
            source_url=PAPER_URL,
        )
        for row in csv.DictReader(text.splitlines())
    )


def all_results() -> list[PublishedResult]:
    """Returns every published result, in the order of its source.

    Sources: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for
    Benchmarking Machine Learning Algorithms", arXiv:1708.07747, Table 3 (126 rows in 13
    families of scikit-learn's classifiers, trained on 60,000 images and tested on 10,000);
    the list of submitted results in the README of the data set, https://github.com/
    zalandoresearch/fashion-mnist, of which the best known are taken.
    """
    return [*_paper_results(), *OTHER_RESULTS]


def best_per_family() -> list[PublishedResult]:
    """Returns the best result of each family: SVC, MLPClassifier, then by falling accuracy.

    Of results that tie, the one that the source lists first is taken.
    """
    best: dict[str, PublishedResult] = {}
    for result in all_results():
        if result.family not in best or result.accuracy > best[result.family].accuracy:
            best[result.family] = result
    first = [best.pop(family) for family in FIRST_FAMILIES]
    return first + sorted(best.values(), key=lambda result: -result.accuracy)
