"""A finished run as an object: facts, splits, images and classifier, each loaded at most once.

Everything that reads a run folder goes through here; nobody else rebuilds a classifier from one.
"""

import dataclasses
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from transfer import console
from transfer.backend import load_keras
from transfer.config import Config
from transfer.data.decode import decode_split, measure_geometry
from transfer.data.fingerprints import OUTDATED, fingerprint, is_outdated
from transfer.data.geometry import Geometry
from transfer.data.splits import Split, Splits
from transfer.datasets.sources import load_splits
from transfer.errors import InputError, printable, shortened
from transfer.models.precision import FLOAT32, choose_inference_precision
from transfer.runs import files
from transfer.runs.facts import Facts, Summary, read_facts, read_summary
from transfer.runs.folder import check_finished
from transfer.runs.given_data import find_given_data
from transfer.runs.history import read_history

if TYPE_CHECKING:
    import keras


class FinishedRun:
    """A run folder whose run has finished.

    Args:
        run_dir: the folder.
        data: where its data is now, or other labelled images of the same classes to test it on;
            None for where the run says.

    Attributes:
        run_dir: the folder.
        facts: the content of config.json.
        summary: the content of summary.json.

    Raises:
        InputError: there is no finished run, or what its folder says of it is damaged.
    """

    def __init__(self, run_dir: Path, data: str | None = None) -> None:
        self.run_dir = check_finished(run_dir)
        self.facts: Facts = read_facts(run_dir)
        self._kept = self.facts.data
        self._given = find_given_data(data, self.facts) if data is not None else None
        if self._given is not None:
            self.facts = dataclasses.replace(self.facts, data=self._given.facts)
        self.summary: Summary = read_summary(run_dir)
        self._decoded: dict[str, Split] = {}
        self._fingerprints: dict[str, str] = {}

    @property
    def name(self) -> str:
        """Name of the folder, printable."""
        return printable(self.run_dir.resolve().name)

    @property
    def has_other_test(self) -> bool:
        """Whether it is tested on other images than those it was made with."""
        return self._given is not None and self._given.other_test is not None

    @property
    def report_dir(self) -> Path:
        """The folder of its report; that on other images has a name of its own."""
        other = "".join(c if c.isalnum() else "-" for c in self.facts.data.name)
        name = f"{files.REPORT}-on-{other}" if self.has_other_test else files.REPORT
        return self.run_dir / name

    @property
    def settings(self) -> Config:
        """What was asked for."""
        return self.facts.settings

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label."""
        return self.facts.data.class_names

    @functools.cached_property
    def history(self) -> list[dict[str, Any]]:
        """The rows of history.csv.

        Raises:
            InputError: the file is missing or damaged.
        """
        return read_history(self.run_dir)

    @functools.cached_property
    def splits(self) -> Splits:
        """The data set as it is found now, image files not decoded and nothing compared yet.

        Raises:
            InputError: the data is gone or damaged.
        """
        if self._given is not None and self._given.splits is not None:
            return self._given.splits
        location = self._kept.location
        if location == files.DATA:
            location = str(self.run_dir / files.DATA)
        if os.path.isabs(location) and not os.path.exists(location):
            mend = "name where it is now: --data PATH"
            if self.has_other_test:
                mend = "put it back, a report needs it besides the other images"
            raise InputError(
                f"the data of {self.run_dir} should be in {location}. Received: nothing there; "
                f"{mend}."
            )
        splits = load_splits(
            location,
            validation_fraction=self.settings.validation_fraction,
            seed=self.settings.seed,
            limit=self.settings.limit,
            offline=True,
            keeps_duplicates_together=self._kept.keeps_duplicates_together,
        )
        if tuple(map(printable, splits.class_names)) != self.class_names:
            raise InputError(
                f"the classes of {location} should be those of this run, "
                f"{shortened(self.class_names)}. Received: {shortened(splits.class_names)}."
            )
        if self._given is not None and self._given.other_test is not None:
            return dataclasses.replace(splits, test=self._given.other_test)
        return splits

    def _part(self, part: str) -> Split:
        # Other test images are there where the run's own data is gone.
        if part == "test" and self._given is not None and self._given.other_test is not None:
            return self._given.other_test
        return self.splits.parts()[part]

    @functools.cached_property
    def geometry(self) -> Geometry:
        """What every image is decoded to: as training decided it."""
        kept = self.facts.data.geometry
        return kept or measure_geometry(self.splits.parts().values(), self.settings.image_size)

    def fingerprint(self, part: str) -> str:
        """Returns the SHA-256 of a part as it is found now, computed once.

        Args:
            part: "train", "validation" or "test".
        """
        if part not in self._fingerprints:
            self._fingerprints[part] = fingerprint(self._part(part))
        return self._fingerprints[part]

    def split(self, part: str) -> Split:
        """Returns a part of the data, image files not decoded, after comparing it.

        Args:
            part: "train", "validation" or "test".

        Raises:
            InputError: the data is gone, or the images of the part are not those of the run.
        """
        split, kept = self._part(part), self.facts.data.fingerprints[part]
        if is_outdated(split, kept):
            console.say(f"Warning: {OUTDATED}")
            found = fingerprint(split, like=kept)
        else:
            found = self.fingerprint(part)
        if found != kept:
            raise InputError(
                f"the {part} images in {self.facts.data.location} are not those of this run; "
                "they have changed since it was trained. Put them back, or name where they are: "
                "--data PATH."
            )
        return split

    def images(self, part: str) -> Split:
        """Returns a part of the data decoded as for training, uint8 (N, H, W, 1 or 3), once.

        Arguments and errors as `split`.
        """
        if part not in self._decoded:
            self._decoded[part] = self._decode(self.split(part))
        return self._decoded[part]

    def used(self, part: str) -> Split:
        """Returns a part as it was trained or tested on, decoded only where that must be known.

        Files that do not decode are no part of it. Arguments and errors as `split`.
        """
        split = self._part(part)
        return self.images(part) if split.are_files and self.settings.skip_bad_images else split

    def examples(self, part: str, indices: np.ndarray) -> np.ndarray:
        """Returns some images of a part, uint8 (K, H, W, 1 or 3), without decoding the others.

        Args:
            part: "train", "validation" or "test".
            indices: int (K,), into what `used` returns.
        """
        split = self.used(part).take(indices)
        return self._decode(split).images

    def _decode(self, split: Split) -> Split:
        return decode_split(split, self.geometry, skip_bad_images=self.settings.skip_bad_images)

    @functools.cached_property
    def classifier(self) -> "keras.Model":
        """The trained classifier, BatchNorm folded, in the number format of the training.

        Raises:
            InputError: the model file is missing or damaged, or does not fit the run.
        """
        return self._fold(self.trained)

    @functools.cached_property
    def float32_classifier(self) -> "keras.Model":
        """The same in float32 throughout, whatever the format of the training: for export."""
        return self._fold(self._restore(FLOAT32))

    @functools.cached_property
    def predictor(self) -> "keras.Model":
        """The same in the number format that predicts fastest here."""
        policy, _ = choose_inference_precision(self.settings.backbone, self.settings.precision)
        return self._fold(self.trained, policy)

    @functools.cached_property
    def predictor_with_features(self) -> "keras.Model":
        """The same to (B, C + F): the probabilities beside the features that the head reads."""
        predictor = self.predictor  # which loads Keras
        from transfer.models.classifier import with_features

        return with_features(predictor)

    @functools.cached_property
    def trained(self) -> "keras.Model":
        """The trained classifier as it was saved, rebuilt from the settings."""
        return self._restore(self.facts.precision)

    def _fold(self, classifier: "keras.Model", policy: str | None = None) -> "keras.Model":
        from transfer.models.folding import fold_classifier

        return fold_classifier(classifier, policy)

    def _restore(self, policy: str) -> "keras.Model":
        # Here, and not where a command begins: what predictions are kept of needs no network.
        load_keras(console.is_verbose())
        from transfer.models.saving import restore_classifier

        return restore_classifier(
            self.facts.settled,
            self.facts.data.num_classes,
            policy,
            self.run_dir / files.MODEL,
        )
