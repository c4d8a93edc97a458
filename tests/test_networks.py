"""The networks everybody tries: rows like the backbones, gray, at the images' own size."""

import dataclasses
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import left_out, networks, resumable, techniques
from tests.conftest import make_stripes
from transfer import api
from transfer.commands.main import load_command
from transfer.config import Config, settings
from transfer.data.share import ALL
from transfer.data.splits import Split
from transfer.errors import InputError
from transfer.evaluation import explain
from transfer.models.backbones import BACKBONES, build_backbone
from transfer.models.classifier import build_classifier, count_features, unfreeze_backbone
from transfer.models.folding import fold_classifier
from transfer.models.saving import restore_classifier, save_classifier
from transfer.models.weights import load_backbone
from transfer.recipes import RECIPES
from transfer.runs import files
from transfer.runs.facts import PhaseSummary, Summary
from transfer.training import phases
from transfer.training.run import train

SMALL = [name for name, row in BACKBONES.items() if row.channels == 1]

# Of ten classes, BatchNorm's statistics among them.
PARAMETERS = {
    "mlp": 784 * 128 + 128 + 1290,
    "cnn32": 320 + 13 * 13 * 32 * 32 + 32 + 330,
    "cnn64": 640 + 13 * 13 * 64 * 32 + 32 + 330,
    "cnn32-64": 315_146,  # as published
    "resnet9": 1_943_722,
    "lenet5": 25 * 6 + 24 + 25 * 6 * 16 + 64 + 400 * 128 + 128 + 128 * 32 + 32 + 330,
}


@pytest.mark.parametrize("name", SMALL)
def test_a_network_sees_gray_and_is_saved_folded_and_restored(name, tmp_path):
    config = Config(backbone=name)
    backbone = build_backbone(name, config.image_size)
    classifier = build_classifier(config, backbone, 10, train_batch_norm=True)
    unfreeze_backbone(name, backbone, "all", train_batch_norm=True)
    assert classifier.input_shape == (None, 28, 28, 3) and backbone.input_shape[-1] == 1
    assert classifier.count_params() == PARAMETERS[name]
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
    maps = explain.class_activation_maps(copy, images, np.arange(4))
    assert maps.shape[0] == 4 and np.isfinite(maps).all()


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
def test_images_too_small_for_a_backbone_are_refused_in_one_line(name, size):
    smallest = BACKBONES[name].smallest_size
    with pytest.raises(InputError, match=f"at least {smallest} for {name}. Received: {size}"):
        build_backbone(name, size)


def test_a_size_too_small_is_refused_before_the_data_are_looked_for(tmp_path):
    with pytest.raises(InputError, match="--image-size should be at least 32 for mobilenetv2"):
        train(Config(data=str(tmp_path / "nowhere"), image_size=28))


def test_colour_images_come_as_gray_to_a_network_that_trains_and_predicts_them(tmp_path, capsys):
    images, labels = make_stripes(160)
    colour = np.repeat(images[..., :1], 3, axis=-1)
    colour[..., 0] //= 2
    path = tmp_path / "stripes.npz"
    np.savez(path, x_train=colour, y_train=labels, x_test=colour[:40], y_test=labels[:40])
    own = {"backbone": "cnn32", "finetune_epochs": 5, "batch_size": 16}
    run = api.train(str(path), **own, run_dir=tmp_path / "run", verbose=True)
    said = capsys.readouterr().out
    assert "cnn32 sees gray: the colours of the images are left out." in said
    assert "Defaults of cnn32: image_size 28" in said
    parameters = run.model.count_params()
    assert re.search(rf"Network: cnn32 and head, \d+ layers, {parameters:,} parameters", said)
    assert f"{parameters:,}" in (run.run_dir / files.CARD).read_text()
    assert run.evaluate().accuracy > 0.9


def test_the_benchmark_trains_what_is_missing_resumes_what_was_stopped_and_makes_one_table(
    tmp_path, monkeypatch
):
    asked = []

    def run_small(words):
        asked.append(words)
        command = words[0]
        ctx = load_command(command).make_context(command, list(words[1:]))
        run_dir = Path(ctx.params.get("run_dir") or ctx.params.get("resume") or words[1])
        if command == "train":
            run_dir.mkdir(parents=True, exist_ok=True)
            phase = PhaseSummary(2, 1, 0.5, 0.75, 90.0)
            Summary({"fine-tune": phase}, 90.0, num_parameters=1234).write(run_dir)
        return json.dumps({"accuracy": 0.9 + int(run_dir.name[-1]) / 100})

    monkeypatch.setattr(resumable, "run_transfer", run_small)
    (tmp_path / "cnn64-1").mkdir()
    (tmp_path / "cnn64-1" / files.CONFIG).write_text("{}")
    words = ["--network", "cnn64", "--seeds", "2", "--limit", "100", "--folder", str(tmp_path)]
    done = CliRunner().invoke(networks.main, words)
    assert done.exit_code == 0, done.output
    trained = [words for words in asked if words[0] == "train"]
    assert ["--resume" in words for words in trained] == [False, True, False, False]
    assert "--dropout" in trained[2] and "--dropout" not in trained[0]
    assert "mean 90.50 %, min 90.00 %, max 91.00 %, n = 2" in " ".join(done.output.split())
    assert "1,234" in done.output and "91.9 %" in done.output
    asked.clear()
    again = CliRunner().invoke(networks.main, words)
    assert again.output == done.output
    assert {words[0] for words in asked} == {"evaluate"}


def test_every_technique_that_is_measured_is_a_setting():
    for changes in techniques.TECHNIQUES.values():
        Config(
            **{name.replace("-", "_"): value for name, value in (techniques.BASE | changes).items()}
        )


def test_small_images_of_a_technique_fit_the_head():
    settings = techniques.BASE | techniques.TECHNIQUES["small images first"]
    seen = set()
    for size in (settings["image-size"], settings["small-image-size"]):
        config = Config(backbone="mobilenetv2", image_size=size, head_features="multi")
        seen.add(count_features(config, build_backbone(config.backbone, size)))
    assert len(seen) == 1


def test_a_training_that_fails_ends_a_benchmark_in_one_line():
    with pytest.raises(InputError, match="transfer train --backbone nowhere ended with exit code"):
        resumable.run_transfer(["train", "--backbone", "nowhere"])


def test_techniques_that_are_no_option_change_what_is_learnt_from(tmp_path):
    assert {*left_out.CONTEXTS, techniques.DISTILLATION} == set(techniques.NO_OPTION)
    images, labels = make_stripes(40)
    config = Config(backbone="mlp", batch_size=20, finetune_epochs=2)

    def batches():
        made = phases.make_training_dataset(Split(images, labels), config, 2, range(2), ALL)
        return [np.array(each) for each in zip(*made.as_numpy_iterator(), strict=True)]

    plain = batches()
    with left_out.rand_augment():
        changed, told = batches()
    assert changed.shape == plain[0].shape and (changed != plain[0]).any()
    assert 0 <= changed.min() and changed.max() <= 255
    np.testing.assert_array_equal(told, plain[1])
    with left_out.falling_smoothing():
        same, told = batches()
    np.testing.assert_array_equal(same, plain[0])
    smoothed = told.min(axis=(1, 2))  # in two classes half of the share
    np.testing.assert_allclose(smoothed, np.array([0.1, 0.075, 0.05, 0.025]) / 2, rtol=1e-5)
    teachers = [tmp_path / name for name in ("one", "other")]
    for teacher, (zeros, ones) in zip(teachers, ((8.0, 0.0), (0.0, 0.0)), strict=True):
        always = keras.initializers.Constant([zeros, ones])
        says = keras.layers.Dense(2, "softmax", kernel_initializer="zeros", bias_initializer=always)
        teacher.mkdir()
        inputs = keras.Input(changed.shape[2:])
        keras.Model(inputs, says(keras.layers.Flatten()(inputs))).save(teacher / "model.keras")
    with left_out.distillation(teachers):
        same, told = batches()
    np.testing.assert_array_equal(same, plain[0])
    np.testing.assert_allclose(told, plain[1] / 2 + np.array([0.75, 0.25]) / 2, atol=1e-3)


def linear_classifier():
    inputs = keras.Input((2,))
    outputs = keras.layers.Dense(2, "softmax", kernel_initializer="zeros", name="backbone")(inputs)
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "categorical_crossentropy")
    return model


def test_sam_takes_the_gradient_where_the_loss_is_highest():
    x, y = np.float32([[1, 0]]), np.float32([[1, 0]])
    model = linear_classifier()
    with left_out.sharpness_aware():
        model.fit(x, y, epochs=1, verbose=0)
    plain = -0.5  # of the first kernel and bias; the others have it with the other sign
    step = left_out.RADIUS * plain / np.sqrt(4 * plain**2)
    highest = 1 / (1 + np.exp(-4 * step)) - 1  # the gradient there: four weights differ by it
    np.testing.assert_allclose(model.get_weights()[0][0, 0], -0.01 * highest, rtol=1e-4)


def test_the_mean_of_the_last_epochs_is_what_is_judged(tmp_path):
    x, y = np.float32(np.random.default_rng(0).normal(size=(8, 2))), np.eye(2)[np.arange(8) % 2]
    seen = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(model.get_weights())
    )
    model = linear_classifier()
    with left_out.mean_of_last_epochs():
        callbacks = list(phases.keras_callbacks(phases.FINETUNE, Config(), tmp_path))
    options = {"epochs": 3, "validation_data": (x, y), "verbose": 0, "shuffle": False}
    model.fit(x, y, callbacks=[callbacks[-1], keep], **options)
    plain = linear_classifier()
    plain.fit(x, y, **options)
    for last, before, end in zip(seen[-1], seen[-2], plain.get_weights(), strict=True):
        np.testing.assert_allclose(last, (before + end) / 2, rtol=1e-5)


def test_every_network_of_the_benchmark_is_a_row_and_every_small_row_is_in_it():
    assert {network.backbone for network in networks.NETWORKS} == set(SMALL)
    for network in networks.NETWORKS:
        names = {name.replace("-", "_") for name in network.options}
        assert names <= set(settings())


def test_the_documented_recipes_are_those_that_train():
    text = Path(__file__).parents[1].joinpath("docs", "networks.md").read_text(encoding="utf-8")
    for name, recipe in RECIPES.items():
        told = ", ".join(f"`{key} {value}`" for key, value in recipe.items())
        assert f"| `{name}` | {told} |" in text
        assert f"| `{name}` | {PARAMETERS[name]:,} |" in text


@pytest.mark.parametrize(
    "kind, told", [("imagenet", "Keras has no ImageNet"), ("photos", "no package has")]
)
def test_weights_that_never_were_are_missed_by_who_asks_for_them_alone(kind, told):
    with pytest.raises(InputError, match=f"^{told} .*weights of lenet5. Use --weights auto.$"):
        load_backbone("lenet5", 28, kind)
    assert load_backbone("lenet5", 28)[1].provenance == "random weights"
