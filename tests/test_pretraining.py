"""Pretraining on composed fractals: the images, the schedule, stopping and going on."""

import csv
import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from transfer.commands import main
from transfer.commands.exit_codes import run
from transfer.errors import InputError
from transfer.models.backbones import build_backbone
from transfer.pretraining import composition, pretrain
from transfer.pretraining import folder as kept
from transfer.pretraining.composition import TRAINING, VALIDATION, Batches, Composer
from transfer.pretraining.settings import Settings


@pytest.fixture
def settings(tiny_backbone, monkeypatch):
    monkeypatch.setattr(pretrain, "NUM_TEXTURES", 8)
    monkeypatch.setattr(pretrain, "VALIDATION_IMAGES", 16)
    monkeypatch.setattr(pretrain, "RECALIBRATION_IMAGES", 24)
    monkeypatch.setattr(pretrain, "SHORTEST_ROW", 2)
    return Settings(
        backbone=tiny_backbone,
        systems=3,
        silhouettes=1,
        renderings=8,
        image_size=32,
        final_image_size=48,
        final_share=0.4,
        batch_size=8,
        sample_steps=40,
    )


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pretraining")


@pytest.fixture
def whole(settings, shared_folder):
    """The folder of a pretraining that has finished, made once."""
    if not (shared_folder / kept.FACTS).exists():
        assert pretrain.pretrain(settings, shared_folder) == pretrain.FINISHED
    return shared_folder


@pytest.fixture(scope="module")
def composer():
    """A square, a sprite half dense and half thin, a checkerboard; a black texture, a gray ramp."""
    bank = np.zeros((1, 3, 64, 64), np.uint8)
    bank[0, 0, 16:48, 16:48] = 255
    bank[0, 1, :, :32], bank[0, 1, :, 32:] = 255, 1
    bank[0, 2] = 255 * (np.indices((64, 64)).sum(0) % 2)
    textures = np.zeros((2, 128, 128, 3), np.uint8)
    textures[1] = np.arange(128)[:, None, None]
    return Composer(bank, textures, 64)


def _plan(**changes):
    """The plan of one image: the first sprite, white, as large as the image, on black."""
    plan = {
        "sprite": [[0]],
        "center": [[[0.5, 0.5]]],
        "size": [[[1, 1]]],
        "colors": np.full((1, 1, 2, 3), 255),
        "texture": [0],
        "corner": [[0, 0]],
        "flip": [[0, 0]],
        "mix": np.eye(3)[None],
        "light": [1],
    } | changes
    whole = ("sprite", "texture", "flip")
    return {name: np.array(v, "int32" if name in whole else "float32") for name, v in plan.items()}


def _compose(composer, **changes):
    return keras.ops.convert_to_numpy(composer(_plan(**changes)))[0]


def test_a_sprite_as_large_as_the_image_is_drawn_pixel_by_pixel(composer):
    image = _compose(composer)
    np.testing.assert_allclose(image[16:48, 16:48], 255, atol=1e-3)
    assert image.sum() == pytest.approx(32 * 32 * 3 * 255, rel=1e-5)


def test_a_sprite_is_moved_shrunk_without_loss_and_mirrored(composer):
    image = _compose(composer, center=[[[0.25, 0.75]]], size=[[[0.5, 0.25]]])
    rows, columns = np.nonzero(image[..., 0] > 128)
    assert (rows.mean(), columns.mean()) == pytest.approx((15.5, 47.5))
    assert image.sum() == pytest.approx(16 * 8 * 3 * 255, rel=1e-3)
    colors = [[[[0, 0, 255], [255, 0, 0]]]]  # thin is blue, dense is red
    plain = _compose(composer, sprite=[[1]], colors=colors)
    mirrored = _compose(composer, sprite=[[1]], colors=colors, size=[[[1, -1]]])
    np.testing.assert_allclose(plain[:, :31], np.broadcast_to([255, 0, 0], (64, 31, 3)), atol=1e-3)
    np.testing.assert_allclose(mirrored, plain[:, ::-1], atol=1e-3)


def test_a_shrunk_sprite_is_the_mean_of_its_pixels(composer):
    image = _compose(composer, sprite=[[2]], size=[[[0.3, 0.3]]])
    np.testing.assert_allclose(image[28:36, 28:36], 255 / 2, atol=12)


def test_a_sprite_lies_over_those_before_it(composer):
    red, green = [[255, 0, 0]] * 2, [[0, 255, 0]] * 2
    image = _compose(
        composer,
        sprite=[[0, 0]],
        center=[[[0.5, 0.5], [0.5, 0.75]]],
        size=np.ones((1, 2, 2)),
        colors=[[red, green]],
    )
    np.testing.assert_allclose(image[20:44, 20:28], np.full((24, 8, 3), red[0]), atol=1e-3)
    np.testing.assert_allclose(image[20:44, 36:60], np.full((24, 24, 3), green[0]), atol=1e-3)


def test_an_absent_sprite_leaves_the_texture_alone(composer):
    absent = {"center": np.full((1, 1, 2), composition.OUTSIDE), "texture": [1]}
    image = _compose(composer, **absent, corner=[[0.5, 0]], light=[0.5])
    np.testing.assert_allclose(image[:, 0, 0], (32 + np.arange(64)) / 2)
    flipped = _compose(composer, **absent, corner=[[0.5, 0]], light=[0.5], flip=[[1, 0]])
    np.testing.assert_allclose(flipped, image[::-1])
    last = _compose(composer, **absent, corner=[[1, 1]])
    np.testing.assert_allclose(last[:, 0, 0], 64 + np.arange(64))


def _batches(**changes):
    values = dict(num_classes=6, renderings=range(7), per_class=8, instances=3, num_textures=4)
    values |= dict(batch_size=200, seed=0, stream=TRAINING, length=2) | changes
    return Batches(**values)


def test_labels_are_the_classes_of_the_sprites_in_the_image():
    plan, labels = _batches()[0]
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)
    present = plan["center"][..., 0] != composition.OUTSIDE
    assert set(present.sum(1)) == {1, 2, 3}
    for row, sprites, here in zip(labels, plan["sprite"], present, strict=True):
        assert set(np.flatnonzero(row)) == set(sprites[here] // 8)
    assert (_batches(instances=1)[0][1].max(1) == 1).all()


def test_images_become_harder_until_the_ramp_ends(composer):
    def first(instances, ramp, index):
        return _batches(instances=instances, length=9, ramp=ramp)[index][0]

    for instances in (1, 3):
        hard = first(instances, 0, 0)
        easiest = first(instances, 4, 0)
        assert not easiest["light"].any()
        assert (easiest["colors"] == np.array([[120.0] * 3, [255.0] * 3])).all()
        moved = not np.array_equal(easiest["center"], hard["center"])
        assert moved == (instances == 1)  # several in the middle would hide each other
        lights = [first(instances, 4, i)["light"] / first(instances, 0, i)["light"] for i in (1, 3)]
        np.testing.assert_allclose(lights, np.full((2, 200), [[0.25], [0.75]]), rtol=1e-5)
        for name, values in first(instances, 4, 4).items():
            np.testing.assert_array_equal(values, first(instances, 0, 4)[name])
    size, center = (first(1, 4, 0)[name] for name in ("size", "center"))
    assert (np.abs(size) == 1).all() and (center == 0.5).all() and (size < 0).any()


def test_validation_is_hard_from_the_start(settings):
    assert pretrain.make_batches(settings, VALIDATION, 9).ramp == 0
    assert pretrain.make_batches(settings, TRAINING, 5).ramp == 2  # half of 5 steps


def test_half_of_the_images_are_gray(composer):
    plan, _ = _batches(num_classes=1, renderings=range(2), per_class=2, num_textures=2)[0]
    images = keras.ops.convert_to_numpy(composer(plan))
    gray = np.ptp(images, axis=-1).max((1, 2)) < 1e-2
    assert 0.4 < gray.mean() < 0.6
    assert images.min() >= 0 and images.max() <= 255


def test_a_batch_depends_on_its_number_seed_and_stream_alone():
    for change in ({"seed": 1}, {"stream": VALIDATION}):
        assert (_batches()[1][0]["sprite"] != _batches(**change)[1][0]["sprite"]).any()
    batches = _batches(length=9)
    batches[0]
    for name, values in batches[1][0].items():
        np.testing.assert_array_equal(values, _batches()[1][0][name])


def test_validation_sees_renderings_that_training_does_not(settings):
    seen = {}
    for stream in (TRAINING, VALIDATION):
        batches = pretrain.make_batches(settings, stream, 9)
        seen[stream] = set(np.concatenate([batches[i][0]["sprite"].ravel() % 8 for i in range(9)]))
    assert seen == {TRAINING: set(range(7)), VALIDATION: {7}}


def test_nothing_here_imports_tensorflow_by_itself(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("transfer")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # importing it is now an ImportError
    importlib.import_module("transfer.pretraining.pretrain")


def test_a_pretraining_leaves_weights_that_load_and_says_how_it_went(settings, whole):
    backbone = build_backbone(settings.backbone, 32)
    before = backbone.get_weights()
    backbone.load_weights(whole / kept.WEIGHTS)
    assert all((a != b).any() for a, b in zip(before, backbone.get_weights(), strict=True))
    facts = json.loads((whole / kept.FACTS).read_text())
    assert facts["finished"] and facts["sample_steps"] == 40 and facts["backend"] == "tensorflow"
    assert facts["settings"] == dataclasses.asdict(settings)
    with (whole / kept.LOG).open() as file:
        rows = [(row["step"], row["image_size"]) for row in csv.DictReader(file)]
    assert rows == [("2", "32"), ("3", "32"), ("5", "48")]
    assert Image.open(whole / kept.SAMPLES).size == (8 * 32, 8 * 32)
    assert not (whole / kept.CHECKPOINT).exists()
    with pytest.raises(InputError, match="already"):
        pretrain.pretrain(settings, whole)
    with pytest.raises(InputError, match="has finished"):
        kept.read_settings(whole)


def test_a_stopped_pretraining_goes_on_as_if_it_had_not_been(
    settings, whole, tmp_path, monkeypatch
):
    take_batch = Batches.__getitem__

    def interrupt(batches, index):
        if batches.stream == TRAINING and len(batches) == 5 and index == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return take_batch(batches, index)

    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(Batches, "__getitem__", interrupt)
        patch.setattr(pretrain, "_compose_samples", lambda *_: np.zeros((8, 32, 32, 3)))
        assert pretrain.pretrain(settings, parts) == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert (parts / kept.CHECKPOINT).exists() and not (parts / kept.WEIGHTS).exists()
    assert pretrain.pretrain(kept.read_settings(parts), parts, resume=True) == "finished"
    exported = (_exported(folder, settings) for folder in (whole, parts))
    for one, other in zip(*exported, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def _exported(folder, settings):
    backbone = build_backbone(settings.backbone, 32)
    backbone.load_weights(folder / kept.WEIGHTS)
    return backbone.get_weights()


def test_the_time_limit_stops_before_the_first_step(settings, tmp_path):
    assert pretrain.pretrain(settings, tmp_path, time_limit=0) == "time limit"
    assert kept.read_settings(tmp_path) == settings
    assert not (tmp_path / kept.LOG).exists()


def test_a_damaged_checkpoint_is_told_in_one_line(settings, tmp_path):
    pretrain.pretrain(settings, tmp_path, time_limit=0)
    (tmp_path / kept.CHECKPOINT).write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(InputError, match="checkpoint.npz should be a checkpoint"):
        pretrain.pretrain(settings, tmp_path, resume=True)


def test_the_learning_rate_rises_and_falls_to_zero_over_the_schedule():
    settings = Settings(sample_steps=12_800, batch_size=128, learning_rate=0.5)
    schedule = pretrain.make_optimizer(settings)._learning_rate
    rates = [float(schedule(step)) for step in range(101)]
    assert np.argmax(rates) == 5 and max(rates) == pytest.approx(0.5)
    assert rates[0] == 0 and rates[100] == pytest.approx(0, abs=1e-6)


def test_help_does_not_load_keras():
    code = "import sys, transfer.__main__; sys.exit(bool({'keras', 'jax'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_resuming_with_other_settings_is_wrong_usage(settings, tmp_path):
    kept.begin(tmp_path, settings, "float32", "")
    command = ["pretrain", "--resume", "--out", str(tmp_path), "--seed", "7"]
    result = CliRunner().invoke(main.main, command)
    assert result.exit_code == 2 and "--seed of this pretraining is 0" in result.output
    missing = CliRunner().invoke(main.main, ["pretrain", "--resume", "--out", "/nowhere"])
    assert isinstance(missing.exception, InputError)


def test_only_backends_that_can_train_are_taken(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    result = CliRunner().invoke(main.main, ["pretrain"])
    assert "tensorflow or jax" in str(result.exception)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_says_how_to_go_on_and_exits_as_a_shell_has_it(
    monkeypatch, capsys, tmp_path, number
):
    monkeypatch.setattr(pretrain, "pretrain", lambda *_, **__: signal.Signals(number).name)
    monkeypatch.setattr(sys, "argv", ["transfer", "pretrain", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        run(main.main)
    assert stopped.value.code == 128 + number
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].endswith(
        f"To go on: transfer pretrain --resume --out {tmp_path}"
    )
