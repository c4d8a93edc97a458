"""The tables that grow by a row: whoever adds one is told here what else a row needs."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from tests.conftest import make_stripes
from tests.test_records import examples, tar_bytes
from transfer.data.fashion_mnist import FASHION_MNIST_SHA256
from transfer.datasets.sources import SOURCES, load_splits
from transfer.evaluation import published
from transfer.models.backbones import BACKBONES
from transfer.models.weights import KINDS, PLACES, NoWeightsHere, Request, load_backbone
from transfer.report.card import START


def write_idx(folder):
    folder.mkdir()
    for stem in FASHION_MNIST_SHA256:
        images, labels = make_stripes(20, seed=len(stem))
        array = images[..., 0] if "images" in stem else labels.astype(np.uint8)
        header = struct.pack(f">{array.ndim + 1}I", 0x0800 + array.ndim, *array.shape)
        with gzip.open(folder / f"{stem}.gz", "wb") as file:
            file.write(header + array.tobytes())
    return folder


def write_csv(path):
    images, labels = make_stripes(20, size=4)
    rows = [",".join(["label", *(f"pixel{i}" for i in range(16))])]
    for image, label in zip(images, labels, strict=True):
        rows.append(",".join(map(str, [label, *image.ravel()])))
    path = path.with_suffix(".csv")
    path.write_text("\n".join(rows) + "\n")
    return path


def write_tar(path):
    path = path.with_suffix(".tar")
    path.write_bytes(tar_bytes(examples(20)))
    return path


def write_npz(path):
    images, labels = make_stripes(20)
    path = path.with_suffix(".npz")
    np.savez(path, x_train=images, y_train=labels)
    return path


def write_folder(folder):
    for number, (image, label) in enumerate(zip(*make_stripes(20), strict=True)):
        (folder / "ab"[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / "ab"[label] / f"{number}.png")
    return folder


# One for each row of SOURCES, by its name.
EXAMPLES = {
    "IDX files": write_idx,
    "CSV files": write_csv,
    "NPZ file": write_npz,
    "files of records": write_tar,
    "folder of images": write_folder,
}


def test_every_format_has_an_example_here():
    assert list(EXAMPLES) == [source.name for source in SOURCES]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_format_is_recognised_by_its_own_row_first_and_read(source, tmp_path):
    path = EXAMPLES[source.name](tmp_path / "data")
    assert next(row for row in SOURCES if row.recognise(path)) is source
    splits = load_splits(str(path))
    counts = {name: split.num_images for name, split in splits.parts().items()}
    assert min(counts.values()) >= 2 and len(splits.class_names) == 2
    assert str(path) in splits.provenance


def test_every_kind_of_weights_has_words_in_the_card():
    assert set(START) == set(KINDS)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.load.__class__.__name__)
def test_a_place_gives_weights_or_says_why_not(place, tmp_path):
    name = "mobilenetv2"
    backbone, _ = load_backbone(name, 32, "none")
    try:
        told = place.load(Request(backbone, name, 32, place.kind, offline=True))
    except NoWeightsHere as error:
        assert "\n" not in str(error) and not str(error).endswith(".")
    else:
        assert told and "\n" not in told and not told.endswith(".")
        assert load_backbone(name, 32, place.kind, offline=True)[1].name == place.kind


def test_auto_asks_the_places_in_order_and_ends_with_one_that_always_has_some():
    assert PLACES[-1].kind == "none" and PLACES[-1].is_in_auto
    _, weights = load_backbone("vgg16", 32, "auto", offline=True)
    assert weights.name == "none" and "no ImageNet weights at" in weights.provenance


def test_every_backbone_is_a_row_of_plain_data():
    for name, row in BACKBONES.items():
        assert name == name.lower() and row.builder
        assert row.weights_url is None or row.weights_url.startswith("https://")


def test_every_published_result_says_its_source():
    for result in published.all_results():
        assert 0 < result.accuracy < 1 and result.source_url.startswith("https://")
        assert result.source_name and result.family
