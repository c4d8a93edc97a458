"""A job over more photos than one process answers: every shard of it a file, whole or not at all.

Who takes a shard does not matter: a job array (`--shard I/N`) or an engine. What makes the shards
one job stands beside them: the model, how photos are answered, and the photos themselves. A shard
that is there is done, whoever comes again.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer.deploy.answers import COLUMNS, csv_row
from transfer.deploy.classifiers import Classifier
from transfer.deploy.predict import Answer, PredictOptions, Tally, answer_photos
from transfer.errors import DiskError, InputError
from transfer.storage.atomic import read_json, whole_file, write_atomically, write_json
from transfer.storage.csv_text import csv_text
from transfer.storage.locks import locked

MOST_SHARDS = 1_000_000
_SHARD = re.compile(r"([0-9]{1,7})/([0-9]{1,7})")


@dataclass(frozen=True)
class Shard:
    """A share of the photos: number `index` of `count`, from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"shard {self.index:,} of {self.count:,}"

    def share(self, photos: Sequence[str]) -> list[str]:
        """Returns its photos: of the sorted ones every `count`-th, so that all get as many."""
        return sorted(photos)[self.index - 1 :: self.count]

    def path(self, csv_file: Path) -> Path:
        """Returns its own file: of answers.csv answers-00003-of-00010.csv."""
        stem, suffix = csv_file.stem, csv_file.suffix
        return csv_file.with_name(f"{stem}-{self.index:05d}-of-{self.count:05d}{suffix}")


def parse_shard(text: str) -> Shard:
    """Reads "I/N".

    Raises:
        ValueError: it is none, or not 1 <= I <= N.
    """
    found = _SHARD.fullmatch(text)
    if found and 1 <= int(found[1]) <= int(found[2]) <= MOST_SHARDS:
        return Shard(int(found[1]), int(found[2]))
    raise ValueError(f"should be I/N with 1 <= I <= N <= {MOST_SHARDS:,}. Received: {text!r}.")


def describe_job(
    classifiers: Sequence[Classifier],
    photos: Sequence[str],
    options: PredictOptions,
    num_shards: int,
) -> dict[str, Any]:
    """Returns what all shards of a job have in common, as JSON values.

    Args:
        classifiers: one, or several whose mean is taken.
        photos: of all shards, as they were named.
        options: how they are answered.
        num_shards: how many there are.
    """
    names = "\0".join(sorted(photos)).encode("utf-8", "surrogateescape")
    return {
        **describe_model(classifiers),
        "tta": options.tta,
        "invert": options.invert,
        "photos": len(photos),
        "photos_sha256": _digest(names),
        "shards": num_shards,
    }


def describe_model(classifiers: Sequence[Classifier]) -> dict[str, str]:
    """Returns the names of classifiers, and a SHA-256 of all that they know of themselves."""
    facts = [one.facts.to_json() for one in classifiers]
    return {
        "model": ", ".join(one.facts.name for one in classifiers),
        "model_sha256": _digest(json.dumps(facts, sort_keys=True).encode()),
    }


def join_job(job: dict[str, Any], csv_file: Path) -> None:
    """Keeps what a job is beside its shards, or compares it with what is kept.

    Args:
        job: as `describe_job` tells it.
        csv_file: what the files of the shards are named after.

    Raises:
        InputError: the shards that are there are of another job.
        DiskError: it cannot be written.
    """
    path = csv_file.with_name(f"{csv_file.stem}.job.json")
    try:
        with locked(path):
            if not path.exists():
                write_json(path, job)
    except OSError as error:
        raise DiskError(f"{path} cannot be written: {error.strerror or error}.") from error
    kept = read_json(path)
    for name, value in job.items():
        if kept.get(name) != value:
            raise InputError(
                f"{path} should be of this job, or every shard might have another share. Received: "
                f"one with {_tell(name, kept.get(name))} in place of {_tell(name, value)}; name "
                "another --csv, or remove it and its shards."
            )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _tell(name: str, value: Any) -> str:
    told = str(value)[:16] if name.endswith("sha256") else value
    return f"{name.replace('_', ' ')} {told!r}"


def answer_shard(
    classifiers: Sequence[Classifier],
    photos: Sequence[str],
    options: PredictOptions,
    path: Path,
    tell: Callable[[int], None] = lambda count: None,
) -> Tally | None:
    """Answers for the photos of a shard and writes them; a batch of them is in memory at a time.

    Args:
        classifiers: one, or several whose mean is taken.
        photos: of this shard.
        options: how they are answered.
        path: of its file, which is there when all are answered, and not before.
        tell: called with the number of photos that are done.

    Returns:
        What became of them; None where the file is there already.

    Raises:
        DiskError: the file cannot be written.
    """
    tally = Tally()
    try:
        with locked(path):  # of two that have the same shard the second finds it done
            if path.exists():
                return None
            with whole_file(path) as file:
                for line in _csv_lines(answer_photos(classifiers, photos, options, tell), tally):
                    file.write(line)
    except OSError as error:
        raise DiskError(f"{path} cannot be written: {error.strerror or error}.") from error
    return tally


def shard_bytes(
    classifiers: Sequence[Classifier], photos: Sequence[str], options: PredictOptions, tally: Tally
) -> bytes:
    """Returns what `answer_shard` writes, for whoever writes it elsewhere; counts into a tally."""
    return b"".join(_csv_lines(answer_photos(classifiers, photos, options), tally))


def keep_shard(path: Path, content: bytes) -> None:
    """Writes the file of a shard, where it is not there already.

    Raises:
        DiskError: it cannot be written.
    """
    try:
        with locked(path):
            if not path.exists():
                write_atomically(path, content)
    except OSError as error:
        raise DiskError(f"{path} cannot be written: {error.strerror or error}.") from error


def _csv_lines(answers: Iterator[Answer], tally: Tally) -> Iterator[bytes]:
    # The lines of `answers_csv` one after another, the header first.
    yield _line(COLUMNS)
    for answer in answers:
        tally.add(answer)
        yield _line(csv_row(answer))


def _line(cells: Sequence[Any]) -> bytes:
    return csv_text(cells, ()).encode("utf-8", "surrogateescape")
