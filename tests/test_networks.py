"""The networks everybody tries: rows like the backbones, gray, at the images' own size."""

import dataclasses

import keras
import numpy as np
import pytest

from tests.conftest import make_stripes
from transfer.config import Config, settings
from transfer.errors import InputError
from transfer.models.backbones import BACKBONES, build_backbone
from transfer.models.classifier import build_classifier, unfreeze_backbone
from transfer.models.folding import fold_classifier
from transfer.models.saving import restore_classifier, save_classifier
from transfer.recipes import RECIPES

SMALL = [name for name, row in BACKBONES.items() if row.channels == 1]

# Of ten classes, BatchNorm's statistics among them.
PARAMETERS = {
    "mlp": 784 * 128 + 128 + 1290,
    "cnn32": 320 + 13 * 13 * 32 * 32 + 32 + 330,
    "cnn64": 640 + 13 * 13 * 64 * 32 + 32 + 330,
    "cnn32-64": 315_146,  # as published
    "lenet5": 25 * 6 + 24 + 25 * 6 * 16 + 64 + 400 * 128 + 128 + 128 * 32 + 32 + 330,
}


@pytest.mark.parametrize("name", SMALL)
def test_a_network_sees_gray_and_is_saved_folded_and_restored(name, tmp_path):
    config = Config(backbone=name)
    backbone = build_backbone(name, config.image_size)
    classifier = build_classifier(config, backbone, 10, train_batch_norm=True)
    unfreeze_backbone(name, backbone, "all", train_batch_norm=True)
    assert classifier.input_shape == (None, 28, 28, 3) and backbone.input_shape[-1] == 1
    assert classifier.count_params() == PARAMETERS.get(name, classifier.count_params())
    statistics = [v for v in backbone.variables if v.name.startswith("moving_")]
    assert len(classifier.trainable_variables) == len(classifier.variables) - len(statistics) - sum(
        "seed_generator" in v.path for v in classifier.variables
    )
    images = np.random.default_rng(0).uniform(0, 255, (4, 28, 28, 3)).astype(np.float32)
    expected = classifier(images).numpy()
    gray = np.repeat(images.mean(axis=-1, keepdims=True), 3, axis=-1)
    np.testing.assert_allclose(classifier(gray), expected, atol=1e-5)
    path = tmp_path / "model.keras"
    save_classifier(classifier, config, "float32", path)
    restored = restore_classifier(config, 10, "float32", path)
    for copy in (restored, fold_classifier(restored), keras.models.load_model(path)):
        np.testing.assert_allclose(copy(images), expected, atol=1e-4)


def test_every_recipe_is_of_a_backbone_and_of_known_settings():
    assert set(RECIPES) <= set(BACKBONES) and set(SMALL) <= set(RECIPES)
    for name, recipe in RECIPES.items():
        config = Config(backbone=name.upper())
        assert recipe == {setting: getattr(config, setting) for setting in recipe}
        others = {key: s.default for key, s in settings().items() if key not in recipe}
        assert others | {"backbone": name} == {key: getattr(config, key) for key in others}


def test_what_is_given_wins_over_the_recipe():
    assert Config(backbone="lenet5").image_size == 28 and Config().image_size == 96
    assert Config(backbone="lenet5", image_size=96, dropout=0.0).image_size == 96
    assert Config.from_dict({"backbone": "lenet5", "batch_size": 7}).batch_size == 7
    moved = dataclasses.replace(Config(), backbone="lenet5")
    assert moved.to_dict() == Config().to_dict() | {"backbone": "lenet5"}


@pytest.mark.parametrize("name, size", [("mobilenetv2", 31), ("vgg16", 28), ("lenet5", 15)])
def test_images_too_small_for_a_backbone_are_refused_in_one_line(name, size, tmp_path):
    from transfer.training.run import train

    smallest = BACKBONES[name].smallest_size
    with pytest.raises(InputError) as raised:
        train(Config(backbone=name, data=str(tmp_path / "none"), image_size=max(16, size)))
    assert f"at least {smallest} for {name}" in str(raised.value) or size < 16
    with pytest.raises(InputError, match=f"at least {smallest} for {name}. Received: {size}"):
        build_backbone(name, size)


def test_a_network_trains_and_predicts_colour_images_and_says_that_it_sees_gray(tmp_path, capsys):
    from transfer import api

    images, labels = make_stripes(160)
    colour = np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images
    colour[..., 0] //= 2
    path = tmp_path / "stripes.npz"
    np.savez(path, x_train=colour, y_train=labels, x_test=colour[:40], y_test=labels[:40])
    run = api.train(str(path), backbone="lenet5", finetune_epochs=8, run_dir=tmp_path / "run")
    assert run.evaluate().accuracy > 0.9
