"""What others have reported on Fashion-MNIST, to stand beside our own runs in `report.py`.

The numbers are quoted, not measured here. Table 3 of the paper that introduced the data set
lies beside this file as `paper_table3.csv`; a result from any other source is one more row in
`OTHER_RESULTS`, with its caveat where it has one.
"""

import csv
import functools
import importlib.resources
from dataclasses import dataclass

PAPER_NAME = "Xiao et al. 2017, Table 3"
PAPER_URL = "https://arxiv.org/abs/1708.07747"
FIRST_FAMILIES = ("SVC", "MLPClassifier")  # the two baselines that most readers look for


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


# One row each; `family` must differ from those of Table 3 to stand beside them.
OTHER_RESULTS: tuple[PublishedResult, ...] = ()


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

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for
    Benchmarking Machine Learning Algorithms", arXiv:1708.07747, Table 3 (126 rows in 13
    families of scikit-learn's classifiers, trained on 60,000 images and tested on 10,000).
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
