"""The real commands, as a user types them, on small data that the tests make."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import commands
from tests.conftest import save_photos, tiny_row
from transfer.datasets import places
from transfer.datasets.sources import load_splits
from transfer.deploy import export, nearest, verify
from transfer.evaluation import answering
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
    """Ends the process when it looks for the network."""
    socket.socket.connect = socket.getaddrinfo = lambda *args, **kwargs: os._exit(99)
    verify._SECONDS = 0.02  # how fast an export is, is not what is asked here


def close_network_and_hide():
    """Does so, and hides the data and the weights of the machine."""
    use_small_networks()
    places.SYSTEM_FOLDER = Path("nowhere")
    close_network()


def test_offline_never_touches_the_network(tmp_path, monkeypatch):
    monkeypatch.delenv("TRANSFER_OFFLINE")
    words = ["python", "train.py", *QUICK]
    run_command([*words, "--offline"], tmp_path, prepare=close_network_and_hide)
    run_command(words, tmp_path, expect=99, prepare=close_network_and_hide)


@pytest.mark.real_data
def test_auto_takes_all_images_of_the_system_package_and_says_so(tmp_path):
    process = run_command(
        "python train.py --offline --finetune-epochs 0 --weights none", tmp_path, expect=1
    )
    assert "54,000 training, 6,000 validation" in process.stdout
    assert "checksums verified" in process.stdout


def take_few_images():
    """Takes the sample, and few of its images for what is known of them."""
    places.SYSTEM_FOLDER = Path("nowhere")
    answering.MOST_IMAGES = nearest.MOST_IMAGES = 500
    export.CALIBRATION_IMAGES = 40


def take_few_images_and_close_network():
    """Does so, and ends the process when it looks for the network."""
    take_few_images()
    close_network()


def included_model_lines():
    """Returns the lines of the docs that put the included model to use, by command."""
    page = (REPOSITORY / "docs/deploy.md").read_text()
    block = page.split("every line of this works offline:\n\n```text\n")[1].split("```")[0]
    lines = [line.replace("-m transfer", "transfer/__main__.py") for line in block.splitlines()]
    return {line.split()[2]: line for line in lines}


def test_the_included_model_goes_through_every_door_with_the_network_closed(tmp_path):
    splits = load_splits("sample")
    test = splits.test
    chosen = np.concatenate([np.flatnonzero(test.labels == label)[:3] for label in range(6)])
    save_photos(tmp_path / "photos", test.images[chosen])
    lines, closed = included_model_lines(), take_few_images_and_close_network

    said = json.loads(run_command(lines["predict"] + " --json", tmp_path, prepare=closed).stdout)
    names = [splits.class_names[label] for label in test.labels[chosen]]
    right = [one for one, name in zip(said, names, strict=True) if one["predicted"] == name]
    assert len({one["predicted"] for one in right}) == 6
    told = run_command(lines["export"] + " --limit 60", tmp_path, prepare=closed).stdout
    exported = list(tmp_path.glob("runs/*/exports/*/verification.json"))
    assert len(exported) == 7 and all(form in told for form in ("litert", "onnx", "openvino"))
    assert all(json.loads(path.read_text())["agreement"] > 0.95 for path in exported)
    run_command(lines["search"], tmp_path, prepare=closed)
    search = ["python", "transfer/__main__.py", "search", "included", "photos/000.png", "--json"]
    found = json.loads(run_command(search, tmp_path, prepare=closed).stdout)
    assert found[0]["path"].endswith("000.png") and found[0]["cosine"] > 0.99
    known = next(one for one in right if one["answered"])
    assert answer_of_the_page(lines["app"], tmp_path, known["path"]) == known["predicted"]


def answer_of_the_page(line, cwd, photo):
    """Starts the page as the line says, asks it in Chromium and returns what it answers."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser needs playwright")
    if not (chromium := shutil.which("chromium")):
        pytest.skip("no chromium (apt-get install chromium)")
    output = cwd / "page.log"
    output.touch()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [*line.split()[2:], "--port", port]
    server = commands.start("transfer/__main__", words, cwd, output, take_few_images)
    try:
        address = wait_for_address(server, output)
        with playwright.sync_playwright() as driver:
            options = ["--headless", "--no-sandbox", "--disable-gpu"]
            view = driver.chromium.launch(executable_path=chromium, args=options).new_page()
            view.goto(address)
            upload = "#photo input[type=file]"
            view.wait_for_selector(upload, state="attached", timeout=60_000)
            view.set_input_files(upload, str(cwd / photo))
            view.wait_for_selector("#verdict h2", timeout=60_000)
            answer = view.inner_text("#verdict")
            malformed = {"data": [1], "fn_index": 99, "session_hash": "a"}
            assert not view.request.post(f"{address}/gradio_api/queue/join", data=malformed).ok
        assert "KeyError" in output.read_text() and 'File "' not in output.read_text()
        return answer
    finally:
        server.terminate()
        server.join(30)


def wait_for_address(server, output):
    for _ in range(600):
        assert server.is_alive(), output.read_text()
        if found := re.search(r"http://127\.0\.0\.1:\d+", output.read_text()):
            return found.group()
        time.sleep(0.1)
    raise AssertionError(output.read_text())


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
