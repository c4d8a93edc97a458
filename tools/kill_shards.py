"""Kills predictions in shards again and again and shows that no finished shard is lost or doubled.

    python -m tools.kill_shards --kills 20

A job of many small shards is killed with SIGKILL at random moments and begun again by the same
command, over and over, until it is done; then the next one. In turn it is a job array of which a
process is killed, a job on Ray of which a worker is killed, and one of which the driver is. After
each kill every file of a shard that is there must be whole, and one that was there before must be
the same file still; each finished job must have every photo once, with the answers of one that was
never killed.
"""

import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

ARRAY, WORKER, DRIVER = "array", "worker", "driver"
SHARDS, SHARD_PHOTOS = 8, 60
MOST_SECONDS = 180  # of one command; then it hangs
REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass
class Tally:
    """What happened so far."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys((ARRAY, WORKER, DRIVER), 0))
    jobs: int = 0
    lost_shards: int = 0
    written_twice: int = 0
    half_written: int = 0
    different: int = 0
    hung: int = 0

    @property
    def bad(self) -> bool:
        """Whether anything was lost."""
        return bool(
            self.lost_shards + self.written_twice + self.half_written + self.different + self.hung
        )


def write_model(path: Path, side: int = 8) -> None:
    """Writes a small LiteRT model of two classes, as `transfer export` writes one."""
    import keras

    from transfer.data.geometry import Geometry
    from transfer.deploy.choices import LITERT, NONE
    from transfer.deploy.facts import ModelFacts
    from transfer.deploy.formats import add_facts, write_export

    image = keras.Input((side, side, 3), dtype="uint8", name="image")
    level = keras.ops.mean(keras.ops.cast(image, "float32"), axis=(1, 2, 3)) / 255
    level = keras.ops.expand_dims(level, 1)
    y_prob = keras.ops.concatenate([level, 1 - level], axis=1)
    graph = keras.Model(image, {"y_prob": y_prob, "distance": level})
    written = write_export(graph, LITERT, NONE, np.zeros((1, side, side, 3), np.uint8), path.parent)
    facts = ModelFacts("levels", ("light", "dark"), Geometry(side, side, 1))
    add_facts(LITERT, written, facts)
    written.replace(path)


def write_photos(folder: Path, num_photos: int) -> None:
    """Writes photos of one gray level each."""
    from PIL import Image

    folder.mkdir()
    for number in range(num_photos):
        Image.new("L", (8, 8), number % 256).save(folder / f"{number:05d}.png")


def kill_jobs(folder: Path, kills: int, seed: int) -> Tally:
    """Kills jobs until `kills` of them happened, finishes the last one, and counts.

    Args:
        folder: an empty folder to work in.
        kills: how many.
        seed: of the moments.
    """
    generator, tally = random.Random(seed), Tally()
    write_model(folder / "model.tflite")
    write_photos(folder / "photos", SHARDS * SHARD_PHOTOS)
    expected = _finish_undisturbed(folder)
    while sum(tally.kills.values()) < kills:
        kind = (ARRAY, WORKER, DRIVER)[tally.jobs % 3]
        out = folder / f"job{tally.jobs}" / "answers.csv"
        out.parent.mkdir()
        _run_job(folder, out, kind, kills, generator, tally)
        tally.jobs += 1
        tally.different += read_shards(out) != expected
    return tally


def _finish_undisturbed(folder: Path) -> list[dict[str, str]]:
    out = folder / "undisturbed" / "answers.csv"
    out.parent.mkdir()
    _wait(_start(folder, out, "--shard", "1/1"))
    return read_shards(out)


def _run_job(
    folder: Path, out: Path, kind: str, kills: int, generator: random.Random, tally: Tally
) -> None:
    words = [("--shard", f"{n}/{SHARDS}") for n in range(1, SHARDS + 1)]
    for one in words if kind == ARRAY else [("--ray", "local")]:
        while not _is_done(out, one):
            before = _shards(out)
            process = _start(folder, out, *one)
            if sum(tally.kills.values()) < kills:
                _kill(process, kind, out, generator, tally)
            tally.hung += not _wait(process)
            _compare(before, out, tally)


def _start(folder: Path, out: Path, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tools.shards_job", "predict", folder / "model.tflite"]
    command += [folder / "photos", "--csv", out, *words]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _kill(
    process: subprocess.Popen, kind: str, out: Path, generator: random.Random, tally: Tally
) -> None:
    # At a random moment after its first shard, or before where it is a job array's.
    if kind == ARRAY:
        time.sleep(generator.uniform(0, 2))
    else:
        had = len(_shards(out))
        _wait_until(process, lambda: len(_shards(out)) > had)
        time.sleep(generator.uniform(0, 0.5))
    victims = [process.pid] if kind != WORKER else _workers(process)
    for victim in victims[:1]:
        if process.poll() is None:
            os.kill(victim, signal.SIGKILL)
            tally.kills[kind] += 1
    if kind == DRIVER:
        _end_cluster(process)


def _wait_until(process: subprocess.Popen, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + MOST_SECONDS
    while process.poll() is None and not ready() and time.monotonic() < deadline:
        time.sleep(0.01)


def _wait(process: subprocess.Popen) -> bool:
    # Returns False where it hung.
    try:
        process.wait(MOST_SECONDS)
    except subprocess.TimeoutExpired:
        _end_cluster(process)
        return False
    _end_cluster(process)
    return True


def _end_cluster(process: subprocess.Popen) -> None:
    # What the command started, and nobody else's: all of it is in its session.
    for pid in _session(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def _session(leader: int) -> list[int]:
    return [pid for pid, session, _ in _processes() if session == leader]


def _workers(process: subprocess.Popen) -> list[int]:
    # Those that answer: Ray calls its workers by what they do.
    own = [(pid, words) for pid, session, words in _processes() if session == process.pid]
    return [pid for pid, words in own if words.startswith("ray::MapWorker")]


def _processes() -> list[tuple[int, int, str]]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append((int(folder.name), os.getsid(int(folder.name)), words))
            except (OSError, UnicodeDecodeError):
                continue
    return found


def _shards(out: Path) -> dict[str, tuple[int, int]]:
    # Each file of a shard with what tells whether it was written anew.
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in out.parent.glob("answers-*-of-*.csv")
    }


def _is_done(out: Path, words: tuple[str, str]) -> bool:
    if words[0] == "--shard":
        index, count = map(int, words[1].split("/"))
        return f"answers-{index:05d}-of-{count:05d}.csv" in _shards(out)
    return len(_shards(out)) == SHARDS


def _compare(before: dict[str, tuple[int, int]], out: Path, tally: Tally) -> None:
    after = _shards(out)
    for name, facts in before.items():
        tally.lost_shards += name not in after
        tally.written_twice += name in after and after[name] != facts
    for name in after:
        rows = len((out.parent / name).read_text().splitlines()) - 1
        tally.half_written += rows != SHARD_PHOTOS


def read_shards(out: Path) -> list[dict[str, str]]:
    """Returns the rows of all shards of a job, sorted by photo."""
    rows = []
    for name in _shards(out):
        with open(out.parent / name, newline="") as file:
            rows += list(csv.DictReader(file))
    return sorted(rows, key=lambda row: row["path"])


@click.command()
@click.option("--kills", default=20, show_default=True, help="How many processes to kill.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
def main(kills: int, seed: int) -> None:
    """Kill predictions in shards at random moments and count what is lost: nothing should be."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_jobs(Path(folder), kills, seed)
    kills_by_kind = {f"kills of {kind}": count for kind, count in tally.kills.items()}
    counts = {name: value for name, value in vars(tally).items() if name != "kills"}
    for name, count in (kills_by_kind | counts).items():
        click.echo(f"{name.replace('_', ' '):>16}  {count:>5}")
    click.echo(f"{'seconds':>16}  {time.perf_counter() - started:>5.0f}")
    sys.exit(tally.bad)


if __name__ == "__main__":
    main()
