"""Classic classifiers measured here, on the images of a run, to stand beside the published ones.

The settings are those of rows of the paper's Table 3, and so is the scaling: each pixel is
standardised, as in the authors' own program
(https://github.com/zalandoresearch/fashion-mnist/blob/master/benchmark/runner.py). As there,
all images that are not test images are learnt from: a run holds some of them out to choose its
epoch, and these classifiers choose nothing. Each result is kept on the disk.
"""

import dataclasses
import hashlib
import os
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from transfer import console
from transfer.data.decode import shrink_images
from transfer.data.splits import Split
from transfer.formatting import format_percent, format_seconds
from transfer.storage.cache import FolderCache

LARGEST_SIDE = 32  # pixels; larger images are reduced, or the time would grow with their area
SVC_CACHE = 1_000  # MB; holds the kernel of two classes of 6,000 images each, 0.6 GB
PREDICTED_AT_ONCE = 500  # images

CACHE = FolderCache("baselines", ".json")
_FORMAT = 1  # part of a file's name; raise it when the same images would give other results


@dataclass(frozen=True)
class Baseline:
    """A classifier of scikit-learn, named as in Table 3."""

    family: str
    settings: str
    make: Callable[[], Any]


BASELINES = (
    Baseline(
        "SVC",
        "C=10 kernel=rbf",
        lambda: SVC(C=10, kernel="rbf", gamma="auto", cache_size=SVC_CACHE),
    ),
    Baseline(
        "MLPClassifier",
        "activation=relu hidden_layer_sizes=[100]",
        lambda: MLPClassifier((100,), activation="relu", random_state=0),
    ),
    Baseline(
        "RandomForestClassifier",
        "n_estimators=100 criterion=entropy max_depth=100",
        lambda: RandomForestClassifier(
            100, criterion="entropy", max_depth=100, n_jobs=-1, random_state=0
        ),
    ),
    Baseline(
        "KNeighborsClassifier",
        "weights=distance n_neighbors=5 p=1",
        lambda: KNeighborsClassifier(5, weights="distance", p=1, n_jobs=-1),
    ),
    # 0.1 points below the best row of its family, whose l1 penalty takes twenty times as long.
    Baseline(
        "LogisticRegression",
        "C=1 multi_class=ovr penalty=l2",
        lambda: OneVsRestClassifier(LogisticRegression(C=1, max_iter=1_000)),
    ),
)


@dataclass(frozen=True)
class MeasuredBaseline:
    """What a baseline came to.

    Attributes:
        family: of the `Baseline`.
        settings: of the `Baseline`.
        accuracy: share of the test images, in [0, 1].
        num_test_images: how many images it was tested on.
        training_images: how many it was trained on.
        seconds: that it took.
        library: name and version of what computed it.
    """

    family: str
    settings: str
    accuracy: float
    num_test_images: int
    training_images: int
    seconds: float
    library: str


class _Data(NamedTuple):
    # Flat images, uint8 or standardised float32 (N, F), and labels, int64 (N,).
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def measure_baselines(train: Split, validation: Split, test: Split) -> list[MeasuredBaseline]:
    """Trains and tests each of `BASELINES`, or takes the results kept of the same images.

    Args:
        train: decoded; learnt from.
        validation: decoded; learnt from too.
        test: decoded; predicted.

    Returns:
        A result for each, in order.
    """
    data = _flatten(train, validation, test)
    images, scaler = _fingerprint(data), StandardScaler().fit(data.x_train.astype(np.float32))
    data = data._replace(
        x_train=scaler.transform(data.x_train.astype(np.float32)),
        x_test=scaler.transform(data.x_test.astype(np.float32)),
    )
    console.show(
        f"Baselines: {len(data.y_train):,} training and validation images, each of "
        f"{data.x_train.shape[1]:,} values, standardised",
    )
    measured = []
    with _bar() as bar:
        task = bar.add_task("", total=len(BASELINES))
        for baseline in BASELINES:
            bar.update(task, description=baseline.family)
            measured.append(_measure_once(baseline, data, images))
            bar.advance(task)
    return measured


def _flatten(train: Split, validation: Split, test: Split) -> _Data:
    """Returns all images, in an order that depends on them alone, not on how they were divided.

    So runs of every seed share their results, though a network of scikit-learn's goes through
    its images in an order made from theirs.
    """
    parts = (train, validation, test)
    images = [shrink_images(part.images, LARGEST_SIDE) for part in parts]
    flat_train, flat_validation, x_test = (pixels.reshape(len(pixels), -1) for pixels in images)
    x_train = np.concatenate([flat_train, flat_validation])
    y_train = np.concatenate([train.labels, validation.labels])
    keys = [
        (hashlib.sha256(row.tobytes()).digest(), label)
        for row, label in zip(x_train, y_train.tolist(), strict=True)
    ]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
    return _Data(x_train[order], y_train[order], x_test, test.labels)


def _fingerprint(data: _Data) -> str:
    digest = hashlib.sha256()
    for array in data:
        digest.update(f"{array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console.get(),
        transient=True,
        disable=not console.get().is_terminal,
    )


def _measure_once(baseline: Baseline, data: _Data, images: str) -> MeasuredBaseline:
    library = f"scikit-learn {sklearn.__version__}"
    path = CACHE.path(_FORMAT, baseline.family, baseline.settings, library, images)
    result = _read(path)
    origin = f"read from {path}"
    if result is None:
        started = time.perf_counter()
        accuracy = _interruptible(lambda: _test(baseline.make(), data))
        seconds = time.perf_counter() - started
        result = MeasuredBaseline(
            baseline.family,
            baseline.settings,
            accuracy,
            len(data.y_test),
            len(data.y_train),
            round(seconds, 1),
            library,
        )
        CACHE.keep_json(path, dataclasses.asdict(result))
        origin = format_seconds(seconds)
    line = f"{result.family} ({result.settings}): {format_percent(result.accuracy)}, {origin}"
    console.say(line)
    return result


def _test(classifier: Any, data: _Data) -> float:
    # Threads wait for each other in products this small. Beside other work on two cores a logistic
    # regression on 6,000 images took 2 minutes with them; alone, on 5,000, it computes for 1 s.
    with threadpool_limits(1, user_api="blas"):
        classifier.fit(data.x_train, data.y_train)
    starts = range(0, len(data.x_test), PREDICTED_AT_ONCE)
    parts = [data.x_test[start : start + PREDICTED_AT_ONCE] for start in starts]
    # An SVC predicts on one core only; the others share their work out by themselves.
    with ThreadPool(os.cpu_count() if isinstance(classifier, SVC) else 1) as threads:
        predicted = np.concatenate(threads.map(classifier.predict, parts, chunksize=1))
    return int(np.sum(predicted == data.y_test)) / len(data.y_test)


def _interruptible(compute: Callable[[], float]) -> float:
    """Computes in another thread: Ctrl-C would wait for minutes until an SVC has its fit."""
    results: list[Any] = []

    def keep() -> None:
        try:
            results.append(compute())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=keep, daemon=True)
    with warnings.catch_warnings():
        # The paper's settings leave the network's number of epochs at its default.
        warnings.simplefilter("ignore", ConvergenceWarning)
        thread.start()
        thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def _read(path: Path) -> MeasuredBaseline | None:
    values = CACHE.read_json(path)
    try:
        return MeasuredBaseline(**values) if values else None
    except TypeError:  # not what was written
        return None
