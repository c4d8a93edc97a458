"""The shards of a job on the machines of a Ray cluster, by Ray Data.

A worker opens the model once and answers for one shard after another; this process alone writes
them, each whole or not at all, so that what comes out needs no folder in common. A worker that dies
loses the shard that it had, which another takes; this process when it dies loses the shards that
were not written yet, and finds the others done when it comes again.
"""

import contextlib
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from transfer.deploy.choices import INCLUDED
from transfer.deploy.classifiers import Classifier
from transfer.deploy.formats import quietly
from transfer.deploy.opening import open_fastest
from transfer.deploy.photos import is_inside
from transfer.deploy.predict import PredictOptions, Tally
from transfer.deploy.shards import Shard, describe_model, keep_shard, shard_bytes
from transfer.errors import InputError
from transfer.storage.remote import is_url

LOOPBACK = "127.0.0.1"
LOCAL = "local"  # an address: a cluster of this machine alone, for as long as the command runs
SHARD_PHOTOS = 10_000
# No statistics are sent to anybody, and a worker keeps what it sees of accelerators.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
# As Ray does by itself on Windows and macOS: nothing listens but on 127.0.0.1. Its token for this
# cluster alone; Ray itself would leave one in the user's home, for all clusters to come.
_LOCAL_SETTINGS = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}
_CONNECT_SECONDS = 10
_NEEDS = "pip install 'transfer[ray]'"


@dataclass(frozen=True)
class Work:
    """What a worker is told of a job.

    Attributes:
        models: as the user named them, absolute; every machine must have them there.
        options: how photos are answered.
        model: what `describe_model` said of them where the job began.
    """

    models: tuple[str, ...]
    options: PredictOptions
    model: Mapping[str, Any]


class Worker:
    """Answers for shards: one of these lives in each process that Ray starts."""

    def __init__(self) -> None:
        """Opens nothing yet: of what fails here Ray would say no more than that a worker died."""
        self.classifiers: list[Classifier] = []

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a shard's file as bytes and what became of its photos, or why there is none."""
        work, tally = row["work"], Tally()
        content, error = b"", ""
        try:
            self.classifiers = self.classifiers or _open(work)
            content = shard_bytes(self.classifiers, row["photos"], work.options, tally)
        except InputError as told:  # other shards go on
            error = str(told)
        return {"index": row["index"], "content": content, "error": error, "tally": asdict(tally)}


def _open(work: Work) -> list[Classifier]:
    classifiers = [open_fastest(model) for model in work.models]
    found = describe_model(classifiers)
    if found != work.model:
        raise InputError(
            "every machine should have the same model and version of transfer. Received: "
            f"{found} beside {dict(work.model)}."
        )
    return classifiers


def absolute(name: str) -> str:
    """Returns a path as other machines understand it; URLs and "included" as they are."""
    return name if name == INCLUDED or is_url(name) else os.path.abspath(name)


def divide(paths: Sequence[str]) -> dict[Shard, list[str]]:
    """Returns the shards of a job with their photos: one a file of records, or so many photos.

    Args:
        paths: of photos, and of files of records.
    """
    num_files = sum(map(is_inside, paths))
    count = max(1, num_files, -(-(len(paths) - num_files) // SHARD_PHOTOS))
    shards = [Shard(index, count) for index in range(1, count + 1)]
    in_order = sorted(paths)
    return {shard: in_order[shard.index - 1 :: count] for shard in shards}


@contextlib.contextmanager
def connected(address: str) -> Iterator[int]:
    """Joins a Ray cluster, and yields how many processors it has.

    Args:
        address: "local"; "auto", for the one that runs on this machine; HOST:PORT of its head, or
            ray://HOST:PORT.

    Raises:
        InputError: Ray is missing, or no cluster answers there.
    """
    _check_address(address)
    for name, value in (_SETTINGS | (_LOCAL_SETTINGS if address == LOCAL else {})).items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise InputError(f"--ray needs Ray; run `{_NEEDS}`.") from error
    try:
        with quietly(), _own_signals():
            options = {"include_dashboard": False} if address == LOCAL else {}
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:  # Ray has many
        raise _no_cluster(address, _reason(error)) from error
    try:
        if address == LOCAL and (host := ray.util.get_node_ip_address()) != LOOPBACK:
            raise InputError(
                f"--ray local should listen on {LOOPBACK} alone. Received: {host}; Ray was "
                "imported before it could be told."
            )
        yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    # Ray would end the process with words of its own.
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _check_address(address: str) -> None:
    # Ray itself waits for minutes.
    if address in (LOCAL, "auto"):
        return
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        if not (parts.hostname and parts.port and parts.scheme in ("", "ray")):
            raise ValueError("it is none of these")
        socket.create_connection((parts.hostname, parts.port), _CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise _no_cluster(address, str(error)) from error


def _reason(error: BaseException) -> str:
    chain: BaseException | None = error
    while chain is not None:
        if "InvalidAuthToken" in str(chain):
            return (
                "it wants a token; set RAY_AUTH_MODE=token, and have the token of its head in "
                "RAY_AUTH_TOKEN or ~/.ray/auth_token"
            )
        chain = chain.__cause__ or chain.__context__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _no_cluster(address: str, reason: str) -> InputError:
    return InputError(
        "--ray should be local, auto, or the HOST:PORT of a Ray cluster's head. Received: "
        f"{address!r}, where none answers: {reason[:200].rstrip('.')}."
    )


@dataclass(frozen=True)
class Outcome:
    """What became of a shard: its photos, or why it has no file."""

    shard: Shard
    tally: Tally
    error: str = ""


def answer_on_ray(
    work: Work,
    shards: Mapping[Shard, Sequence[str]],
    csv_file: Path,
    num_workers: int,
    tell: Callable[[int], None] = lambda count: None,
) -> Iterator[Outcome]:
    """Yields what became of each shard, as soon as its file is there.

    Args:
        work: what workers are told.
        shards: those that are to be done, with their photos.
        csv_file: what their files are named after.
        num_workers: processes, each with a model.
        tell: called with the number of photos that are done.

    Raises:
        InputError: Ray cannot go on.
        DiskError: a file cannot be written.
    """
    done = 0
    count = next(iter(shards)).count
    for row in _rows(work, shards, num_workers):
        outcome = Outcome(Shard(row["index"], count), Tally(**row["tally"]), row["error"])
        if not outcome.error:
            keep_shard(outcome.shard.path(csv_file), row["content"])
            done += outcome.tally.photos
            tell(done)
        yield outcome


def _rows(
    work: Work, shards: Mapping[Shard, Sequence[str]], num_workers: int
) -> Iterator[dict[str, Any]]:
    # What workers return, in the order in which they are ready.
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it logs it raises as well
    rows = [
        {"index": one.index, "photos": list(photos), "work": work} for one, photos in shards.items()
    ]
    most = min(num_workers, len(rows))
    pool = ray.data.ActorPoolStrategy(min_size=1, initial_size=most, max_size=most)
    data = ray.data.from_items(rows, override_num_blocks=len(rows))  # one shard, one task
    try:
        yield from data.map(Worker, compute=pool).iter_rows()
    except Exception as error:  # Ray has many
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(
            f"Ray cannot go on: {(lines or [type(error).__name__])[-1][:500].rstrip('.')}; shards "
            "that are there stay, and the same command goes on."
        ) from error
