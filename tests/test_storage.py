"""Storage: whole or not at all, read only as it was written, and nobody else's files touched."""

import csv
import errno
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import transfer
from transfer import console
from transfer.errors import DiskError, InputError, disk_error
from transfer.runs import files
from transfer.runs.folder import lock_run
from transfer.storage import atomic, locks
from transfer.storage.atomic import (
    MOST_JSON_BYTES,
    read_json,
    remove_leftovers,
    whole_file,
    whole_path,
    write_atomically,
    write_json,
)
from transfer.storage.cache import CHECKSUM, FolderCache, keras_home
from transfer.storage.csv_text import csv_text, original_cell, plain_cell
from transfer.storage.sizes import folder_bytes

STALE = atomic._STALE_SECONDS
LINKS = pytest.mark.skipif(sys.platform == "win32", reason="symbolic links")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- Whole or not at all --------------------------------------------------------------------


@pytest.mark.parametrize("content", ["Füße\n", b"\x00\xff", ""])
def test_what_was_written_is_there_and_nothing_else(tmp_path, content):
    write_atomically(tmp_path / "a.txt", content)
    expected = content.encode() if isinstance(content, str) else content
    assert (tmp_path / "a.txt").read_bytes() == expected
    assert names(tmp_path) == ["a.txt"]


def test_a_name_is_taken_only_when_the_file_is_whole(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")
    with whole_file(path) as file:
        file.write(b"half")
        file.flush()
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"half"
    with whole_path(path) as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".bin"
        assert not temporary.exists()
        temporary.write_bytes(b"made by a library")
    assert path.read_bytes() == b"made by a library"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, b"before"])
def test_an_error_leaves_what_was_there(tmp_path, error, before):
    path = tmp_path / "a.bin"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(error), whole_file(path) as file:
        file.write(b"half")
        raise error
    with pytest.raises(error), whole_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert names(tmp_path) == ([] if before is None else ["a.bin"])
    assert before is None or path.read_bytes() == before


def test_a_folder_that_is_missing_is_told_by_the_name_that_the_user_knows(tmp_path):
    with pytest.raises(OSError) as caught:
        write_atomically(tmp_path / "missing" / "a.txt", "x")
    assert str(disk_error(caught.value)) == f"{tmp_path}/missing/a.txt: No such file or directory"


def test_a_path_that_is_not_utf_8_is_written_as_json_has_it(tmp_path):
    path = os.fsdecode(b"photos-\xff")
    write_json(tmp_path / "a.json", {"data": path})
    assert read_json(tmp_path / "a.json") == {"data": path}
    write_atomically(tmp_path / "a.txt", path)
    assert (tmp_path / "a.txt").read_bytes() == b"photos-\\udcff"


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError("Can't write data (errno = 28, error message = 'No space left on device')"),
    OSError("1048576 requested and 4064 written"),  # NumPy
    RuntimeError("{{function_node ...}} /runs/a; No space left on device [Op:FlushSummaryWriter]"),
]


@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_full_disk_is_told_as_such_whoever_met_it(error):
    assert str(disk_error(error, Path("runs/a"))) == "runs/a: No space left on device"


def test_other_failures_are_nothing_of_the_disk():
    assert disk_error(ValueError("no space")) is None
    assert disk_error(MemoryError()) is None
    assert str(disk_error(PermissionError(13, "Permission denied", "a"))) == "a: Permission denied"


def test_a_library_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"), whole_path(tmp_path / "a.bin"):
        pass
    assert names(tmp_path) == []


KILLED = """
import sys, pathlib
from transfer.storage.cache import FolderCache
cache = FolderCache("things", ".bin")
path = cache.path("killed")
path.parent.mkdir(parents=True, exist_ok=True)
with cache.keep(path) as file:
    file.write(b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_a_killed_write_leaves_nothing_under_the_name(things):
    path = things.path("killed")
    root = str(Path(transfer.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", KILLED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    ) as process:
        assert process.stdout.readline().strip() == b"writing"
        process.kill()
    assert process.returncode == -signal.SIGKILL or sys.platform == "win32"
    assert not path.exists() and not things.holds(path)
    [leftover] = names(things.folder)
    assert leftover.endswith(path.name) and leftover.startswith(".")
    keep(things, "killed", b"whole")
    assert things.holds(path) and path.read_bytes() == b"whole"
    assert leftover not in names(things.folder)
    for abandoned in (leftover, leftover + CHECKSUM):  # killed while a checksum was written
        (things.folder / abandoned).write_bytes(b"0")
    with things.locked(things.path("another")):  # whoever comes next, to read or to write
        assert not {leftover, leftover + CHECKSUM} & set(names(things.folder))


def test_the_folder_is_on_the_disk_too(tmp_path, monkeypatch):
    order = []
    replace, flush = os.replace, atomic.flush_folder
    monkeypatch.setattr(atomic.os, "replace", lambda *a: (order.append("name"), replace(*a)))
    monkeypatch.setattr(atomic, "flush_folder", lambda f: (order.append(f), flush(f)))
    inner = os.fsync
    monkeypatch.setattr(atomic.os, "fsync", lambda d: (order.append("disk"), inner(d)))
    write_atomically(tmp_path / "a", b"x")
    assert order[:3] == ["disk", "name", tmp_path]


# --- Leftovers ------------------------------------------------------------------------------


def temporary(name, process=None, machine=None):
    return f".{machine or atomic._machine()}-{process or os.getpid()}-0123abcd.{name}"


def test_leftovers_of_processes_that_are_gone_are_removed_at_once(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    dead, alive = temporary("a.bin", ended.pid), temporary("a.bin")
    elsewhere = temporary("a.bin", ended.pid, "00000000")  # whose processes nobody here sees
    for name in (dead, alive, elsewhere):
        (tmp_path / name).write_bytes(b"half")
    remove_leftovers(tmp_path, r"a\.bin")
    assert names(tmp_path) == sorted([alive, elsewhere])
    os.utime(tmp_path / alive, times=(time.time() - STALE + 60,) * 2)
    os.utime(tmp_path / elsewhere, times=(time.time() - STALE - 60,) * 2)
    remove_leftovers(tmp_path, r"a\.bin")
    assert names(tmp_path) == [alive]
    remove_leftovers(tmp_path / "missing", ".+")


def test_other_names_are_nobodys_leftovers(tmp_path):
    mine = temporary("a.bin")
    kept = [".hidden", temporary("b.bin"), mine[1:], mine.upper(), mine + "x", "a.bin"]
    kept += [".0123abcd.a.bin", mine.replace("-", ""), temporary("axbin")]
    for name in kept:
        (tmp_path / name).write_bytes(b"mine")
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / mine).mkdir()  # a folder of that name stays as well
    os.utime(tmp_path / mine, (0, 0))
    remove_leftovers(tmp_path, r"a\.bin")
    assert names(tmp_path) == sorted([*kept, mine])


@LINKS
def test_no_link_is_followed_to_a_leftover(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "precious"
    target.write_bytes(b"mine")
    os.utime(target, (0, 0))
    link = tmp_path / temporary("a.bin")
    link.symlink_to(target)
    remove_leftovers(tmp_path, r"a\.bin")
    assert target.read_bytes() == b"mine" and link.is_symlink()  # the link itself is new
    os.utime(link, (0, 0), follow_symlinks=False)
    remove_leftovers(tmp_path, r"a\.bin")
    assert target.read_bytes() == b"mine" and not link.is_symlink()


def test_folders_of_processes_that_are_gone_go_with_the_next(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    dead, alive = temporary("made", ended.pid), temporary("made", os.getppid())
    for name in (dead, alive, temporary("other", ended.pid)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (0, 0))  # one that is in use may be hours old
    with atomic.whole_folder(tmp_path / "made") as folder:
        (folder / "a").write_text("x")
        assert not (tmp_path / "made").exists()
    assert names(tmp_path) == sorted([alive, temporary("other", ended.pid), "made"])
    with pytest.raises(KeyError), atomic.whole_folder(tmp_path / "failed"):
        raise KeyError
    assert len(names(tmp_path)) == 3


# --- What the user named ----------------------------------------------------------------------


@LINKS
def test_a_pipe_or_device_that_was_named_is_written_into_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    atomic.write_output(pipe, "ä\n")
    assert os.read(reader, 9) == "ä\n".encode() and stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(reader)
    ours, theirs = os.pipe()  # as a shell's >(...)
    atomic.write_output(Path(f"/dev/fd/{theirs}"), "x")
    assert os.read(ours, 9) == b"x"
    os.close(ours), os.close(theirs)
    link = tmp_path / "link"
    link.symlink_to("/dev/null")
    atomic.write_output(link, b"x")
    assert link.is_symlink() and stat.S_ISCHR(os.stat("/dev/null").st_mode)
    (tmp_path / "real.csv").write_text("before")
    (tmp_path / "latest.csv").symlink_to("real.csv")
    atomic.write_output(tmp_path / "latest.csv", "after")
    assert (tmp_path / "latest.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "after"


@LINKS
def test_what_cannot_be_written_is_told_by_the_name_the_user_gave(tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "full").symlink_to("/dev/full")
    for name, reason in (
        ("gone/x.csv", "No such file"),
        ("circle", ""),
        (".", "directory"),
        ("full", "No space left"),
    ):
        with pytest.raises(DiskError, match=f"{name} cannot be written: .*{reason}"):
            atomic.write_output(tmp_path / name, "x")


# --- JSON -----------------------------------------------------------------------------------


def test_json_comes_back(tmp_path):
    values = {"a": 1, "Füße": [None, 2.5, {"b": "\u732b"}]}
    write_json(tmp_path / "a.json", values)
    assert read_json(tmp_path / "a.json") == values
    assert "Füße" in (tmp_path / "a.json").read_text("utf-8")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1]", b"1", b"[" * 100_000])
def test_what_is_no_json_object_is_told_in_one_line(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path / "missing.json")


# --- The cache ------------------------------------------------------------------------------


@pytest.fixture
def things():
    return FolderCache("things", ".bin")


def keep(cache, key, content):
    path = cache.path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with cache.keep(path) as file:
        file.write(content)
    return path


def test_a_cache_lies_beside_what_keras_keeps(monkeypatch, things):
    home = keras_home()
    assert things.folder == home / "transfer" / "things"
    monkeypatch.setenv("KERAS_HOME", "relative")
    assert keras_home() == Path.cwd() / "relative"
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert keras_home() == Path("/home/somebody/.keras")


def test_each_key_has_a_file_of_its_own(things):
    keys = [("a",), ("a", 1), ("a", "1"), ("b",), (), ("a", [1, 2]), ("a", (1, 2))]
    paths = [things.path(*key) for key in keys]
    assert len(set(paths)) == len(keys) and things.path("a", 1) == paths[1]
    assert all(path.parent == things.folder and path.suffix == ".bin" for path in paths)


def test_what_is_kept_is_held_with_its_checksum(things):
    path = things.path("a")
    assert not things.holds(path)
    keep(things, "a", b"content")
    assert things.holds(path) and path.read_bytes() == b"content"
    assert names(things.folder) == sorted([path.name, path.name + CHECKSUM])


def test_content_may_come_in_pieces(things):
    array = np.arange(12, dtype=np.float16).reshape(3, 4)
    path = things.path("a")
    path.parent.mkdir(parents=True)
    with things.keep(path) as file:
        assert file.write(b"head") == 4
        assert file.write(memoryview(array).cast("B")) == 24
    assert path.read_bytes() == b"head" + array.tobytes() and things.holds(path)


DAMAGES = {
    "a flipped byte": lambda path: path.write_bytes(b"contend"),
    "cut off": lambda path: path.write_bytes(b"conten"),
    "longer": lambda path: path.write_bytes(b"content."),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "no checksum": lambda path: path.with_name(path.name + CHECKSUM).unlink(),
    "another checksum": lambda path: path.with_name(path.name + CHECKSUM).write_text("0" * 64),
    "no text": lambda path: path.with_name(path.name + CHECKSUM).write_bytes(b"\xff"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_has_changed_is_not_held(things, damage):
    path = keep(things, "a", b"content")
    damage(path)
    assert not things.holds(path)


def test_a_flipped_byte_is_computed_anew(things):
    computed = []

    def take():
        path = things.path("numbers")
        with things.locked(path):
            if not things.holds(path):
                computed.append(1)
                keep(things, "numbers", b"1 2 3")
            return path.read_bytes()

    assert [take(), take()] == [b"1 2 3"] * 2 and len(computed) == 1
    things.path("numbers").write_bytes(b"1 2 7")
    assert [take(), take()] == [b"1 2 3"] * 2 and len(computed) == 2


def test_an_error_while_computing_keeps_nothing(things):
    path = keep(things, "a", b"before")
    with pytest.raises(ValueError, match="no"), things.keep(path) as file:
        file.write(b"half")
        raise ValueError("no")
    assert things.holds(path) and path.read_bytes() == b"before"
    assert len(names(things.folder)) == 2


def test_objects_come_back_and_a_damaged_one_does_not(monkeypatch, tmp_path):
    cache = FolderCache("objects", ".json")
    path = cache.path(1)
    assert cache.read_json(path) is None
    cache.keep_json(path, {"a": [1, 2]})
    assert cache.read_json(path) == {"a": [1, 2]}
    path.write_bytes(path.read_bytes().replace(b"2", b"3"))
    assert cache.read_json(path) is None
    keep(cache, 1, b"[1]")  # whole, but no object
    assert cache.read_json(path) is None
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    cache.keep_json(cache.path(1), {"a": 1})  # no place for it: goes on without
    assert cache.read_json(cache.path(1)) is None


# --- Room -----------------------------------------------------------------------------------


def keep_at(cache, key, content, seconds):
    path = keep(cache, key, content)
    os.utime(path, (seconds, seconds))
    return path


def test_room_is_made_by_least_recent_use():
    cache = FolderCache("things", ".bin", most_bytes=30)
    paths = {key: keep_at(cache, key, key.encode() * 10, 10 + i) for i, key in enumerate("abc")}
    assert all(path.exists() for path in paths.values())
    assert cache.holds(paths["a"])  # used again, just now
    keep(cache, "d", b"d" * 10)
    assert [key for key in "abcd" if cache.path(key).exists()] == ["a", "c", "d"]
    checksums = [name for name in names(cache.folder) if name.endswith(CHECKSUM)]
    assert len(checksums) == 3 and len(names(cache.folder)) == 6
    keep(cache, "e", b"e" * 25)
    assert [key for key in "abcde" if cache.path(key).exists()] == ["e"]


def test_the_newest_stays_however_large_it_is():
    cache = FolderCache("things", ".bin", most_bytes=30)
    keep_at(cache, "a", b"a" * 10, 10)
    path = keep(cache, "b", b"b" * 100)
    assert cache.holds(path) and not cache.path("a").exists()


def test_what_is_being_written_takes_room_too():
    cache = FolderCache("things", ".bin", most_bytes=30)
    keep_at(cache, "a", b"a" * 10, 10)
    writing = cache.folder / temporary(cache.path("b").name)
    writing.write_bytes(b"b" * 15)
    keep(cache, "c", b"c" * 10)
    assert not cache.path("a").exists() and cache.holds(cache.path("c")) and writing.exists()


def test_without_a_limit_nothing_goes(things):
    for number in range(5):
        keep_at(things, number, b"x" * 1000, number)
    assert sum(name.endswith(".bin") for name in names(things.folder)) == 5


def test_a_users_own_files_stay():
    cache = FolderCache("things", ".bin", most_bytes=1)
    keep(cache, "a", b"a" * 10)
    digest = "0123456789abcdef" * 2
    kept = ["notes.bin", f"{digest}.npy", f"{digest[:-1]}.bin", f"my {digest}.bin", "a.bin.lock"]
    kept += [f"{digest.upper()}.bin"[1:], f"{digest}.bin.bak", ".hidden", f"{digest}xbin"]
    for name in kept:
        (cache.folder / name).write_bytes(b"mine")
        os.utime(cache.folder / name, (0, 0))
    (cache.folder / f"{digest}.bin").mkdir()
    path = keep(cache, "b", b"b" * 10)
    own = [path.name, path.name + CHECKSUM, f"{digest}.bin"]
    assert names(cache.folder) == sorted([*kept, *own])
    assert all((cache.folder / name).read_bytes() == b"mine" for name in kept)


@LINKS
def test_room_is_never_made_through_a_link(tmp_path):
    cache = FolderCache("things", ".bin", most_bytes=1)
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine" * 10)
    cache.folder.mkdir(parents=True)
    link = cache.path("a")
    link.symlink_to(precious)
    os.utime(link, (0, 0), follow_symlinks=False)
    keep(cache, "b", b"b" * 10)
    assert precious.read_bytes() == b"mine" * 10 and link.is_symlink()


@LINKS
def test_what_is_kept_replaces_a_link_and_not_what_it_leads_to(things, tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    things.folder.mkdir(parents=True)
    things.path("a").symlink_to(precious)
    path = keep(things, "a", b"computed")
    assert precious.read_bytes() == b"mine" and path.read_bytes() == b"computed"
    assert not path.is_symlink()


@pytest.mark.skipif(os.name != "posix", reason="a file without a name")
def test_who_reads_a_file_reads_on_after_it_made_room():
    cache = FolderCache("things", ".bin", most_bytes=10)
    path = keep_at(cache, "a", b"a" * 10, 10)
    with open(path, "rb") as file:
        keep(cache, "b", b"b" * 10)
        assert not path.exists() and file.read() == b"a" * 10


# --- Locks ----------------------------------------------------------------------------------


def test_of_several_at_once_one_computes(things):
    path, computed = things.path("a"), []

    def take():
        with things.locked(path):
            if not things.holds(path):
                computed.append(1)
                time.sleep(0.05)
                keep(things, "a", b"content")

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert computed == [1] and things.holds(path)
    assert len(names(things.folder)) == 2  # no lock is left


HOLDER = """
import pathlib, sys
from transfer.storage.locks import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/locks").is_file(), reason="who holds it is not known")
def test_who_is_waited_for_is_said_and_a_stopped_process_not_for_ever(things, monkeypatch, capsys):
    path = things.path("a")
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(locks, "TELL_SECONDS", 0.0)
    monkeypatch.setattr(locks, "STOPPED_SECONDS", 0.5)
    environment = {**os.environ, "PYTHONPATH": str(Path(transfer.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            holder.send_signal(signal.SIGSTOP)
            told = f"process {holder.pid}, stopped"
            with console.speaking(), pytest.raises(InputError, match=f"{told} has held its lock"):
                with things.locked(path):
                    pass
            assert capsys.readouterr().out.splitlines() == [
                f"Waiting for {told}, which is making {path}"
            ]
        finally:
            holder.kill()
    with things.locked(path):  # of a process that is gone
        pass


@LINKS
def test_a_lock_that_is_a_link_empties_nobodys_file(things, tmp_path):
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    path = things.path("a")
    path.parent.mkdir(parents=True)
    path.with_name(path.name + ".lock").symlink_to(precious)
    with pytest.raises(InputError, match="a link"), things.locked(path):
        pass
    (tmp_path / files.LOCK).symlink_to(precious)
    with pytest.raises(InputError, match="a link"), lock_run(tmp_path):
        pass
    assert precious.read_bytes() == b"mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="may write anywhere")
def test_without_a_place_the_lock_is_an_error(things):
    things.folder.parent.mkdir(parents=True)
    things.folder.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OSError, match="denied"), things.locked(things.path("a")):
        pass


def test_a_file_in_place_of_the_folder_is_an_error(things):
    things.folder.parent.mkdir(parents=True)
    things.folder.write_text("in the way")
    with pytest.raises(OSError, match="File exists"), things.locked(things.path("a")):
        pass


ODD_PLACES = {
    "a pipe": os.mkfifo,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": os.mkdir,
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("what", ODD_PLACES)
def test_what_is_no_file_is_told_and_never_waited_for(tmp_path, what):
    path = tmp_path / "x.json"
    ODD_PLACES[what](path)
    with pytest.raises(InputError, match="cannot be read"):
        read_json(path)


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": ' * 100_000,
        b'{"a": 1, "b": {"c": 1, "c": 2}}',
        b"\xff\xfe{}",
        b'{"a": ' + b"9" * 10_000 + b"}",
        b" " * (MOST_JSON_BYTES + 1),
        b"[1]",
    ],
)
def test_json_of_a_stranger_is_an_object_or_one_line(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as raised:
        read_json(path)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 500


def test_json_from_windows_is_read(tmp_path):
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert read_json(tmp_path / "x.json") == {"a": 1}


@given(st.text())
def test_a_cell_is_no_formula_and_can_be_had_back(text):
    cell = plain_cell(text)
    assert cell[:1] not in set("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20") and original_cell(cell) == text
    rows = list(csv.reader(io.StringIO(csv_text(["name"], [[text], [-1.5]]), newline="")))
    assert rows[-1] == ["-1.5"]


def test_formulas_of_any_kind_get_an_apostrophe():
    for text in ("=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", "\uff1d1", "'=1", "''@x"):
        assert plain_cell(text) == f"'{text}"
    for text in ("a=1", "'a", "", " =1", "p =1"):
        assert plain_cell(text) == text


def test_a_folders_bytes_are_counted_while_others_write_in_it(tmp_path, monkeypatch):
    for name, size in {"a": 1, "goes/b": 10, "stays/c": 100, "stays/below/d": 1000}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    (tmp_path / "link").symlink_to(tmp_path / "stays", target_is_directory=True)
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    assert folder_bytes(tmp_path) == 1111
    scan = os.scandir

    def scan_after_it_went(place):
        if str(place).endswith("goes"):
            shutil.rmtree(place)
        return scan(place)

    monkeypatch.setattr(os, "scandir", scan_after_it_went)
    assert folder_bytes(tmp_path) == 1101
    assert folder_bytes(tmp_path / "goes") == 0
