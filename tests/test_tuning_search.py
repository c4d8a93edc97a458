"""The real tune.py, in processes of its own: what it tells, how it ends, how it goes on."""

import _thread
import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from tests import commands
from tools.kill_training import add_tiny_backbone
from tools.kill_tuning import OPTIONS, kill_searches
from transfer import console
from transfer.config import Config
from transfer.training import run
from transfer.tuning.deadline import Deadline

SHORT = ["--finetune-epochs", 1, "--batch-size", 128]


@pytest.fixture
def folder(command_inputs, tmp_path):
    return shutil.copytree(command_inputs, tmp_path, dirs_exist_ok=True)


def tune(folder, *arguments, code=0, prepare=add_tiny_backbone):
    done = commands.run("tune", [*OPTIONS, *arguments], folder, prepare)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def project_of(text):
    return re.search(r"^Search: .* in (tuning/\S+)$", text, re.MULTILINE).group(1)


def trials_of(text):
    return re.findall(r"^Trial (\d+)\b", text, re.MULTILINE)


def test_a_search_ends_with_settings_that_train_takes_and_goes_on_when_asked_for_more(folder):
    first = tune(folder, *SHORT, "--tuner", "random", "--trials", 1)
    assert first.stderr == ""
    assert trials_of(first.stdout) == ["1"]
    project = project_of(first.stdout)
    next_command = first.stdout.strip().splitlines()[-1]
    assert next_command == f"Next: python train.py --config {project}/best.json"
    best = Config.from_json(folder / project / "best.json")
    assert best.finetune_epochs == 1 and best.backbone == "tiny"
    # What is not given suits the number of images, as `train` has it.
    assert "Few images, for which it is --head-epochs 20 unless you say otherwise" in first.stdout
    assert best.head_epochs == 20
    assert {path.name for path in (folder / project).iterdir()} >= {"trials.csv", "search.png"}

    more = tune(folder, *SHORT, "--tuner", "random", "--trials", 2)
    assert project_of(more.stdout) == project
    assert re.search(r"^Going on: 1 trials? .*ended, 0 to be run again", more.stdout, re.MULTILINE)
    assert trials_of(more.stdout) == ["2"]
    trained = commands.run(
        "train",
        ["--config", f"{project}/best.json", "--run-dir", "run", "--quiet"],
        folder,
        add_tiny_backbone,
    )
    assert trained.returncode == 0, trained.stderr

    # Another space is another search, and says so before its first trial.
    (folder / "space.json").write_text('{"dropout": [0.0, 0.4], "batch_size": 64}')
    words = ["--tuner", "random", "--space", "space.json", *SHORT[:2], "--time-limit", 0.0001]
    other = tune(folder, *words, code=1)
    assert project_of(other.stdout) != project
    assert f"A new search, not that of {project}: it differs in space (" in other.stdout
    assert "settings (batch_size)" in other.stdout
    assert "  dropout: 0, 0.4\n" in other.stdout


def always_diverge():
    add_tiny_backbone()
    from transfer.errors import InputError

    def fail(*arguments, **options):
        raise InputError("the loss is no longer a number in the fine-tune phase; lower it")

    run.train = fail


def test_when_every_trial_fails_the_first_reason_ends_it_with_1(folder):
    done = tune(folder, "--tuner", "random", "--trials", 5, code=1, prepare=always_diverge)
    assert done.stderr == (
        "Error: every trial failed, the first because the loss is no longer a number in the "
        "fine-tune phase.\n"
    )
    assert len(re.findall(r"Trial \d.*: failed, the loss is no longer", done.stdout)) == 5


def sleep_in_steps():
    add_tiny_backbone()
    from transfer.training.callbacks import HistoryRecorder

    HistoryRecorder.on_train_batch_begin = lambda self, batch, logs=None: time.sleep(0.2)


def time_is_up_in_the_second_trial():
    sleep_in_steps()

    def wait_and_stop():
        while not list(Path("tuning").glob("*/trial_0001/run/config.json")):
            time.sleep(0.01)
        Deadline.passed = property(lambda self: True)
        _thread.interrupt_main(signal.SIGTERM)  # as the deadline's timer

    threading.Thread(target=wait_and_stop, daemon=True).start()


def test_the_time_limit_ends_it_within_a_trial_with_results(folder):
    arguments = ["--tuner", "random", "--trials", 50, *SHORT, "--time-limit"]
    done = tune(folder, *arguments, 9, prepare=time_is_up_in_the_second_trial)
    assert "Time limit of 9 min 00 s reached; the same command" in done.stdout
    assert "Next: python train.py --config" in done.stdout
    assert trials_of(done.stdout) == ["1"]
    none = tune(folder, *arguments, 0.0001, "--seed", 9, code=1)
    assert none.stderr == "Error: no trial finished within the time; give a longer --time-limit.\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_after_the_step_and_says_how_to_go_on(folder, number):
    output = folder / "output.txt"
    arguments = [*OPTIONS, "--tuner", "random", "--trials", 50, "--batch-size", 128]
    process = commands.start("tune", arguments, folder, output, sleep_in_steps)
    while "\nTrial 1 " not in (output.read_text() if output.exists() else ""):
        assert process.is_alive(), output.read_text()
        time.sleep(0.01)
    time.sleep(0.5)
    os.kill(process.pid, number)
    process.join(60)
    text = output.read_text()
    assert process.exitcode == 128 + number
    assert re.fullmatch(
        rf"Stopped\. \d+ finished trials are in {project_of(text)}\. To go on: python tune\.py "
        r"--backbone tiny .*--batch-size 128",
        text.splitlines()[-1],
    )


def without_tensorboard():
    add_tiny_backbone()
    import importlib.util

    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name: None if name == "tensorboard" else find(name)


def test_what_is_missing_or_wrong_is_told_before_anything_is_made(folder):
    (folder / "bad.json").write_text('{"dropout": [0, 1.5]}')
    for arguments, code, told, prepare in (
        ([], 1, "Error: tensorboard is missing; run `pip install -r", without_tensorboard),
        (["--space", "bad.json"], 1, "Error: bad.json: dropout should be a", add_tiny_backbone),
        (["--finetune-epochs", 0], 1, "--finetune-epochs is 0 and there are no", add_tiny_backbone),
        (["--role", "worker"], 2, "such as --id first", add_tiny_backbone),
        (["--id", "one"], 2, "--id names a worker", add_tiny_backbone),
        (["--role", "chief", "--address", "here"], 2, "HOST:PORT", add_tiny_backbone),
    ):
        done = tune(folder, *arguments, code=code, prepare=prepare)
        assert told in done.stderr.splitlines()[-1]
    assert not (folder / "tuning").exists()


def test_two_processes_never_search_in_one_project(folder):
    output = folder / "output.txt"
    process = commands.start("tune", [*OPTIONS, "--trials", 50], folder, output, sleep_in_steps)
    while "\nSearch: " not in (output.read_text() if output.exists() else ""):
        assert process.is_alive(), output.read_text()
        time.sleep(0.01)
    second = tune(folder, "--trials", 50, code=1)
    assert "is being searched by another process; wait for it, or share" in second.stderr
    process.kill()


def die_in_the_first_trial():
    add_tiny_backbone()

    ordinary = run.train

    def train_or_die(config, *, run_dir, **options):
        if "trial_0000" in str(run_dir):
            os.kill(os.getpid(), signal.SIGKILL)
        return ordinary(config, run_dir=run_dir, **options)

    run.train = train_or_die


def test_a_trial_that_the_system_kills_is_a_reason_and_the_search_goes_on(folder):
    done = tune(folder, *SHORT, "--trials", 2, prepare=die_in_the_first_trial)
    assert (
        "Trial 1 (your own settings): failed, its process died (SIGKILL); out of memory?; "
        in done.stdout
    )
    assert "Trial 2: validation accuracy" in done.stdout


def test_several_backbones_are_searched(folder):
    # `--backbone` twice: tiny under two names.
    done = tune(folder, "--backbone", "vgg16", *SHORT, "--trials", 3, prepare=two_backbones)
    assert "  backbone: tiny, vgg16\n" in done.stdout
    assert project_of(done.stdout).startswith("tuning/tiny+vgg16-")
    rows = (folder / project_of(done.stdout) / "trials.csv").read_text()
    assert "vgg16" in rows


def two_backbones():
    add_tiny_backbone()
    from tests.conftest import tiny_row
    from transfer.models.backbones import BACKBONES

    BACKBONES["vgg16"] = tiny_row()


def test_kills_lose_nothing(folder):
    # One at any moment, one while what is known is written down.
    tally = kill_searches(folder, kills=2, seed=0, trials=3)
    assert tally.kills == 2 and tally.searches >= 1 and tally.trials >= 3
    assert tally.in_a_save == 1
    assert (tally.lost_trials, tally.trained_again, tally.broken) == (0, 0, 0)


def test_a_deadline_passes_and_stops_the_main_thread():
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with Deadline(0.05):
            for _ in range(500):
                time.sleep(0.01)
                if came:
                    break
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM]
    assert not Deadline(1000).passed and Deadline(0).passed
    assert not Deadline(float("inf")).passed
    with Deadline(float("inf")):
        pass


def test_a_terminal_gets_a_live_table(tmp_path):
    from io import StringIO

    from rich.console import Console

    from tests.test_tuning_oracles import make_plan
    from transfer.tuning.display import Display
    from transfer.tuning.oracles import make_oracle

    oracle = make_oracle(make_plan(tmp_path / "p"), most_trials=7)
    terminal = Console(file=StringIO(), force_terminal=True, width=100)
    with console.voice(terminal), Display(oracle, 7):
        oracle.create_trial("local")
        time.sleep(1)
    text = terminal.file.getvalue()
    assert "0 of 7 trials" in text and "running: trial 1, for" in text
    facts = json.dumps(oracle.get_state())
    assert "0000" in facts
