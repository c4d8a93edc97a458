"""Several processes that train together: the same numbers as one, one voice, and one end."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from tests.conftest import make_stripes
from transfer import workers
from transfer.commands import train as command
from transfer.config import Config
from transfer.data.pipeline import make_evaluation_dataset, make_training_dataset
from transfer.data.share import Share, share_batches
from transfer.data.splits import Split
from transfer.errors import InputError
from transfer.training import distribution
from transfer.training.counting import CountedAccuracy, CountedCrossentropy, count_repeated
from transfer.workers import Place, make_place, read_place

ROOT = Path(__file__).parents[1]
# 205 training images in batches of 32 leave 13, which two devices cannot divide.
OPTIONS = (
    "--backbone tiny --data stripes.npz --weights tiny.weights.h5 --image-size 32 --batch-size 32 "
    "--limit 205 --head-epochs 1 --finetune-epochs 2 --finetune-learning-rate 0.05 --dropout 0.5 "
    "--rotation-degrees 20 --mixup-alpha 0.4 --class-weights --offline"
).split()
ALONE = """
import sys
from tests.tiny_train import add_tiny_backbone
add_tiny_backbone()
from transfer.commands.train import main
from transfer.report import training_report
one, two, *options = sys.argv[1:]
describe = training_report.write_training_report
training_report.write_training_report = lambda *words: sys.exit("stopped")
try:  # after the last epoch
    main([*options, "--run-dir", one], standalone_mode=False)
except SystemExit:
    training_report.write_training_report = describe
    main(["--resume", one], standalone_mode=False)
sys.stdin.read()  # until the other is there to go on with
main(["--resume", two], standalone_mode=False)
import transfer
from transfer.plots import style
style.PICTURE_DPI = 40  # as quick as can be
run = transfer.load(two)
assert run.report().is_file() and run.evaluate().accuracy > 0.4
"""


@pytest.fixture
def place(monkeypatch):
    """Returns a function that makes this process one of several."""

    def put(process, num_processes, num_devices=None):
        there = Place("127.0.0.1:1", num_processes, process)
        monkeypatch.setattr(distribution._joined, "place", there)
        monkeypatch.setattr(distribution, "num_devices", lambda: num_devices or num_processes)

    return put


@pytest.fixture(scope="module")
def split():
    images, labels = make_stripes(45)
    return Split(images, labels)


# --- Whose is what ------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"mixup_alpha": 0.5, "erase_probability": 0.5}])
def test_the_shares_of_a_batch_are_the_batch(split, settings):
    config = Config(backbone="mobilenetv2", image_size=32, batch_size=16, **settings)

    def batches(share):
        dataset = make_training_dataset(split, config, 2, range(1), share)
        return [[np.array(each) for each in batch] for batch in dataset]

    together = 2 if settings else 1
    parts = [batches(Share(number, 2, 2, 2, together)) for number in range(2)]
    whole, (one, other) = batches(Share()), parts
    assert [len(images) for images, _ in one] == [8, 8, 13]
    for number in (0, 1):
        for of_one, of_other, of_all in zip(one[number], other[number], whole[number], strict=True):
            np.testing.assert_array_equal(np.concatenate([of_one, of_other]), of_all)
    for each in parts:  # the last one cannot be divided, so that each has all of it
        np.testing.assert_array_equal(each[2][0], whole[2][0])


def test_no_other_process_reads_an_image(split, monkeypatch):
    read = []
    images = split.images.view(type("Told", (np.ndarray,), {}))
    monkeypatch.setattr(
        type(images), "__getitem__", lambda self, at: read.append(at) or np.asarray(self)[at]
    )
    own = Split(images, split.labels)
    for _ in make_evaluation_dataset(own, 32, 40, 2, share=Share(1, 4, 4, 4)):
        pass
    assert sorted(np.concatenate(read).tolist()) == [*range(10, 20), *range(40, 45)]


def test_sizes_of_repeated_batches_tell_how_many_images_are_in_them():
    shares, images_in = share_batches(Share(0, 4, 4), (15, 12), (18, 12), (24, 12))
    # Three images for each of four devices would be as many as a full batch, six as the former.
    assert images_in == {24: 3, 48: 6}
    assert [share.copies for share in shares] == [8, 8, 4]
    assert share_batches(Share(images_together=2), (13, 12), (5, 12))[1] == {}


def test_a_repeated_batch_counts_once():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
    x, y = np.float32(np.random.default_rng(0).normal(size=(13, 3))), np.eye(2)[np.arange(13) % 2]
    repeated = np.concatenate([x[8:]] * 2), np.concatenate([y[8:]] * 2)
    scores = []
    for last, images_in in ((repeated, {10: 5}), ((x[8:], y[8:]), {})):
        model.compile(
            loss=CountedCrossentropy(images_in, 0.1), metrics=[CountedAccuracy(images_in)]
        )
        model.build()
        count_repeated(model, images_in)
        for inputs, targets in ((x[:8], y[:8]), last):
            targets, predicted = tf.constant(targets), model(inputs)
            loss = model.compute_loss(None, targets, predicted)
            model.metrics[0].update_state(loss, sample_weight=len(inputs))
            model.compute_metrics(inputs, targets, predicted)
        scores.append(model.get_metrics_result())
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(scores[0][name], scores[1][name], rtol=1e-6)


def test_a_batch_size_that_cannot_be_divided_is_refused(place):
    place(0, 3)
    with pytest.raises(InputError, match="multiple of 3.*126 or 129"):
        distribution.check_batch_size(Config(batch_size=128))
    place(0, 4)
    distribution.check_batch_size(Config(batch_size=4))
    with pytest.raises(InputError, match="multiple of 8.*mixed"):
        distribution.check_batch_size(Config(batch_size=4, mixup_alpha=0.1))


def test_each_image_is_looked_at_by_one_process(place):
    seen = []
    for number in range(3):
        place(number, 3)
        seen += range(100)[distribution.own_rows(100, 16)]
    assert seen == list(range(100))


# --- How they find each other -------------------------------------------------------------------

SLURM = {"SLURM_JOB_ID": "4097", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}, None),
        (Place("node1:80", 2, 1).environment(), Place("node1:80", 2, 1)),
        (SLURM | {"SLURM_STEP_NODELIST": "n[003-007,9],x"}, Place("n003:61441", 4, 2)),
        (SLURM | {"SLURM_STEP_NODELIST": "a,b[1-2]"}, Place("a:61441", 4, 2)),
        (SLURM | {"SLURM_STEP_NODELIST": "solo"}, Place("solo:61441", 4, 2)),
    ],
)
def test_a_place_is_read_from_the_environment(environment, expected):
    assert read_place(environment) == expected


def test_a_place_that_makes_no_sense_is_told():
    with pytest.raises(InputError, match="KERAS_DISTRIBUTION_PROCESS_ID should be set too"):
        read_place({**Place("a:1", 2, 0).environment(), "KERAS_DISTRIBUTION_PROCESS_ID": ""})
    for wrong in (("a", 2, 0), ("a:99999", 2, 0), (":1", 2, 0), ("a:1", 0, 0), ("a:1", 2, 2)):
        with pytest.raises(InputError, match="Received"):
            make_place(*wrong)


def test_options_that_contradict_each_other_are_told(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND")
    invoke = CliRunner().invoke
    both = invoke(command.main, ["--local-processes", "2", "--coordinator", "a:1"])
    assert both.exit_code == 2 and "leave it out" in both.output
    half = invoke(command.main, ["--coordinator", "a:1"])
    assert half.exit_code == 2 and "needs --num-processes" in half.output
    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda name: None)
    missing = invoke(command.main, ["--local-processes", "2"])
    assert "transfer[distributed]" in str(missing.exception)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    other = invoke(command.main, ["--local-processes", "2"])
    assert "JAX alone" in str(other.exception)


def test_a_worker_that_fails_is_told_once(tmp_path, monkeypatch, capfd):
    def run(code):
        places, script = workers.local_places(2), tmp_path / "work.py"
        script.write_text(f"import os, sys\nnumber = os.environ['{workers._NUMBER}']\n{code}")
        return workers.run_workers([sys.executable, script], places, [], lambda: "Go on so.")

    monkeypatch.delenv("KERAS_BACKEND")
    assert run("print('hello')") == 0
    assert run("print('Error: no disk', file=sys.stderr); sys.exit(1)") == 1
    assert run("if number == '0': sys.stdin.read()\nsys.exit('Error: mine')") == 1
    with pytest.raises(InputError, match="process 1 of 2 was killed .SIGKILL.*Go on so"):
        run("os.kill(os.getpid(), 9) if number == '1' else sys.exit(75)")
    monkeypatch.setattr(workers, "_HALTED_SECONDS", 0.3)
    monkeypatch.setattr(workers, "_TOGETHER_SECONDS", 0.5)
    for number in "01":  # its fellow waits for it
        with pytest.raises(InputError, match=f"process {number} of 2 was halted.*Go on so"):
            run(f"os.kill(os.getpid(), 19) if number == '{number}' else sys.stdin.read()")
    assert run("import time; time.sleep(0.8)") == 0  # slow is not halted
    output, errors = capfd.readouterr()
    assert output == "hello\n" and errors.count("no disk") == 1 and errors.count("mine") == 1


# --- The same numbers ---------------------------------------------------------------------------


def start(folder, arguments, **backend):
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | backend
    if not backend:
        del environment["KERAS_BACKEND"]
    # What is compiled once is compiled for all.
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def losses(run_dir):
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    with open(run_dir / "history.csv") as file:
        return [[float(row[name]) for name in names] for row in csv.DictReader(file)]


def test_two_processes_train_as_one_and_go_on_as_one(command_inputs, tmp_path):
    """Both phases, augmented, dropout, a rest that cannot be divided; one is killed on the way."""
    pytest.importorskip("jax")
    script, folder = ROOT / "tests" / "tiny_train.py", command_inputs
    one, two = tmp_path / "one", tmp_path / "two"
    several = ["--run-dir", two, "--local-processes", "2"]
    together = start(folder, [script, *OPTIONS, *several])
    alone = start(folder, ["-c", ALONE, one, two, *OPTIONS], KERAS_BACKEND="jax")
    told = []
    for line in together.stdout:
        told.append(line)
        if line.startswith("fine-tune 1/2"):
            break
    children = Path(f"/proc/{together.pid}/task/{together.pid}/children").read_text().split()
    killed = time.monotonic()
    os.kill(int(children[1]), signal.SIGKILL)
    _, errors = together.communicate(timeout=60)
    assert together.returncode == 1 and time.monotonic() - killed < 30
    assert errors.count("\n") == 1 and "process 1 of 2 was killed" in errors, errors
    assert f"--resume {two} --local-processes 2" in errors
    assert sum(line.startswith("Run folder") for line in told) == 1
    _, errors = alone.communicate(timeout=300)
    assert alone.returncode == 0, errors
    np.testing.assert_allclose(losses(one), losses(two), atol=1e-5)
    weights = [keras.models.load_model(each / "model.keras").get_weights() for each in (one, two)]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert json.loads((two / "config.json").read_text())["command"].endswith("--local-processes 2")
