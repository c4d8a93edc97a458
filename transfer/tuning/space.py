"""What is searched: some fields of `Config`, each with the values it may take.

A space file is one JSON object. The plainest form of each kind:

    {
      "optimizer": "adamw",                                   fixed
      "batch_size": [32, 64, 128],                            one of a list
      "finetune_learning_rate": {"min": 1e-4, "max": 1e-2, "log": true}     a range
    }

Fields that it does not name keep what the search takes by itself.
"""

import dataclasses
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer.config import FINETUNE_PHASE, HEAD_PHASE, Config, Setting, settings
from transfer.errors import InputError
from transfer.storage.atomic import read_json

if TYPE_CHECKING:
    from keras_tuner import HyperParameters

_DIGITS = 4  # significant ones of a number drawn from a range
_GRID_POINTS = 3  # that a grid takes from a range


@dataclass(frozen=True)
class Choices:
    """One value of a list.

    Attributes:
        values: at least two, all different.
    """

    values: tuple

    def accepts(self, value: Any) -> bool:
        """Returns whether `value` is one of the list."""
        return value in self.values

    def nearest(self, value: Any) -> Any:
        """Returns `value` if it is in the list, else the first."""
        return value if value in self.values else self.values[0]

    def grid(self) -> tuple:
        """Returns the values that a grid search takes: all."""
        return self.values

    def to_json(self) -> list:
        """Returns what a space file says of it."""
        return list(self.values)


@dataclass(frozen=True)
class Range:
    """A number between two bounds, both included."""

    minimum: float
    maximum: float
    log: bool = False  # evenly spread in its logarithm

    def accepts(self, value: Any) -> bool:
        """Returns whether `value` is a number within the bounds."""
        return not isinstance(value, (str, bool)) and self.minimum <= value <= self.maximum

    def nearest(self, value: Any) -> float:
        """Returns the number in the range nearest to `value`; its minimum for a word."""
        if isinstance(value, str):
            return self.minimum
        return min(max(value, self.minimum), self.maximum)

    def grid(self) -> tuple[float, ...]:
        """Returns the values that a grid search takes: both ends and the middle."""
        shares = [i / (_GRID_POINTS - 1) for i in range(_GRID_POINTS)]
        return tuple(dict.fromkeys(self._at(share) for share in shares))

    def _at(self, share: float) -> float:
        if self.log:
            value = self.minimum * (self.maximum / self.minimum) ** share
        else:
            value = self.minimum + share * (self.maximum - self.minimum)
        whole = isinstance(self.minimum, int) and isinstance(self.maximum, int)
        return round(value) if whole else self.tidy(value)

    def tidy(self, value: float) -> float:
        """Returns `value` rounded to `_DIGITS` significant digits, still within the bounds."""
        return self.nearest(float(f"{value:.{_DIGITS}g}"))

    def to_json(self) -> dict:
        """Returns what a space file says of it."""
        return {"min": self.minimum, "max": self.maximum} | ({"log": True} if self.log else {})


Space = dict[str, Choices | Range]


def default_space(config: Config, finetune_rates: Iterable[float], *, from_scratch: bool) -> Space:
    """Returns what is searched where the user narrows nothing.

    Learning rates reach from an eighth to eight times what a run would take by itself. Augmentation
    reaches down to none, which suits short schedules.

    Args:
        config: the user's own settings.
        finetune_rates: what "auto" means for each backbone that may be taken.
        from_scratch: there are no pretrained weights: no head phase, all layers train.
    """
    rates = tuple(finetune_rates)
    head_rate = config.head_learning_rate
    sizes: tuple[int, ...] = (32, 64, 128, 256)
    hidden_units: tuple[int, ...] = (0, 64, 128, 256)
    if not config.finetune_epochs:
        # Of 100 heads on several depths those with batches of 128 and 256 units took 2.4 s an
        # epoch, with 512 and 64 0.9 s, and the best with and without were within noise (93.6 and
        # 93.5 %).
        sizes, hidden_units = (256, 512), (0, 64, 128)
    space: Space = {
        "head_learning_rate": Range(head_rate / 8, min(10, head_rate * 8), log=True),
        "finetune_learning_rate": Range(min(rates) / 8, min(10, max(rates) * 8), log=True),
        "schedule": Choices(("plateau", "cosine")),
        "optimizer": Choices(("adam", "adamw", "rmsprop", "sgd")),
        "batch_size": Choices(sizes),
        "dropout": Choices((0.0, 0.1, 0.2, 0.3, 0.5)),
        "l2": Choices((0.0, 1e-5, 1e-4, 1e-3)),
        "label_smoothing": Choices((0.0, 0.05, 0.1)),
        "hidden_units": Choices(hidden_units),
        "unfreeze": Choices((0.25, 0.5, 0.7, "all")),
        "rotation_degrees": Choices((0.0, 5.0, 10.0, 15.0)),
        "zoom_fraction": Choices((0.0, 0.05, 0.1, 0.2)),
        "translation_fraction": Choices((0.0, 0.05, 0.1)),
        "plateau_patience": Choices((1, 2, 3)),
        "plateau_factor": Choices((0.2, 0.35, 0.5)),
    }
    idle = idle_settings(config, from_scratch=from_scratch)
    return {name: dimension for name, dimension in space.items() if name not in idle}


def idle_settings(config: Config, *, from_scratch: bool) -> tuple[str, ...]:
    """Returns the settings that change nothing in any trial of this search."""
    absent = set()
    if from_scratch or not config.head_epochs:
        absent.add(HEAD_PHASE)
    if not config.finetune_epochs:
        absent.add(FINETUNE_PHASE)
    idle = tuple(name for name, setting in settings().items() if setting.phase in absent)
    return idle + (("unfreeze", "train_batch_norm") if from_scratch else ())


def read_space(path: Path) -> dict[str, Any]:
    """Returns what a space file says, as `parse_space`.

    Raises:
        InputError: the file cannot be read, or says something that is not accepted.
    """
    try:
        return parse_space(read_json(path))
    except InputError as error:
        message = str(error)
        raise InputError(message if str(path) in message else f"{path}: {message}") from error


def parse_space(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a space file says.

    Args:
        values: the object in the file.

    Returns:
        For each field that it names a `Choices`, a `Range` or, where it is fixed, its value.

    Raises:
        InputError: it says something that is not accepted.
    """
    return {name: parse_dimension(name, said) for name, said in values.items()}


def parse_dimension(name: str, said: Any) -> Any:
    """Returns what a space file says of one field: a `Choices`, a `Range` or a fixed value.

    Raises:
        InputError: the field is unknown or not searched, or a value is not accepted for it.
    """
    if name not in settings():
        raise InputError(f"unknown setting {name!r}; known: {', '.join(_searchable())}.")
    if not settings()[name].is_searched:
        raise InputError(
            f"{name} is the same for all trials; give it as --{name.replace('_', '-')}."
        )
    setting = settings()[name]
    if isinstance(said, dict):
        return _parse_range(name, setting, said)
    if not isinstance(said, list):
        return _checked(name, setting, said)
    values = tuple(dict.fromkeys(_checked(name, setting, value) for value in said))
    if not values:
        raise InputError(f"{name} should have at least one value to choose. Received: [].")
    return Choices(values) if len(values) > 1 else values[0]


def _parse_range(name: str, setting: Setting, said: Mapping) -> Any:
    expected = f'{name} should be a value, a list, or {{"min": a, "max": b, "log": true or false}}'
    if not {"min", "max"} <= set(said) <= {"min", "max", "log"}:
        raise InputError(f"{expected}. Received: {json.dumps(said)}.")
    if setting.kind in (bool, str):
        raise InputError(f"{name} is no number: list its values. Received: {json.dumps(said)}.")
    low, high = (_checked(name, setting, said[end]) for end in ("min", "max"))
    log = said.get("log", False)
    if not isinstance(log, bool) or isinstance(low, str) or isinstance(high, str):
        raise InputError(f"{expected}. Received: {json.dumps(said)}.")
    if low > high or (log and low <= 0):
        least = "above 0 and " if log else ""
        raise InputError(f"{name}: min should be {least}at most max. Received: {json.dumps(said)}.")
    return Range(low, high, log) if low < high else low


def _checked(name: str, setting: Setting, value: Any) -> Any:
    if isinstance(value, (dict, list)) or value is None:
        raise InputError(f"{name} should be {setting.describe()}. Received: {json.dumps(value)}.")
    if name == "backbone":
        from transfer.models.backbones import get_backbone

        get_backbone(value if isinstance(value, str) else str(value))
    setting.check(name, value)
    # JSON's 1 for a share is 1.0 here, so that it is found among other shares.
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if setting.kind is float and is_number else value


def _searchable() -> list[str]:
    return [name for name, setting in settings().items() if setting.is_searched]


def fix(config: Config, said: Mapping[str, Any]) -> Config:
    """Returns settings with what a space file fixes; of backbones to choose among, the first."""
    fixed = {name: d for name, d in said.items() if not isinstance(d, (Choices, Range))}
    backbones = said.get("backbone")
    if isinstance(backbones, Choices):
        fixed["backbone"] = backbones.nearest(config.backbone)
    return dataclasses.replace(config, **fixed)


def make_space(
    config: Config,
    default: Space,
    said: Mapping[str, Any],
    given: Collection[str],
    *,
    objective: str,
) -> Space:
    """Puts together what is searched: the default, less what the user gave, and the space file.

    Args:
        config: the user's own settings, with what the file fixes.
        default: as `default_space` makes it.
        said: as `parse_space` returns it; wins over all.
        given: settings that the user gave as options: they are kept as given.
        objective: "val_accuracy" or "val_loss".

    Raises:
        InputError: a dimension would make the validation loss something else in each trial, or
            nothing is left to search.
    """
    left_out = set(given)
    # A loss that contains them cannot be compared between trials that differ in them.
    in_loss = [name for name, setting in settings().items() if setting.is_in_loss]
    if objective == "val_loss":
        left_out |= set(in_loss)
    searched = isinstance(said.get("schedule"), Choices) or ("schedule" not in {*given, *said})
    if not searched and config.schedule == "cosine":  # which knows no plateau
        left_out |= {"plateau_patience", "plateau_factor"}
    space = {name: dimension for name, dimension in default.items() if name not in left_out}
    for name, dimension in said.items():
        space.pop(name, None)
        if isinstance(dimension, (Choices, Range)):
            space[name] = dimension
    distorting = [name for name in in_loss if name in space]
    if objective == "val_loss" and distorting:
        raise InputError(
            f"{distorting[0]} is part of the validation loss, which would differ from trial to "
            f"trial: fix {distorting[0]}, or take --objective val_accuracy."
        )
    if not space:
        raise InputError("every setting is given: nothing is left to search. Leave some out.")
    return space


def describe(dimension: Choices | Range) -> str:
    """Returns a dimension in words: "adam, sgd" or "0.001 to 0.1 (log)"."""
    if isinstance(dimension, Choices):
        return ", ".join(map(format_value, dimension.values))
    text = f"{format_value(dimension.minimum)} to {format_value(dimension.maximum)}"
    return f"{text} (log)" if dimension.log else text


def format_value(value: Any) -> str:
    """Returns a setting's value for people: numbers with at most `_DIGITS` digits."""
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)


def to_json(space: Space) -> dict:
    """Returns a space as a space file says it."""
    return {name: dimension.to_json() for name, dimension in space.items()}


def grid_size(space: Space) -> int:
    """Returns the number of combinations in a grid."""
    return math.prod(len(dimension.grid()) for dimension in space.values())


def grid_values(space: Space, number: int) -> dict[str, Any]:
    """Returns one combination of a grid; the last dimension changes first.

    Args:
        space: what is searched.
        number: of the combination, from 0 to `grid_size(space)` - 1.
    """
    values = {}
    for name, dimension in reversed(space.items()):
        number, index = divmod(number, len(dimension.grid()))
        values[name] = dimension.grid()[index]
    return {name: values[name] for name in space}


def grid_number(space: Space, values: Mapping[str, Any]) -> int | None:
    """Returns the number of a combination in a grid, or None if it is not in it."""
    number = 0
    for name, dimension in space.items():
        grid = dimension.grid()
        if values[name] not in grid:
            return None
        number = number * len(grid) + grid.index(values[name])
    return number


# --- KerasTuner's side ------------------------------------------------------------------------


def make_hyperparameters(space: Space, config: Config) -> "HyperParameters":
    """Returns a space as KerasTuner takes it, each dimension's default the user's own value."""
    from keras_tuner import HyperParameters

    hyperparameters = HyperParameters()
    for name, dimension in space.items():
        own = dimension.nearest(getattr(config, name))
        if isinstance(dimension, Choices):
            # As JSON: KerasTuner takes no list of numbers and words.
            texts = [json.dumps(value) for value in dimension.values]
            hyperparameters.Choice(name, texts, ordered=False, default=json.dumps(own))
            continue
        whole = isinstance(dimension.minimum, int) and isinstance(dimension.maximum, int)
        add = hyperparameters.Int if whole else hyperparameters.Float
        add(
            name,
            dimension.minimum,
            dimension.maximum,
            sampling="log" if dimension.log else "linear",
            default=own,
        )
    return hyperparameters


def encode(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values of settings as KerasTuner keeps them; each in the space, or nearest to it."""
    encoded = {}
    for name, dimension in space.items():
        value = dimension.nearest(values[name])
        encoded[name] = json.dumps(value) if isinstance(dimension, Choices) else value
    return encoded


def decode(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that KerasTuner's values mean, numbers rounded to `_DIGITS` digits."""
    decoded = {}
    for name, dimension in space.items():
        value = values[name]
        if isinstance(dimension, Choices):
            decoded[name] = json.loads(value)
        else:
            decoded[name] = dimension.tidy(value) if isinstance(value, float) else value
    return decoded
