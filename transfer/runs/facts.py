"""What a run knows of itself: the schema of config.json and summary.json, in this one place.

A run folder may come from a stranger. Whatever is read here is checked, every text is made
printable, and nothing but these types goes further.
"""

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transfer.config import Config
from transfer.data.geometry import FITS, LARGEST_SIDE, Geometry
from transfer.data.splits import MOST_CLASSES, Splits
from transfer.errors import InputError, printable
from transfer.formatting import format_spread
from transfer.models.counts import ClassifierCounts, NetworkCounts
from transfer.models.precision import POLICIES
from transfer.models.weights import KINDS, Weights
from transfer.runs import files
from transfer.runs.checked import Reader
from transfer.storage.atomic import read_json, write_json
from transfer.version import __version__

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class DataFacts:
    """The images of a run.

    Attributes:
        name: of the data set, as `Splits.name`.
        location: what `load_splits` takes to find it again; `files.DATA` for arrays in the run.
        provenance: one printable line.
        class_names: name of each label, all different.
        num_images: number of images of each of `PARTS`.
        fingerprints: SHA-256 of each of `PARTS`, as `fingerprint` gives them.
        geometry: what every image is decoded to; None of a run that did not keep it yet.
    """

    name: str
    location: str
    provenance: str
    class_names: tuple[str, ...]
    num_images: dict[str, int]
    fingerprints: dict[str, str]
    geometry: Geometry | None = None

    @property
    def keeps_duplicates_together(self) -> bool:
        """Whether its near duplicates were held out all or none: in 0.1.0 they were not."""
        return self.geometry is not None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


@dataclass(frozen=True)
class WeightsFacts:
    """What the backbone started from; `sha256` is the fingerprint of the values, "" if unknown."""

    name: str
    provenance: str
    sha256: str = ""

    @property
    def short(self) -> str:
        """What they are, without why there are no better ones."""
        return self.provenance.partition(", because there are ")[0]


@dataclass(frozen=True)
class RepeatsFacts:
    """What binds a run to others that differ in their seed alone."""

    first_seed: int
    count: int


@dataclass(frozen=True)
class Facts:
    """The content of config.json.

    Attributes:
        settings: what was asked for.
        settled: the same, "auto" settled.
        data: the images.
        weights: what the backbone started from.
        precision: number format of the training, one of `POLICIES`.
        versions: of Python and of the libraries it was begun with.
        command: as it was typed, "" where it was none.
        started: time, ISO 8601.
        repeats: what binds it to other runs, None of a single one.
        network: how large the backbone is, None of runs of 0.1.0.
        head: how large the head is, likewise.
        trained: parameters that a phase trains, by its name.
    """

    settings: Config
    settled: Config
    data: DataFacts
    weights: WeightsFacts
    precision: str
    versions: dict[str, str]
    command: str = ""
    started: str = ""
    repeats: RepeatsFacts | None = None
    network: NetworkCounts | None = None
    head: NetworkCounts | None = None
    trained: Mapping[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> ClassifierCounts | None:
        """What the classifier consists of, None where the run did not keep it."""
        if self.network is None or self.head is None:
            return None
        return ClassifierCounts(self.network, self.head, self.trained)

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values, which `parse_facts` takes."""
        values = dataclasses.asdict(self)
        values["data"]["class_names"] = list(self.data.class_names)
        for part in _OPTIONAL:
            if not values[part]:
                del values[part]
        if values["data"]["geometry"] is None:
            del values["data"]["geometry"]
        return values

    def write(self, run_dir: Path) -> None:
        """Writes config.json."""
        write_json(run_dir / files.CONFIG, self.to_json())


@dataclass(frozen=True)
class PhaseSummary:
    """What a phase came to: the validation scores are of the epoch whose weights were kept."""

    epochs: int
    best_epoch: int
    val_loss: float
    val_accuracy: float
    seconds: float


@dataclass(frozen=True)
class FoldSummary:
    """What a head came to on the images that its fold held out, and which chose its epoch."""

    num_images: int
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True)
class Summary:
    """The content of summary.json.

    Attributes:
        phases: by name, in order; at least one.
        seconds: that the run took.
        kept: name of the phase whose weights the run has, "" for the last one.
        folds: of a cross-validation, by number; empty without one.
        num_parameters: numbers in the model that was trained, BatchNorm's statistics among them;
            0 of a run that did not keep it.
        sha256: fingerprints of weights, optimizer and history: two runs are the same if these are.
    """

    phases: dict[str, PhaseSummary]
    seconds: float
    sha256: dict[str, str] = field(default_factory=dict)
    kept: str = ""
    folds: dict[str, FoldSummary] = field(default_factory=dict)
    num_parameters: int = 0

    @property
    def kept_phase(self) -> PhaseSummary:
        """What the phase came to whose weights the run has."""
        return self.phases[self.kept or list(self.phases)[-1]]

    def tell_kept(self) -> str:
        """Returns a sentence where an earlier phase's weights were kept, else ""."""
        last = list(self.phases)[-1]
        if self.kept in ("", last):
            return ""
        losses = f"{self.phases[last].val_loss:.4f} against {self.kept_phase.val_loss:.4f}"
        return (
            f"The {last} phase ended worse than the {self.kept} phase (validation loss {losses}), "
            f"so the weights of the {self.kept} phase are kept."
        )

    def tell_folds(self) -> str:
        """Returns what a cross-validation came to, else ""."""
        if not self.folds:
            return ""
        folds = self.folds.values()
        return (
            f"{len(folds)} folds of {sum(fold.num_images for fold in folds):,} images, near "
            "duplicates in the same one: validation accuracy "
            f"{format_spread([fold.val_accuracy for fold in folds])}; loss "
            f"{format_spread([fold.val_loss for fold in folds], '{:.4f}'.format)}"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values, which `parse_summary` takes."""
        return dataclasses.asdict(self)

    def write(self, run_dir: Path) -> None:
        """Writes summary.json, with which the run is finished."""
        write_json(run_dir / files.SUMMARY, self.to_json())


def describe_data(
    splits: Splits, fingerprints: Mapping[str, str], location: str | None = None
) -> DataFacts:
    """Returns what a run keeps of its decoded images.

    Args:
        splits: decoded.
        fingerprints: of each part as it was found.
        location: where they are found again; None for the splits' own.
    """
    return DataFacts(
        splits.name,
        splits.location if location is None else location,
        splits.provenance,
        splits.class_names,
        {name: split.num_images for name, split in splits.parts().items()},
        dict(fingerprints),
        splits.geometry,
    )


def describe_run(
    config: Config,
    settled: Config,
    data: DataFacts,
    weights: Weights,
    weights_sha256: str,
    policy: str,
    *,
    command: str = "",
    repeats: RepeatsFacts | None = None,
    counts: ClassifierCounts | None = None,
    libraries: Mapping[str, str] | None = None,
) -> Facts:
    """Returns what config.json holds of a run that begins now.

    Args:
        config: the settings.
        settled: the same, "auto" settled.
        data: the images.
        weights: what the backbone starts from.
        weights_sha256: fingerprint of their values.
        policy: Keras's dtype policy of the training.
        command: as it was typed.
        repeats: what binds it to other runs.
        counts: how large the classifier is.
        libraries: as for `versions`.
    """
    return Facts(
        config,
        settled,
        data,
        WeightsFacts(weights.name, weights.provenance, weights_sha256),
        policy,
        versions(libraries or {}),
        command,
        datetime.now(UTC).isoformat(timespec="seconds"),
        repeats,
        *((counts.backbone, counts.head, counts.trained) if counts else ()),
    )


def versions(libraries: Mapping[str, str]) -> dict[str, str]:
    """Returns the versions of Python, of this package and of what it computes with.

    Args:
        libraries: the version of what computes besides the backend, by name.
    """
    import keras

    names = (keras.backend.backend(), "keras", "numpy")
    return {
        "transfer": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
        **libraries,
    }


# --- Reading --------------------------------------------------------------------------------


def read_facts(run_dir: Path) -> Facts:
    """Reads a run's config.json: the settings, and what the run took and found.

    Raises:
        InputError: the file is missing or damaged, or holds something else.
    """
    path = run_dir / files.CONFIG
    return parse_facts(read_json(path), path)


_OPTIONAL = ("repeats", "network", "head", "trained")


def parse_facts(values: Mapping[str, Any], path: Path) -> Facts:
    """Returns what a JSON object says of a run.

    Args:
        values: of a config.json.
        path: where it stood, for the error.

    Raises:
        InputError: a value is missing, or is not what it should be.
    """
    names = [each.name for each in dataclasses.fields(Facts) if each.name not in _OPTIONAL]
    if missing := [name for name in names if name not in values]:
        raise InputError(f"{path} should hold {', '.join(names)}. Received: no {missing[0]}.")
    read = Reader(values, str(path))
    settled = read.config("settled")
    if "auto" in (settled.finetune_learning_rate, settled.hidden_units, settled.head_features):
        raise read.refusal("settled", "settings without an auto that training settles", "one")
    return Facts(
        settings=read.config("settings"),
        settled=settled,
        data=_parse_data(read.part("data")),
        weights=_parse_weights(read.part("weights")),
        precision=read.choice("precision", POLICIES),
        versions=read.texts_by_name("versions"),
        command=read.text("command"),
        started=read.text("started"),
        repeats=_parse_repeats(read.part("repeats")) if values.get("repeats") else None,
        network=_parse_counts(read.part("network")) if values.get("network") else None,
        head=_parse_counts(read.part("head")) if values.get("head") else None,
        trained=read.counts_by_name("trained") if values.get("trained") else {},
    )


def _parse_counts(read: Reader) -> NetworkCounts:
    return NetworkCounts(*(read.count(each.name) for each in dataclasses.fields(NetworkCounts)))


def _parse_repeats(read: Reader) -> RepeatsFacts:
    return RepeatsFacts(read.count("first_seed", most=2**31 - 1), read.count("count", 1, most=1000))


def _parse_data(read: Reader) -> DataFacts:
    class_names = read.texts("class_names", least=2, most=MOST_CLASSES)
    if len(set(class_names)) < len(class_names):
        raise read.refusal("class_names", "all different", "one of them twice")
    has_geometry = read.values.get("geometry") is not None
    counts, fingerprints = read.part("num_images"), read.part("fingerprints")
    return DataFacts(
        name=read.text("name"),
        location=read.path("location"),
        provenance=read.text("provenance"),
        class_names=class_names,
        num_images={part: counts.count(part) for part in PARTS},
        fingerprints={part: fingerprints.text(part) for part in PARTS},
        geometry=_parse_geometry(read.part("geometry")) if has_geometry else None,
    )


def _parse_geometry(read: Reader) -> Geometry:
    height, width = (read.count(side, 1, most=LARGEST_SIDE) for side in ("height", "width"))
    channels = read.count("channels")
    if channels not in (1, 3):
        raise read.refusal("channels", "1 or 3", channels)
    return Geometry(height, width, channels, read.choice("fit", FITS))


def _parse_weights(read: Reader) -> WeightsFacts:
    sha256 = read.text("sha256") if "sha256" in read.values else ""
    return WeightsFacts(read.choice("name", KINDS), read.text("provenance"), sha256)


def read_summary(run_dir: Path) -> Summary:
    """Reads a finished run's summary.json.

    Raises:
        InputError: the file is missing or damaged, or holds something else.
    """
    path = run_dir / files.SUMMARY
    return parse_summary(read_json(path), path)


def parse_summary(values: Mapping[str, Any], path: Path) -> Summary:
    """Returns what a JSON object says of what a run came to; arguments as `parse_facts`."""
    read = Reader(values, str(path))
    phases = read.part("phases")
    if not phases.values:
        raise read.refusal("phases", "a phase at least", "none")
    parsed = {printable(name): _parse_phase(phases.part(name)) for name in phases.values}
    return Summary(
        parsed,
        read.number("seconds"),
        read.texts_by_name("sha256") if "sha256" in values else {},
        read.choice("kept", ("", *parsed)) if "kept" in values else "",
        _parse_folds(read.part("folds")) if "folds" in values else {},
        read.count("num_parameters") if "num_parameters" in values else 0,
    )


def _parse_folds(read: Reader) -> dict[str, FoldSummary]:
    folds = {printable(name): read.part(name) for name in read.values}
    return {
        name: FoldSummary(
            fold.count("num_images", 1),
            fold.number("val_loss"),
            fold.number("val_accuracy", most=1.0),
        )
        for name, fold in folds.items()
    }


def _parse_phase(read: Reader) -> PhaseSummary:
    return PhaseSummary(
        epochs=read.count("epochs"),
        best_epoch=read.count("best_epoch"),
        val_loss=read.number("val_loss"),
        val_accuracy=read.number("val_accuracy", most=1.0),
        seconds=read.number("seconds"),
    )
