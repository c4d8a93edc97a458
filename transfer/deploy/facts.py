"""What a model must know of itself to answer for a photo: kept in each exported file.

An exported file may come from a stranger: `parse_model_facts` checks every value, as
`runs/facts.py` does for run folders, with the same reader.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transfer.data.geometry import FITS, LARGEST_SIDE, Geometry
from transfer.data.splits import MOST_CLASSES
from transfer.errors import InputError
from transfer.runs.checked import Reader

DARK, LIGHT = "dark", "light"
GROUNDS = (DARK, LIGHT, "")
MOST_BYTES = 8 << 20  # of the facts in a file
MOST_PIXELS = 1 << 22  # of a photo, as the model takes it: four times what training can
_HIGHEST_TEMPERATURE = 100.0
_MIDDLE = 127.5  # level of gray


@dataclass(frozen=True)
class ModelFacts:
    """What a model knows of itself.

    Attributes:
        name: what it is called.
        class_names: name of each label.
        geometry: what every photo is decoded to.
        ground: DARK or LIGHT where nearly all training images have such a border; "" else.
        temperature: what `apply_temperature` takes.
        threshold: confidence from which a prediction is an answer; None for any.
        distance_threshold: distance from the training images up to which; None for any.
        data: name of the data set.
        provenance: one line: what it was trained on.
        weights: one line: what the backbone started from.
        licence: one line: what is known of the licences of data and weights.
        accuracy: on the test images, in [0, 1]; None where it was not measured.
        num_test_images: that it was measured on.
        versions: of what it was made with, by name.
    """

    name: str
    class_names: tuple[str, ...]
    geometry: Geometry
    ground: str = ""
    temperature: float = 1.0
    threshold: float | None = None
    distance_threshold: float | None = None
    data: str = ""
    provenance: str = ""
    weights: str = ""
    licence: str = ""
    accuracy: float | None = None
    num_test_images: int = 0
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values, which `parse_model_facts` takes."""
        return dataclasses.asdict(self) | {"class_names": list(self.class_names)}


def ground_of(borders: tuple[float, float]) -> str:
    """Returns the ground of images whose borders lie between two levels of gray."""
    low, high = borders
    if high < _MIDDLE / 2:
        return DARK
    return LIGHT if low > 3 * _MIDDLE / 2 else ""


def is_on_other_ground(border: float, ground: str) -> bool:
    """Says whether a photo with this border is a negative of those on this ground."""
    return (ground == DARK and border > _MIDDLE) or (ground == LIGHT and border < _MIDDLE)


def parse_model_facts(text: str | bytes, where: str) -> ModelFacts:
    """Returns what a file says of its model.

    Args:
        text: JSON.
        where: the file, for the error.

    Raises:
        InputError: it is too long or no JSON, or a value is missing or is not what it should be.
    """
    try:
        values = json.loads(text) if len(text) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: should hold facts of `transfer export`. Received: none.")
    read = Reader(values, where)
    texts = {name: read.text(name) for name in ("name", "data", "provenance", "weights", "licence")}
    return ModelFacts(
        class_names=read.texts("class_names", least=2, most=MOST_CLASSES),
        geometry=_parse_geometry(read.part("geometry")),
        ground=read.choice("ground", GROUNDS),
        temperature=max(read.number("temperature", most=_HIGHEST_TEMPERATURE), 0.01),
        threshold=_optional(read, "threshold", 1.0),
        distance_threshold=_optional(read, "distance_threshold", 1e30),
        accuracy=_optional(read, "accuracy", 1.0),
        num_test_images=read.count("num_test_images"),
        versions=read.texts_by_name("versions"),
        **texts,
    )


def _optional(read: Reader, key: str, most: float) -> float | None:
    return None if read.values.get(key) is None else read.number(key, most=most)


def _parse_geometry(read: Reader) -> Geometry:
    sides = [read.count(side, 1, most=LARGEST_SIDE) for side in ("height", "width")]
    if sides[0] * sides[1] > MOST_PIXELS:
        raise read.refusal("height", f"at most {MOST_PIXELS:,} pixels with the width", sides[0])
    channels = read.count("channels")
    if channels not in (1, 3):
        raise read.refusal("channels", "1 or 3", channels)
    return Geometry(sides[0], sides[1], channels, read.choice("fit", FITS))
