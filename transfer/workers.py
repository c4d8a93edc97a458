"""Several processes that train together: who starts them, watches them, and says how they ended.

The process that the user starts computes nothing. It starts one worker, or with
`--local-processes` several, and when one of them dies, whatever it died of, it ends the others and
says in one line how to go on. A worker learns its place from the variables that
`keras.distribution.initialize` reads. Nothing here imports Keras.
"""

import contextlib
import importlib.util
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from transfer.errors import InputError, Interrupted

LOST = 75  # exit code of a worker whose fellows are gone; EX_TEMPFAIL of sysexits.h
_WORKER = "TRANSFER_WORKER"  # "quiet" or "loud" in a worker's environment
_AGAIN = "TRANSFER_WORKER_OPTIONS"  # that start the same processes again
_ADDRESSES, _COUNT, _NUMBER = (
    f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
)
_POLL_SECONDS = 0.1
_TOGETHER_SECONDS = 2.0  # within which others fail for the same reason
_END_SECONDS = 10.0  # that workers have to obey a signal
_HALTED_SECONDS = 15.0  # after which a worker that stands still (SIGSTOP) is gone
_TOLD = (1, 2, 128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes of those who said why


@dataclass(frozen=True)
class Place:
    """A process among those that train together."""

    coordinator: str  # HOST:PORT of the first process
    num_processes: int
    process: int  # from 0

    def environment(self) -> dict[str, str]:
        """Returns the variables that tell a worker its place."""
        return {
            _ADDRESSES: self.coordinator,
            _COUNT: str(self.num_processes),
            _NUMBER: str(self.process),
        }


def is_worker() -> bool:
    """Returns whether this process is one that another one watches."""
    return _WORKER in os.environ


def begin() -> None:
    """Makes a worker end with the process that watches it, and lets nobody else use its streams.

    What libraries print in C++, about connections and lost ones, is for --verbose alone.
    """
    if not is_worker():
        return
    threading.Thread(target=_end_with_watcher, daemon=True).start()
    if os.environ[_WORKER] == "loud":
        return
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        stream.flush()
        own = os.dup(stream.fileno())
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        setattr(sys, name, open(own, "w", buffering=1, encoding=stream.encoding))  # noqa: SIM115


def _end_with_watcher() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os._exit(LOST)


def options_again() -> list[str]:
    """Returns the options that start the same processes again; none of a single process."""
    return shlex.split(os.environ.get(_AGAIN, ""))


def read_place(environment: Mapping[str, str]) -> Place | None:
    """Returns the place that Keras's variables tell, or those of a step of SLURM's; None without.

    Raises:
        InputError: some are missing, or make no sense.
    """
    names = (_ADDRESSES, _COUNT, _NUMBER)
    given = [environment.get(name, "") for name in names]
    if not any(given):
        return _read_slurm(environment)
    missing = [name for name, value in zip(names, given, strict=True) if not value]
    if missing:
        raise InputError(f"{' and '.join(missing)} should be set too, as {names[0]} is, or none.")
    return make_place(given[0].split(",")[0], given[1], given[2], names=names)


def _read_slurm(environment: Mapping[str, str]) -> Place | None:
    # Of a step, which `srun` starts: what stands in a batch script alone is one process.
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
    job, nodes, count, number = (environment.get(name, "") for name in names)
    if not (job.isdigit() and nodes and number) or count in ("", "1"):
        return None
    # As JAX reads them: "node[001-004,007],other" begins with node001.
    first, bracket, rest = nodes.partition("[")
    host = first + rest.replace("]", ",").replace("-", ",").split(",")[0]
    host = host if bracket and "," not in first else nodes.split(",")[0]
    return make_place(f"{host}:{int(job) % 4096 + 61440}", count, number, names=names[1:])


def make_place(
    coordinator: str,
    num_processes: str | int,
    process: str | int,
    names: Sequence[str] = ("--coordinator", "--num-processes", "--process-id"),
) -> Place:
    """Returns a place whose parts make sense.

    Args:
        coordinator: HOST:PORT.
        num_processes: how many.
        process: number of this one.
        names: what the user calls the three.

    Raises:
        InputError: they make none.
    """
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(f"{names[0]} should be HOST:PORT. Received: {coordinator!r}.")
    if not str(num_processes).isdigit() or not 0 < int(num_processes) <= 10_000:
        raise InputError(f"{names[1]} should be from 1 to 10,000. Received: {num_processes!r}.")
    if not str(process).isdigit() or int(process) >= int(num_processes):
        raise InputError(
            f"{names[2]} should be from 0 to {int(num_processes) - 1}. Received: {process!r}."
        )
    return Place(coordinator, int(num_processes), int(process))


def local_places(count: int) -> list[Place]:
    """Returns places of so many processes on this machine, which others do not reach."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [Place(f"127.0.0.1:{port}", count, number) for number in range(count)]


def run_workers(
    command: Sequence[str],
    places: Sequence[Place],
    options: Sequence[str],
    how_to_go_on: Callable[[], str],
    *,
    verbose: bool = False,
) -> int:
    """Runs a command in each of the places and returns the exit code of all together.

    The output of the first is this process's. When one ends badly the others are ended.

    Args:
        command: program and arguments.
        places: of the workers that are started here.
        options: that start the same processes again.
        how_to_go_on: returns what ends the line about a worker that died.
        verbose: let the libraries' log through.

    Raises:
        InputError: JAX is not installed, another backend is asked for, or a worker died.
        Interrupted: Ctrl-C or SIGTERM came, and they are ended.
    """
    _check_backend()
    with contextlib.ExitStack() as stack:
        own = {_WORKER: "loud" if verbose else "quiet", _AGAIN: shlex.join(options)}
        workers = [stack.enter_context(_worker(command, place, own)) for place in places]
        try:
            failed = _wait(workers)
        except Interrupted as stop:
            _pass_on(stop.number, workers)
            if workers[0].code() in _TOLD[2:]:
                return workers[0].code()  # which has said how to go on
            raise
        if failed is None:
            return 0
        code = failed.code()
        if code in _TOLD:
            failed.show_errors()
            return code
        told = failed.tell_end()
    raise InputError(f"{told}, and the others were ended. {how_to_go_on()}")


def _check_backend() -> None:
    backend = os.environ.get("KERAS_BACKEND") or "jax"
    if backend != "jax":
        raise InputError(
            "several processes train together on JAX alone: leave KERAS_BACKEND out, or set it to "
            f"jax. Received: {backend}."
        )
    if importlib.util.find_spec("jax") is None:
        raise InputError(
            "several processes train together on JAX, which is not installed: run "
            "`pip install 'transfer[distributed]'`."
        )


class _Worker:
    def __init__(self, place: Place, process: subprocess.Popen, errors: IO[bytes] | None) -> None:
        self.place, self.process, self._errors = place, process, errors

    def code(self) -> int:
        code = self.process.poll()
        return 0 if code is None else code

    def is_halted(self) -> bool:
        # Which its fellows notice too, but not before all have met.
        if self.process.poll() is not None or not hasattr(os, "waitid"):  # not on every system
            return False
        how = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.process.pid, how) is not None

    def has_told(self) -> bool:
        # What it ended with stands on the user's standard error.
        return self._errors is None and self.code() in _TOLD

    def tell_end(self) -> str:
        code, name = self.code(), f"process {self.place.process} of {self.place.num_processes}"
        if self.is_halted():
            return f"{name} was halted (SIGSTOP) for {_HALTED_SECONDS:.0f} seconds"
        if code == LOST or code == -signal.SIGABRT:  # which is how JAX ends where it misses one
            return "another process is gone" if self.place.process else f"{name} misses another"
        if code < 0:
            return f"{name} was killed ({signal.Signals(-code).name})"
        return f"{name} ended with exit code {code}"

    def show_errors(self) -> None:
        # Of all but the first, whose errors are shown at once.
        if self._errors is not None:
            self._errors.seek(0)
            sys.stderr.write(self._errors.read().decode(errors="replace"))


@contextlib.contextmanager
def _worker(command: Sequence[str], place: Place, own: Mapping[str, str]) -> Iterator[_Worker]:
    environment = {**os.environ, **place.environment(), "KERAS_BACKEND": "jax", **own}
    if sys.stdout.isatty():  # as wide as the terminal, which the worker does not see
        environment["COLUMNS"] = str(shutil.get_terminal_size().columns)
    is_first = place.process == 0
    errors = None if is_first or own[_WORKER] == "loud" else tempfile.TemporaryFile()
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,  # at whose end the worker ends
        stdout=None if is_first else subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,  # Ctrl-C comes by way of this process
    )
    try:
        yield _Worker(place, process, errors)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if errors:
            errors.close()


def _wait(workers: Sequence[_Worker]) -> _Worker | None:
    """Returns the worker that failed, None when all have ended well."""
    halted_polls = 0  # in a row; where this process was halted as well, it does not count on
    while True:
        ended = [worker for worker in workers if worker.process.poll() is not None]
        failed = [worker for worker in ended if worker.code()]
        if failed:
            return _first_cause(workers, failed)
        if len(ended) == len(workers):
            return None
        halted = [worker for worker in workers if worker.is_halted()]
        halted_polls = halted_polls + 1 if halted else 0
        if halted_polls * _POLL_SECONDS > _HALTED_SECONDS:
            return halted[0]
        time.sleep(_POLL_SECONDS)


def _first_cause(workers: Sequence[_Worker], failed: list[_Worker]) -> _Worker:
    # Who misses another ends as soon as that one, and is not what a user wants to hear of.
    def is_consequence(worker: _Worker) -> bool:
        return worker.code() in (0, LOST, -signal.SIGABRT)

    deadline = time.monotonic() + _TOGETHER_SECONDS
    while time.monotonic() < deadline and not failed[0].has_told():
        time.sleep(_POLL_SECONDS)
        failed = [worker for worker in workers if worker.process.poll()]
    return min(failed, key=is_consequence)


def _pass_on(number: int, workers: Sequence[_Worker]) -> None:
    # To the first alone: the others wait for it in their next step, and go with this process.
    workers[0].process.send_signal(number)
    with contextlib.suppress(subprocess.TimeoutExpired):
        workers[0].process.wait(_END_SECONDS)


def command_of_worker() -> list[str]:
    """Returns what starts this command again, as the user did."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return [sys.executable, "-m", "transfer", *sys.argv[1:]]
    return [sys.executable, *sys.argv]
