"""The one warp: what it draws, that it only resizes when asked, and what it does to pixels."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from PIL import Image, ImageEnhance
from scipy.ndimage import map_coordinates

from transfer.config import Config
from transfer.data.augment import (
    augment_some,
    change_colours,
    draw_boxes,
    draw_colours,
    draw_mixes,
    draw_warps,
    erase,
    mix,
    resize,
    warp,
)
from transfer.data.pipeline import epoch_order, make_training_dataset
from transfer.data.randomness import Purpose, epoch_key
from transfer.data.splits import Split
from transfer.datasets import places, sources
from transfer.plots import galleries, style

OUTPUT = Path(__file__).parent / "output"
NUM_DRAWS = 2_000
NONE = {"rotation_degrees": 0.0, "zoom_fraction": 0.0, "translation_fraction": 0.0, "flip": False}
LIMIT = 1.0  # 1/255 of the range [0, 255]
needs_real_data = [
    pytest.mark.real_data,
    pytest.mark.skipif(
        not places.SYSTEM_FOLDER.exists(),
        reason=f"no {places.SYSTEM_FOLDER}: apt-get install dataset-fashion-mnist",
    ),
]


def draw_images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def draw(config, epoch=0, num_images=NUM_DRAWS):
    """Draws warps and takes them apart: degrees, magnification, mirrored, shifts (x, y)."""
    warps = draw_warps(config, epoch, num_images).numpy()
    assert warps.dtype == np.float32 and warps.shape == (num_images, 2, 3)
    degrees = np.degrees(np.arctan2(warps[:, 1, 0], warps[:, 1, 1]))
    magnification = 1 / np.hypot(warps[:, 1, 0], warps[:, 1, 1])
    mirrored = np.linalg.det(warps[:, :, :2]) < 0
    return degrees, magnification, mirrored, warps[:, :, 2]


def assert_uniform(values, low, high):
    """The values stay in the range, reach its ends, and no quarter of it is preferred."""
    width = high - low
    assert values.min() >= low - 1e-4 * width and values.max() <= high + 1e-4 * width
    assert values.min() < low + 0.01 * width and values.max() > high - 0.01 * width
    counts, _ = np.histogram(values, bins=4, range=(low, high))
    spread = 5 * np.sqrt(len(values) * 0.25 * 0.75)  # five standard deviations
    assert np.abs(counts - len(values) / 4).max() < spread


def identity_warps(num_images, flipped=False):
    """Maps that only resize, or mirror left to right."""
    one = [[-1.0 if flipped else 1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    return tf.constant([one] * num_images)


def assert_only_resized(images, size):
    expected = tf.image.resize(images, (size, size), "bilinear").numpy()
    expected = np.repeat(expected, 3, axis=-1) if expected.shape[-1] == 1 else expected
    for flipped in (False, True):
        wanted = expected[:, :, ::-1] if flipped else expected
        warped = warp(images, identity_warps(len(images), flipped), size).numpy()
        for got in (warped, resize(images, size, flipped=flipped).numpy()):
            assert got.dtype == np.float32 and got.shape == (len(images), size, size, 3)
            assert np.abs(got - wanted).max() <= LIMIT
            corners = np.ix_(range(len(images)), [0, -1], [0, -1], range(3))
            assert np.abs(got[corners] - wanted[corners]).max() <= LIMIT


# --- Only resizing --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, size",
    [
        ((28, 28, 1), 96),
        ((28, 28, 3), 96),
        ((28, 28, 1), 28),
        ((17, 40, 1), 96),
        ((40, 17, 3), 64),
        ((33, 31, 1), 224),
        ((130, 96, 3), 96),  # made smaller
        ((1, 1, 1), 32),
    ],
    ids=str,
)
def test_the_identity_is_a_plain_resize(shape, size):
    assert_only_resized(draw_images(16, *shape), size)


@pytest.mark.parametrize("part", [pytest.param("real", marks=needs_real_data)])
def test_the_identity_is_a_plain_resize_on_real_images(part):
    images = sources.load_splits(str(places.SYSTEM_FOLDER), limit=500).test.images
    assert images.shape == (500, 28, 28, 1)
    assert_only_resized(images, 96)


def test_no_augmentation_is_the_identity():
    warps = draw_warps(Config(**NONE), 3, 50)
    np.testing.assert_array_equal(warps, identity_warps(50))


def test_gray_becomes_three_equal_channels():
    out = warp(draw_images(4, 9, 9, 1), identity_warps(4), 20).numpy()
    np.testing.assert_array_equal(out[..., 0], out[..., 1])
    np.testing.assert_array_equal(out[..., 0], out[..., 2])


# --- What a map does to pixels --------------------------------------------------------------


def one_warp(*rows):
    return tf.constant([rows], tf.float32)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_quarter_turn_is_rot90(direction, channels):
    images = draw_images(1, 10, 10, channels)
    turned = warp(images, one_warp([0, -direction, 0], [direction, 0, 0]), 10).numpy()
    expected = np.rot90(resize(images, 10), direction, axes=(1, 2))
    assert np.abs(turned - expected).max() <= LIMIT
    assert np.abs(turned - np.rot90(expected, 2, axes=(1, 2))).max() > 50  # can tell them apart


@pytest.mark.parametrize("shape", [(28, 28, 1), (20, 36, 3)])
def test_random_maps_match_scipy(shape):
    # An implementation of its own: the documented map, SciPy's bilinear sampling, edges repeated.
    size, (height, width, channels) = 40, shape
    images = draw_images(12, *shape)
    config = Config(rotation_degrees=45, zoom_fraction=0.5, translation_fraction=0.3)
    warps = draw_warps(config, 0, len(images)).numpy()
    got = warp(images, warps, size).numpy()
    centred = (np.arange(size) + 0.5) / size - 0.5
    points = np.stack([*np.meshgrid(centred, centred), np.ones((size, size))])  # (3, S, S)
    for image, one, result in zip(images.astype(float), warps, got, strict=True):
        x, y = np.tensordot(one, points, 1)
        rows, columns = (y + 0.5) * height - 0.5, (x + 0.5) * width - 0.5
        for channel in range(3):
            plane = image[..., min(channel, channels - 1)]
            expected = map_coordinates(plane, [rows, columns], order=1, mode="nearest")
            assert np.abs(result[..., channel] - expected).max() < 0.1


def test_a_shift_moves_the_picture_and_repeats_its_edge():
    images = draw_images(1, 8, 8, 1)
    moved = warp(images, one_warp([1, 0, 0.25], [0, 1, 0]), 8).numpy()[0, :, :, 0]
    np.testing.assert_allclose(moved[:, :6], images[0, :, 2:, 0], atol=1e-3)
    np.testing.assert_allclose(moved[:, 6:], images[0, :, [7, 7], 0].T, atol=1e-3)


def test_a_rotation_of_so_many_degrees_turns_the_picture_by_that_much():
    # The long axis of a bar, measured on the pixels.
    bar = np.zeros((200, 64, 64, 1), np.uint8)
    bar[:, 30:34, 12:52] = 255
    warps = draw_warps(Config(**NONE | {"rotation_degrees": 10.0}), 0, len(bar))
    pictures = warp(bar, warps, 64).numpy()[..., 0].astype(float)
    y, x = np.mgrid[:64, :64] - 31.5
    total = pictures.sum((1, 2))
    xx, yy, xy = ((pictures * term).sum((1, 2)) / total for term in (x * x, y * y, x * y))
    measured = np.degrees(0.5 * np.arctan2(2 * xy, xx - yy))
    assert np.abs(measured).max() < 10.5 and np.abs(measured).max() > 9
    assert measured.min() < -8 and measured.max() > 8
    drawn = np.degrees(np.arctan2(warps[:, 1, 0], warps[:, 1, 1]))
    assert np.abs(np.abs(measured) - np.abs(drawn)).max() < 0.5


def test_pixels_stay_in_range_under_strong_augmentation():
    config = Config(rotation_degrees=180, zoom_fraction=0.9, translation_fraction=1.0)
    pictures = warp(draw_images(64, 28, 28, 1), draw_warps(config, 0, 64), 96).numpy()
    assert pictures.min() >= 0 and pictures.max() <= 255 and np.isfinite(pictures).all()


# --- What is drawn --------------------------------------------------------------------------


@pytest.mark.parametrize("largest", [10.0, 45.0])
def test_rotation_is_in_degrees_either_way(largest):
    degrees, magnification, mirrored, shifts = draw(Config(**NONE | {"rotation_degrees": largest}))
    assert_uniform(degrees, -largest, largest)
    np.testing.assert_allclose(magnification, 1, rtol=1e-5)
    assert not mirrored.any() and not shifts.any()


@pytest.mark.parametrize("largest", [0.1, 0.5])
def test_zoom_is_a_share_of_the_image_in_or_out(largest):
    degrees, magnification, mirrored, shifts = draw(Config(**NONE | {"zoom_fraction": largest}))
    assert_uniform(magnification, 1 - largest, 1 + largest)
    assert not degrees.any() and not mirrored.any() and not shifts.any()


def test_translation_is_a_share_of_the_image_in_both_directions():
    degrees, magnification, _, shifts = draw(Config(**NONE | {"translation_fraction": 0.2}))
    assert_uniform(shifts[:, 0], -0.2, 0.2)
    assert_uniform(shifts[:, 1], -0.2, 0.2)
    assert not degrees.any() and (magnification == 1).all()


def test_half_of_the_images_are_flipped_and_none_without_flip():
    image = np.zeros((NUM_DRAWS, 4, 4, 1), np.uint8)
    image[:, :, :2] = 255  # bright on the left
    for epoch in range(2):
        config = Config(**NONE | {"flip": True})
        pictures = warp(image, draw_warps(config, epoch, NUM_DRAWS), 4).numpy()
        bright_left, bright_right = pictures[:, 2, 0, 0] > 128, pictures[:, 2, -1, 0] > 128
        assert (bright_left ^ bright_right).all()
        spread = 5 * np.sqrt(NUM_DRAWS * 0.25)  # binomial, five standard deviations
        assert abs(bright_right.sum() - NUM_DRAWS / 2) < spread
    for epoch in range(2):
        assert not draw(Config(flip=False), epoch)[2].any()


def test_flip_rotation_zoom_and_shifts_are_drawn_independently():
    degrees, magnification, mirrored, shifts = draw(Config(translation_fraction=0.1))
    together = np.corrcoef([degrees, magnification, mirrored, *shifts.T])
    assert np.abs(together - np.eye(5)).max() < 5 / np.sqrt(NUM_DRAWS)


def test_the_same_seed_epoch_and_index_give_the_same_numbers():
    config = Config(seed=5)
    first = draw_warps(config, 2, 300).numpy()
    np.testing.assert_array_equal(draw_warps(Config(seed=5), 2, 300), first)
    np.testing.assert_array_equal(draw_warps(config, 2, 40), first[:40])  # whatever the number
    in_graph = tf.function(lambda epoch: draw_warps(config, epoch, 300))
    np.testing.assert_allclose(in_graph(tf.constant(2, tf.int64)), first, rtol=1e-6)
    tf.random.set_seed(99)  # no other state matters
    np.testing.assert_array_equal(draw_warps(config, 2, 300), first)


def test_other_seeds_epochs_and_images_give_other_numbers():
    drawn = [
        draw_warps(Config(seed=seed), epoch, 50).numpy()
        for seed in (0, 1, 2, 3, 2**31 - 1)
        for epoch in range(5)
    ]
    rows = np.concatenate(drawn).reshape(-1, 6)
    assert len(np.unique(rows, axis=0)) == len(rows) == 5 * 5 * 50


def test_each_purpose_has_a_key_of_its_own():
    keys = [
        tuple(epoch_key(seed, epoch, purpose).numpy())
        for seed in range(4)
        for epoch in range(4)
        for purpose in Purpose
    ]
    assert len(set(keys)) == len(keys) == 16 * len(Purpose) >= 80


# --- To be looked at ------------------------------------------------------------------------


def test_a_picture_of_originals_beside_their_augmented_views():
    images = sources.load_splits("sample", limit=6).train.images
    config, size, views = Config(translation_fraction=0.1), 96, 6
    augmented = np.stack(
        [warp(images, draw_warps(config, e, len(images)), size).numpy() for e in range(views)],
        axis=1,
    )  # (6, views, S, S, 3)
    assert len(np.unique(augmented.reshape(len(images) * views, -1), axis=0)) == 6 * views
    picture = style.png(galleries.plot_augmentation(images, augmented))
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / "augmentation.png").write_bytes(picture)
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000


def test_boxes_cover_what_random_erasing_says():
    boxes = draw_boxes(Config(erase_probability=0.5), 0, NUM_DRAWS).numpy()
    top, left, bottom, right = boxes.T
    assert boxes.min() >= 0 and boxes.max() <= 1 + 1e-6
    height, width = bottom - top, right - left
    erased = height > 0
    assert abs(erased.mean() - 0.5) < 0.05
    area, ratio = (height * width)[erased], height[erased] / width[erased]
    assert area.max() <= 0.33 + 1e-5 and area.min() < 0.03 < 0.3 < area.max()
    assert ratio.max() > 3 and ratio.min() < 1 / 3 and 0.8 < np.median(ratio) < 1.25
    again, other = (draw_boxes(Config(erase_probability=0.5), e, NUM_DRAWS) for e in (0, 1))
    assert np.array_equal(boxes, again) and not np.array_equal(boxes, other)
    assert not draw_boxes(Config(), 0, NUM_DRAWS).numpy().any()


def test_erasing_puts_noise_inside_the_box_and_leaves_the_rest():
    images = np.full((2, 8, 8, 3), 300.0, np.float32)  # out of the range of the noise
    boxes = np.array([[0.25, 0.5, 0.75, 1.0], [0, 0, 0, 0]], np.float32)
    indices = tf.constant([3, 4], tf.int64)
    erased = erase(images, boxes, indices, tf.constant([1, 2], tf.int64)).numpy()
    changed = (erased != images).any(-1)
    expected = np.zeros((2, 8, 8), bool)
    expected[0, 2:6, 4:] = True
    np.testing.assert_array_equal(changed, expected)
    noise = erased[changed]
    assert noise.min() >= 0 and noise.max() <= 255 and noise.std() > 50


def test_noise_belongs_to_the_image_and_not_to_its_batch():
    key = epoch_key(3, 1, Purpose.NOISE)
    images, boxes = tf.zeros((5, 6, 6, 3)), tf.constant([[0.0, 0.0, 1.0, 1.0]] * 5)
    indices = tf.constant([9, 2, 0, 7, 4], tf.int64)
    together = erase(images, boxes, indices, key).numpy()
    for number in range(5):
        part = slice(number, number + 1)
        alone = erase(images[part], boxes[part], indices[part], key).numpy()
        np.testing.assert_array_equal(alone[0], together[number])
    assert len(np.unique(together.reshape(5, -1), axis=0)) == 5
    other = erase(images, boxes, indices, epoch_key(3, 2, Purpose.NOISE)).numpy()
    assert (other != together).any(axis=(1, 2, 3)).all()


# --- Light and colours ----------------------------------------------------------------------

COLOURS = {
    "brightness_fraction": 0.3,
    "contrast_fraction": 0.3,
    "saturation_fraction": 0.5,
    "hue_degrees": 20.0,
}


def change(images, brightness=1.0, contrast=1.0, saturation=1.0, hue_degrees=0.0):
    colours = [[brightness, contrast, saturation, np.radians(hue_degrees)]] * len(images)
    return change_colours(tf.cast(images, tf.float32), tf.constant(colours, tf.float32)).numpy()


@pytest.mark.parametrize("name, most", COLOURS.items())
def test_colour_draws_are_even_and_each_has_its_own_setting(name, most):
    column = list(COLOURS).index(name)
    drawn = draw_colours(Config(**{name: most}), 0, NUM_DRAWS).numpy()
    middle, most = (0.0, np.radians(most)) if name == "hue_degrees" else (1.0, most)
    assert_uniform(drawn[:, column], middle - most, middle + most)
    others = np.delete(drawn, column, axis=1)
    assert (others == np.delete([1.0, 1.0, 1.0, 0.0], column)).all()


def test_the_settings_colours_are_drawn_anew_each_epoch_and_independently():
    config = Config(**COLOURS, seed=4)
    first, again, other = (draw_colours(config, e, NUM_DRAWS).numpy() for e in (0, 0, 1))
    assert np.array_equal(first, again) and (first != other).any(axis=1).all()
    assert np.abs(np.corrcoef(first.T) - np.eye(4)).max() < 5 / np.sqrt(NUM_DRAWS)


@pytest.mark.parametrize("factor", [0.5, 1.7])
def test_brightness_contrast_and_saturation_are_those_of_pillow(factor):
    # Pillow's own: rounded to whole levels, its means too.
    image = Image.fromarray(draw_images(20, 30, 3) // 2 + 30)
    enhancers = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    for name, enhancer in enhancers.items():
        expected = np.asarray(enhancer(image).enhance(factor)).astype(float)
        changed = change(np.asarray(image)[np.newaxis], **{name: factor})[0]
        assert np.abs(changed - expected).max() < 2.5, name


@pytest.mark.parametrize("degrees", [120, -120])
def test_a_turn_of_the_hue_keeps_luma_and_goes_round(degrees):
    images = draw_images(3, 9, 9, 3) // 4 + 96
    luma = np.array([0.299, 0.587, 0.114])
    turned = change(images, hue_degrees=degrees)
    assert np.abs(turned - images).max() > 20
    np.testing.assert_allclose(turned @ luma, images @ luma, atol=0.1)
    back = change(change(turned, hue_degrees=degrees), hue_degrees=degrees)
    np.testing.assert_allclose(back, images, atol=0.1)
    red, green, blue = np.eye(3) * 40 + 100
    for colour, other in ((red, green), (green, blue), (blue, red)):
        got = change(np.full((1, 2, 2, 3), colour), hue_degrees=120)[0, 0, 0]
        assert got.argmax() == other.argmax()


def test_gray_stays_gray_and_no_change_is_none():
    gray = np.repeat(draw_images(4, 8, 8, 1), 3, axis=-1)
    np.testing.assert_allclose(change(gray, saturation=1.9, hue_degrees=70), gray, atol=0.01)
    colour = draw_images(4, 8, 8, 3)
    np.testing.assert_allclose(change(colour), colour, atol=0.01)
    strong = change(colour, 2.0, 2.0, 2.0, 180)
    assert strong.min() == 0 and strong.max() == 255


# --- Random crops ---------------------------------------------------------------------------


@pytest.mark.parametrize("smallest", [0.1, 0.5])
def test_crops_lie_within_the_image_and_have_the_area_and_aspect_they_should(smallest):
    warps = draw_warps(Config(**NONE | {"smallest_crop_fraction": smallest}), 0, NUM_DRAWS).numpy()
    assert not warps[:, 0, 1].any() and not warps[:, 1, 0].any()
    width, height, middles = warps[:, 0, 0], warps[:, 1, 1], warps[:, :, 2]
    assert (np.abs(middles[:, 0]) + width / 2).max() <= 0.5 + 1e-6
    assert (np.abs(middles[:, 1]) + height / 2).max() <= 0.5 + 1e-6
    area, ratio = width * height, width / height
    assert smallest * 0.99 < area.min() < smallest * 1.1 and area.max() > 0.97
    assert ratio.min() > 0.74 and ratio.max() < 1.34 and ratio.std() > 0.1
    assert (np.abs(middles).max(axis=0) > 0.9 * (1 - np.sqrt(smallest)) / 2).all()


def test_a_crop_is_of_what_the_other_changes_see():
    # Without crops the draws are those of the same seed with crops, but for the crop itself.
    config = Config(translation_fraction=0.1, seed=3)
    whole = draw_warps(config, 1, 50).numpy()
    cropped = draw_warps(dataclasses.replace(config, smallest_crop_fraction=0.3), 1, 50).numpy()
    sizes = cropped[:, :, :2] / whole[:, :, :2]
    np.testing.assert_allclose(sizes[:, :, 0], sizes[:, :, 1], rtol=1e-4)
    assert (sizes > 0.3 * 0.8).all() and (sizes <= 1 + 1e-5).all() and sizes.min() < 0.7
    nearly_whole = dataclasses.replace(config, smallest_crop_fraction=1 - 1e-7)
    assert np.abs(draw_warps(nearly_whole, 1, 50).numpy() - whole).max() < 0.15


# --- As training sees it --------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("probability", [0.0, 0.7])
def test_some_images_are_shown_exactly_as_training_sees_them(channels, probability):
    config = Config(
        image_size=32,
        batch_size=8,
        finetune_epochs=3,
        translation_fraction=0.1,
        erase_probability=probability,
        smallest_crop_fraction=1 - probability,
        **COLOURS if probability else {},
        seed=5,
    )
    split = Split(draw_images(21, 12, 10, channels), np.arange(21) % 3)
    batches = list(make_training_dataset(split, config, 3).as_numpy_iterator())
    assert [len(images) for images, _ in batches] == [8, 8, 5] * 3
    for epoch in range(3):
        shown = np.concatenate([images for images, _ in batches[3 * epoch : 3 * epoch + 3]])
        order = epoch_order(21, config.seed, epoch).numpy()
        some = np.array([17, 0, 5, 9])
        seen = augment_some(split.images[some], some, config, epoch, 21).numpy()
        places = [int(np.flatnonzero(order == index)[0]) for index in some]
        np.testing.assert_array_equal(seen, shown[places])
    if probability:
        plain = augment_some(split.images, np.arange(21), Config(image_size=32, seed=5), 0, 21)
        erased = augment_some(split.images, np.arange(21), config, 0, 21)
        assert plain.shape == erased.shape and not np.array_equal(plain, erased)


def test_shares_are_drawn_from_beta_and_rectangles_have_the_area_drawn():
    shares = draw_mixes(Config(mixup_alpha=0.4), 0, NUM_DRAWS).numpy()
    assert not shares[:, 1:].any()
    assert scipy.stats.kstest(shares[:, 0], scipy.stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
    boxes = draw_mixes(Config(cutmix_alpha=1.0), 0, NUM_DRAWS).numpy()
    assert not boxes[:, 0].any() and boxes.min() >= 0 and boxes.max() <= 1
    inner = boxes[(boxes[:, 1:] > 0).all(1) & (boxes[:, 1:] < 1).all(1), 1:]  # not cut by an edge
    np.testing.assert_allclose(inner[:, 2] - inner[:, 0], inner[:, 3] - inner[:, 1], atol=1e-5)
    both = draw_mixes(Config(mixup_alpha=0.4, cutmix_alpha=1.0), 0, NUM_DRAWS).numpy()
    takes_mixup = both[:, 0] > 0
    assert abs(takes_mixup.mean() - 0.5) < 0.05 and not both[takes_mixup, 1:].any()
    assert not draw_mixes(Config(), 0, 9).numpy().any()


def test_a_mixed_image_has_the_labels_of_what_is_seen_of_each():
    images = np.stack([np.full((8, 8, 3), value, np.float32) for value in (0, 200, 100)])
    labels = np.eye(3, dtype=np.float32)
    draws = np.array([[0.25, 0, 0, 0, 0], [0, 0, 0, 0.5, 0.25], [0.9, 0, 0, 0, 0]], np.float32)
    mixed, targets = (each.numpy() for each in mix(images, labels, draws))
    np.testing.assert_allclose(mixed[0], 50)  # a quarter of its neighbour, which is 200
    assert (mixed[1, :4, :2] == 0).all() and (mixed[1, 4:] == 200).all()
    np.testing.assert_allclose(mixed[2], 100)  # with itself, where there is no neighbour
    np.testing.assert_allclose(targets, [[0.75, 0.25, 0], [0.125, 0.875, 0], [0, 0, 1]])
