"""Does a run see that an image is none of its classes? Measured on images of other kinds."""

from typing import Any

import numpy as np

from transfer.data.decode import decode_split
from transfer.data.geometry import Geometry
from transfer.data.splits import Split
from transfer.evaluation.answering import features_of, settle_answering
from transfer.evaluation.evaluated import EvaluatedRun
from transfer.evaluation.outliers import SHARE_KNOWN, KnownImages, measure_known
from transfer.formatting import format_percent
from transfer.report.document import Block, Heading, Paragraph, Table

NUM_IMAGES = 400  # of each kind
_SEED = 0


def measure_none_of_these(evaluated: EvaluatedRun) -> dict[str, Any]:
    """Measures how images of other kinds are told from a run's test images.

    Returns:
        threshold: of the distance.
        share_known: of the validation images that lie within it.
        test_images: num_images and unknown, the share that lies beyond.
        kinds: name, num_images, unknown, and auroc of the distance, for each kind.

    Raises:
        InputError: the run's data or its model cannot be used.
    """
    run = evaluated.run
    known = settle_answering(run).known
    assert known is not None  # it has just been fitted
    test = run.images("test")
    some = np.unique(np.linspace(0, test.num_images - 1, 2000).astype(int))
    others = other_images(run.geometry)
    images = np.concatenate([test.take(some).images, *others.values()])  # one pass for all
    distances = known.distances(features_of(run, _as_split(images)))
    ends = np.cumsum([len(some), *map(len, others.values())])
    near, *far = np.split(distances, ends[:-1])
    return {
        "threshold": known.threshold,
        "share_known": SHARE_KNOWN,
        "test_images": _measure(known, near),
        "kinds": [
            {"name": name, **_measure(known, one), "auroc": measure_known(near, one)}
            for name, one in zip(others, far, strict=True)
        ],
    }


def _measure(known: KnownImages, distances: np.ndarray) -> dict[str, Any]:
    unknown = float((distances > known.threshold).mean())
    return {"num_images": len(distances), "unknown": unknown}


def _as_split(images: np.ndarray) -> Split:
    return Split(images, np.zeros(len(images), np.int64))


def other_images(geometry: Geometry) -> dict[str, np.ndarray]:
    """Returns images of other kinds, uint8 (N, H, W, C) of a geometry, by what they show.

    Handwritten digits and cut-outs of two photographs come with scikit-learn; fractals and noise
    are drawn.
    """
    from sklearn.datasets import load_digits, load_sample_images

    from transfer.pretraining.fractals import render_system

    generator = np.random.default_rng(_SEED)
    digits = load_digits().images[:NUM_IMAGES] * (255 / 16)
    fractals = [render_system(_SEED, number, 5) for number in range(NUM_IMAGES // 5)]
    cuts = [_cut(photo, generator) for photo in load_sample_images().images for _ in range(200)]
    kinds = {
        "digits": digits.astype(np.uint8),
        "fractals": np.concatenate(fractals),
        "noise": generator.integers(0, 256, (NUM_IMAGES, *geometry.shape), np.uint8),
        "photographs": np.stack(cuts),
    }
    return {name: _brought_to(geometry, images) for name, images in kinds.items()}


def _cut(photo: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    top, left = (generator.integers(0, side - 128) for side in photo.shape[:2])
    return photo[top : top + 128, left : left + 128]


def _brought_to(geometry: Geometry, images: np.ndarray) -> np.ndarray:
    images = images if images.ndim == 4 else images[..., np.newaxis]
    return decode_split(_as_split(images), geometry).images


def none_of_these_section(measured: dict[str, Any]) -> list[Block]:
    """Returns what `measure_none_of_these` returned, in words."""
    header = ("images", "how many", "unknown in %", "AUROC")
    test = measured["test_images"]
    rows = [("test images", f"{test['num_images']:,}", f"{100 * test['unknown']:.1f}", "–")]
    rows += [
        (
            kind["name"],
            f"{kind['num_images']:,}",
            f"{100 * kind['unknown']:.1f}",
            f"{kind['auroc']:.3f}",
        )
        for kind in measured["kinds"]
    ]
    text = (
        "A photo is none of the classes where its features lie farther from those of the training "
        f"images than {format_percent(measured['share_known'])} of the validation images. AUROC is "
        "the chance that an image of the other kind lies farther away than a test image; 0.5 would "
        "be blind."
    )
    return [
        Heading("None of these"),
        Table(header, (False, True, True, True), rows),
        Paragraph(text),
    ]
