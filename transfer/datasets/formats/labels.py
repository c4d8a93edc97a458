"""Labels as people have them: numbers, names, one-hot rows; always int64 from 0 afterwards.

The training labels say which classes there are; those of the other parts are looked up in them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from transfer.datasets.formats.checks import check_printable
from transfer.errors import InputError

TRAIN = "train"
_ONE_HOT = "one-hot labels"


class Labels(NamedTuple):
    """The labels of a data set.

    Attributes:
        parts: int64 (N,) in [0, num_classes) by the part's name.
        class_names: name of each label.
        notes: what was changed, a few words each.
    """

    parts: dict[str, np.ndarray]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_labels(
    parts: Mapping[str, np.ndarray],
    where: str,
    names: Mapping[str, str],
    class_names: tuple[str, ...] | None = None,
) -> Labels:
    """Returns the labels of all parts as numbers from 0, and the names of the classes.

    Without names, the classes are what occurs in the training labels, in order; numbers with gaps,
    or from 1 on, are numbered anew and stay the names.

    Args:
        parts: by the part's name, of which one is "train": whole numbers or texts (N,) or (N, 1),
            or one-hot rows (N, C) of zeros and a one.
        where: place of the data set, for errors.
        names: place of each part, for errors: "x.npz, y_train".
        class_names: of labels 0, 1, 2, ..., where they are known.

    Raises:
        InputError: labels of another kind, or one that no training image has.
    """
    values, notes = {}, []
    for part, labels in parts.items():
        values[part], is_one_hot = _flatten(labels, names[part])
        notes += [_ONE_HOT] if is_one_hot and _ONE_HOT not in notes else []
    kinds = {part: labels.dtype.kind for part, labels in values.items()}
    if len(set(kinds.values())) > 1:
        raise InputError(
            f"{where}: the labels of all parts should be numbers, or all texts. Received: both."
        )
    is_text = kinds[TRAIN] == "U"
    width = _one_hot_width(parts, names) if notes else 0
    found = np.arange(width) if width else np.unique(values[TRAIN])
    if class_names is not None:
        return Labels(_look_up(values, class_names, is_text, where), class_names, tuple(notes))
    if is_text or (len(found) and found[-1] != len(found) - 1):
        class_names = tuple(map(str, found))
        if not is_text:
            notes.append(f"labels {found[0]} to {found[-1]}, {len(found)} in use, numbered from 0")
        check_printable(class_names, where)
        return Labels(_index(values, found, where), class_names, tuple(notes))
    class_names = tuple(map(str, found))
    return Labels(_look_up(values, class_names, False, where), class_names, tuple(notes))


def _flatten(labels: np.ndarray, where: str) -> tuple[np.ndarray, bool]:
    # Returns int64 or str (N,), and whether the labels were one-hot rows.
    if labels.ndim == 2 and labels.shape[1] == 1:  # as keras.datasets.cifar10 has them
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "buif":
        return _from_one_hot(labels, where), True
    if labels.ndim != 1 or labels.dtype.kind not in "buifUSO":
        raise InputError(
            f"{where} should hold a whole number or a text for each image, or one-hot rows. "
            f"Received: {labels.dtype} {labels.shape}."
        )
    if labels.dtype.kind in "USO":
        return _to_texts(labels, where), False
    wrong = ~((labels >= 0) & (labels < 2**31) & (labels == np.floor(labels)))  # NaN is wrong
    if wrong.any():
        index = int(wrong.argmax())
        raise InputError(
            f"{where}[{index}] should be a whole number from 0. Received: {labels[index]}."
        )
    return labels.astype(np.int64), False


def _from_one_hot(labels: np.ndarray, where: str) -> np.ndarray:
    wrong = ((labels != 0) & (labels != 1)).any(axis=1) | (labels.sum(axis=1) != 1)
    if wrong.any():
        index = int(wrong.argmax())
        row = ", ".join(f"{value:g}" for value in labels[index, :5])
        raise InputError(
            f"{where}[{index}] should be one-hot, a single 1 among zeros: an image has one class. "
            f"Received: {row}{', ...' if labels.shape[1] > 5 else ''}."
        )
    return labels.argmax(axis=1).astype(np.int64)


def _one_hot_width(parts: Mapping[str, np.ndarray], names: Mapping[str, str]) -> int:
    widths = {part: labels.shape[1] if labels.ndim == 2 else 0 for part, labels in parts.items()}
    for part, width in widths.items():
        if width != widths[TRAIN]:
            raise InputError(
                f"{names[part]} should have {widths[TRAIN]} columns, as {names[TRAIN]}. "
                f"Received: {width}."
            )
    return widths[TRAIN]


def _to_texts(labels: np.ndarray, where: str) -> np.ndarray:
    texts = []
    for index, label in enumerate(labels.tolist()):
        text = label.decode("utf-8", "surrogateescape") if isinstance(label, bytes) else label
        if not isinstance(text, str):
            raise InputError(f"{where}[{index}] should be a text. Received: {text!r}.")
        texts.append(text)
    return np.array(texts, dtype=str)


def _look_up(
    values: Mapping[str, np.ndarray], class_names: tuple[str, ...], is_text: bool, where: str
) -> dict[str, np.ndarray]:
    if is_text:
        names = np.array(class_names)
        order = np.argsort(names)
        indices = _index(values, names[order], where)
        return {part: order[labels].astype(np.int64) for part, labels in indices.items()}
    for part, labels in values.items():
        if len(labels) and labels.max() >= len(class_names):
            index = int((labels >= len(class_names)).argmax())
            raise InputError(
                f"{where}: labels should be 0 to {len(class_names) - 1}. "
                f"Received: {labels[index]} for {part} image {index}."
            )
    return dict(values)


def _index(
    values: Mapping[str, np.ndarray], found: np.ndarray, where: str
) -> dict[str, np.ndarray]:
    # Returns the place of each label among the sorted ones.
    indices = {}
    for part, labels in values.items():
        places = np.searchsorted(found, labels).clip(0, len(found) - 1)
        wrong = found[places] != labels
        if wrong.any():
            index = int(wrong.argmax())
            known = ", ".join(map(repr, found[:5].tolist()))
            raise InputError(
                f"{where}: labels should be those of the training images ({known}"
                f"{', ...' if len(found) > 5 else ''}). Received: {labels[index].item()!r} for "
                f"{part} image {index}."
            )
        indices[part] = places.astype(np.int64)
    return indices
