"""Contenders that take turns in one process, and what came of them.

A machine whose speed drifts slows all of them alike; what counts is the ratio of the medians.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rich.table import Table

from transfer import console

RATE, SECONDS, PERCENT = "images/s", "s", "% right"
KERAS, TORCH, FASTAI = AGAINST = "keras", "torch", "fastai"  # whom we may be measured against


@dataclass(frozen=True)
class Settings:
    """What all measurements of one command share."""

    backbone: str
    image_size: int  # pixels
    batch_size: int
    repeats: int
    num_images: int  # training and validation images of the recipe, and training of the pipeline
    against: frozenset[str]  # of AGAINST
    steps: int  # timed together as one turn
    head_epochs: int  # of the recipe
    finetune_epochs: int


@dataclass(frozen=True)
class Measurement:
    """The values of each contender, and whom to compare with whom."""

    title: str
    values: dict[str, list[float]]  # contender -> one value a repeat
    pairs: tuple[tuple[str, str], ...]  # (contender, the one it is compared with)
    unit: str = RATE  # or SECONDS, PERCENT
    columns: dict[str, dict[str, str]] = field(default_factory=dict)  # name -> contender -> text
    facts: dict = field(default_factory=dict)  # whatever else belongs into the JSON

    def median(self, name: str) -> float:
        """Returns the median of a contender's values."""
        return statistics.median(self.values[name])

    def times_as_fast(self, name: str, other: str) -> float:
        """Returns how many times as fast a contender is as another one, by their medians."""
        ratio = self.median(name) / self.median(other)
        return ratio if self.unit == RATE else 1 / ratio

    def ratios(self) -> list[tuple[str, str, float]]:
        """Returns contender, other one and ratio of each pair whose contenders took part."""
        return [
            (name, other, self.times_as_fast(name, other))
            for name, other in self.pairs
            if name in self.values and other in self.values
        ]

    def to_json(self) -> dict:
        """Returns everything as plain JSON values."""
        return {
            "title": self.title,
            "unit": self.unit,
            "n": max(len(values) for values in self.values.values()),
            "values": self.values,
            "medians": {name: self.median(name) for name in self.values},
            "times_as_fast": [
                {"contender": name, "as": other, "ratio": ratio}
                for name, other, ratio in self.ratios()
            ],
            **self.facts,
        }


def take_turns(
    contenders: Mapping[str, Callable[[], int]], repeats: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Lets contenders work in turn and returns their rates.

    Args:
        contenders: functions that do a piece of work and return how many images it was.
        repeats: turns that are timed.
        warm_up: turns before them that are not.

    Returns:
        images/s of each contender, one value a repeat.
    """
    for work in contenders.values():
        for _ in range(warm_up):
            work()
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, work in contenders.items():
            started = time.perf_counter()
            num_images = work()
            rates[name].append(num_images / (time.perf_counter() - started))
    return rates


def print_measurement(measurement: Measurement) -> None:
    """Prints the median and range of each contender, and then the ratios."""
    console.show(measurement.title, style="bold")
    table = Table()
    table.add_column("way")
    for name in (measurement.unit, "from", "to", *measurement.columns):
        table.add_column(name, justify="right")
    for name, values in measurement.values.items():
        numbers = (measurement.median(name), min(values), max(values))
        others = [column.get(name, "") for column in measurement.columns.values()]
        table.add_row(name, *(_write(number) for number in numbers), *others)
    console.show(table)
    for name, other, ratio in measurement.ratios():
        console.show(f"  {ratio:5.2f} times as fast: {name}; than {other}")
    console.say()


def _write(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}"
