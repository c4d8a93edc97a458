"""Predicts in shards on two Ray nodes, each in a network namespace of its own.

    python -m tools.ray_namespaces

As root, on Linux with iproute2: two namespaces are joined by a pair of virtual links, a head with
one processor is started in the one and a node with one in the other, and the command runs beside
the head. What comes out must be what one process answers, and both nodes must be in the cluster.
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from tools.kill_shards import REPOSITORY, SHARD_PHOTOS, read_shards, write_model, write_photos

HEAD, NODE = "10.87.65.1", "10.87.65.2"
PORT = 6399
NUM_SHARDS = 24


@contextlib.contextmanager
def two_namespaces() -> Iterator[tuple[str, str]]:
    """Yields the names of two network namespaces that see each other and nothing else."""
    names = f"shards{os.getpid()}a", f"shards{os.getpid()}b"
    links = [f"sh{os.getpid() % 100_000}{end}" for end in "ab"]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", links[0], "type", "veth", "peer", "name", links[1])
        for name, link, address in zip(names, links, (HEAD, NODE), strict=True):
            _ip("link", "set", link, "netns", name)
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", link)
            for one in (link, "lo"):
                _ip("-n", name, "link", "set", one, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def ray_node(namespace: str, folder: Path, address: str, *words: str) -> Iterator[None]:
    """Runs a node of Ray with one processor in a namespace, and ends it with what it started."""
    process = _start(
        namespace,
        [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "1"]
        + ["--node-ip-address", address, "--disable-usage-stats", *words],
        folder / f"{address}.txt",
    )
    try:
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


def _start(namespace: str, words: list[str], output: Path) -> subprocess.Popen:
    with open(output, "wb") as file:
        return subprocess.Popen(
            ["ip", "netns", "exec", namespace, *words],
            cwd=REPOSITORY,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def _predict(namespace: str, folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "tools.kill_shards_job", "predict", folder / "model.tflite"]
    command += [folder / "photos", "--csv", *words]
    finished = subprocess.run(
        ["ip", "netns", "exec", namespace, *map(str, command)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
    )
    if finished.returncode:
        raise click.ClickException(finished.stderr or finished.stdout)
    return finished.stdout


@click.command()
def main() -> None:
    """Predict on two nodes in network namespaces and compare with one process."""
    with tempfile.TemporaryDirectory() as name, two_namespaces() as (head, node):
        folder = Path(name)
        write_model(folder / "model.tflite")
        write_photos(folder / "photos", NUM_SHARDS * SHARD_PHOTOS)
        for one in ("alone", "ray"):
            (folder / one).mkdir()
        _predict(head, folder, str(folder / "alone/a.csv"), "--shard", "1/1")
        begin = ["--head", "--port", str(PORT), "--include-dashboard", "false"]
        with (
            ray_node(head, folder, HEAD, *begin),
            _after(20),
            ray_node(node, folder, NODE, "--address", f"{HEAD}:{PORT}"),
            _after(15),
        ):
            told = _predict(head, folder, str(folder / "ray/a.csv"), "--ray", f"{HEAD}:{PORT}")
        click.echo(told.strip())
        same = read_shards(folder / "ray/a.csv") == read_shards(folder / "alone/a.csv")
        processors = re.search(r"(\d+) processors", told)
        click.echo(f"the same answers: {same}; processors: {processors and processors[1]}")
        sys.exit(not same or not processors or processors[1] != "2")


@contextlib.contextmanager
def _after(seconds: float) -> Iterator[None]:
    time.sleep(seconds)
    yield


if __name__ == "__main__":
    main()
