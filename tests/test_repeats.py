"""Repeats: the runs that single commands would have made, and none lost when they are stopped."""

import io
import signal
import sys

import pytest
from rich.console import Console

from tests.conftest import make_facts
from transfer import console
from transfer.config import Config
from transfer.errors import InputError, Interrupted
from transfer.runs import files
from transfer.runs.facts import (
    PhaseSummary,
    RepeatsFacts,
    Summary,
    read_facts,
)
from transfer.runs.folder import check_new, check_resumable, finished_runs
from transfer.training import repeats, run
from transfer.training.result import Result


@pytest.fixture
def output():
    return io.StringIO()


@pytest.fixture(autouse=True)
def voice(output):
    with console.voice(Console(file=output, width=300)):
        yield


def summary(seed):
    phase = PhaseSummary(1, 1, 1.0, 0.9 + seed / 100, 2.0)
    return Summary({"head": phase, "fine-tune": phase}, 3.0)


@pytest.fixture
def trained(monkeypatch):
    """Takes the place of training; seeds in `stop` stop before or after their run has begun."""
    done, stop = [], {}

    def finish(run_dir, seed):
        if stop.pop((seed, "begun"), None):
            raise Interrupted(signal.SIGTERM, "Stopped. It says how to go on.")
        done.append(seed)
        summary(seed).write(run_dir)
        return Result(run_dir, summary(seed), [])

    def fake_train(config, *, run_dir, offline, command, given, repeats=None, **shown):
        if stop.pop((config.seed, "not begun"), None):
            raise KeyboardInterrupt
        run_dir.mkdir(parents=True)
        make_facts(config, command=command, repeats=repeats).write(run_dir)
        return finish(run_dir, config.seed)

    def fake_resume(run_dir, *, given=None, offline=False, **shown):
        check_resumable(run_dir)
        return finish(run_dir, read_facts(run_dir).settings.seed)

    monkeypatch.setattr(run, "train", fake_train)
    monkeypatch.setattr(run, "resume", fake_resume)
    return done, stop


def test_each_repeat_is_the_run_that_its_seed_alone_makes(
    tiny_backbone, stripes_npz, tmp_path, output
):
    config = Config(
        backbone=tiny_backbone,
        data=str(stripes_npz),
        weights="none",
        image_size=32,
        finetune_epochs=1,
        seed=3,
    )
    results = list(repeats.train_repeats(config, 2, run_dir=tmp_path / "several"))
    assert [result.run_dir.name for result in results] == ["several-seed3", "several-seed4"]
    alone = Config.from_dict(config.to_dict() | {"seed": 4})
    (single,) = repeats.train_repeats(alone, 1, run_dir=tmp_path / "single")
    assert single.run_dir == tmp_path / "single"
    assert results[1].summary.sha256 == single.summary.sha256
    assert results[0].summary.sha256 != single.summary.sha256
    assert read_facts(results[1].run_dir).repeats == RepeatsFacts(3, 2)
    assert read_facts(single.run_dir).repeats is None
    assert set(finished_runs(tmp_path)) == {tmp_path / "single"} | {
        result.run_dir for result in results
    }
    repeats.print_repeats(results)
    figures = [result.summary.kept_phase.val_accuracy for result in results]
    mean, low, high = (f"{100 * x:.2f} %" for x in (sum(figures) / 2, min(figures), max(figures)))
    assert f"accuracy mean {mean}, min {low}, max {high}, n = 2; loss mean" in output.getvalue()


def test_a_single_run_is_no_repeat(output, tmp_path):
    repeats.print_repeats([Result(tmp_path, summary(0), [])])
    assert output.getvalue() == ""


def test_a_folder_that_exists_is_refused_before_anything_is_trained(trained, tmp_path):
    (tmp_path / "x-seed2").mkdir()
    (tmp_path / "x-seed2" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="x-seed2 exists already"):
        list(repeats.train_repeats(Config(), 3, run_dir=tmp_path / "x"))
    assert trained[0] == []


def test_a_stopped_repeat_is_resumed_and_the_others_follow(trained, tmp_path):
    done, stop = trained
    stop[1, "begun"] = True
    with pytest.raises(Interrupted, match="It says how to go on"):
        list(repeats.train_repeats(Config(), 4, run_dir=tmp_path / "x"))
    assert done == [0]
    results = list(repeats.resume_repeats(tmp_path / "x-seed1"))
    assert done == [0, 1, 2, 3]
    assert [result.run_dir.name for result in results] == ["x-seed1", "x-seed2", "x-seed3"]
    with pytest.raises(InputError, match="has finished"):
        list(repeats.resume_repeats(tmp_path / "x-seed1"))


def test_a_stop_between_two_repeats_names_the_last_one_that_began(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["transfer"])  # not pytest, as which a user calls nothing
    done, stop = trained
    stop[2, "not begun"] = True
    with pytest.raises(Interrupted) as stopped:
        list(repeats.train_repeats(Config(), 3, run_dir=tmp_path / "x"))
    assert str(stopped.value) == f"Stopped. To go on: transfer train --resume {tmp_path}/x-seed1"
    assert stopped.value.number == signal.SIGINT
    list(repeats.resume_repeats(tmp_path / "x-seed1"))
    assert done == [0, 1, 2]


def test_a_kill_between_a_folder_and_its_config_does_not_keep_repeats_from_going_on(
    trained, tmp_path
):
    done, _ = trained
    with pytest.raises(InputError, match="is not a run folder"):
        list(repeats.resume_repeats(tmp_path / "x-seed1"))
    for seed, left in ((1, files.LOCK), (2, f".00000000-1-00000000.{files.CONFIG}")):
        (tmp_path / f"x-seed{seed}").mkdir()
        (tmp_path / f"x-seed{seed}" / left).write_text("")
        check_new(tmp_path / f"x-seed{seed}")  # as the same command does
        assert not (tmp_path / f"x-seed{seed}").exists()
    list(repeats.train_repeats(Config(), 3, run_dir=tmp_path / "x"))
    assert done == [0, 1, 2]


def test_a_stop_before_the_first_has_nothing_to_go_on_with(trained, tmp_path):
    trained[1][0, "not begun"] = True
    with pytest.raises(KeyboardInterrupt):
        list(repeats.train_repeats(Config(), 2, run_dir=tmp_path / "x"))
