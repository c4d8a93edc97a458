"""Run folders: never taken twice, never half written, read back as they were."""

import json
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transfer.errors import InputError
from transfer.runs import files, folder
from transfer.runs.folder import (
    check_finished,
    check_resumable,
    create_run,
    finished_runs,
    lock_run,
    newest_unfinished_run,
)
from transfer.runs.history import HISTORY_COLUMNS, read_history, write_history
from transfer.storage.atomic import read_json, write_atomically, write_json

ROOT = Path(__file__).parents[1]
NUMBER = st.floats(allow_nan=False, width=32)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"phase": st.sampled_from(["head", "fine-tune"]), "epoch": st.integers(0, 10_000)}
        | {column: NUMBER for column in HISTORY_COLUMNS[2:]}
    ),
    max_size=5,
)


class FrozenTime(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5)


def make_run(folder, name, finished_at=None):
    run_dir = folder / name
    run_dir.mkdir(parents=True)
    write_json(run_dir / files.CONFIG, {"settings": {}})
    if finished_at is not None:
        write_json(run_dir / files.SUMMARY, {})
        os.utime(run_dir / files.SUMMARY, (finished_at, finished_at))
    return run_dir


def refused(call, *arguments):
    """The message of an error that is told in one line."""
    with pytest.raises(InputError) as raised:
        call(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- Making a folder ------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True])
def test_fifty_runs_at_once_get_fifty_folders(tmp_path, monkeypatch, frozen):
    monkeypatch.chdir(tmp_path)
    if frozen:
        monkeypatch.setattr(folder, "datetime", FrozenTime)
    start = threading.Barrier(50)

    def create(_):
        start.wait()
        return create_run("vgg16")

    with ThreadPoolExecutor(50) as pool:
        folders = list(pool.map(create, range(50)))
    assert len({folder.resolve() for folder in folders}) == 50
    assert all(folder.is_dir() and folder.parent == Path("runs") for folder in folders)
    if frozen:
        name = "20260102-030405-vgg16"
        expected = {name} | {f"{name}-{number}" for number in range(2, 51)}
        assert {folder.name for folder in folders} == expected


CREATE = """
import sys
from transfer.runs.folder import create_run, lock_run
sys.stdin.read(1)  # the starting gun
with lock_run(create_run("vgg16")):
    print("made")
"""


def test_two_processes_started_twenty_times_at_once_never_share_a_folder(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    for _ in range(20):
        pair = [
            subprocess.Popen(
                [sys.executable, "-c", CREATE],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for process in pair:
            process.stdin.write("x")
            process.stdin.flush()
        assert [process.communicate()[0] for process in pair] == ["made\n"] * 2
    assert len(list((tmp_path / "runs").iterdir())) == 40


# --- Unfinished runs and the lock ---------------------------------------------------------------


def begin(folder, name):
    run_dir = folder / name
    run_dir.mkdir(parents=True)
    (run_dir / files.CONFIG).write_text("{}")
    return run_dir


def test_the_newest_unfinished_run_that_nobody_trains_is_the_one_to_resume(tmp_path):
    older, newer, finished = (begin(tmp_path, name) for name in ("b", "a", "c"))
    for seconds, run_dir in enumerate((older, newer, finished)):
        os.utime(run_dir / files.CONFIG, (seconds, seconds))
    (finished / files.SUMMARY).write_text("{}")
    assert newest_unfinished_run(tmp_path) == newer
    with lock_run(newer):
        assert newest_unfinished_run(tmp_path) == older
    assert newest_unfinished_run(tmp_path) == newer


def test_no_unfinished_run_is_told(tmp_path):
    with pytest.raises(InputError, match="no unfinished run in .*name a run folder"):
        newest_unfinished_run(tmp_path)


def test_only_what_has_begun_and_not_finished_is_resumable(tmp_path):
    run_dir = begin(tmp_path, "run")
    assert check_resumable(run_dir) == run_dir
    (run_dir / files.SUMMARY).write_text("{}")
    with pytest.raises(InputError, match="has finished"):
        check_resumable(run_dir)
    with pytest.raises(InputError, match="is not a run folder"):
        check_resumable(tmp_path)


def test_a_locked_run_is_refused_and_free_again_afterwards(tmp_path):
    with lock_run(tmp_path), pytest.raises(InputError, match="another process"):
        with lock_run(tmp_path):
            pass
    with lock_run(tmp_path):
        pass


def test_a_folder_that_is_there_is_never_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder, "datetime", FrozenTime)
    taken = tmp_path / "runs" / "20260102-030405-vgg16"
    taken.mkdir(parents=True)
    (taken / "kept").write_text("kept")
    (tmp_path / "runs" / "20260102-030405-vgg16-2").write_text("a file")
    assert create_run("vgg16").name == "20260102-030405-vgg16-3"
    assert [path.name for path in taken.iterdir()] == ["kept"]


def test_a_wished_folder_is_made_with_its_parents_and_only_once(tmp_path):
    wished = tmp_path / "a" / "b"
    assert create_run("vgg16", wished) == wished
    assert wished.is_dir() and not list(wished.iterdir())
    message = refused(create_run, "vgg16", wished)
    assert "exists already" in message and "--run-dir" in message and str(wished) in message


def test_a_folder_whose_name_is_not_utf_8_is_refused_before_anything_is_made(tmp_path):
    message = refused(folder.check_new, tmp_path / os.fsdecode(b"run-\xff"))
    assert "in UTF-8" in message and message.endswith("run-\\udcff; choose another.")


def test_of_runs_that_wish_for_one_folder_only_one_gets_it(tmp_path):
    start = threading.Barrier(20)

    def create(_):
        start.wait()
        try:
            return create_run("vgg16", tmp_path / "wished")
        except InputError:
            return None

    with ThreadPoolExecutor(20) as pool:
        assert len([got for got in pool.map(create, range(20)) if got]) == 1


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    message = refused(create_run, "vgg16", tmp_path / "file" / "run")
    assert "cannot be made" in message and "--run-dir" in message


def test_runs_being_a_link_to_nowhere_is_told_and_not_tried_for_ever(tmp_path):
    (tmp_path / "runs").symlink_to(tmp_path / "unmounted")
    code = "from transfer.runs.folder import create_run\nfrom transfer import errors\n"
    code += "try: create_run('vgg16')\n"
    code += "except errors.InputError as error: print(error)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=5,
        capture_output=True,
        text=True,
    )
    assert "cannot be made" in done.stdout, done.stderr


# --- Finding runs ---------------------------------------------------------------------------


def test_finished_runs_come_newest_first_and_unfinished_ones_are_left_out(tmp_path):
    oldest = make_run(tmp_path, "c-named-last", finished_at=1_000)
    newest = make_run(tmp_path, "a-named-first", finished_at=3_000)
    middle = make_run(tmp_path, "b-named-between", finished_at=2_000)
    make_run(tmp_path, "d-unfinished")
    (tmp_path / "a-file").write_text("")
    assert finished_runs(tmp_path) == [newest, middle, oldest]


def test_a_folder_without_finished_runs_has_none(tmp_path):
    make_run(tmp_path, "unfinished")
    for place in (tmp_path, tmp_path / "nowhere"):
        assert finished_runs(place) == []


def test_a_run_is_checked_before_it_is_used(tmp_path):
    finished = make_run(tmp_path, "finished", finished_at=1_000)
    assert check_finished(finished) == finished
    told = refused(check_finished, make_run(tmp_path, "unfinished"))
    assert "has not finished" in told and f"train --resume {tmp_path / 'unfinished'}" in told
    assert "not a run folder" in refused(check_finished, tmp_path)
    assert "not a run folder" in refused(check_finished, tmp_path / "nowhere")


# --- Writing --------------------------------------------------------------------------------


@pytest.mark.parametrize("content, held", [("é\n", "é\n".encode()), (b"\0\r\n", b"\0\r\n")])
def test_what_is_written_is_there_and_others_may_read_it(tmp_path, content, held):
    path = tmp_path / "file"
    path.write_text("old")
    write_atomically(path, content)
    assert path.read_bytes() == held
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_when_writing_fails_the_old_content_stays_and_nothing_is_left_over(
    tmp_path, monkeypatch, step, error
):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)):
        write_atomically(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "file"
    contents = {"a" * 500_000, "b" * 400_000}
    write_atomically(path, "a" * 500_000)
    stop = threading.Event()
    seen = []

    def read():
        while not stop.is_set():
            seen.append(path.read_text() in contents)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        for content in contents:
            write_atomically(path, content)
    stop.set()
    reader.join()
    assert seen and all(seen)


# --- Reading --------------------------------------------------------------------------------


def test_json_and_back(tmp_path):
    path = tmp_path / "values.json"
    values = {"name": "Größe", "numbers": [1, 2.5, None, True], "nested": {"a": "b"}}
    write_json(path, values)
    assert read_json(path) == values
    text = path.read_text(encoding="utf-8")
    assert (
        "Größe" in text
        and text.endswith("}\n")
        and text == json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    )


@pytest.mark.parametrize(
    "content, told",
    [
        (b"", "cannot be read as JSON"),
        (b'{"a": 1', "cannot be read as JSON"),
        (b'{"a": "\xff"}', "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "cannot be read as JSON"),
        (b"[1, 2]", "should hold a JSON object. Received: list"),
        (b"null", "should hold a JSON object. Received: NoneType"),
    ],
    ids=["empty", "truncated", "not-utf-8", "nested-deeply", "long-number", "array", "null"],
)
def test_json_that_cannot_be_used_is_told_with_its_name(tmp_path, content, told):
    path = tmp_path / "damaged.json"
    path.write_bytes(content)
    message = refused(read_json, path)
    assert told in message and str(path) in message


def test_json_that_is_not_there_is_named(tmp_path):
    assert "nowhere.json cannot be read as JSON: No such file" in refused(
        read_json, tmp_path / "nowhere.json"
    )
    assert "cannot be read" in refused(read_json, tmp_path)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(ROWS)
def test_history_and_back(tmp_path, rows):
    write_history(tmp_path, [row | {"ignored": 1} for row in rows])
    assert read_history(tmp_path) == rows
    lines = (tmp_path / files.HISTORY).read_text().splitlines()
    assert lines[0] == ",".join(HISTORY_COLUMNS) and len(lines) == 1 + len(rows)


def test_a_history_that_diverged_is_read_back(tmp_path):
    row = {column: float("nan") for column in HISTORY_COLUMNS} | {"phase": "head", "epoch": 1}
    write_history(tmp_path, [row])
    assert str(read_history(tmp_path)[0]) == str(row)


HEADER = ",".join(HISTORY_COLUMNS).encode() + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"epoch,loss\n",
        b"epoch,loss\n1,0.5\n",
        HEADER + b"head,1,0.5\n",
        HEADER + b"head,1,0.5,0.5,0.5,0.5,high,1\n",
        HEADER + b"head,first,0.5,0.5,0.5,0.5,0.1,1\n",
        b"\x89PNG\r\n\0\xff",
        HEADER + b'head,"' + b"1" * 200_000,
    ],
    ids=[
        "empty",
        "other-header",
        "other-columns",
        "truncated",
        "word",
        "epoch-word",
        "binary",
        "endless-field",
    ],
)
def test_a_damaged_history_is_told_with_its_name(tmp_path, content):
    (tmp_path / files.HISTORY).write_bytes(content)
    message = refused(read_history, tmp_path)
    assert str(tmp_path / files.HISTORY) in message and "should hold the columns" in message


def test_a_history_that_is_not_there_is_named(tmp_path):
    assert "history.csv cannot be read" in refused(read_history, tmp_path)


@pytest.mark.parametrize(
    "row",
    [
        "head\x1b[2J,1,0.5,0.5,0.5,0.5,0.1,1",
        "head,1,0.5,0.5,0.5,0.5,0.1,1,9",
        "head,one,0.5,0.5,0.5,0.5,0.1,1",
        f"head,{'9' * 400},0.5,0.5,0.5,0.5,0.1,1",
        f"{'h' * 100},1,0.5,0.5,0.5,0.5,0.1,1",
        "head,1,1e308,0.5,0.5,0.5,0.1,1",  # for which no axis of a plot has room
        "head,1,0.5,0.5,-1e39,0.5,0.1,1",
        '"head,1',
    ],
)
def test_a_history_of_a_stranger_is_told_in_one_line(tmp_path, row):
    (tmp_path / files.HISTORY).write_text(f"{','.join(HISTORY_COLUMNS)}\n{row}\n")
    message = refused(read_history, tmp_path)
    assert message.isprintable() and len(message) < 1000


def test_links_that_lead_nowhere_are_no_runs(tmp_path):
    for name in (files.CONFIG, files.SUMMARY):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / name).symlink_to("nowhere")
    assert finished_runs(tmp_path) == []
    with pytest.raises(InputError, match="no unfinished run"):
        newest_unfinished_run(tmp_path)


@pytest.mark.parametrize("name", [files.CHECKPOINTS, files.LOGS])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("."), Path.touch])
def test_a_folder_of_a_run_that_is_none_is_told(tmp_path, name, make):
    (tmp_path / files.CONFIG).write_text("{}")
    assert check_resumable(tmp_path) == tmp_path
    make(tmp_path / name)
    assert "should be a folder" in refused(check_resumable, tmp_path)


def test_a_lock_that_cannot_be_one_is_told(tmp_path):
    (tmp_path / files.LOCK).mkdir()
    with pytest.raises(InputError, match="cannot be locked"), lock_run(tmp_path):
        pass


def test_a_run_killed_before_it_had_begun_makes_room_and_a_users_file_none(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / files.DATA).write_bytes(b"x")
    assert "exists already" in refused(folder.check_new, run_dir)  # somebody's own
    assert [path.name for path in run_dir.iterdir()] == [files.DATA]
    (run_dir / files.LOCK).touch()
    (run_dir / "notes.txt").touch()
    assert "exists already" in refused(folder.check_new, run_dir)
    (run_dir / "notes.txt").unlink()
    folder.check_new(run_dir)  # killed between data.npz and config.json
    assert not run_dir.exists()
