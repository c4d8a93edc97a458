"""Labels that are likely wrong, found by confident learning.

A plain classifier says of each image, without having seen it in training, how likely each class
is; cleanlab (Northcutt et al., "Confident Learning", JAIR 2021, arXiv:1911.00068) takes from that
which labels to doubt. The features may come from anywhere: the path is one.
"""

import warnings
from dataclasses import dataclass

import numpy as np

FOLDS = 5
LEAST_IMAGES = FOLDS  # of a class: fewer cannot be in each fold
NUM_COMPONENTS = 250  # of the features that the classifier sees
HIDDEN_UNITS = 200
EPOCHS = 10  # more, and wrong labels are learnt by heart
MANY_IMAGES = 10_000  # fewer take twice the epochs

_SEED = 0


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """Labels to doubt.

    Attributes:
        indices: int (E,), the images, the least credible label first.
        credibility: float (E,) in [0, 1], probability of the label that an image has.
        suggested: int (E,), the most probable class of each.
        accuracy: share of all judged images whose most probable class is their label.
        num_judged: how many images were judged: those of classes with at least five.
    """

    indices: np.ndarray
    credibility: np.ndarray
    suggested: np.ndarray
    accuracy: float
    num_judged: int


def find_label_errors(features: np.ndarray, labels: np.ndarray) -> LabelErrors | None:
    """Finds the images whose label is likely wrong.

    Args:
        features: float (N, D).
        labels: int (N,) in [0, C).

    Returns:
        The labels to doubt, as many as confident learning estimates; None where fewer than two
        classes have the five images that are needed to judge.
    """
    from cleanlab.filter import find_label_issues  # loads pandas, which few need

    judged, classes = _judged(labels)
    if len(classes) < 2:
        return None
    targets = np.searchsorted(classes, labels[judged])
    y_prob = out_of_fold_probabilities(features[judged], targets)
    # By class: the least credible labels of each, as many as confident learning estimates. Its
    # other ways leave out labels that are just as incredible: 81 % precision at 500 where this
    # has 85 (one seed of benchmarks/audit.py).
    found = find_label_issues(
        targets,
        y_prob,
        filter_by="prune_by_class",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    ).astype(int)
    predicted = y_prob.argmax(axis=1)
    return LabelErrors(
        judged[found],
        y_prob[found, targets[found]],
        classes[predicted[found]],
        float((predicted == targets).mean()),
        len(judged),
    )


def _judged(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Returns the indices of the images, and the classes, with enough images.
    classes, counts = np.unique(labels, return_counts=True)
    classes = classes[counts >= LEAST_IMAGES]
    return np.flatnonzero(np.isin(labels, classes)), classes


def out_of_fold_probabilities(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns how likely each class is for each image, said by a classifier trained on others.

    Args:
        features: float (N, D).
        labels: int (N,): all of 0 to C - 1, each at least five times.

    Returns:
        float64 (N, C), rows sum to 1, calibrated.
    """
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neural_network import MLPClassifier

    count = min(NUM_COMPONENTS, *features.shape)
    components = PCA(count, random_state=_SEED).fit_transform(np.asarray(features, np.float32))
    components /= max(components.std(), 1e-6)
    classifier = MLPClassifier(
        (HIDDEN_UNITS,),
        alpha=1e-2,
        batch_size=min(256, max(8, len(labels) // 20)),
        max_iter=EPOCHS if len(labels) >= MANY_IMAGES else 2 * EPOCHS,
        random_state=_SEED,
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=_SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # both are stopped early on purpose
        y_prob = cross_val_predict(classifier, components, labels, cv=folds, method="predict_proba")
        return _calibrate(y_prob, labels)


def _calibrate(y_prob: np.ndarray, labels: np.ndarray) -> np.ndarray:
    # Dirichlet calibration (Kull et al., NeurIPS 2019, arXiv:1910.12656): classes that are often
    # confused become less of a surprise, so that real surprises come first.
    from sklearn.linear_model import LogisticRegression

    logarithms = np.log(np.clip(y_prob, 1e-7, None))
    return LogisticRegression(max_iter=300).fit(logarithms, labels).predict_proba(logarithms)
