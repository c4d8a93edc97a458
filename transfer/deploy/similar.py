"""The most similar images of a catalogue: "more like this", and products that are there twice.

The features of a run's backbone are computed once for each image and kept, as float16; a photo is
compared with all of them, exactly, by the cosine of the angle between centred features. In a large
catalogue an outline of the features, a fourteenth of what they are, passes over most images first.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from transfer.datasets.formats.npz import read_arrays
from transfer.deploy.classifiers import open_run, photos_at_a_time
from transfer.deploy.photos import read_photos
from transfer.errors import InputError, printable
from transfer.report.document import Heading, Paragraph, Picture, Table, to_html
from transfer.runs import files
from transfer.runs.finished import FinishedRun
from transfer.storage.atomic import whole_file, write_output

THUMBNAIL = 200  # pixels

_LARGE = 20_000  # images from which an outline is made
_DIRECTIONS = 256  # of an outline
_SAMPLED = 4_000  # images that its directions are found by
_ROUNDED = 1e-4  # more than float32 loses in a cosine


@dataclass(frozen=True, eq=False)
class _Outline:
    # The N images' features on the few directions that hold the most of them, and in a last column
    # the length of what is left: the product with a photo's own row is at least their cosine
    # (Cauchy and Schwarz), so an image whose bound is too low need not be looked at.
    directions: np.ndarray  # float32 (F, D), orthonormal
    rows: np.ndarray  # float32 (N, D + 1)

    def bounds(self, unit: np.ndarray) -> np.ndarray:
        """Returns float32 (N,), at least the cosine with each image, up to rounding."""
        return self.rows @ _outlined(unit[np.newaxis], self.directions)[0]


def _make_outline(features: np.ndarray) -> _Outline | None:
    if len(features) < _LARGE or features.shape[1] <= _DIRECTIONS:
        return None
    from sklearn.utils.extmath import randomized_svd

    sample = features[:: max(1, len(features) // _SAMPLED)]
    directions = randomized_svd(sample, _DIRECTIONS, random_state=0)[2].T.astype(np.float32)
    directions = np.linalg.qr(directions)[0]
    return _Outline(directions, _outlined(features, directions))


def _outlined(unit: np.ndarray, directions: np.ndarray) -> np.ndarray:
    along = unit @ directions
    left = np.sqrt(np.maximum(1 - np.square(along).sum(axis=1, keepdims=True), 0))
    return np.concatenate([along, left], axis=1)


@dataclass(frozen=True, eq=False)
class Index:
    """A catalogue, as it is searched.

    Attributes:
        paths: of N images, absolute; of a run's own images their classes.
        features: float32 (N, F), rows of length 1.
        mean: float32 (F,), of the features before; a photo's are centred by it too.
        bad: a line for each file that was left out; empty when it was read back.
        outline: of a large catalogue.
    """

    paths: tuple[str, ...]
    features: np.ndarray
    mean: np.ndarray
    bad: tuple[str, ...] = ()
    outline: _Outline | None = None

    def nearest(self, features: np.ndarray, top: int) -> list[tuple[int, float]]:
        """Returns the index and the cosine of the most similar images, the nearest first.

        Args:
            features: float (F,) of a photo, as `Searcher.features` returns them.
            top: at most so many.
        """
        unit = _unit(features[np.newaxis] - self.mean)[0]
        count = min(top, len(self.features))
        rows = self.candidates(unit, count)
        cosines = (self.features if rows is None else self.features[rows]) @ unit
        best = _largest(cosines, count)
        best = best[np.argsort(-cosines[best], kind="stable")]
        found = best if rows is None else rows[best]
        return [(int(row), float(cosine)) for row, cosine in zip(found, cosines[best], strict=True)]

    def candidates(self, unit: np.ndarray, count: int) -> np.ndarray | None:
        """Returns the images that can be among the nearest, int (M,); None for all of them.

        Args:
            unit: float32 (F,), a photo's centred features, of length 1.
            count: of the nearest.
        """
        if self.outline is None:
            return None
        bounds = self.outline.bounds(unit)
        reached = (self.features[_largest(bounds, count)] @ unit).min()
        rows = np.flatnonzero(bounds >= reached - _ROUNDED)
        return rows if len(rows) < len(bounds) // 8 else None


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    return np.argpartition(-values, count - 1)[:count]


def make_index(paths: tuple[str, ...], features: np.ndarray, bad: tuple[str, ...] = ()) -> Index:
    """Returns the index of features, float (N, F), centred and brought to length 1."""
    features = features.astype(np.float32)
    mean = features.mean(axis=0)
    unit = _unit(features - mean)
    return Index(paths, unit, mean, bad, _make_outline(unit))


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


class Searcher:
    """A run's features of photos, and the index that it keeps; Keras has been loaded.

    Args:
        run: a finished run.
        invert: as `read_photos` takes it.
    """

    def __init__(self, run: FinishedRun, invert: str = "auto") -> None:
        self._run, self._invert = run, invert
        self._ground = open_run(run).facts.ground
        self.path = run.run_dir / files.SEARCH_INDEX

    def features(self, paths: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Returns the features of photos that decode, as float32 (M, F).

        Args:
            paths: N photos.

        Returns:
            The features; int (M,), the index of each; and N texts, why a photo does not decode.
        """
        from transfer.data.splits import Split
        from transfer.evaluation.answering import features_of

        photos = read_photos(paths, self._run.geometry, self._ground, self._invert)
        if not len(photos.images):
            return np.zeros((0, 1), np.float32), photos.indices, photos.reasons
        split = Split(photos.images, np.zeros(len(photos.images), np.int64))
        return features_of(self._run, split), photos.indices, photos.reasons

    def build(
        self, paths: Sequence[str], tell: Callable[[int], None] = lambda count: None
    ) -> Index:
        """Makes the index of a catalogue and keeps it in the run, in place of the one before.

        Args:
            paths: of the images.
            tell: called with the number of images that are done.

        Raises:
            InputError: no image decodes, or the index cannot be written.
        """
        parts, kept, bad = [], [], []
        batch = photos_at_a_time(self._run.geometry)
        for start in range(0, len(paths), batch):
            part = paths[start : start + batch]
            features, indices, reasons = self.features(part)
            if len(features):
                parts.append(features.astype(np.float16))
            kept += [os.path.abspath(part[index]) for index in indices]
            bad += [f"{path} ({why})" for path, why in zip(part, reasons, strict=True) if why]
            tell(start + len(part))
        if not kept:
            raise InputError(
                f"the catalogue should have an image that decodes. Received: {bad[0]}."
            )
        index = make_index(tuple(kept), np.concatenate(parts), tuple(bad))
        self._write(index)
        return index

    def _write(self, index: Index) -> None:
        names = json.dumps(list(index.paths)).encode()
        try:
            with whole_file(self.path) as file:
                np.savez(
                    file,
                    features=index.features.astype(np.float16),
                    mean=index.mean,
                    paths=np.frombuffer(names, np.uint8),
                    model=np.frombuffer(self._fingerprint(), np.uint8),
                )
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{self.path} cannot be written: {reason}.") from error

    def load(self) -> Index:
        """Returns the index that the run keeps.

        Raises:
            InputError: there is none, it is damaged, or it was made by another model.
        """
        if not self.path.is_file():
            raise InputError(f"{self._run.run_dir} has no index yet; make one with --index FOLDER.")
        arrays = read_arrays(self.path, ("features", "mean", "paths", "model"))
        try:
            paths = tuple(map(str, json.loads(arrays["paths"].tobytes())))
            features = arrays["features"].astype(np.float32)
            is_good = features.shape == (len(paths), len(arrays["mean"])) and len(paths)
        except (ValueError, TypeError, RecursionError):
            is_good = False
        if not is_good or arrays["model"].tobytes() != self._fingerprint():
            raise InputError(
                f"{self.path} should be an index of this model. Received: another, or a damaged "
                "one; make it again with --index FOLDER."
            )
        mean = arrays["mean"].astype(np.float32)
        return Index(paths, features, mean, outline=_make_outline(features))

    def _fingerprint(self) -> bytes:
        return hashlib.sha256((self._run.run_dir / files.MODEL).read_bytes()).digest()


@dataclass(frozen=True)
class Match:
    """An image of the catalogue that is like a photo; cosine in [-1, 1]."""

    photo: str
    place: int
    path: str
    cosine: float


def search_photos(
    searcher: Searcher, index: Index, photos: Sequence[str], top: int
) -> tuple[list[Match], list[str]]:
    """Returns the most similar images of each photo, and a line for each that does not decode."""
    features, indices, reasons = searcher.features(photos)
    matches = [
        Match(photos[number], place, index.paths[found], cosine)
        for number, one in zip(indices, features, strict=True)
        for place, (found, cosine) in enumerate(index.nearest(one, top), 1)
    ]
    bad = [f"{path} ({why})" for path, why in zip(photos, reasons, strict=True) if why]
    return matches, bad


def matches_table(matches: Sequence[Match]) -> Table:
    """Returns a row for each match."""
    rows = [
        (printable(one.photo), str(one.place), printable(one.path), f"{one.cosine:.4f}")
        for one in matches
    ]
    return Table(("photo", "place", "image", "cosine"), (False, True, False, True), rows)


def write_page(matches: Sequence[Match], path: Path) -> None:
    """Writes one HTML page with the photos and what is like them, which needs nothing else.

    Raises:
        DiskError: it cannot be written.
    """
    blocks: list = []
    for photo in dict.fromkeys(one.photo for one in matches):
        blocks += [Heading(os.path.basename(photo)), *_picture(photo, "The photo")]
        for one in matches:
            if one.photo == photo:
                caption = f"{one.place}. {printable(one.path)}, cosine {one.cosine:.4f}"
                blocks += _picture(one.path, caption)
    write_output(path, to_html("Similar images", blocks))


def _picture(path: str, caption: str) -> list[Picture | Paragraph]:
    from transfer.data.decode import decode_thumbnail

    try:
        image = decode_thumbnail(path, THUMBNAIL)
    except InputError as error:
        return [Paragraph(f"{caption}: {error}")]
    buffer = io.BytesIO()
    ImageOps.pad(image, (THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC, "white").save(
        buffer, "PNG"
    )
    return [Picture("", caption, buffer.getvalue())]
