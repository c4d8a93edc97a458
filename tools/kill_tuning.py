"""Kills a search again and again and shows that no finished trial is lost.

    python -m tools.kill_tuning --kills 10

A small search is killed with SIGKILL at random moments and started again with the same command
until it is done; then the next one, with another seed. Every second kill waits until the search
writes down what it knows. After each kill, every trial that had been told of as ended
must be known to the next process, with the same score, and never be trained again.
"""

import json
import random
import re
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import click

from tests import commands
from tools.kill_training import add_tiny_backbone, end, wait_until, write_inputs
from transfer.backend import load_keras

OPTIONS = (
    "--backbone tiny --data stripes.npz --weights none --image-size 32 --finetune-epochs 3 "
    "--offline"
).split()
TRIALS = 6


@dataclass
class Tally:
    """What happened so far."""

    kills: int = 0
    in_a_save: int = 0
    searches: int = 0
    trials: int = 0
    lost_trials: int = 0
    trained_again: int = 0
    broken: int = 0
    hung: int = 0
    told: dict = field(default_factory=dict, repr=False)  # trial -> line, of the present search

    @property
    def bad(self) -> bool:
        """Whether anything was lost."""
        return bool(self.lost_trials or self.trained_again or self.broken or self.hung)


def kill_searches(
    folder: Path, kills: int, seed: int, tuner: str = "hyperband", trials: int = TRIALS
) -> Tally:
    """Kills searches until `kills` of them happened, finishes the last one, and counts.

    Args:
        folder: to work in, empty or with what `write_inputs` writes.
        kills: how many.
        seed: of the moments.
        tuner: the search method.
        trials: of each search.
    """
    generator, tally = random.Random(seed), Tally()
    write_inputs(folder)
    while tally.kills < kills:
        arguments = ["--tuner", tuner, "--trials", trials, "--seed", tally.searches]
        _search_to_the_end(folder, kills, generator, tally, [*OPTIONS, *arguments])
    return tally


def _search_to_the_end(folder: Path, kills: int, generator, tally: Tally, arguments: list) -> None:
    tally.told.clear()
    for attempt in range(100):
        output = folder / f"output-{tally.searches}-{attempt}.txt"
        process = commands.start("tune", arguments, folder, output, add_tiny_backbone)
        if tally.kills < kills:
            _wait(process, output, generator.uniform(0, 3))
            if tally.kills % 2:
                _wait_for_save(process, folder)
                tally.in_a_save += 1
            if process.is_alive():
                process.kill()
                tally.kills += 1
        if not end(process):
            tally.hung += 1
            break
        _check(tally, folder, output)
        if process.exitcode == 0:
            break
        if process.exitcode > 0:  # not killed: an error
            click.echo(output.read_text(), err=True)
            tally.broken += 1
            break
    # As kept, not as told: a kill may come between the two.
    tally.trials += len(_known(folder, tally.searches) or ())
    tally.searches += 1


def _wait(process, output: Path, seconds: float) -> None:
    # Until the search itself has begun, and some time of it.
    wait_until(process, lambda: output.exists() and "Search: " in output.read_text())
    process.join(seconds)


def _wait_for_save(process, folder: Path) -> None:
    # A temporary file of `write_atomically` in a project or one of its trials.
    places = ("tuning/*/.*", "tuning/*/trial_*/.*")
    wait_until(process, lambda: any(any(folder.glob(place)) for place in places))


def _check(tally: Tally, folder: Path, output: Path) -> None:
    text = output.read_text() if output.exists() else ""
    lines = dict(re.findall(r"^(Trial \d+)\b(.*)", text, re.MULTILINE))
    for name, line in lines.items():
        tally.trained_again += name in tally.told
        tally.told[name] = line
    known = _known(folder, tally.searches)
    for name, line in tally.told.items():
        score = re.search(r"accuracy ([\d.]+) %", line)
        if known is None or score is None or known.get(name) != score.group(1):
            click.echo(f"lost: {name}{line}", err=True)
            tally.lost_trials += 1


def _known(folder: Path, search: int) -> dict | None:
    # What the files of the project say, read as they are.
    for path in folder.glob("tuning/*/search.json"):
        if json.loads(path.read_text())["settings"]["seed"] == search:
            trials = [json.loads(p.read_text()) for p in path.parent.glob("trial_*/trial.json")]
            return {
                f"Trial {int(trial['trial_id']) + 1}": f"{100 * trial['score']:.2f}"
                for trial in trials
                if trial["status"] == "COMPLETED"
            }
    return None


@click.command()
@click.option("--kills", default=10, show_default=True, help="How many processes to kill.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
@click.option("--tuner", default="hyperband", show_default=True, help="The search method.")
def main(kills: int, seed: int, tuner: str) -> None:
    """Kill small searches at random moments and count what is lost: nothing should be."""
    load_keras()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_searches(Path(folder), kills, seed, tuner)
    for name, count in vars(tally).items():
        if name != "told":
            click.echo(f"{name.replace('_', ' '):>14}  {count:>5}")
    click.echo(f"{'seconds':>14}  {time.perf_counter() - started:>5.0f}")
    sys.exit(tally.bad)


if __name__ == "__main__":
    main()
