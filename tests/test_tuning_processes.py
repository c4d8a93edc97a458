"""Calls in processes of their own: what comes back, and what ends with what."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from transfer.errors import InputError
from transfer.tuning import processes
from transfer.tuning.processes import Died, Processes


@pytest.fixture(autouse=True)
def nothing_computed(monkeypatch):
    """Other tests of this process have; what is forked here does not compute."""
    monkeypatch.setattr(processes, "has_computed", lambda: False)


def own_process():
    return os.getpid()


def what_is_shared():
    return processes.shared


def refuse():
    raise InputError("no, because of this")


def refuse_oddly():
    raise type("Odd", (Exception,), {})("cannot be pickled")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_and_say(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def test_each_call_has_a_process_and_what_is_shared():
    before = processes.shared
    with Processes() as calls:
        calls.share({"data": list(range(100_000))})
        first, second = calls.call(own_process), calls.call(own_process)
        assert len({first, second, os.getpid()}) == 3
        assert calls.call(what_is_shared)["data"][-1] == 99_999
    assert processes.shared is before


def test_what_a_call_raises_is_raised_and_a_killed_one_is_told():
    with Processes() as calls:
        with pytest.raises(InputError, match="no, because of this"):
            calls.call(refuse)
        with pytest.raises(RuntimeError, match="Odd: cannot be pickled"):
            calls.call(refuse_oddly)
        with pytest.raises(Died, match=r"its process died \(SIGKILL\)"):
            calls.call(die)
        assert calls.call(own_process)  # and the next one is well


def call_forever(path):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    with Processes() as calls:
        calls.call(sleep_and_say, path)


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(process_id):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process_id}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_when_the_search_ends_what_it_ran_ends(tmp_path, number):
    path = tmp_path / "pid"
    search = multiprocessing.get_context("fork").Process(target=call_forever, args=(path,))
    search.start()
    wait_until(lambda: path.exists() and path.read_text())
    child = int(path.read_text())
    assert is_alive(child)
    os.kill(search.pid, number)
    search.join(60)
    wait_until(lambda: not is_alive(child))


def test_without_fork_calls_run_here(monkeypatch):
    monkeypatch.setattr(processes, "_HAS_FORK", False)
    monkeypatch.setattr(processes, "shared", None)
    freed = []
    monkeypatch.setattr(processes, "_free_memory", lambda: freed.append(True))
    with Processes() as calls:
        calls.share(3)
        assert calls.call(own_process) == os.getpid() and calls.call(what_is_shared) == 3
    assert len(freed) == 2


def test_after_a_computation_calls_run_here(monkeypatch):
    monkeypatch.setattr(processes, "has_computed", lambda: True)
    monkeypatch.setattr(processes, "_free_memory", lambda: None)
    with Processes() as calls:
        assert calls.call(own_process) == os.getpid()
