"""The benchmarks: what they count and compare, and each command from end to end on little."""

import functools
import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import tiny_row
from PIL import Image

import benchmarks.__main__ as command
from benchmarks import (
    few_shot,
    history,
    interleaved,
    on_paper,
    operations,
    photos,
    precision,
    processes,
    recipes,
    scale,
    search,
    start,
    start_process,
    steps,
    time_to_accuracy,
)
from benchmarks.distribution_plot import plot_speed
from benchmarks.interleaved import KERAS, Measurement, Settings, take_turns
from benchmarks.processes import Finished, Line
from benchmarks.torch_process import FASTAI_STEP, TORCH_STEP, torch_training
from tests import commands
from transfer.config import Config
from transfer.datasets.sources import load_splits
from transfer.errors import InputError
from transfer.evaluation.evaluated import evaluate_run
from transfer.models import weights
from transfer.models.backbones import BACKBONES, build_backbone
from transfer.runs.finished import FinishedRun
from transfer.training.run import train


def make_settings(backbone, **others):
    values = {
        "image_size": 32,
        "batch_size": 16,
        "repeats": 2,
        "num_images": 100,
        "against": frozenset({KERAS}),
        "steps": 1,
        "head_epochs": 2,
        "finetune_epochs": 1,
    }
    return Settings(backbone=backbone, **values | others)


def test_contenders_take_turns_after_a_warm_up():
    order = []

    def contender(name):
        return lambda: order.append(name) or 10

    rates = take_turns({"a": contender("a"), "b": contender("b")}, repeats=2)
    assert order == ["a", "b"] * 3
    assert all(len(values) == 2 and min(values) > 0 for values in rates.values())


@pytest.mark.parametrize(("unit", "ratio"), [(interleaved.RATE, 4.0), (interleaved.SECONDS, 0.25)])
def test_ratios_are_of_medians_and_of_those_who_took_part(unit, ratio):
    values = {"a": [8.0, 1.0, 9.0], "b": [2.0, 2.0, 7.0]}
    measurement = Measurement("title", values, (("a", "b"), ("a", "absent")), unit)
    assert measurement.ratios() == [("a", "b", ratio)]
    written = measurement.to_json()
    assert written["medians"] == {"a": 8.0, "b": 2.0} and written["n"] == 3
    assert written["values"] == values


def test_multiply_adds_are_those_of_the_papers():
    # MobileNetV2, Table 4: 300 million; VGG16 without its dense layers: 15.3 billion.
    assert steps.count_multiply_adds(build_backbone("mobilenetv2", 224)) == pytest.approx(
        300e6, rel=0.01
    )
    assert steps.count_multiply_adds(build_backbone("vgg16", 224)) == pytest.approx(
        15.3e9, rel=0.01
    )
    assert steps.operations_per_image(10, training=True) == 60
    assert steps.operations_per_image(10, training=False) == 20


MEASURED = ("steps", "unfreeze", "pipeline", "fit", "prediction", "engines")


def test_the_command_measures_and_prints_medians_and_ratios(tiny_backbone, monkeypatch, tmp_path):
    choice = next(option for option in command.main.params if option.name == "backbone")
    monkeypatch.setattr(choice.type, "choices", [tiny_backbone])
    path = tmp_path / "benchmarks.json"
    words = ["--backbone", tiny_backbone, "--quick", "--num-images", 100, "--output", path]
    words += [word for part in MEASURED for word in ("--only", part)]
    words += ["--history", tmp_path / "history.jsonl"]
    done = CliRunner().invoke(command.main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert "PyTorch is left out" in done.output
    results = json.loads(path.read_text())
    assert list(results["measurements"]) == list(MEASURED)
    assert results["machine"]["cores"] >= 1 and "keras" in results["machine"]["versions"]
    for part, measurement in results["measurements"].items():
        assert all(len(values) == 2 for values in measurement["values"].values()), part
        assert all(min(values) > 0 for values in measurement["values"].values()), part
        assert measurement["times_as_fast"], part
        assert measurement["title"] in done.output
    ratios = re.findall(r"^ +[\d.]+ times as fast: ", done.output, re.MULTILINE)
    told = sum(len(m["times_as_fast"]) for m in results["measurements"].values())
    assert len(ratios) == told >= 10
    [entry] = map(json.loads, (tmp_path / "history.jsonl").read_text().splitlines())
    assert entry["settings"]["backbone"] == tiny_backbone
    assert any(name.startswith("steps: training: here") for name in entry["ratios"])
    assert all("Keras" in name.split(" / ")[1] for name in entry["ratios"])


def make_results(ratio, processor="one"):
    pair = {"contender": "here", "as": "Keras", "ratio": ratio}
    other = pair | {"as": "PyTorch"}
    machine = {"processor": processor, "cores": 2, "versions": {}}
    return {"machine": machine, "measurements": {"fit": {"times_as_fast": [pair, other]}}}


def test_a_run_is_compared_with_the_last_one_like_it_on_the_same_machine(tmp_path):
    path = tmp_path / "history.jsonl"
    for ratio, processor, size in (
        (1.0, "one", 32),
        (2.0, "one", 32),
        (8, "two", 32),
        (9, "one", 64),
    ):
        entry = history.describe(make_results(ratio, processor), {"image_size": size})
        history.note(path, entry)
    now = history.describe(make_results(3.0), {"image_size": 32})
    [line] = history.compare(path, now)
    assert line.startswith("fit: here / Keras: 3.00, 2.00 on 2") and line.endswith("(+50 %)")
    assert history.compare(tmp_path / "none", now) == []
    for content in ("no json", '{"machine": {}}', "[]"):
        path.write_text(content)
        with pytest.raises(InputError, match="should hold a line of JSON for each run"):
            history.compare(path, now)
    with pytest.raises(InputError, match="--history"):
        history.note(tmp_path / "nowhere" / "file", now)


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("_MklNativeConv2DWithBias", "convolutions, forward"),
        ("Conv2DBackpropFilter", "convolutions, gradient of the kernel"),
        (
            "_MklNativeDepthwiseConv2dNativeBackpropInput",
            "depthwise convolutions, gradient of the input",
        ),
        ("Relu6Grad", "activations and their gradients"),
        ("ResourceApplyAdam", "optimizer and other arithmetic"),
        ("Softmax", "others"),
        ("_FusedMatMul", "dense layers"),
        ("gradient_of_input:MatMul", "convolutions, gradient of the input"),
        ("gradient_of_kernel_1:_MklMatMul", "convolutions, gradient of the kernel"),
    ],
)
def test_operations_have_a_kind(operation, kind):
    assert operations.kind_of(operation) == kind


def test_convolutions_count_for_operations_and_bytes():
    inputs = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    x = keras.layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False)(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    assert operations.count_work(model, 10) == {
        "convolutions": (2 * 10 * 64 * 9 * 2 * 4, 4 * (10 * 64 * (2 + 4) + 9 * 2 * 4)),
        "depthwise convolutions": (2 * 10 * 16 * 9 * 4, 4 * (10 * (64 + 16) * 4 + 9 * 4)),
    }


def test_a_step_is_divided_into_its_operations(tiny_backbone, monkeypatch, tmp_path):
    choice = next(option for option in operations.main.params if option.name == "backbone")
    monkeypatch.setattr(choice.type, "choices", [tiny_backbone])
    words = ["--backbone", tiny_backbone, "--image-size", 32, "--batch-size", 8, "--steps", 2]
    words += ["--plot", tmp_path / "roofline.png"]
    done = CliRunner().invoke(operations.main, [*map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    assert Image.open(tmp_path / "roofline.png").width > 500
    rows = {row.pop("kind"): row for row in json.loads(done.output)}
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    assert rows["convolutions, gradient of the kernel"]["milliseconds"] > 0
    for limit in ("of_peak", "of_memory", "intensity"):
        assert all(
            (row[limit] is not None) == ("convolutions" in kind) for kind, row in rows.items()
        )


# --- Photos -----------------------------------------------------------------------------------


def spot_photos(monkeypatch):
    """Two photos whose colour says where a pixel comes from: red its column, green its row."""
    down, across = np.mgrid[:200, :256].astype(np.uint8)
    pictures = [np.stack([across, down, 0 * down + blue], axis=2) for blue in (40, 200)]
    names = {f"{number}.png": Image.fromarray(one) for number, one in enumerate(pictures)}
    monkeypatch.setattr(photos, "_open", lambda package, path: names[path])
    monkeypatch.setattr(photos, "_change_light", lambda image, generator: image)
    return photos.Photo("", "0.png"), photos.Photo("", "1.png", ("",))


@pytest.mark.parametrize("wide", [False, True])
def test_photos_of_training_and_test_show_no_pixel_of_each_other(wide, monkeypatch):
    rows = spot_photos(monkeypatch)
    for part, columns in photos.COLUMNS.items():
        made = photos.make_photos(part, 12, 0, wide=wide, photos=rows)
        assert made.class_names == ("0 upper", "0 lower", "1")
        assert made.labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12
        assert all((image.width != image.height) == wide for image in made.images)
        for image, label in zip(made.images, made.labels, strict=True):
            pixels = np.asarray(image).astype(float)
            column = pixels[..., 0].mean() // 64
            assert column in columns and np.ptp(pixels[..., 0]) > 10
            assert np.abs(pixels[..., 0] - 64 * column - 31.5).max() < 34  # cubics overshoot by 1
            assert pixels[..., 1].max() < 101 or label != 0
            assert pixels[..., 1].min() > 98 or label != 1
            assert np.ptp(pixels[..., 1]) > 10
    again = photos.make_photos("test", 12, 0, wide=wide, photos=rows)
    other = photos.make_photos("test", 12, 1, wide=wide, photos=rows)
    assert all(map(np.array_equal, made.images, again.images))
    assert not any(map(np.array_equal, made.images, other.images))


def test_a_folder_of_photos_is_a_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(photos, "PHOTOS", photos.FEW_PHOTOS[:2])
    monkeypatch.setattr(photos.make_photos, "__kwdefaults__", {"wide": 0, "photos": photos.PHOTOS})
    words = ["--out", str(tmp_path / "photos"), "--per-class", "4", "--wide"]
    assert CliRunner().invoke(photos.main, words).exit_code == 0
    splits = load_splits(str(tmp_path / "photos"))
    assert splits.class_names == ("china lower", "china upper", "flower lower", "flower upper")
    assert splits.test.num_images == 16
    with pytest.raises(InputError, match="should be new"):
        photos.main.callback(tmp_path, 4, False, 0)


def test_few_shots_and_fits_are_measured_for_each_place_of_weights(tiny_backbone, monkeypatch):
    rows = photos.FEW_PHOTOS[:2]
    monkeypatch.setattr(few_shot, "make_photos", functools.partial(photos.make_photos, photos=rows))
    settings = make_settings(tiny_backbone)
    shots = few_shot.measure_few_shot(settings)
    assert list(shots.values) == [f"none, {count} a class" for count in few_shot.SHOTS]
    assert all(len(values) == 2 for values in shots.values.values())
    assert 25 < shots.median("none, 20 a class") <= 100  # a fourth is chance
    assert shots.to_json()["unit"] == "% right" and "deviation" in shots.columns
    monkeypatch.setattr(photos, "has_photos", lambda: False)
    assert all(command._measure(part, settings) is None for part in command.PHOTO_PARTS)


def test_sizes_given_win_over_quick_ones(monkeypatch):
    seen = []
    monkeypatch.setattr(command, "_measure", lambda part, settings: seen.append((part, settings)))
    words = ["--quick", "--image-size", "48", "--only", "steps", "--against", "keras"]
    assert CliRunner().invoke(command.main, words).exit_code == 0
    assert CliRunner().invoke(command.main, ["--against", ""]).exit_code == 0
    (part, quick), *rest = seen
    assert (part, quick.image_size, quick.batch_size) == ("steps", 48, 16)
    assert quick.against == {KERAS}
    assert [part for part, _ in rest] == list(command.PARTS)
    full = rest[0][1]
    assert (full.image_size, full.batch_size, full.head_epochs, full.finetune_epochs) == (
        96,
        128,
        10,
        5,
    )
    assert full.against == frozenset()


def test_torch_and_fastai_take_part_where_they_are_installed(monkeypatch):
    monkeypatch.setattr(command, "_measure", lambda part, settings: print(sorted(settings.against)))
    for spec, told in ((object(), "['fastai', 'keras', 'torch']"), (None, "pip install fastai")):
        monkeypatch.setattr(command.importlib.util, "find_spec", lambda name, spec=spec: spec)
        assert told in CliRunner().invoke(command.main, ["--only", "fit"]).output
    wrong = CliRunner().invoke(command.main, ["--against", "keras,jax"])
    assert wrong.exit_code == 2 and "'jax'" in wrong.output


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_pytorchs_network_is_mobilenetv2_and_steps():
    count = (
        "from benchmarks.torch_mobilenet import build_mobilenet; "
        "print(sum(p.numel() for p in build_mobilenet(10).parameters()))"
    )
    done = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True, check=True)
    head = 1280 * 10 + 10
    ours = build_backbone("mobilenetv2", 32).trainable_weights
    assert int(done.stdout) == sum(np.prod(weight.shape) for weight in ours) + head
    with torch_training(TORCH_STEP, *torch_batch(), channels_last=True) as step:
        step(), step()


@pytest.mark.skipif(importlib.util.find_spec("fastai") is None, reason="fastai is not installed")
def test_fastais_learner_steps():
    with torch_training(FASTAI_STEP, *torch_batch()) as step:
        step(), step()


def torch_batch():
    return np.zeros((4, 32, 32, 3), np.float32), np.eye(10, dtype=np.float32)[:4]


# --- Commands in processes of their own --------------------------------------------------------


def test_a_process_is_timed_and_its_memory_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "REPOSITORY", tmp_path)
    (tmp_path / "works.py").write_text(
        "import sys, time\n"
        "print('begun', *sys.argv[1:])\n"
        "time.sleep(1)\n"  # its memory is read a little after the line, on a busy machine late
        "block = bytearray(300_000_000)\n"
        "time.sleep(1)\n"
        "print('ended')\n"
        "time.sleep(1)\n"
    )
    (tmp_path / "fails.py").write_text("raise SystemExit('what went wrong')\n")
    started = time.perf_counter()
    finished = processes.run_command("works", ["with", 3], tmp_path)
    assert finished.text == "begun with 3\nended"
    assert 1 < finished.when("ended") - finished.when("begun") < finished.seconds
    assert finished.seconds < time.perf_counter() - started
    assert 300e6 < finished.peak_bytes < 400e6
    if Path("/proc/self/status").is_file():
        assert finished.lines[1].memory_bytes - finished.lines[0].memory_bytes > 250e6
        assert 300e6 < finished.peak_own_bytes <= finished.peak_bytes
    with pytest.raises(InputError, match="what went wrong"):
        processes.run_command("fails", [], tmp_path)


def use_tiny_networks(set_item=dict.__setitem__, set_attribute=setattr):
    """Makes MobileNetV2 a network that trains in a second, and its random weights "bundled"."""
    set_item(BACKBONES, "mobilenetv2", tiny_row())

    def load(request):
        if request.name != "mobilenetv2":
            raise weights.NoWeightsHere("")
        return "for a test"

    random = [place for place in weights.PLACES if place.kind == "none"]
    set_attribute(weights, "PLACES", (weights.Place("bundled", load), *random))


@pytest.fixture
def small_commands(monkeypatch):
    """Runs the scripts in processes without TensorFlow's import, on small networks."""
    use_tiny_networks(monkeypatch.setitem, monkeypatch.setattr)
    asked, ran = [], {}

    def run_small(script, arguments, folder):
        words = [str(word) for word in arguments]
        asked.append((script, words))
        # What differs in its batch size alone is trained once.
        at = words.index("--batch-size") if "--batch-size" in words else len(words)
        same = (script, *words[:at], *words[at + 2 :])
        done = ran.get(same) or commands.run(script, words, folder, use_tiny_networks)
        ran[same] = done
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        told = [Line(float(i), 10**9 + i, line) for i, line in enumerate(lines, 1)]
        return Finished(told, len(told) + 1.0, 2 * 10**9, 10**9)

    monkeypatch.setattr(recipes, "run_command", run_small)
    monkeypatch.setattr(scale, "run_command", run_small)
    monkeypatch.setattr(time_to_accuracy, "run_command", run_small)
    return asked


def test_the_recipe_gives_both_the_same_task(small_commands):
    measurement = recipes.measure_recipe(make_settings("mobilenetv2", repeats=1))
    (train, ours), (evaluate, _), (stock, theirs) = small_commands
    assert (train, evaluate, stock) == ("train", "evaluate", "benchmarks/stock_keras")
    for option in ("--data", "--image-size", "--batch-size", "--head-epochs", "--finetune-epochs"):
        assert ours[ours.index(option) + 1] == theirs[theirs.index(option) + 1]
    assert ours[ours.index("--weights") + 1] == "bundled"
    assert Path(theirs[theirs.index("--weights") + 1]).name == "bundled.weights.h5"
    assert int(ours[ours.index("--early-stopping-patience") + 1]) == 3  # all epochs
    assert set(measurement.values) == {recipes.HERE, recipes.STOCK}
    accuracies = measurement.facts["test_accuracy"]
    assert all(0 < values[0] < 1 for values in accuracies.values())
    assert measurement.facts["num_test_images"] in (1_000, 10_000)  # all there are


def test_without_pretrained_weights_there_is_no_recipe(small_commands, tiny_backbone):
    assert recipes.measure_recipe(make_settings(tiny_backbone)) is None
    assert small_commands == []


def test_time_to_accuracy_is_told_of_both_and_drawn(small_commands, monkeypatch, tmp_path):
    monkeypatch.setattr(time_to_accuracy, "STEPS", (0.001, 1.1))
    plot, report = tmp_path / "plot.png", tmp_path / "report.json"
    words = ["--quick", "--only", "time-to-accuracy", "--plot", plot, "--output", report]
    done = CliRunner().invoke(command.main, [*map(str, words), "--against", "keras"])
    assert done.exit_code == 0, done.output
    (train, ours), (stock, theirs) = small_commands
    assert (train, stock) == ("train", "benchmarks/stock_keras")
    assert ours[ours.index("--data") + 1] == theirs[theirs.index("--data") + 1]
    assert "--head-epochs" not in ours  # what a user gets who gives none
    found = json.loads(report.read_text())["measurements"]["time-to-accuracy"]
    curves = found["curves"]
    assert set(curves) == {recipes.HERE, recipes.STOCK}
    for curve in curves.values():
        minutes = [minutes for minutes, _ in curve]
        assert minutes == sorted(minutes) and len(curve) >= 3
        assert all(0 <= accuracy <= 1 for _, accuracy in curve)
    assert "min to 0 %" in done.output and "110 %" not in done.output
    assert Image.open(plot).width > 500


def test_minutes_are_those_of_the_first_epoch_that_is_good_enough():
    curve = [(1.0, 0.5), (2.0, 0.9), (3.0, 0.8)]
    assert time_to_accuracy.minutes_to(0.8, curve) == 2.0
    assert time_to_accuracy.minutes_to(0.95, curve) is None


def test_every_part_of_scale_is_measured_and_plotted(small_commands, stripes_npz, tmp_path):
    path, picture = tmp_path / "scale.json", tmp_path / "scale.png"
    sizes = "--images 60 --image-size 48 --pixels 48 --num-images 60"
    more = "--files 100 --folder-image-size 48 --epochs 3"
    words = [*sizes.split(), *more.split(), "--data", stripes_npz, "--output", path]
    for part in (scale.FOLDER, scale.EPOCHS):  # one after the other, into one file
        done = CliRunner().invoke(scale.main, [str(word) for word in (*words, "--part", part)])
        assert done.exit_code == 0, done.output
    words += ["--part", scale.IMAGES, "--part", scale.PIXELS, "--plot", picture]
    done = CliRunner().invoke(scale.main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    results = json.loads(path.read_text())
    assert [point["num_images"] for point in results["images"]] == [60]
    assert [point["image_size"] for point in results["pixels"]] == [48]
    assert results["folder"]["decoded_bytes"] == 100 * 48 * 48 * 3
    assert len(results["epochs"]["memory_bytes"]) == 3
    assert results["epochs"]["growth_bytes"] == 1  # see small_commands: a byte a line
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_steps_of_several_processes_are_plotted():
    network = {"network": "cnn32", "parameters": 10**6, "batch_size": 128, "pass": 9_000.0}
    rows = [
        network | {"processes": processes, "cores": cores, "link": link, "step": 1000.0 * cores}
        for processes, cores, link in (
            (1, 1, "loopback"),
            (1, 2, "loopback"),
            (2, 2, "loopback"),
            (2, 2, "10 Gbit/s"),
        )
    ]
    left, right = plot_speed(rows).axes
    assert [list(line.get_ydata()) for line in left.lines[:2]] == [[1.0, 1.0], [1.0, 1.0]]
    assert [bar.get_height() for bar in right.patches] == [64, 64]


def test_gradients_take_longer_on_a_slow_link_and_with_many_processes():
    assert on_paper.gradient_seconds(1, 1.0) == 0
    assert on_paper.gradient_seconds(2, 1.0) > on_paper.gradient_seconds(2, 10.0)
    assert on_paper.gradient_seconds(64, 1.0) > on_paper.gradient_seconds(2, 1.0)
    told = CliRunner().invoke(on_paper.main, ["--disk", "1", "--memory", "25.5"]).output
    assert told.count("| 1,000,000,000 | 64 |") == 1 and "at 100,000,000 images" in told


def test_costs_are_read_from_what_train_says():
    told = [
        (1.0, "features of the training images: 1,000 images, 100 images/s, 10.0 s"),
        (20.0, "features of their mirror images: 1,000 images, 200 images/s, 5.0 s"),
        (22.0, "features of the validation images: 100 images, 100 images/s, 1.0 s"),
        (25.0, "head  1/10  0.5  80.00 %  0.5  80.00 %  0.1 s  0.001  9,000 images/s"),
        (26.0, "head 10/10  0.5  80.00 %  0.5  80.00 %  0.1 s  0.001  9,000 images/s"),
        (40.0, "fine-tune 1/2  0.5  80.00 %  0.5  80.00 %  20.0 s  0.0001  50 images/s"),
        (50.0, "fine-tune 2/2  0.5  80.00 %  0.5  80.00 %  10.0 s  0.0001  100 images/s"),
    ]
    finished = Finished([Line(seconds, 0, text) for seconds, text in told], 51.0, 0, 0)
    assert scale.costs_told(finished) == {
        "num_images": 1000,
        "pass_seconds": 5.0,
        "all_passes_seconds": 16.0,
        "head_epochs_seconds": 4.0,
        "head_phase_in_passes": 1.25,
        "epoch_seconds": 10.0,
    }


def test_no_two_files_of_the_folder_are_alike(tmp_path):
    scale.write_image_folder(tmp_path, 40)
    contents = {path.read_bytes() for path in tmp_path.rglob("*.png")}
    assert len(contents) == 40
    assert len(list(tmp_path.iterdir())) == scale.NUM_CLASSES


def test_both_precisions_are_asked_about_the_same_images(tiny_backbone, stripes_npz, tmp_path):
    config = Config(
        backbone=tiny_backbone,
        data=str(stripes_npz),
        weights="none",
        image_size=32,
        batch_size=16,
        finetune_epochs=1,
    )
    run_dir = train(config, run_dir=tmp_path / "run").run_dir
    done = CliRunner().invoke(precision.main, [str(run_dir), "--json"])
    assert done.exit_code == 0, done.output
    values = json.loads(done.output)
    expected = evaluate_run(FinishedRun(run_dir)).metrics["accuracy"]
    assert values["num_images"] == 61 and values["float32"] == pytest.approx(expected)
    assert values["difference"] == pytest.approx(values["bfloat16"] - values["float32"])
    told = CliRunner().invoke(precision.main, [str(run_dir)]).output
    assert "bfloat16" in told and "difference" in told and "61 images" in told


def test_precision_is_the_share_of_the_nearest_that_are_of_a_querys_class():
    features = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    index = search.make_index(tuple("0" * 10 + "1" * 10 + "2" * 5 + "1" * 5), features)
    assert search.precision(index, features[[0, 25]], np.array([0, 2])) == pytest.approx(0.75)
    assert len(search.time_queries(features, 200)) == 50


# --- The start ------------------------------------------------------------------------------

CHECKOUT = {
    "train.py": "",
    "keras.py": """
class callbacks:
    class Callback:
        pass

class Model:
    def fit(self, callbacks=()):
        for callback in callbacks:
            callback.model = self
            callback.on_train_batch_end(0)
            callback.on_train_batch_end(1)
""",
    "transfer/__init__.py": "",
    "transfer/backend.py": "def load_keras(): pass",
    "transfer/training/run.py": """
import time

def load_data():
    time.sleep(0.05)

def load_head_features():
    time.sleep(0.1)
""",
    "transfer/commands/main.py": """
import sys
import keras
from transfer import backend
from transfer.training import run

def run_script(name):
    if "--limit" not in sys.argv:
        sys.exit("Error: too many")
    backend.load_keras()
    run.load_data()
    run.load_head_features()
    for name in ("head", "classifier"):
        model = keras.Model()
        model.name = name
        model.fit()
""",
}


def test_a_start_is_divided_into_parts_whose_sum_it_is(tmp_path):
    for name, content in CHECKOUT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (turn,) = start.measure({"it": tmp_path}, ["--limit", "9"], repeats=1)["it, kept"]
    assert turn["data"] >= 0.05 and turn["features"] >= 0.1
    names = list(turn)
    until_head = names[: names.index(start_process.HEAD_STEP)]
    assert turn[start_process.HEAD_STEP] == pytest.approx(sum(turn[name] for name in until_head))
    assert turn[start_process.FINETUNE_STEP] == pytest.approx(
        sum(turn.values()) - turn[start_process.HEAD_STEP] - turn[start_process.FINETUNE_STEP]
    )
    with pytest.raises(InputError, match="ended before its first step: Error: too many"):
        start.measure({"it": tmp_path}, [], repeats=1)
    with pytest.raises(InputError, match="should be a checkout"):
        start.measure({"it": tmp_path / "transfer"}, [], repeats=1)
