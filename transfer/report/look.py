"""A data set before anything is trained on it: counts, sizes, colours, samples, augmentation."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from transfer.auditing.findings import Findings, Images, examine, read_images
from transfer.config import Config
from transfer.data.decode import decode_split, measure_geometry
from transfer.data.division import divide
from transfer.data.geometry import Geometry
from transfer.data.splits import Splits
from transfer.datasets.sources import load_undivided
from transfer.formatting import format_count
from transfer.report.document import Block, Bullets, Heading, Paragraph, Picture, Table
from transfer.report.pictures import SPLIT_NAMES

MOST_CLASSES_SHOWN = 20  # in a terminal, and in the picture of samples
SAMPLES_EACH, AUGMENTED, VIEWS = 6, 10, 5  # images of a class, images augmented, how often


@dataclasses.dataclass(frozen=True)
class Looked:
    """A data set as it was found.

    Attributes:
        config: what was asked for.
        splits: the data set divided as training divides it; image files are not decoded.
        images: all that can be decoded.
        findings: what is odd about them.
        geometry: what training would decode them to.
    """

    config: Config
    splits: Splits
    images: Images
    findings: Findings
    geometry: Geometry


def look_at(config: Config, *, offline: bool = False) -> Looked:
    """Reads a data set and counts what is in it.

    Args:
        config: uses `data`, `limit`, `image_size`, `fit`, `seed`, `validation_fraction`.
        offline: never use the network.

    Raises:
        InputError: the data cannot be used.
    """
    loaded = load_undivided(config.data, offline=offline)
    splits = divide(loaded, config.validation_fraction, config.seed, config.limit)
    images = read_images(loaded, config.image_size, config.limit)
    geometry = measure_geometry(splits.parts().values(), config.image_size, config.fit)
    return Looked(config, splits, images, examine(images), geometry)


def look_blocks(looked: Looked) -> list[Block]:
    """Returns what a terminal shows of a data set: counts by class, and a line on each question."""
    splits, names = looked.splits, looked.splits.class_names
    counts = [np.bincount(part.labels, minlength=len(names)) for part in splits.parts().values()]
    order = np.argsort(sum(counts), kind="stable")  # the rarest first
    rows = [(names[label], *(f"{count[label]:,}" for count in counts)) for label in order]
    header = ("class, the rarest first", *SPLIT_NAMES.values())
    left_out = f"the {MOST_CLASSES_SHOWN} rarest of {len(names):,} classes"
    return [
        Paragraph(splits.provenance),
        Heading("Images of each class"),
        Table(header, (False, True, True, True), rows, MOST_CLASSES_SHOWN, left_out),
        Heading("What they are like"),
        Bullets(_describe(looked)),
    ]


def _describe(looked: Looked) -> list[tuple[str, str]]:
    images, findings = looked.images, looked.findings
    pairs = int(findings.is_exact.sum()), int((~findings.is_exact).sum())
    across = int(findings.crosses(images).sum())
    odd = {"of too little contrast": len(findings.low_contrast)}
    odd |= {kind: len(each.indices) for kind, each in findings.odd.items()}
    return [
        ("sizes", _tell_sizes(images.sizes)),
        ("colours", _tell_colours(images.pixels)),
        ("trained at", looked.geometry.describe()),
        (
            "duplicates",
            f"{format_count(pairs[0], 'exact pair')}, {format_count(pairs[1], 'near pair')}, "
            f"{across:,} of them across parts",
        ),
        ("unreadable", format_count(len(images.unreadable), "file")),
        ("odd", ", ".join(f"{count:,} {kind}" for kind, count in odd.items())),
    ]


def _tell_sizes(sizes: np.ndarray) -> str:
    smallest, largest = sizes[sizes.prod(axis=1).argmin()], sizes[sizes.prod(axis=1).argmax()]
    if (sizes == sizes[0]).all():
        return f"all {sizes[0, 0]:,} x {sizes[0, 1]:,} pixels"
    middle = np.median(sizes, axis=0).astype(int)
    return (
        f"{smallest[0]:,} x {smallest[1]:,} to {largest[0]:,} x {largest[1]:,} pixels, the middle "
        f"{middle[0]:,} x {middle[1]:,}"
    )


def _tell_colours(pixels: np.ndarray) -> str:
    if pixels.shape[3] == 1:
        return "all gray"
    is_gray = [np.ptp(image, axis=2).max() == 0 for image in pixels]
    count = int(np.count_nonzero(is_gray))
    return f"{len(pixels) - count:,} in colour, {count:,} gray"


def look_pictures(looked: Looked) -> list[Picture]:
    """Returns samples of each class, and what augmentation makes of some training images."""
    from transfer.plots.galleries import plot_augmentation, plot_classes
    from transfer.plots.style import png

    samples = _samples(looked.images)
    shown = len(samples)
    caption = f"Images of {shown:,} classes"
    of = "" if shown == len(looked.splits.class_names) else ", the rarest ones"
    augmented = plot_augmentation(*_augmented(looked))
    return [
        Picture("samples", f"{caption}{of}, drawn by chance.", png(plot_classes(samples))),
        Picture(
            "augmentation",
            "Training images, and what each of five epochs of fine-tuning would make of them.",
            png(augmented),
        ),
    ]


def _samples(images: Images) -> list[tuple[str, np.ndarray]]:
    """Returns the name of each class, and some of its images."""
    generator = np.random.default_rng(0)
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    rarest = np.argsort(counts, kind="stable")[:MOST_CLASSES_SHOWN]
    samples = []
    for label in sorted(rarest):
        mine = np.flatnonzero(images.labels == label)
        chosen = np.sort(generator.permutation(mine)[:SAMPLES_EACH])
        if len(chosen):
            samples.append((images.class_names[label], images.pixels[chosen]))
    return samples


def _augmented(looked: Looked) -> tuple[np.ndarray, np.ndarray]:
    from transfer.data.augment import augment_some

    train = looked.splits.train
    chosen = np.unique(np.linspace(0, train.num_images - 1, AUGMENTED).astype(int))
    decoded = decode_split(train.take(chosen), looked.geometry, skip_bad_images=True)
    originals, numbers = decoded.images, np.arange(len(decoded.images))
    views: Sequence[np.ndarray] = [
        augment_some(originals, numbers, looked.config, epoch, len(numbers)).numpy()
        for epoch in range(VIEWS)
    ]
    return originals, np.stack(views, axis=1)
