"""The images of a training run: loaded, fingerprinted, decoded, said, and what suits them."""

import dataclasses
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transfer import console, signals
from transfer.config import Config
from transfer.data.decode import decode_splits
from transfer.data.fingerprints import OUTDATED, fingerprint, is_outdated
from transfer.data.geometry import Geometry
from transfer.data.splits import Loaded, Splits
from transfer.datasets.sources import load_splits
from transfer.runs import files
from transfer.training.defaults import FEW, suit_size

UNBALANCED = 10  # times as many images; benchmarks/imbalance.py


@dataclass(frozen=True)
class Data:
    """A data set as it is trained on.

    Attributes:
        splits: uint8 images in arrays.
        fingerprints: SHA-256 of each split as it was found.
        arrays: what the caller gave as arrays, which the run keeps; None for data in files.
    """

    splits: Splits
    fingerprints: dict[str, str]
    arrays: Loaded | None = None


def load_data(
    config: Config,
    offline: bool,
    *,
    with_test: bool = True,
    arrays: Loaded | None = None,
    run_dir: Path | None = None,
    kept_fingerprints: Mapping[str, str] | None = None,
    geometry: Geometry | None = None,
) -> Data:
    """Loads, fingerprints and decodes the images that settings ask for, and says what they are.

    Args:
        config: the settings.
        offline: never use the network.
        with_test: False leaves the test images out, for those who may not see them.
        arrays: images in memory, in place of `config.data`.
        run_dir: the run that kept such arrays, to take them from there.
        kept_fingerprints: of that run, which those of the images will be compared with.
        geometry: as the run decided it before; None to decide it now.

    Raises:
        InputError: the data cannot be used.
    """
    kept = run_dir / files.DATA if run_dir and config.data == files.DATA else None
    splits = load_splits(
        arrays or str(kept or config.data),
        validation_fraction=config.validation_fraction,
        seed=config.seed,
        limit=config.limit,
        offline=offline,
        # A run of 0.1.0 that goes on: it kept fingerprints and no geometry.
        keeps_duplicates_together=kept_fingerprints is None or geometry is not None,
    )
    if not with_test:
        splits = dataclasses.replace(splits, test=splits.test.take(np.arange(0)))
    with console.status("Reading the images"):
        fingerprints = _fingerprint(splits, kept_fingerprints)
        splits = decode_splits(
            splits,
            config.image_size,
            fit=config.fit,
            geometry=geometry,
            skip_bad_images=config.skip_bad_images,
        )
    _say_data(splits)
    signals.obey()  # where a decoder swallowed the stop
    return Data(splits, fingerprints, arrays)


def _fingerprint(splits: Splits, kept: Mapping[str, str] | None) -> dict[str, str]:
    like = kept or dict.fromkeys(splits.parts(), "")
    if any(is_outdated(split, like[name]) for name, split in splits.parts().items()):
        console.say(f"Warning: {OUTDATED}")
    return {name: fingerprint(split, like[name]) for name, split in splits.parts().items()}


def _say_data(splits: Splits) -> None:
    console.say(f"Data: {splits.provenance}")
    size = f"; working size {splits.geometry.describe()}" if splits.geometry else ""
    console.say(f"Classes: {len(splits.class_names)}{size}")
    if advice := advise_on_balance(splits.train.labels, splits.class_names):
        console.say(advice)


def advise_on_balance(labels: np.ndarray, class_names: Sequence[str]) -> str:
    """Returns one line for training images whose classes are of very unequal size, else "".

    Args:
        labels: int (N,) in [0, C).
        class_names: name of each.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    least, most = int(counts.argmin()), int(counts.argmax())
    if counts[most] < UNBALANCED * counts[least]:
        return ""
    return (
        f"Classes are of unequal size: from {counts[least]:,} ({class_names[least]}) to "
        f"{counts[most]:,} ({class_names[most]}) training images. With --class-weights rare "
        "ones count as much as others; look at macro F1 beside the accuracy."
    )


def suit_to_images(config: Config, data: Data, given: Container[str] | None) -> Config:
    """Returns the settings that suit so many images, and says which of them it changed.

    Args:
        config: the settings.
        data: the images.
        given: names of the settings that the user gave, which stay; None for all.
    """
    if given is None:
        return config
    train = data.splits.train
    suited = suit_size(config, train.num_images, train.images.shape[-1], given)
    before, after = config.to_dict(), suited.to_dict()
    changed = [
        f"--{name.replace('_', '-')} {after[name]}" for name in after if after[name] != before[name]
    ]
    if changed:
        count = "Few" if train.num_images < FEW else "Many"
        console.say(
            f"{count} images, for which it is {', '.join(changed)} unless you say otherwise"
        )
    return suited
