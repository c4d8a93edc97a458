"""How sure a number is, and whether two runs differ: intervals and tests beside `metrics.py`.

Everything here is arithmetic on what was predicted for the same test images. It tells the
noise of those images, not that of training: another seed is another run.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import binomtest, bootstrap

from transfer.formatting import format_percent, format_spread

NUM_RESAMPLES = 1_000
_RESAMPLES_AT_ONCE = 50  # bounds the memory: so many times the number of images
SIGNIFICANCE_LEVEL = 0.05


def bootstrap_mean(
    values: np.ndarray, *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of a mean, for example of the loss of each image.

    Source: B. Efron, "Nonparametric Standard Errors and Confidence Intervals", Canadian Journal
    of Statistics 9 (1981).

    Args:
        values: (N,) floats, one for each image.
        confidence: between 0 and 1, both excluded.
        seed: of the 1,000 resamples.

    Returns:
        (low, high).
    """
    if len(values) == 1:  # nothing to resample
        return float(values[0]), float(values[0])
    interval = bootstrap(
        (np.asarray(values, dtype=np.float64),),
        np.mean,
        n_resamples=NUM_RESAMPLES,
        batch=_RESAMPLES_AT_ONCE,
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def bootstrap_macro_f1(
    confusion_matrix: np.ndarray, *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of the macro F1.

    Drawing N images with replacement and counting them is drawing the cells of their confusion
    matrix from a multinomial distribution: the same resamples, without the images.

    Args:
        confusion_matrix: (C, C) counts, rows are true classes, columns predicted ones.
        confidence: between 0 and 1, both excluded.
        seed: of the 1,000 resamples.

    Returns:
        (low, high) in [0, 1]. As in `compute_metrics` the mean goes over the classes that
        occur among the true ones, here of each resample.
    """
    counts, rng = np.asarray(confusion_matrix), np.random.default_rng(seed)
    num_images = int(counts.sum())
    true, predicted = np.nonzero(counts)  # (K,) each: empty cells stay empty
    shares = counts[true, predicted] / num_images
    draws = rng.multinomial(num_images, shares, size=NUM_RESAMPLES)  # (R, K)
    true_sums = _sums_by_class(draws, true, len(counts))  # (R, C)
    predicted_sums = _sums_by_class(draws, predicted, len(counts))
    right = true == predicted
    right_sums = _sums_by_class(draws[:, right], true[right], len(counts))
    f1 = 2 * right_sums / np.maximum(true_sums + predicted_sums, 1)
    occurs = true_sums > 0
    return _percentiles((f1 * occurs).sum(axis=1) / occurs.sum(axis=1), confidence)


def _sums_by_class(draws: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns (R, C) sums of the columns of (R, K) `draws`, each of which is of a class."""
    cells = np.arange(len(classes))
    members = csr_array(
        (np.ones(len(classes)), (cells, classes)), shape=(len(classes), num_classes)
    )
    return draws @ members


def _percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def mcnemar_exact(is_right_a: np.ndarray, is_right_b: np.ndarray) -> float:
    """Returns the p value of McNemar's exact test, two-sided.

    Only images that one of the two got right and the other wrong say which is better; if
    neither is, each of them falls to either side like a coin.
    Source: Q. McNemar, "Note on the Sampling Error of the Difference Between Correlated
    Proportions or Percentages", Psychometrika 12 (1947).

    Args:
        is_right_a: (N,) bool, whether A predicted each image rightly.
        is_right_b: (N,) bool, the same of B, in the same order.

    Returns:
        A probability in (0, 1]; 1.0 where both are right on the same images.

    Raises:
        ValueError: the arrays do not have the same shape (N,).
    """
    a, b = np.asarray(is_right_a, dtype=bool), np.asarray(is_right_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(
            f"Expected two arrays of the same shape (N,). Received: {a.shape} and {b.shape}"
        )
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p values corrected for there being several, in the same order.

    Source: S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian
    Journal of Statistics 6 (1979).
    """
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.maximum.accumulate(np.asarray(p_values)[order] * factors)
    return np.minimum(corrected, 1.0).tolist()


@dataclass(frozen=True)
class PairedComparison:
    """Two sets of predictions for the same test images.

    Attributes:
        name_a: what the first is called.
        name_b: what the second is called.
        accuracy_a: share of the images, in [0, 1].
        accuracy_b: the same of the second.
        p_value: of McNemar's exact test, Holm's where there are several comparisons.
    """

    name_a: str
    name_b: str
    accuracy_a: float
    accuracy_b: float
    p_value: float

    def sentence(self) -> str:
        """Returns the outcome for people: "A is better than B: 94.60 % against 94.10 %, ..."."""
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.2g}"
        a, b = (self.accuracy_a, self.name_a), (self.accuracy_b, self.name_b)
        if self.p_value >= SIGNIFICANCE_LEVEL:
            return (
                f"{self.name_a} and {self.name_b} are within noise: "
                f"{format_percent(a[0])} against {format_percent(b[0])}, {p}"
            )
        better, worse = (a, b) if a[0] > b[0] else (b, a)
        return (
            f"{better[1]} is better than {worse[1]}: "
            f"{format_percent(better[0])} against {format_percent(worse[0])}, {p}"
        )


@dataclass(frozen=True)
class Repeats:
    """What runs came to that differ in their seed alone.

    Attributes:
        model: what they are called.
        seeds: one for each run.
        accuracies: shares of the same test images, in [0, 1], in the order of the seeds.
        losses: mean cross-entropies in nats, likewise.
    """

    model: str
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]

    def sentence(self) -> str:
        """Returns mean, min, max and n for people."""
        return (
            f"{self.model}, seeds {', '.join(map(str, self.seeds))}: accuracy "
            f"{format_spread(self.accuracies)}; loss "
            f"{format_spread(self.losses, '{:.4f}'.format)}"
        )


def compare_pairs(
    is_right: Sequence[tuple[str, np.ndarray]], *, with_first_alone: bool = False
) -> list[PairedComparison]:
    """Compares several with each other, by McNemar's exact test.

    Args:
        is_right: name and (N,) bool of each, whether it predicted each image rightly.
        with_first_alone: the first with each other one, not every two.

    Returns:
        A comparison for each pair, in order; p values are corrected by Holm's method for their
        number.
    """
    pairs = list(itertools.combinations(is_right, 2))
    if with_first_alone:
        pairs = pairs[: max(len(is_right) - 1, 0)]  # those of the first come first
    p_values = holm([mcnemar_exact(a, b) for (_, a), (_, b) in pairs]) if pairs else []
    return [
        PairedComparison(name, other, float(np.mean(a)), float(np.mean(b)), p_value)
        for ((name, a), (other, b)), p_value in zip(pairs, p_values, strict=True)
    ]
