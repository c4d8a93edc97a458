"""Batches: every image once an epoch, the same pixels however many threads there are."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from transfer.config import Config
from transfer.data.augment import draw_warps, warp
from transfer.data.pipeline import (
    epoch_order,
    make_evaluation_dataset,
    make_feature_dataset,
    make_training_dataset,
    steps_per_epoch,
)
from transfer.data.splits import Split

NUM_IMAGES, NUM_CLASSES = 1_001, 7
LABELS = np.random.default_rng(1).integers(0, NUM_CLASSES, NUM_IMAGES)
CONFIG = Config(image_size=32, batch_size=128, finetune_epochs=3, head_epochs=3, seed=4)
STEPS = 8  # 7 of 128 images and one of 105


def numbered_split():
    """Images of one colour, which no warp changes and which tells their number."""
    numbers = np.arange(NUM_IMAGES)
    images = np.zeros((NUM_IMAGES, 6, 6, 3), np.uint8)
    images[..., 0] = (numbers // 256)[:, None, None]
    images[..., 1] = (numbers % 256)[:, None, None]
    return Split(images, LABELS)


def random_split(*shape, num_images=NUM_IMAGES):
    images = np.random.default_rng(0).integers(0, 256, (num_images, *shape), np.uint8)
    return Split(images, LABELS[:num_images])


def numbers_of(pixels):
    """The numbers that images of `numbered_split` tell."""
    centre = np.rint(pixels[:, 16, 16]).astype(int)
    return centre[:, 0] * 256 + centre[:, 1]


def batches(dataset, threads=None):
    if threads:
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        dataset = dataset.with_options(options)
    return [(features.numpy(), targets.numpy()) for features, targets in dataset]


def assert_same(some, others):
    assert len(some) == len(others)
    for (features, targets), (other_features, other_targets) in zip(some, others, strict=True):
        np.testing.assert_array_equal(features, other_features)
        np.testing.assert_array_equal(targets, other_targets)


@pytest.mark.parametrize(
    "num_images, batch_size, steps", [(1_001, 128, 8), (1_024, 128, 8), (1, 128, 1), (5, 1, 5)]
)
def test_steps_of_an_epoch_count_the_last_partial_batch(num_images, batch_size, steps):
    assert steps_per_epoch(num_images, batch_size) == steps


def test_an_order_is_a_permutation_of_its_seed_and_epoch():
    orders = [epoch_order(500, seed, epoch).numpy() for seed in range(3) for epoch in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(500))
    assert len({order.tobytes() for order in orders}) == 9
    np.testing.assert_array_equal(epoch_order(500, 0, 0), orders[0])


# --- Training -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(28, 28, 1), (20, 30, 3)])
def test_training_batches_have_their_shape_dtype_and_range(shape):
    config = dataclasses.replace(CONFIG, finetune_epochs=1, translation_fraction=0.5)
    split = random_split(*shape, num_images=200)
    dataset = make_training_dataset(split, config, NUM_CLASSES)
    images, labels = dataset.element_spec
    assert images.shape.as_list() == [None, 32, 32, 3] and labels.shape.as_list() == [None, 7]
    made = batches(dataset)
    assert [pixels.shape for pixels, _ in made] == [(128, 32, 32, 3), (72, 32, 32, 3)]
    for pixels, one_hot in made:
        assert pixels.dtype == one_hot.dtype == np.float32
        assert 0 <= pixels.min() < 60 and 195 < pixels.max() <= 255
        assert one_hot.shape == (len(pixels), NUM_CLASSES)
        assert set(np.unique(one_hot)) == {0, 1} and (one_hot.sum(1) == 1).all()


def test_each_image_comes_once_an_epoch_with_its_label_in_another_order():
    made = batches(make_training_dataset(numbered_split(), CONFIG, NUM_CLASSES))
    assert [len(pixels) for pixels, _ in made] == ([128] * 7 + [105]) * 3
    orders = []
    for epoch in range(3):
        part = made[epoch * STEPS : (epoch + 1) * STEPS]
        numbers = np.concatenate([numbers_of(pixels) for pixels, _ in part])
        labels = np.concatenate([one_hot for _, one_hot in part]).argmax(1)
        np.testing.assert_array_equal(np.sort(numbers), np.arange(NUM_IMAGES))
        np.testing.assert_array_equal(labels, LABELS[numbers])
        assert (numbers != np.arange(NUM_IMAGES)).mean() > 0.9  # shuffled
        orders.append(numbers)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (orders[one] != orders[other]).mean() > 0.9


def test_an_image_gets_the_warp_of_its_own_index():
    split = random_split(28, 28, 1, num_images=150)
    made = batches(make_training_dataset(split, CONFIG, NUM_CLASSES))
    for epoch in range(3):
        order = epoch_order(150, CONFIG.seed, epoch).numpy()
        whole = warp(split.images, draw_warps(CONFIG, epoch, 150), 32).numpy()
        got = np.concatenate([pixels for pixels, _ in made[2 * epoch : 2 * epoch + 2]])
        np.testing.assert_allclose(got, whole[order], atol=1e-3)


def test_the_number_of_threads_changes_neither_pixels_nor_labels():
    split = random_split(28, 28, 1)
    config = dataclasses.replace(CONFIG, finetune_epochs=2, mixup_alpha=0.5, cutmix_alpha=0.5)
    one, eight = (
        batches(make_training_dataset(split, config, NUM_CLASSES), threads) for threads in (1, 8)
    )
    assert len(one) == 2 * STEPS
    assert_same(one, eight)


def test_another_seed_gives_another_run():
    split = random_split(28, 28, 1, num_images=100)
    config = dataclasses.replace(CONFIG, finetune_epochs=1)
    other = dataclasses.replace(config, seed=5)
    first, second = (batches(make_training_dataset(split, c, 7))[0][0] for c in (config, other))
    assert np.abs(first - second).mean() > 10


@pytest.mark.parametrize("first_epoch", [1, 2, 3])
def test_a_run_that_starts_later_gets_exactly_the_epochs_that_are_left(first_epoch):
    split = random_split(8, 8, 1, num_images=300)
    whole = batches(make_training_dataset(split, CONFIG, NUM_CLASSES))
    epochs = range(first_epoch, CONFIG.finetune_epochs)
    rest = batches(make_training_dataset(split, CONFIG, NUM_CLASSES, epochs))
    assert_same(rest, whole[3 * first_epoch :])  # 3 batches an epoch


def test_memory_mapped_images_are_the_same_images(tmp_path):
    split = random_split(28, 28, 1, num_images=300)
    np.save(tmp_path / "images.npy", split.images)
    mapped = Split(np.load(tmp_path / "images.npy", mmap_mode="r"), split.labels)
    assert isinstance(mapped.images, np.memmap)
    for make in (
        lambda part: make_training_dataset(part, CONFIG, NUM_CLASSES),
        lambda part: make_evaluation_dataset(part, 32, 128, NUM_CLASSES),
    ):
        assert_same(batches(make(mapped)), batches(make(split)))


# --- Evaluation -----------------------------------------------------------------------------


@pytest.mark.parametrize("flipped", [False, True])
def test_evaluation_has_every_image_once_in_order_and_only_resized(flipped):
    split = random_split(28, 28, 1)
    made = batches(make_evaluation_dataset(split, 32, 128, NUM_CLASSES, flipped=flipped))
    assert [len(pixels) for pixels, _ in made] == [128] * 7 + [105]
    pixels = np.concatenate([pixels for pixels, _ in made])
    assert pixels.dtype == np.float32 and pixels.shape == (NUM_IMAGES, 32, 32, 3)
    resized = tf.image.resize(split.images, (32, 32)).numpy()
    expected = resized[:, :, ::-1] if flipped else resized
    assert np.abs(pixels - expected).max() <= 1.0  # 1/255 of the range
    one_hot = np.concatenate([one_hot for _, one_hot in made])
    np.testing.assert_array_equal(one_hot, np.eye(NUM_CLASSES, dtype=np.float32)[LABELS])


def test_evaluation_is_the_same_at_any_number_of_threads_and_each_time():
    dataset = make_evaluation_dataset(random_split(28, 28, 1), 32, 100, NUM_CLASSES)
    one = batches(dataset, 1)
    assert_same(one, batches(dataset, 8))
    assert_same(one, batches(dataset))


def test_evaluation_equals_training_without_augmentation():
    split = random_split(28, 28, 3, num_images=128)
    pixels, _ = batches(make_evaluation_dataset(split, 96, 128, NUM_CLASSES))[0]
    plain = Config(flip=False, rotation_degrees=0.0, zoom_fraction=0.0)
    warps = draw_warps(plain, 0, 128)
    np.testing.assert_allclose(pixels, warp(split.images, warps, 96).numpy(), atol=0.01)


# --- Features -------------------------------------------------------------------------------


def make_views():
    """Features that tell which view (0 or 1) and which image they are of."""
    views = np.zeros((2, NUM_IMAGES, 5), np.float16)
    views[1, :, 0] = 1
    views[:, :, 1] = np.arange(NUM_IMAGES)
    return views


def make_features(views, epoch=0):
    return make_feature_dataset(
        views, LABELS, CONFIG, NUM_CLASSES, tf.Variable(epoch, dtype=tf.int64)
    )


def test_each_epoch_takes_one_view_of_each_image_both_about_equally_often():
    epoch_variable = tf.Variable(0, dtype=tf.int64)
    dataset = make_feature_dataset(make_views(), LABELS, CONFIG, NUM_CLASSES, epoch_variable)
    features, labels = dataset.element_spec
    assert features.shape.as_list() == [None, 5] and labels.shape.as_list() == [None, NUM_CLASSES]
    assert len(dataset) == STEPS  # by which Keras knows where an epoch ends
    orders, choices = [], []
    for epoch in range(3):
        epoch_variable.assign(epoch)
        part = batches(dataset)
        assert [len(features) for features, _ in part] == [128] * 7 + [105]
        features, one_hot = (np.concatenate(arrays) for arrays in zip(*part, strict=True))
        assert features.dtype == one_hot.dtype == np.float32
        numbers = features[:, 1].astype(int)
        np.testing.assert_array_equal(np.sort(numbers), np.arange(NUM_IMAGES))
        np.testing.assert_array_equal(
            one_hot, np.eye(NUM_CLASSES, dtype=np.float32)[LABELS][numbers]
        )
        mirrored = features[:, 0]
        spread = 5 * np.sqrt(NUM_IMAGES * 0.25)  # binomial, five standard deviations
        assert abs(mirrored.sum() - NUM_IMAGES / 2) < spread
        orders.append(numbers)
        choices.append(mirrored[np.argsort(numbers)])
    assert (orders[0] != orders[1]).mean() > 0.9 and (orders[1] != orders[2]).mean() > 0.9
    assert 0.3 < (choices[0] != choices[1]).mean() < 0.7  # an image's view changes
    assert 0.3 < (choices[1] != choices[2]).mean() < 0.7


def test_features_are_the_same_at_any_number_of_threads():
    one, eight = (batches(make_features(make_views(), epoch=2), threads) for threads in (1, 8))
    assert_same(one, eight)
    with pytest.raises(AssertionError):
        assert_same(one, batches(make_features(make_views(), epoch=1)))


def test_features_of_one_view_are_enough():
    made = batches(make_features(make_views()[:1]))
    assert not any(features[:, 0].any() for features, _ in made)


def test_training_batches_are_erased_and_every_epoch_anew():
    config = dataclasses.replace(
        CONFIG, erase_probability=1.0, rotation_degrees=0.0, zoom_fraction=0.0, flip=False
    )
    split = Split(np.zeros((NUM_IMAGES, 6, 6, 3), np.uint8), LABELS)
    pixels = np.concatenate([x for x, _ in batches(make_training_dataset(split, config, 7))])
    shares = (pixels > 0).any(-1).mean((1, 2))
    assert len(pixels) == 3 * NUM_IMAGES and (shares > 0).all() and shares.max() <= 0.4
    assert not np.array_equal(pixels[0], pixels[NUM_IMAGES])
    again = np.concatenate([x for x, _ in batches(make_training_dataset(split, config, 7), 1)])
    np.testing.assert_array_equal(pixels, again)
    validation = make_evaluation_dataset(split, 32, 128, 7)
    assert not any(x.any() for x, _ in batches(validation))


def test_no_dataset_has_the_tuner_that_holds_up_its_end():
    split = random_split(6, 6, 1, num_images=20)
    datasets = (
        make_training_dataset(split, CONFIG, NUM_CLASSES),
        make_evaluation_dataset(split, 32, 8, NUM_CLASSES).map(lambda images, labels: images),
        make_features(make_views()),
    )
    for dataset in datasets:
        assert dataset.options().autotune.enabled is False
