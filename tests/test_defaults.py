import dataclasses

import pytest

from transfer.config import Config
from transfer.data.geometry import FITS, Geometry
from transfer.models.backbones import BACKBONES
from transfer.models.weights import Weights
from transfer.training.defaults import (
    FEW,
    MANY,
    choose_finetune_learning_rate,
    settle,
    shows_mirror_images_to_head,
    suit_size,
)

NONE, IMAGENET, FILE = (Weights(name, "") for name in ("none", "imagenet", "file"))
BUNDLED, FASHION = (Weights(name, "") for name in ("bundled", "fashion"))


@pytest.mark.parametrize("name", BACKBONES)
def test_learning_rate_rule(name):
    config = Config(backbone=name, schedule="plateau")
    assert choose_finetune_learning_rate(config, IMAGENET) == 1e-4
    assert choose_finetune_learning_rate(config, FILE) == 1e-4
    scratch = choose_finetune_learning_rate(config, NONE)
    assert scratch == BACKBONES[name].scratch_learning_rate
    sgd = dataclasses.replace(config, optimizer="sgd")
    assert choose_finetune_learning_rate(sgd, NONE) == pytest.approx(10 * scratch)
    assert choose_finetune_learning_rate(sgd, FILE) == pytest.approx(1e-3)


def test_weights_of_the_package_get_a_head_at_several_depths():
    for weights in (BUNDLED, FASHION):
        settled = settle(Config(), weights)
        assert (settled.head_features, settled.hidden_units) == ("multi", 128)
    for weights in (IMAGENET, FILE, NONE):
        settled = settle(Config(), weights)
        assert (settled.head_features, settled.hidden_units) == ("last", 0)


def test_few_images_get_more_steps_where_nothing_else_was_asked():
    few = suit_size(Config(), 480, 1, ())
    assert 480 / few.batch_size * few.finetune_epochs > 3 * 480 / Config().batch_size * 5
    assert suit_size(Config(), FEW, 3, ()) == Config()
    asked = suit_size(Config(), 480, 1, {"batch_size", "finetune_epochs"})
    assert asked == Config(head_epochs=few.head_epochs)


def test_many_images_get_a_schedule_that_ends_low_and_the_rate_that_it_bears():
    many = suit_size(Config(), MANY, 1, ())
    assert (many.schedule, many.optimizer) == ("cosine", "adamw") and many.warm_up_fraction > 0
    assert many.unfreeze < 1 and settle(many, NONE).unfreeze == "all"
    assert suit_size(Config(), MANY - 1, 1, ()) == Config()
    for other in (Config(finetune_epochs=0), Config(weights="none")):
        assert suit_size(other, MANY, 1, ()) == other
    assert suit_size(Config(), MANY, 1, {"schedule"}).schedule == "plateau"
    assert suit_size(Config(backbone="lenet5"), MANY, 1, ()) == Config(backbone="lenet5")
    rates = {
        name: settle(dataclasses.replace(many, backbone=name), IMAGENET).finetune_learning_rate
        for name in ("mobilenetv2", "vgg16")
    }
    assert rates == {"mobilenetv2": 3e-4, "vgg16": 1e-4}
    assert settle(Config(), IMAGENET).finetune_learning_rate == 1e-4


def test_the_head_sees_mirror_images_where_nothing_else_does_or_they_cost_little():
    assert not shows_mirror_images_to_head(Config(), MANY)
    assert shows_mirror_images_to_head(Config(finetune_epochs=0), MANY)
    assert shows_mirror_images_to_head(Config(), FEW - 1)
    assert not shows_mirror_images_to_head(Config(finetune_epochs=0, flip=False), FEW - 1)


def test_few_photos_are_cropped_and_gray_images_are_not():
    gray, photos = (suit_size(Config(), 480, channels, ()) for channels in (1, 3))
    assert photos.smallest_crop_fraction < gray.smallest_crop_fraction == 1
    assert suit_size(Config(), 480, 3, {"smallest_crop_fraction"}) == gray


def test_what_is_asked_for_stays():
    asked = Config(finetune_learning_rate=0.5, head_features="last", hidden_units=5, head_epochs=3)
    assert settle(asked, BUNDLED) == asked
    asked = dataclasses.replace(asked, head_features="multi", recalibrate_batch_norm=True)
    assert settle(asked, IMAGENET) == asked


def test_random_weights_have_no_head_phase_and_train_whole():
    settled = settle(Config(head_epochs=3, unfreeze=0.3, recalibrate_batch_norm=True), NONE)
    assert (settled.head_epochs, settled.unfreeze, settled.train_batch_norm) == (0, "all", True)
    assert not settled.recalibrate_batch_norm


def test_the_fit_is_settled_by_what_was_decided_for_the_images():
    assert settle(Config(), IMAGENET).fit == "auto"
    for fit in FITS:
        assert settle(Config(), IMAGENET, Geometry(32, 32, 3, fit)).fit == fit
