"""The real commands, as a user types them, on small data that the tests make."""

import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import commands
from tests.conftest import tiny_row
from transfer.datasets import places
from transfer.models import pretrained
from transfer.models.backbones import BACKBONES
from transfer.plots import style

REPOSITORY = Path(__file__).parent.parent

# Appended to a train.py: of an option given twice the last one counts.
QUICK = "--limit 30 --image-size 32 --head-epochs 1 --finetune-epochs 1 --batch-size 16".split()


def run_command(line, cwd, expect=0, *, fresh=False, prepare=None):
    """Runs a command line of ours in `cwd` and returns what it left.

    `fresh` takes a new Python; else `prepare` is called in the process before the script.
    """
    words = shlex.split(line) if isinstance(line, str) else list(line)
    assert words[0] == "python" and words[1].endswith(".py")
    if fresh:
        finished = subprocess.run(
            [sys.executable, str(REPOSITORY / words[1]), *words[2:]],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=300,
        )
    else:
        finished = commands.run(words[1].removesuffix(".py"), words[2:], cwd, prepare)
    assert finished.returncode == expect, f"{line}\n{finished.stdout}\n{finished.stderr}"
    return finished


def write_colour_folder(root, *, shuffled, num_images=80):
    """Writes one PNG folder a class: red, green and blue noise, or the three at random."""
    generator = np.random.default_rng(0)
    channels = np.repeat(np.arange(3), num_images)
    names = generator.permutation(channels) if shuffled else channels
    for number, (channel, label) in enumerate(zip(channels, names, strict=True)):
        pixels = generator.integers(0, 90, (40, 32, 3), np.uint8)
        pixels[..., channel] += 120
        folder = root / ("red", "green", "blue")[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def use_small_networks():
    """Gives each backbone a network that trains in a second; the rest of a command stays real."""
    for name in BACKBONES:
        BACKBONES[name] = tiny_row()
    pretrained.available = lambda kind: []  # the package's weights are not theirs
    style.PICTURE_DPI = 40  # a report draws twelve


@pytest.mark.parametrize(
    ("backbone", "epochs", "shuffled", "prepare"),
    [
        ("vgg16", 2, False, None),  # MobileNetV2 trains in `test_phases.py`
        # A small network learns the colours as well: `test_phases.py` has it learn stripes.
        ("vgg16", 6, True, use_small_networks),
    ],
)
def test_three_colours_are_learnt_and_shuffled_labels_are_not(
    tmp_path, backbone, epochs, shuffled, prepare
):
    write_colour_folder(tmp_path / "photos", shuffled=shuffled)
    fresh = (backbone, shuffled) == ("vgg16", False)  # once in new processes, as a user's are
    trained = run_command(
        f"python train.py --backbone {backbone} --data photos --weights none --image-size 32 "
        f"--batch-size 16 --finetune-epochs {epochs} --run-dir run",
        tmp_path,
        fresh=fresh,
        prepare=prepare,
    )
    assert trained.stderr == ""
    assert "evaluate.py run --report\n" in trained.stdout
    line = "python evaluate.py run --json"
    evaluated = run_command(line, tmp_path, fresh=fresh, prepare=prepare)
    assert evaluated.stderr == ""
    metrics = json.loads(evaluated.stdout)
    assert metrics["num_images"] == 48  # a fifth of 240
    if shuffled:
        assert metrics["accuracy"] < 0.6
    else:
        assert metrics["accuracy"] > 0.95
    names = {"accuracy", "loss", "precision_macro", "recall_macro", "f1_macro", "per_class"}
    assert names | {"confusion_matrix", "num_images", "data", "weights"} <= set(metrics)
    assert [row["class_name"] for row in metrics["per_class"]] == ["blue", "green", "red"]


def test_auto_without_data_or_network_takes_the_sample_and_says_so(tmp_path):
    # train.py as on a machine without the system package, wherever this test runs.
    script = tmp_path / "without_system_package.py"
    script.write_text(
        "from pathlib import Path\n"
        "from transfer.commands.main import run_script\n"
        "from transfer.datasets import places\n"
        "places.SYSTEM_FOLDER = Path('nowhere')\n"
        "run_script('train')\n"
    )
    # Up to the weights, which fail in a line of their own: no network is trained here.
    line = ["python", str(script), "--offline", "--weights", "imagenet"]
    process = run_command(line, tmp_path, expect=1, fresh=True)
    assert "fashion-mnist-sample: 5,400 training, 600 validation and 1,000 test" in process.stdout
    assert "not the full Fashion-MNIST" in process.stdout
    assert process.stderr.startswith("Error: no ImageNet weights at ")


def close_network():
    """Ends the process when it looks for the network; hides the data and weights of the machine."""
    use_small_networks()
    places.SYSTEM_FOLDER = Path("nowhere")
    socket.socket.connect = socket.getaddrinfo = lambda *args, **kwargs: os._exit(99)


def test_offline_never_touches_the_network(tmp_path, monkeypatch):
    monkeypatch.delenv("TRANSFER_OFFLINE")
    words = ["python", "train.py", *QUICK]
    run_command([*words, "--offline"], tmp_path, prepare=close_network)
    run_command(words, tmp_path, expect=99, prepare=close_network)


@pytest.mark.real_data
def test_auto_takes_all_images_of_the_system_package_and_says_so(tmp_path):
    process = run_command(
        "python train.py --offline --finetune-epochs 0 --weights none", tmp_path, expect=1
    )
    assert "54,000 training, 6,000 validation" in process.stdout
    assert "checksums verified" in process.stdout


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("python train.py --backbone nosuch", 2, "nosuch"),
        ("python train.py --batch-size 0", 2, "batch-size"),
        ("python train.py --data missing --weights none", 1, "missing"),
        ("python train.py --data sample --weights missing.h5 --limit 20", 1, "missing.h5"),
        ("python train.py --data sample --weights imagenet --offline --limit 20", 1, "no ImageNet"),
        ("python evaluate.py nosuchrun", 1, "nosuchrun"),
    ],
)
def test_wrong_input_is_one_line_on_stderr(tmp_path, line, code, message):
    process = run_command(line, tmp_path, expect=code)
    last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ") and message in last
    assert code == 2 or len(process.stderr.strip().splitlines()) == 1
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "runs").exists()
