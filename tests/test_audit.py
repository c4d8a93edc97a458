"""The audit: duplicates, contrast, unreadable files, label errors, and what is told of them."""

import csv
import dataclasses
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageFilter

from benchmarks.audit import alter_pictures, change_labels
from transfer.auditing import leaks, run
from transfer.auditing.findings import examine, read_images
from transfer.auditing.label_errors import find_label_errors
from transfer.commands import main
from transfer.config import Config
from transfer.data.decode import measure_geometry
from transfer.data.descriptors import appearance_features
from transfer.data.duplicates import find_exact_duplicates, find_near_duplicates
from transfer.data.fingerprints import fingerprint
from transfer.data.splits import Loaded, Split, Splits
from transfer.datasets.sources import load_undivided
from transfer.errors import InputError
from transfer.models.weights import Weights

NAMES = ("tall", "wide")


def make_shapes(num_images, seed=0, size=28, channels=1):
    """Returns images of textured ellipses, tall (0) and wide (1), and their labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num_images) % 2
    down, across = np.mgrid[:size, :size] / size
    images = np.zeros((num_images, size, size, channels), np.uint8)
    for image, label in zip(images, labels, strict=True):
        middle, long = generator.uniform(0.4, 0.6, 2), generator.uniform(0.34, 0.4)
        short = generator.uniform(0.18, 0.24)
        radii = (short, long) if label else (long, short)
        inside = np.hypot((down - middle[0]) / radii[0], (across - middle[1]) / radii[1]) < 1
        texture = Image.fromarray(generator.integers(40, 256, (6, 6), np.uint8)).resize(
            (size, size)
        )
        tint = generator.uniform(0.6, 1, channels)
        image[:] = (inside * np.asarray(texture))[..., None] * tint
    return images, labels.astype(np.int64)


def load(train, test, class_names=NAMES):
    return Loaded(Split(*train), Split(*test), class_names, "shapes", "made here")


def save_folder(root, images, labels, part):
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / part / NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / f"{number}.png")


def read_rows(path):
    return list(csv.DictReader(path.open(newline="", encoding="utf-8")))


@pytest.mark.parametrize("channels", [1, 3])
def test_shifted_brightened_and_compressed_pictures_are_found_and_no_others(channels):
    images, _ = make_shapes(300, channels=channels)
    others, _ = make_shapes(60, seed=1, channels=channels)
    copied = np.arange(0, 300, 10)
    altered = alter_pictures(images[copied], np.random.default_rng(0))
    found = find_near_duplicates(np.concatenate([others, altered]), images)
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    expected = {(60 + number, int(original)) for number, original in enumerate(copied)}
    assert len(pairs & expected) >= 0.9 * len(expected)
    assert not pairs - expected
    assert (np.diff(found.difference) >= 0).all()


def test_pairs_among_themselves_are_told_once_and_never_with_itself():
    images, _ = make_shapes(40)
    images = np.concatenate([images, images[:3]])
    found = find_near_duplicates(images)
    assert sorted(zip(found.first, found.second, strict=True)) == [(0, 40), (1, 41), (2, 42)]
    assert (found.difference == 0).all()


def test_other_pictures_of_the_same_outline_are_no_duplicates():
    # As trousers: the outline alone makes them correlate.
    images = np.zeros((2, 28, 28, 1), np.uint8)
    images[:, :, 8:20] = 120
    images[0, 4:24, 10:18], images[1, 4:24:2, 8:20] = 170, 160
    assert not len(find_near_duplicates(images).first)


def test_pictures_of_one_colour_are_duplicates_only_of_their_own():
    images = np.zeros((4, 28, 28, 1), np.uint8)
    images[2:] = 9
    found = find_near_duplicates(images)
    assert sorted(zip(found.first, found.second, strict=True)) == [(0, 1), (2, 3)]


def test_one_image_alone_and_tiny_images_are_no_error():
    assert not len(find_near_duplicates(make_shapes(1)[0]).first)
    tiny = np.random.default_rng(0).integers(0, 256, (6, 3, 2, 1), np.uint8)
    tiny[5] = tiny[0]
    found = find_near_duplicates(tiny)
    assert (0, 5) in set(zip(found.first, found.second, strict=True))


def test_exact_duplicates_point_at_the_first_of_them():
    assert find_exact_duplicates([b"a", b"b", b"a", b"a"]).tolist() == [0, 1, 0, 0]


def test_contrast_balance_and_copies_of_an_array_data_set():
    train, test = make_shapes(31), make_shapes(20, seed=1)
    train[0][5], train[0][6] = 0, 100  # black; one gray
    train[0][6, :20] += 5
    test[0][3], test[1][3] = train[0][10], 1 - train[1][10]
    images = read_images(load(train, test), 32)
    found = examine(images)
    assert found.low_contrast.tolist() == [5, 6]
    assert found.class_counts["train"].tolist() == [16, 15]
    assert found.class_counts["test"].sum() == 20
    assert list(zip(found.duplicates.first, found.duplicates.second, strict=True)) == [(10, 34)]
    assert found.is_exact.all() and found.crosses(images).all() and found.disagrees(images).all()


def test_twenty_copies_of_a_picture_do_not_hide_its_near_duplicate():
    images, labels = make_shapes(40)
    images[10:30] = images[0]
    images[35] = images[0]
    images[35, 14, 14] ^= 8
    found = examine(read_images(load((images, labels), make_shapes(4, seed=2)), 32))
    near = ~found.is_exact
    assert near.sum() == 1
    assert (found.duplicates.first[near], found.duplicates.second[near]) == (0, 35)


def make_scene(size, seed=0):
    """Returns a picture of sharp coloured tiles of all brightnesses, RGB."""
    tiles = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(tiles).resize((size, size), Image.Resampling.NEAREST)


ODD = {
    "dark": lambda scene: scene.point(lambda level: level * 0.2),
    "light": lambda scene: scene.point(lambda level: 245 + level / 26),
    "blurred": lambda scene: scene.filter(ImageFilter.GaussianBlur(12)),
    "odd size": lambda scene: scene.resize((16, 16)),
}


@pytest.mark.parametrize("is_gray", [False, True])
@pytest.mark.parametrize("kind", ODD)
def test_images_that_are_hard_to_see_or_odd_are_told_by_their_kind(kind, is_gray, tmp_path):
    for number in range(8):
        folder = tmp_path / NAMES[number % 2]
        folder.mkdir(exist_ok=True)
        scene = make_scene(144, number)
        scene = ODD[kind](scene) if number == 5 else scene
        (scene.convert("L") if is_gray else scene).save(folder / f"{number}.png")
    images = read_images(load_undivided(str(tmp_path)), 96)
    found = examine(images).odd
    assert [images.names[index] for index in found[kind].indices] == ["wide/5.png"]
    assert not any(len(odd.indices) for other, odd in found.items() if other != kind)
    if kind == "odd size":
        assert found[kind].values == pytest.approx([16 / 144])


def test_plain_data_are_not_odd_and_tiny_images_are_no_error():
    for size in (28, 2, 1):
        shapes = make_shapes(40, size=size)
        odd = examine(read_images(load(shapes, make_shapes(8, 1, size)), 96)).odd
        assert not len(odd["blurred"].indices) and not len(odd["odd size"].indices)
        assert not len(odd["light"].indices)


@pytest.mark.parametrize(
    "channels, kind, asked, by_features",
    [
        (1, "photos", "auto", False),
        (3, "photos", "auto", True),
        (3, "bundled", "auto", False),  # which have never seen a photo
        (3, "bundled", "bundled", True),
        (1, "bundled", "bundled", True),
        (3, "none", "auto", False),
    ],
)
def test_auto_sees_colour_images_by_features_that_have_seen_photos(
    channels, kind, asked, by_features
):
    images, _ = make_shapes(9, channels=channels)
    weights = Weights(kind, "weights", "weights")

    def load_features(pixels, config, *, offline, wanted):
        return np.zeros((9, 8)) if wanted(weights) else None, weights

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transfer.training.features.load_pretrained_features", load_features)
        features, told = run._describe(images, Config(weights=asked), True)
    assert (features.shape[1] == 8) == by_features == ("weights" in told)


def test_wrong_labels_come_first():
    images, labels = make_shapes(240)
    given, changed = change_labels(labels, 2, 10, np.random.default_rng(0))
    errors = find_label_errors(appearance_features(images), given)
    assert np.isin(errors.indices[:10], changed).mean() >= 0.8
    assert (errors.suggested != given[errors.indices]).all()
    assert errors.num_judged == 240 and errors.accuracy > 0.9
    assert (np.diff(errors.credibility) >= 0).all()


def test_classes_with_too_few_images_are_not_judged():
    features, labels = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 2
    labels[:4] = 5  # four images of a third class
    errors = find_label_errors(features, labels)
    assert errors.num_judged == 26
    assert set(errors.suggested.tolist()) <= {0, 1}
    assert find_label_errors(features[:8], np.array([0] * 6 + [1] * 2)) is None


def run_on(splits):
    """Returns what a finished run has of its data."""
    return SimpleNamespace(
        fingerprint=lambda part: fingerprint(splits.parts()[part]),
        images=lambda part: splits.parts()[part],
        geometry=measure_geometry(splits.parts().values(), 32),
        settings=Config(),
    )


def test_leaked_images_are_found_once_kept_and_left_out(monkeypatch):
    train, validation, test = make_shapes(60), make_shapes(20, seed=1), make_shapes(30, seed=2)
    test[0][4], test[0][7] = train[0][9], validation[0][3]
    splits = Splits(Split(*train), Split(*validation), Split(*test), NAMES, "shapes", "", "")
    leaked = leaks.find_leaked_images(run_on(splits))
    assert leaked.tolist() == [4, 7]
    monkeypatch.setattr(leaks, "find_near_duplicates", None)
    assert leaks.find_leaked_images(run_on(splits)).tolist() == [4, 7]
    fewer = dataclasses.replace(splits, train=splits.train.take(np.arange(59)))
    with pytest.raises(TypeError):  # other images: looked for anew, by what was taken away
        leaks.find_leaked_images(run_on(fewer))
    y_prob = np.eye(2)[test[1]]
    y_prob[[4, 5]] = y_prob[[4, 5], ::-1]
    values = leaks.measure_without_leaks(leaked, test[1], y_prob)
    assert values["num_near_duplicates"] == 2 and values["num_images"] == 28
    assert values["accuracy"] == pytest.approx(27 / 28)
    every = leaks.measure_without_leaks(np.arange(30), test[1], y_prob)
    assert every["accuracy"] is None


def run_audit(*arguments):
    result = CliRunner().invoke(main.main, ["audit", *map(str, arguments)])
    if isinstance(result.exception, InputError):
        raise result.exception
    return result


def test_the_command_goes_on_past_bad_files_and_lists_all_that_it_found(tmp_path):
    images, labels = make_shapes(120)
    wrong = np.arange(8, 62, 9)
    labels[wrong] = 1 - labels[wrong]
    save_folder(tmp_path / "data", images, labels, "train")
    test_images, test_labels = make_shapes(20, seed=1)
    test_images[2] = alter_pictures(images[6:7], np.random.default_rng(1))[0]
    save_folder(tmp_path / "data", test_images, test_labels, "test")
    for name in ("bad1.png", "bad2.png"):
        (tmp_path / "data" / "train" / "tall" / name).write_bytes(b"no picture")
    (tmp_path / "data" / "train" / "tall" / "notes.txt").write_text("no picture")
    out = tmp_path / "out"
    result = run_audit("--data", tmp_path / "data", "--out", out)
    assert result.exit_code == 0, result.output
    summary = json.loads((out / "audit.json").read_text())
    assert summary["num_images"] == {"train": 120, "test": 20}
    assert summary["duplicates"]["test_images_also_in_other_parts"] == 1
    assert len(summary["unreadable"]) == len(read_rows(out / "unreadable.csv")) == 2
    assert re.search(r"Unreadable files +2", result.output) and "bad2.png" in result.output
    assert re.search(r"Passed over +1 .txt files", result.output)
    (row,) = read_rows(out / "passed_over.csv")
    assert row == {"file": "train/tall/notes.txt", "reason": ".txt files"}
    (row,) = read_rows(out / "duplicates.csv")
    assert (row["image"], row["other image"]) == ("train/tall/6.png", "test/tall/2.png")
    doubted = {Path(row["image"]).name for row in read_rows(out / "label_errors.csv")}
    assert len(doubted & {f"{number}.png" for number in wrong}) >= 4
    for name in ("class_balance", "duplicates_across_parts", "label_errors"):
        assert Image.open(io.BytesIO((out / f"{name}.png").read_bytes())).width > 500
    assert not (out / "low_contrast.png").exists()
    assert read_rows(out / "odd_images.csv") == []
    assert "0 dark, 0 light, 0 blurred, 0 odd size" in result.output


def test_pictures_of_an_earlier_audit_do_not_stay(tmp_path):
    (tmp_path / "low_contrast.png").write_bytes(b"old")
    assert run_audit("--data", "sample", "--limit", 30, "--out", tmp_path).exit_code == 0
    assert not (tmp_path / "low_contrast.png").exists()


def test_data_that_cannot_be_read_at_all_is_one_line(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in "ab":
        (tmp_path / name / "1.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="should decode"):
        run_audit("--data", tmp_path, "--out", tmp_path / "out")
    with pytest.raises(InputError, match="does not exist"):
        run_audit("--data", tmp_path / "missing")


@pytest.mark.real_data
def test_the_published_data_have_no_exact_duplicates():
    from transfer.auditing.findings import _digest
    from transfer.datasets.places import SYSTEM_FOLDER, load_published

    loaded = load_published(SYSTEM_FOLDER)
    digests = [_digest(image) for part in (loaded.train, loaded.test) for image in part.images]
    assert (find_exact_duplicates(digests) == np.arange(70_000)).all()


def test_a_backbones_features_stand_in_where_it_has_weights(tiny_backbone, tmp_path):
    from transfer.models.backbones import build_backbone

    path = tmp_path / "tiny.weights.h5"
    build_backbone(tiny_backbone, 32).save_weights(path)
    images, _ = make_shapes(9)

    def features_of(weights):
        config = Config(backbone=tiny_backbone, image_size=32, weights=str(weights))
        return run._describe(images, config, True)

    features, told = features_of(path)
    assert features.shape == (9, 8) and str(path) in told
    images = np.repeat(images, 3, axis=3)
    features, told = features_of("auto")  # there are none, and a random backbone knows nothing
    assert features.shape[1] > 100 and told == "gradients and pixels of the images"
