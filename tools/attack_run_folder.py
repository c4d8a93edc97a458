"""Attacks the commands with run folders and searches as a stranger might send them.

    python -m tools.attack_run_folder
    python -m tools.attack_run_folder --only history.csv --jobs 4

A small run is trained and evaluated, another one is stopped half way, and a small search is made.
Of each a copy is changed, one attack at a time, and the command that reads it is called: it must
end in time with exit code 0 or 1, in one line if it is 1, without a traceback, without a control
character on the terminal, within the memory, and with every file beside the folder untouched.
"""

import json
import os
import re
import shutil
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from tests import commands
from tools.kill_training import OPTIONS as TRAIN
from tools.kill_training import add_tiny_backbone, write_inputs
from tools.kill_tuning import OPTIONS as TUNE
from transfer.runs import files

MOST_BYTES = 1_700_000_000  # TensorFlow included
MOST_SECONDS = 300  # beside other work; alone a report of such a run takes 10
RUN, STOPPED, SEARCH = "run", "stopped", "search"
WORDS = {
    RUN: ("evaluate", [RUN, "--report"]),
    STOPPED: ("train", ["--resume", STOPPED]),
    SEARCH: ("tune", [*TUNE, "--tuner", "random", "--trials", "2"]),
    "list": ("transfer/__main__", ["runs", "."]),
}
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
EVIL = "\x1b]0;owned\x07\x1b[2J\u202eabc\x9b31m"
HUGE = int("9" * 4_000)

Attack = Callable[[Path], object]


# --- What may stand in a file's place ---------------------------------------------------------


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    make(path)


PLACES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a file outside": lambda path: path.symlink_to(path.parents[1] / "outside.txt"),
    "a folder": lambda path: path.mkdir(),
    "nothing in it": lambda path: path.write_bytes(b""),
    "bytes that are no UTF-8": lambda path: path.write_bytes(b"\xff\xfe{" * 99),
    "64 MB of nothing": lambda path: path.write_bytes(bytes(64 << 20)),
    "deep brackets": lambda path: path.write_bytes(b'{"a":' * 200_000),
    "7 MB of empty lists": lambda path: path.write_bytes(b"[" + b"[]," * 2_400_000 + b"0]"),
}
FILES = {
    RUN: (
        files.CONFIG,
        files.SUMMARY,
        files.HISTORY,
        files.MODEL,
        files.PREDICTIONS,
        files.VALIDATION_PREDICTIONS,
        files.CALIBRATION,
        files.REPORT,
        files.CARD,
    ),
    STOPPED: (files.CONFIG, files.CHECKPOINTS, files.LOCK, files.HISTORY, files.LOGS),
    SEARCH: ("search.json", "oracle.json", "trial_0000/trial.json", "trials.csv", "lock"),
}


def replaced_files() -> Iterator[tuple[str, str, Attack]]:
    """Yields (target, name, attack): each file of a folder with something else in its place."""
    for target, names in FILES.items():
        for name in names:
            for what, make in PLACES.items():
                yield target, f"{name}: {what}", _at(name, make)
    for name in ("manifest.json", "state.json", "variables.npz"):
        for what in ("a pipe", "a link to /dev/zero", "deep brackets"):
            yield STOPPED, f"checkpoint {name}: {what}", _in_checkpoints(name, PLACES[what])


def _at(name: str, make: Callable[[Path], object]) -> Attack:
    return lambda folder: _replace(_home(folder) / name, make)


def _in_checkpoints(name: str, make: Callable[[Path], object]) -> Attack:
    def attack(folder: Path) -> None:
        for path in folder.glob(f"{files.CHECKPOINTS}/*/{name}"):
            _replace(path, make)

    return attack


def _home(folder: Path) -> Path:
    # A search's own folder lies in tuning/.
    found = list(folder.glob("*/oracle.json"))
    return found[0].parent if found else folder


# --- Values that are none ---------------------------------------------------------------------

VALUES: dict[str, Any] = {
    "a huge number": HUGE,
    "a large exponent": float("inf"),
    "not a number": float("nan"),
    "null": None,
    "a text that moves the cursor": EVIL,
    "a negative number": -1,
    "a nested list": [[[[]]]],
    "an object": {"a": {}},
    "true": True,
}
KEYS = {
    (RUN, files.CONFIG): (
        "settings.batch_size settings.limit settings.backbone settings.seed settings.data "
        "settled.hidden_units settled.head_features data.name data.location data.num_images.test "
        "data.class_names data.fingerprints.test data.geometry weights.name precision versions "
        "command started repeats"
    ),
    (RUN, files.SUMMARY): "phases phases.head.val_loss phases.head.best_epoch seconds sha256",
    (SEARCH, "oracle.json"): (
        "start_order end_order ongoing_trials run_times retry_queue seed seed_state tried_so_far "
        "hyperparameters display"
    ),
    (SEARCH, "trial_0000/trial.json"): "trial_id hyperparameters.values score status message",
}


def odd_values() -> Iterator[tuple[str, str, Attack]]:
    """Yields (target, name, attack): each value of a JSON file with another in its place."""
    for (target, name), keys in KEYS.items():
        for key in keys.split():
            for what, value in VALUES.items():
                yield target, f"{name}, {key}: {what}", _setting(name, key, value)
    yield RUN, "config.json: 4,900 classes", _many_classes(4_900)
    yield RUN, "config.json: 40,000 classes", _many_classes(40_000)
    yield (
        RUN,
        "config.json: repeats of 1e9",
        _setting(files.CONFIG, "repeats", {"first_seed": 0, "count": 10**9}),
    )
    yield (
        RUN,
        "config.json: 65,536 hidden units",
        _setting(files.CONFIG, "settled.hidden_units", 65_536),
    )
    yield (
        RUN,
        "config.json: a key twice",
        lambda folder: (folder / files.CONFIG).write_text(
            '{"data": {}, ' + (folder / files.CONFIG).read_text()[1:]
        ),
    )


def _setting(name: str, key: str, value: Any) -> Attack:
    def attack(folder: Path) -> None:
        path = _home(folder) / name
        values = json.loads(path.read_text())
        *parts, last = key.split(".")
        inner = values
        for part in parts:
            inner = inner[part]
        inner[last] = value
        path.write_text(json.dumps(values))

    return attack


def _many_classes(count: int) -> Attack:
    def attack(folder: Path) -> None:
        _setting(files.CONFIG, "data.class_names", [f"c{i}" for i in range(count)])(folder)
        y_prob = np.zeros((61, count), np.float32)
        y_prob[:, 0] = 1
        np.savez_compressed(folder / files.PREDICTIONS, y_true=np.arange(61), y_prob=y_prob)

    return attack


# --- Archives and tables ----------------------------------------------------------------------


def odd_contents() -> Iterator[tuple[str, str, Attack]]:
    """Yields (target, name, attack): predictions, histories and checkpoints made to harm."""
    for what, arrays in _PREDICTIONS.items():
        yield RUN, f"predictions.npz: {what}", _predictions(arrays)
    yield RUN, "predictions.npz: a bomb of 20 GB", _bomb
    for what, row in _ROWS.items():
        yield RUN, f"history.csv: {what}", _history(row)
    for what, change in _STATES.items():
        yield STOPPED, f"checkpoint state: {what}", _state(change)
    yield STOPPED, "checkpoint variables: giant shapes", _variables(_giant)
    yield (
        STOPPED,
        "checkpoint variables: texts",
        _variables(lambda path: np.savez(path, **{"model/0": np.array(["a"])})),
    )
    yield (
        STOPPED,
        "checkpoint variables: a best of another shape",
        _variables(lambda path: np.savez(path, **dict(np.load(path)), **{"best/0": np.zeros(3)})),
    )


_PREDICTIONS: dict[str, dict[str, np.ndarray]] = {
    "not a number": {"y_true": np.zeros(61, int), "y_prob": np.full((61, 2), np.nan)},
    "texts": {"y_true": np.array(["a"] * 61), "y_prob": np.array([["a", "b"]] * 61)},
    "labels beyond the classes": {"y_true": np.full(61, 9), "y_prob": np.full((61, 2), 0.5)},
    "other images": {"y_true": np.zeros(5, int), "y_prob": np.full((5, 2), 0.5)},
    "no image": {"y_true": np.zeros(0, int), "y_prob": np.zeros((0, 2))},
    "scalars": {"y_true": np.array(1), "y_prob": np.array(0.5)},
    "complex numbers": {"y_true": np.zeros(61, int), "y_prob": np.full((61, 2), 0.5j)},
}
_ROWS = {
    "a formula and a cursor": f"=1+1{EVIL},1,0.5,0.5,0.5,0.5,0.1,1",
    "mathtext": "$x^{2$,1,0.5,0.5,0.5,0.5,0.1,1",
    "huge numbers": "head,1,1e999,0.5,-1e999,nan,1e308,1",
    "too many cells": "head,1,0.5,0.5,0.5,0.5,0.1,1,9,9",
    "an open quote": '"head,1,0.5',
    "a huge epoch": f"head,{HUGE},0.5,0.5,0.5,0.5,0.1,1",
}
_STATES: dict[str, dict[str, Any]] = {
    "an epoch that is a text": {"epoch": "1"},
    "another epoch": {"epoch": 10**9},
    "a phase of no kind": {"phase": EVIL},
    "callbacks that set anything": {"callbacks": {"EarlyStopping": {"__class__": 1}}},
    "a callback of no kind": {"callbacks": {"os": {"system": 1}}},
    "a patience that is a list": {"callbacks": {"EarlyStopping": {"wait": []}}},
    "a history of texts": {"history": ["a"]},
    "a row without a phase": {"history": [{"epoch": 1}]},
    "seconds that never end": {"seconds": 1e308},
    "a key too many": {"more": 1},
}


def _predictions(arrays: dict[str, np.ndarray]) -> Attack:
    values: dict[str, Any] = dict(arrays)
    return lambda folder: np.savez_compressed(folder / files.PREDICTIONS, **values)


def _bomb(folder: Path) -> None:
    path = folder / files.PREDICTIONS
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, shape in (("y_true", (61,)), ("y_prob", (10**9, 2))):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": "<f8", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                for _ in range(500):  # of the 16 GB that the header promises
                    member.write(bytes(1 << 20))


def _history(row: str) -> Attack:
    def attack(folder: Path) -> None:
        path = folder / files.HISTORY
        path.write_text(f"{path.read_text().splitlines()[0]}\n{row}\n")

    return attack


def _state(change: dict[str, Any]) -> Attack:
    def attack(folder: Path) -> None:
        for path in _checkpoints(folder):
            state = json.loads((path / "state.json").read_text()) | change
            (path / "state.json").write_text(json.dumps(state))
            _sign(path)

    return attack


def _variables(write: Callable[[Path], object]) -> Attack:
    def attack(folder: Path) -> None:
        for path in _checkpoints(folder):
            write(path / "variables.npz")
            _sign(path)

    return attack


def _giant(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive, archive.open("model/0.npy", "w") as member:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        np.lib.format.write_array_header_1_0(member, header)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / files.CHECKPOINTS).glob("[0-9]-*"))


def _sign(path: Path) -> None:
    from transfer.training.checkpoint import _checksums

    (path / "manifest.json").write_text(json.dumps(_checksums(path)))


# --- Trying them ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came of an attack; `problem` is "" where it was held."""

    target: str
    name: str
    code: int | None
    seconds: float
    num_bytes: int
    told: str
    problem: str


def prepare(folder: Path) -> None:
    """Makes what is attacked: a finished run, a stopped one and a search.

    Args:
        folder: an empty folder.
    """
    write_inputs(folder)
    steps = (
        ("train", [*TRAIN, "--run-dir", RUN], add_tiny_backbone),
        ("evaluate", [RUN, "--report"], add_tiny_backbone),
        ("train", [*TRAIN, "--run-dir", STOPPED], _stopped_half_way),
        ("tune", [*TUNE, "--tuner", "random", "--trials", "1"], add_tiny_backbone),
    )
    for script, words, before in steps:
        output = folder / "prepared.txt"
        process = commands.start(script, words, folder, output, before)
        process.join()
    (folder / "tuning").rename(folder / SEARCH)
    (folder / "outside.txt").write_text("untouched")


def _stopped_half_way() -> None:
    add_tiny_backbone()
    from transfer.training import checkpoint

    write = checkpoint.write_checkpoint

    def write_and_die(folder: Path, state: Any, variables: Any) -> Path:
        path = write(folder, state, variables)
        if state.phase != "head":
            os._exit(9)
        return path

    checkpoint.write_checkpoint = write_and_die


def attack(prepared: Path, target: str, name: str, change: Attack) -> list[Outcome]:
    """Changes a copy and calls every command that reads it.

    Args:
        prepared: as `prepare` left it.
        target: what is attacked.
        name: of the attack.
        change: makes it.
    """
    outcomes = []
    for command in [target, "list"] if target == RUN else [target]:
        with tempfile.TemporaryDirectory() as root:
            place = Path(root) / "work"
            shutil.copytree(prepared, place, ignore=shutil.ignore_patterns("*.txt"))
            shutil.copy(prepared / "outside.txt", place)
            change(place / target)
            if target == SEARCH:
                (place / SEARCH).rename(place / "tuning")
            outcomes.append(_call(place, command, name))
    return outcomes


def _call(place: Path, command: str, name: str) -> Outcome:
    script, words = WORDS[command]
    output, errors = place.parent / "out", place.parent / "err"
    started, most = time.monotonic(), 0
    process = commands.start(script, words, place, output, add_tiny_backbone, errors)
    while process.is_alive() and time.monotonic() - started < MOST_SECONDS:
        most = max(most, _most_bytes(process.pid))
        process.join(0.02)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    seconds = time.monotonic() - started
    out, err = (
        path.read_text(errors="replace") if path.exists() else "" for path in (output, errors)
    )
    untouched = (place / "outside.txt").read_text() == "untouched"
    problem = _problem(code, out, err, most, untouched)
    return Outcome(command, name, code, seconds, most, err.strip(), problem)


def _problem(code: int | None, out: str, err: str, num_bytes: int, untouched: bool) -> str:
    if code is None:
        return f"still running after {MOST_SECONDS} s"
    if code not in (0, 1):
        return f"exit code {code}"
    if "Traceback" in out + err:
        return "a traceback"
    if CONTROLS.search(out + err):
        return "a control character"
    if code == 1 and len(err.strip().splitlines()) != 1:
        return f"{len(err.strip().splitlines())} lines of errors"
    if num_bytes > MOST_BYTES:
        return f"{num_bytes / 1e9:.1f} GB"
    return "" if untouched else "a file outside was changed"


def _most_bytes(pid: int | None) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return 1024 * int(found[1]) if found else 0


def attacks() -> list[tuple[str, str, Attack]]:
    """Returns all of them: (target, name, attack)."""
    return [*replaced_files(), *odd_values(), *odd_contents()]


def print_table(outcomes: list[Outcome]) -> None:
    """Prints how many attacks each command saw, what it made of them, and the worst of them."""
    print("| command | attacks | held | refused in one line | longest | most memory |")
    print("|:--|--:|--:|--:|--:|--:|")
    for command in dict.fromkeys(one.target for one in outcomes):
        own = [one for one in outcomes if one.target == command]
        held, codes = sum(not one.problem for one in own), Counter(one.code for one in own)
        longest, most = max(one.seconds for one in own), max(one.num_bytes for one in own)
        script, words = WORDS[command]
        shown = f"`runs {words[-1]}`" if command == "list" else f"`{script}` on a {command}"
        print(f"| {shown} | {len(own)} | {held} | {codes[1]} ", end="")
        print(f"| {longest:.0f} s | {most / 1e9:.2f} GB |")


@click.command()
@click.option("--only", default="", help="Attacks whose name has this text.")
@click.option("--every", default=1, show_default=True, help="Every n-th attack alone.")
@click.option("--jobs", default=2, show_default=True, help="Attacks at a time.")
def main(only: str, every: int, jobs: int) -> None:
    """Tries all attacks; exits with 1 where one was not held."""
    chosen = [each for each in attacks() if only in f"{each[0]} {each[1]}"][::every]
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as root, ThreadPoolExecutor(jobs) as pool:
        os.environ |= {"TRANSFER_OFFLINE": "1", "KERAS_HOME": str(Path(root) / "keras")}
        prepared = Path(root) / "prepared"
        prepared.mkdir()
        prepare(prepared)
        try:
            for done in pool.map(lambda each: attack(prepared, *each), chosen):
                outcomes += done
                for outcome in done:
                    _tell(outcome)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
    print_table(outcomes)
    sys.exit(any(one.problem for one in outcomes))


def _tell(outcome: Outcome) -> None:
    told = f"{outcome.problem}: {outcome.told[-300:]}" if outcome.problem else "held"
    line = f"{outcome.target}: {outcome.name}: exit {outcome.code}, {outcome.seconds:.1f} s"
    print(f"{line}, {told}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
