"""Checked values out of a JSON object that may come from a stranger.

Whatever a run folder or a search says of itself is taken through here: of its type, within its
bounds, every text printable. What is not is told in one line.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transfer.config import LARGEST_WHOLE_NUMBER, Config, settings
from transfer.errors import InputError, printable, shortened

_LONGEST_TEXT = 20_000  # characters


@dataclass(frozen=True)
class Reader:
    """Takes checked values out of a JSON object.

    Attributes:
        values: the object.
        where: its place, for errors.
    """

    values: Mapping[str, Any]
    where: str

    def refusal(self, key: str, expected: str, received: Any) -> InputError:
        """Returns the error of a value that is not as expected."""
        told = shortened(received)
        return InputError(f"{self.where}, {key}: should be {expected}. Received: {told}.")

    def _take(self, key: str, expected: str, accepts: Callable[[Any], bool]) -> Any:
        value = self.values.get(key)
        if not accepts(value):
            raise self.refusal(key, expected, value)
        return value

    def part(self, key: str) -> "Reader":
        """Returns a reader of an object in this one."""
        value = self._take(key, "an object", lambda value: isinstance(value, dict))
        return Reader(value, f"{self.where}, {key}")

    def config(self, key: str) -> Config:
        """Returns settings, every text made printable but paths: see `path`."""
        known = settings()
        values = {
            name: printable(value)
            if isinstance(value, str) and not (name in known and known[name].is_path)
            else value
            for name, value in self.part(key).values.items()
        }
        try:
            return Config.from_dict(values)
        except InputError as error:
            raise InputError(f"{self.where}, {key}: {error}") from error

    def text(self, key: str) -> str:
        """Returns a text, made printable."""
        expected = f"a text of at most {_LONGEST_TEXT:,} characters"
        return printable(self._take(key, expected, _is_text))

    def path(self, key: str) -> str:
        """Returns a text as it is: only so does it find what it names. Print it in errors alone."""
        return str(self._take(key, f"a text of at most {_LONGEST_TEXT:,} characters", _is_text))

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """Returns one of the words."""
        accepts = lambda value: isinstance(value, str) and value in choices  # noqa: E731
        return str(self._take(key, f"one of {', '.join(choices)}", accepts))

    def texts(self, key: str, *, least: int, most: int) -> tuple[str, ...]:
        """Returns a list of texts, each made printable."""
        expected = f"a list of {least} to {most:,} texts"
        values = self._take(key, expected, lambda value: isinstance(value, list))
        if not (least <= len(values) <= most and all(map(_is_text, values))):
            raise self.refusal(key, expected, f"{len(values):,} values")
        return tuple(map(printable, values))

    def texts_by_name(self, key: str) -> dict[str, str]:
        """Returns an object of texts."""
        inner = self.part(key)
        return {printable(name): inner.text(name) for name in inner.values}

    def counts_by_name(self, key: str) -> dict[str, int]:
        """Returns an object of whole numbers."""
        inner = self.part(key)
        return {printable(name): inner.count(name) for name in inner.values}

    def count(self, key: str, least: int = 0, *, most: int = LARGEST_WHOLE_NUMBER) -> int:
        """Returns a whole number."""

        def accepts(value: Any) -> bool:
            return type(value) is int and least <= value <= most

        return int(self._take(key, f"a whole number from {least} to {most}", accepts))

    def number(self, key: str, *, most: float = sys.float_info.max) -> float:
        """Returns a number from 0; infinity and NaN are none."""

        def accepts(value: Any) -> bool:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return is_number and 0 <= value <= most

        bound = f" to {most:g}" if most < sys.float_info.max else ""
        return float(self._take(key, f"a number from 0{bound}", accepts))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT
