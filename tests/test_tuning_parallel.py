"""A chief and its workers, in processes of their own, on loopback."""

import contextlib
import json
import re
import shutil
import socket
import threading
import time

import grpc
import pytest
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_chief

from tests import commands
from tests.test_tuning_oracles import make_plan
from tools.kill_training import add_tiny_backbone
from tools.kill_tuning import OPTIONS
from transfer.tuning import parallel
from transfer.tuning.oracles import make_oracle


@pytest.fixture
def folder(command_inputs, tmp_path):
    return shutil.copytree(command_inputs, tmp_path, dirs_exist_ok=True)


def free_address():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def be_impatient():
    add_tiny_backbone()
    from transfer.tuning import parallel

    parallel.ANSWER_SECONDS = 1


def start(folder, address, role, *arguments, options=OPTIONS, prepare=add_tiny_backbone):
    output = folder / f"{role}{''.join(map(str, arguments))}.txt"
    words = [*options, "--tuner", "random", "--role", role, "--address", address, *arguments]
    return commands.start("tune", words, folder, output, prepare), output


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)


def running(folder, worker):
    """Returns the trial that the chief's file says a worker runs."""
    for path in folder.glob("tuning/*/oracle.json"):
        return json.loads(path.read_text())["ongoing_trials"].get(worker)


def test_calls_that_are_never_finished_hold_up_no_other(tmp_path):
    plan = make_plan(tmp_path / "p")
    address, done = free_address(), threading.Event()
    servicer = oracle_chief.OracleServicer(make_oracle(plan, most_trials=3))
    host, _, port = address.rpartition(":")

    def nothing():
        done.wait(60)
        yield from ()

    with contextlib.ExitStack() as stack:
        stack.enter_context(parallel.serving(servicer, address))
        for sent in (b"", b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n"):
            other = stack.enter_context(socket.create_connection((host, int(port))))
            other.sendall(sent)
        channel = stack.enter_context(grpc.insecure_channel(address))
        for _ in range(40):  # headers, and then no message
            call = channel.stream_unary("/keras_tuner.Oracle/CreateTrial").future(nothing())
            stack.callback(call.cancel)
        stub = protos.get_service_grpc().OracleStub(channel)
        answer = stub.GetSpace(protos.get_service().GetSpaceRequest(), timeout=20)
        assert answer.hyperparameters.ByteSize()
        request = protos.get_service().CreateTrialRequest(tuner_id="one")
        assert stub.CreateTrial(request, timeout=20).trial.trial_id == "0000"
        done.set()


def test_a_killed_worker_started_again_runs_its_trial_and_none_is_lost(folder):
    address = free_address()
    chief, told = start(folder, address, "chief", "--trials", 3)
    first, _ = start(folder, address, "worker", "--id", "first")
    second, _ = start(folder, address, "worker", "--id", "second")
    wait_for(lambda: running(folder, "second"), second)
    trial = running(folder, "second")
    second.kill()
    second.join()
    again, _ = start(folder, address, "worker", "--id", "second")
    for process in (chief, first, again):
        process.join(180)
        assert process.exitcode == 0
    text = told.read_text()
    assert f"Chief at {address}, neither encrypted nor authenticated" in text
    assert sorted(re.findall(r"^Trial (\d)\b", text, re.MULTILINE)) == list("123")
    [project] = (folder / "tuning").iterdir()
    rows = (project / "trials.csv").read_text().splitlines()
    column = rows[0].split(",").index("worker")
    workers = {row.split(",")[0]: row.split(",")[column] for row in rows[1:]}
    assert set(workers.values()) == {"first", "second"}
    assert workers[str(int(trial) + 1)] == "second"
    assert (project / "best.json").exists()


def test_a_worker_of_another_search_is_refused(folder):
    address = free_address()
    chief, _ = start(folder, address, "chief", "--trials", 2)
    other = [*OPTIONS, "--limit", "100"]
    worker, told = start(folder, address, "worker", "--id", "other", options=other)
    worker.join(120)
    assert worker.exitcode == 1
    last = told.read_text().splitlines()[-1]
    assert re.match(r"Error: the chief searches tiny-\w+ and this worker tiny-\w+: start", last)
    assert running(folder, "other") is None  # no trial waits for it
    chief.kill()


def test_a_worker_without_a_chief_says_so(folder):
    worker, told = start(folder, free_address(), "worker", "--id", "one", prepare=be_impatient)
    worker.join(120)
    assert worker.exitcode == 1
    assert "did not answer for 1 seconds; start it, then this worker" in told.read_text()
