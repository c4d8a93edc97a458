"""Kills, signals, a full disk and two at once, with the real train.py in processes of its own."""

import errno
import os
import shutil
import signal
import time

import pytest

from tests import commands
from tools.kill_training import OPTIONS, add_tiny_backbone, kill_runs
from transfer.runs import files
from transfer.training.checkpoint import list_checkpoints, read_checkpoint

ENDLESS = [*OPTIONS, "--finetune-epochs", "500", "--early-stopping-patience", "500"]


@pytest.fixture
def folder(command_inputs, tmp_path):
    return shutil.copytree(command_inputs, tmp_path, dirs_exist_ok=True)


def wait_for(text, output, process):
    deadline = time.monotonic() + 120
    while text not in (output.read_text() if output.exists() else ""):
        assert process.is_alive() and time.monotonic() < deadline, output.read_text()
        time.sleep(0.01)


def start(folder, *arguments, prepare=add_tiny_backbone):
    output = folder / "output.txt"
    output.unlink(missing_ok=True)
    return commands.start("train", arguments, folder, output, prepare), output


def test_kills_lose_nothing(folder):
    # One at any moment, one while a checkpoint is written; `tools/kill_training.py` does hundreds.
    tally = kill_runs(folder, kills=2, seed=0)
    assert tally.kills == 2 and tally.runs >= 1
    assert (tally.lost_epochs, tally.unreadable, tally.different) == (0, 0, 0)


def test_sigterm_and_ctrl_c_end_after_the_step_and_say_how_to_go_on(folder):
    arguments = ENDLESS
    for number in (signal.SIGTERM, signal.SIGINT):
        process, output = start(folder, *arguments)
        wait_for("\nfine-tune ", output, process)
        os.kill(process.pid, number)
        process.join(60)
        last = output.read_text().strip().splitlines()[-1]
        assert process.exitcode == 128 + number
        [run_dir] = (folder / "runs").iterdir()
        kept = list_checkpoints(run_dir / files.CHECKPOINTS)[-1].relative_to(folder)
        assert last == (
            f"Stopped. All finished epochs are in {kept}. "
            f"To go on: python train.py --resume runs/{run_dir.name}"
        )
        arguments = ["--resume", "--offline"]  # the second signal meets the resumed run


def sleep_in_a_step():
    add_tiny_backbone()
    from transfer.training.callbacks import HistoryRecorder

    def on_train_batch_begin(self, batch, logs=None):
        print("in a long step", flush=True)
        time.sleep(60)

    HistoryRecorder.on_train_batch_begin = on_train_batch_begin


def test_a_second_ctrl_c_ends_at_once(folder):
    process, output = start(folder, *ENDLESS, prepare=sleep_in_a_step)
    wait_for("in a long step", output, process)
    os.kill(process.pid, signal.SIGINT)
    process.join(1)
    assert process.is_alive()
    os.kill(process.pid, signal.SIGINT)
    process.join(10)
    assert process.exitcode == -signal.SIGINT  # for a shell that is 130


def fill_the_disk_after_two_epochs():
    add_tiny_backbone()
    flush = os.fsync

    def fsync(descriptor):
        if os.path.isdir("run/checkpoints/1-head-0002"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    os.fsync = fsync


def test_a_disk_that_is_full_is_one_line_and_the_last_checkpoint_is_whole(folder):
    prepare = fill_the_disk_after_two_epochs
    process, output = start(folder, *ENDLESS, "--run-dir", "run", prepare=prepare)
    process.join(120)
    assert process.exitcode == 1
    assert output.read_text().splitlines()[-1] == (
        "Error: run: No space left on device; mend that. All finished epochs are in "
        "run/checkpoints/1-head-0002. To go on: python train.py --resume run"
    )
    assert read_checkpoint(folder / "run" / files.CHECKPOINTS / "1-head-0002").state.epoch == 2
    again, output = start(folder, "--resume", "run")
    wait_for("Going on after epoch 2 of the head phase", output, again)
    again.kill()


def test_a_run_that_is_being_trained_is_not_resumed_by_another(folder):
    process, output = start(folder, *ENDLESS, "--run-dir", "run")
    wait_for("\nhead 1/", output, process)
    second = folder / "second.txt"
    commands.start("train", ["--resume", "run"], folder, second, add_tiny_backbone).join()
    assert second.read_text() == (
        "Error: run is being trained by another process; wait for it, or name another run.\n"
    )
    process.kill()
    process.join()
    # The lock of a dead process is taken over.
    third, output = start(folder, "--resume", "run")
    wait_for("Going on ", output, third)
    third.kill()
