"""What was measured before: a file with one line of JSON a run, which the next is compared with.

Kept are the ratios to Keras's own way in the same run: a machine that is slower today slows both.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transfer.errors import InputError, disk_error

AGAINST = "Keras"  # the contenders whose ratios are kept have it in their names


def describe(results: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the line of a run.

    Args:
        results: as `python -m benchmarks --output` writes them.
        settings: sizes; only runs with the same ones are compared.
    """
    ratios = {
        f"{part}: {pair['contender']} / {pair['as']}": pair["ratio"]
        for part, measurement in results["measurements"].items()
        for pair in measurement["times_as_fast"]
        if AGAINST in pair["as"]
    }
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {name: results["machine"][name] for name in ("processor", "cores")},
        "versions": results["machine"]["versions"],
        "settings": dict(settings),
        "ratios": ratios,
    }


def compare(path: Path, entry: Mapping[str, Any]) -> list[str]:
    """Returns a line for each ratio that the last such run on this machine had too.

    Args:
        path: of the file, which may be missing.
        entry: the line of this run, as `describe` makes it.

    Raises:
        InputError: the file holds something else.
    """
    before = [one for one in _read(path) if _is_like(one, entry)]
    if not before:
        return []
    last = before[-1]
    return [
        f"{name}: {ratio:.2f}, {last['ratios'][name]:.2f} on {last['when'][:10]} "
        f"({100 * (ratio / last['ratios'][name] - 1):+.0f} %)"
        for name, ratio in entry["ratios"].items()
        if last["ratios"].get(name)
    ]


def note(path: Path, entry: Mapping[str, Any]) -> None:
    """Adds the line of a run to the file.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise InputError(f"--history {path}: {disk_error(error, path) or error}.") from error


def _is_like(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one["machine"] == other["machine"] and one["settings"] == other["settings"]


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        entries = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for entry in entries:
            entry["machine"], entry["settings"], entry["when"][:10], dict(entry["ratios"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--history {path} should hold a line of JSON for each run. Received: {error}."
        ) from error
    return entries
