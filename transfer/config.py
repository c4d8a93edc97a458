"""Every setting of a training run, with its default, its bounds and its help, once.

`transfer train` makes a `Config` from its options, `transfer tune` searches over its fields, a run
folder keeps it as JSON. The settings stand in groups, which together make one flat `Config`; the
command line (`commands/options.py`) and the search space (`tuning/space.py`) are made from what
each field says of itself, so an option, its default and its help cannot drift apart.
"""

import dataclasses
import enum
import functools
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from transfer.errors import InputError, shortened
from transfer.recipes import get_recipe
from transfer.storage.atomic import read_json

LARGEST_WHOLE_NUMBER = 2**53  # beyond, JSON's numbers are not exact
HEAD_PHASE, FINETUNE_PHASE = "head", "finetune"  # of a setting that means nothing without it


@dataclass(frozen=True)
class Setting:
    """What a field of `Config` accepts: a number in bounds, a word, a switch or a text."""

    kind: type  # int, float, bool or str
    default: Any  # where the backbone has none of its own
    help: str
    choices: tuple[str, ...] = ()  # the only words accepted
    words: tuple[str, ...] = ()  # words accepted in place of a number
    optional: bool = False  # None is accepted
    minimum: float = -math.inf
    maximum: float = math.inf
    open_minimum: bool = False  # the bound itself is not accepted
    open_maximum: bool = False
    matters_most: bool = False  # stands first in the help
    is_searched: bool = True  # a search may vary it
    is_in_loss: bool = False  # runs that differ in it have losses that cannot be compared
    phase: str = ""  # without this phase it changes nothing
    is_path: bool = False  # a word, or the path of a file or folder

    def normalise(self, value: Any) -> Any:
        """Returns `value` with a word in the case in which it is accepted, and `~` as a home."""
        if self.is_path and isinstance(value, str):
            return os.path.expanduser(value)
        if isinstance(value, str) and value.lower() in (*self.choices, *self.words):
            return value.lower()
        return value

    def check(self, name: str, value: Any) -> None:
        """Raises `InputError`, one line, when `value` is not accepted for field `name`."""
        if (value is None and self.optional) or (isinstance(value, str) and value in self.words):
            return
        if self.choices and value in self.choices:
            return
        if self.choices or not self._accepts(value):
            told = shortened(value) if not isinstance(value, str) else repr(shortened(value))
            is_large = isinstance(value, int) and value > LARGEST_WHOLE_NUMBER
            most = f", at most {LARGEST_WHOLE_NUMBER}" if is_large else ""
            raise InputError(f"{name} should be {self.describe()}{most}. Received: {name}={told}.")

    def _accepts(self, value: Any) -> bool:
        if self.kind in (bool, str):
            return isinstance(value, self.kind)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        if self.kind is int and not isinstance(value, int):
            return False
        if isinstance(value, int) and abs(value) > LARGEST_WHOLE_NUMBER:
            return False
        above = value > self.minimum if self.open_minimum else value >= self.minimum
        below = value < self.maximum if self.open_maximum else value <= self.maximum
        return above and below

    def describe(self) -> str:
        """Returns what is accepted, in words: `a number from 0 to 1 or 'auto'`."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.kind is bool:
            return "true or false"
        if self.kind is str:
            return "a text"
        text = "a whole number" if self.kind is int else "a number"
        return f"{text}{self.describe_bounds()}" + "".join(f" or '{word}'" for word in self.words)

    def describe_bounds(self) -> str:
        """Returns the bounds of a number, in words: ` above 0 to 10`; "" where it has none."""
        text = ""
        if math.isfinite(self.minimum):
            text += f" {'above' if self.open_minimum else 'from'} {_plain(self.minimum)}"
        if math.isfinite(self.maximum):
            text += f" {'below' if self.open_maximum else 'to'} {_plain(self.maximum)}"
        return text


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"


class _Default(enum.Enum):
    """What stands for a default in a `Config` that is being made."""

    OF_THE_BACKBONE = "the backbone's"


def _setting(default: Any, kind: type, help: str, **bounds: Any) -> Any:
    setting = Setting(kind, default, help, **bounds)
    return dataclasses.field(default=_Default.OF_THE_BACKBONE, metadata={"setting": setting})


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which images."""

    data: str = _setting(
        "auto",
        str,
        "auto, fashion-mnist, sample, or the path of an image folder, CSV, npz or IDX folder.",
        matters_most=True,
        is_searched=False,
        is_path=True,
    )
    limit: int | None = _setting(
        None,
        int,
        "Use at most this many images of each split.",
        minimum=1,
        optional=True,
        is_searched=False,
    )
    validation_fraction: float = _setting(
        0.1,
        float,
        "Share of the training images held out for validation.",
        minimum=0,
        maximum=1,
        open_minimum=True,
        open_maximum=True,
        is_searched=False,
    )
    fit: str = _setting(
        "auto",
        str,
        "How images that are not square become so: squash, crop to the middle, or pad with the "
        "edges; auto squashes squares and small gray images and pads photos.",
        choices=("auto", "squash", "crop", "pad"),
        is_searched=False,
    )
    skip_bad_images: bool = _setting(
        False, bool, "Go on without image files that do not decode.", is_searched=False
    )


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What the network is and starts from."""

    # Its choices are the rows of `BACKBONES` (models/backbones.py), which checks the name.
    backbone: str = _setting(
        "mobilenetv2", str, "The pretrained network under the classifier.", matters_most=True
    )
    weights: str = _setting(
        "auto",
        str,
        "auto, imagenet, photos (from a package), bundled (learnt from fractals), fashion (then "
        "from Fashion-MNIST), none (train from scratch), or the path of a weights file.",
        matters_most=True,
        is_searched=False,
        is_path=True,
    )
    image_size: int = _setting(
        96,
        int,
        "Side of the square images the backbone sees, in pixels.",
        minimum=16,
        maximum=1024,
        matters_most=True,
        is_searched=False,
    )
    head_features: str = _setting(
        "auto",
        str,
        "What the head sees of the backbone: its last output, or outputs at several depths.",
        choices=("auto", "last", "multi"),
    )
    hidden_units: int | str = _setting(
        "auto",
        int,
        "Units of a hidden layer in the head, 0 for none; auto suits what the head sees.",
        minimum=0,
        maximum=65_536,
        words=("auto",),
    )
    dropout: float = _setting(
        0.2, float, "Dropout before the last layer.", minimum=0, maximum=1, open_maximum=True
    )
    l2: float = _setting(
        0.0, float, "L2 penalty on the head's kernels.", minimum=0, maximum=10, is_in_loss=True
    )
    recalibrate_batch_norm: bool = _setting(
        False, bool, "Give BatchNorm the statistics of the training images before the first phase."
    )


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the two phases train."""

    head_epochs: int = _setting(
        10,
        int,
        "Epochs of the head phase (frozen backbone); 20 for few images.",
        minimum=0,
        maximum=10_000,
        is_searched=False,
    )
    finetune_epochs: int = _setting(
        5,
        int,
        "Epochs of the fine-tune phase (unfrozen backbone); 10 for few images.",
        minimum=0,
        maximum=10_000,
        matters_most=True,
        is_searched=False,
    )
    small_epochs: int = _setting(
        0,
        int,
        "Epochs that train the unfrozen backbone on smaller, cheaper images before the fine-tune "
        "phase, on one schedule with it.",
        minimum=0,
        maximum=10_000,
        is_searched=False,
        phase=FINETUNE_PHASE,
    )
    small_image_size: int = _setting(
        64,
        int,
        "Side of the images of --small-epochs, in pixels.",
        minimum=32,
        maximum=1024,
        is_searched=False,
        phase=FINETUNE_PHASE,
    )
    folds: int = _setting(
        0,
        int,
        "Cross-validate the head besides, on so many parts of the images; without fine-tuning.",
        minimum=0,
        maximum=100,
        is_searched=False,
    )
    head_learning_rate: float = _setting(
        1e-3,
        float,
        "Learning rate of the head phase.",
        minimum=0,
        maximum=10,
        open_minimum=True,
        phase=HEAD_PHASE,
    )
    finetune_learning_rate: float | str = _setting(
        "auto",
        float,
        "Learning rate of the fine-tune phase; auto suits the backbone, weights and optimizer.",
        minimum=0,
        maximum=10,
        open_minimum=True,
        words=("auto",),
        phase=FINETUNE_PHASE,
    )
    schedule: str = _setting(
        "plateau",
        str,
        "How the learning rate falls: when the validation loss stalls, or along a cosine, as for "
        "many images.",
        choices=("plateau", "cosine"),
    )
    warm_up_fraction: float = _setting(
        0.0,
        float,
        "Share of the steps of a cosine in which the learning rate rises from 0; 0.1 for many "
        "images.",
        minimum=0,
        maximum=1,
        open_maximum=True,
    )
    batch_size: int = _setting(
        128, int, "Images in a training step; 32 for few images.", minimum=1, maximum=65_536
    )
    optimizer: str = _setting(
        "adam",
        str,
        "The optimizer of both phases; adamw for many images.",
        choices=("adam", "adamw", "rmsprop", "sgd"),
    )
    weight_decay: float = _setting(
        0.004,
        float,
        "AdamW's weight decay: what a step takes of the weights, as a share of its learning rate.",
        minimum=0,
        maximum=1,
    )
    ema_momentum: float = _setting(
        0.0,
        float,
        "Keep a moving average of the weights while fine-tuning, such as 0.999; 0 for none.",
        minimum=0,
        maximum=1,
        open_maximum=True,
    )
    label_smoothing: float = _setting(
        0.0,
        float,
        "Share of each label spread over all classes.",
        minimum=0,
        maximum=1,
        open_maximum=True,
        is_in_loss=True,
    )
    class_weights: bool = _setting(
        False,
        bool,
        "Weigh classes inversely to their number of images, also in the validation loss.",
        is_in_loss=True,
    )
    unfreeze: float | str = _setting(
        "all",
        float,
        "all, or the share of the backbone's blocks to fine-tune, counted from the top; 0.7 for "
        "many images.",
        minimum=0,
        maximum=1,
        open_minimum=True,
        words=("all",),
        phase=FINETUNE_PHASE,
    )
    layer_decay: float = _setting(
        1.0,
        float,
        "What the learning rate is multiplied by from a block of the backbone to the one below.",
        minimum=0,
        maximum=1,
        open_minimum=True,
        phase=FINETUNE_PHASE,
    )
    train_batch_norm: bool = _setting(
        False,
        bool,
        "Let BatchNorm learn and update its statistics while fine-tuning.",
        phase=FINETUNE_PHASE,
    )
    plateau_patience: int = _setting(
        2,
        int,
        "Epochs without a better validation loss before the learning rate falls.",
        minimum=1,
        maximum=10_000,
    )
    plateau_factor: float = _setting(
        0.5,
        float,
        "What the learning rate is multiplied by on a plateau.",
        minimum=0,
        maximum=1,
        open_minimum=True,
        open_maximum=True,
    )
    minimum_learning_rate: float = _setting(
        1e-6, float, "The learning rate falls no lower than this.", minimum=0, maximum=10
    )
    early_stopping_patience: int = _setting(
        5,
        int,
        "Epochs without a better validation loss before a phase stops.",
        minimum=1,
        maximum=10_000,
    )


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """What is done to training images at random."""

    rotation_degrees: float = _setting(
        10.0,
        float,
        "Largest random rotation, in degrees, either way.",
        minimum=0,
        maximum=180,
        phase=FINETUNE_PHASE,
    )
    zoom_fraction: float = _setting(
        0.1,
        float,
        "Largest random zoom, as a share of the image, in or out.",
        minimum=0,
        maximum=1,
        open_maximum=True,
        phase=FINETUNE_PHASE,
    )
    translation_fraction: float = _setting(
        0.0,
        float,
        "Largest random shift, as a share of the image.",
        minimum=0,
        maximum=1,
        phase=FINETUNE_PHASE,
    )
    smallest_crop_fraction: float = _setting(
        1.0,
        float,
        "Smallest share of the image's area that a random crop of it shows, 1 for the whole.",
        minimum=0,
        maximum=1,
        open_minimum=True,
        phase=FINETUNE_PHASE,
    )
    flip: bool = _setting(True, bool, "Mirror half of the training images left to right.")
    brightness_fraction: float = _setting(
        0.0,
        float,
        "Largest random change of brightness, as a share, up or down.",
        minimum=0,
        maximum=1,
        phase=FINETUNE_PHASE,
    )
    contrast_fraction: float = _setting(
        0.0,
        float,
        "Largest random change of contrast, as a share, up or down.",
        minimum=0,
        maximum=1,
        phase=FINETUNE_PHASE,
    )
    saturation_fraction: float = _setting(
        0.0,
        float,
        "Largest random change of colours' strength, as a share, up or down.",
        minimum=0,
        maximum=1,
        phase=FINETUNE_PHASE,
    )
    hue_degrees: float = _setting(
        0.0,
        float,
        "Largest random turn of the colour circle, in degrees, either way.",
        minimum=0,
        maximum=180,
        phase=FINETUNE_PHASE,
    )
    erase_probability: float = _setting(
        0.0,
        float,
        "Share of the training images in which a rectangle is replaced by noise.",
        minimum=0,
        maximum=1,
    )
    mixup_alpha: float = _setting(
        0.0,
        float,
        "Mix images and their labels in pairs, shares drawn from Beta(alpha, alpha); 0 for none.",
        minimum=0,
        maximum=10,
        phase=FINETUNE_PHASE,
    )
    cutmix_alpha: float = _setting(
        0.0,
        float,
        "Paste a rectangle of one image into another, its area drawn likewise; 0 for none.",
        minimum=0,
        maximum=10,
        phase=FINETUNE_PHASE,
    )


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How it is computed."""

    seed: int = _setting(
        0, int, "Seed of every random choice.", minimum=0, maximum=2**31 - 1, is_searched=False
    )
    precision: str = _setting(
        "auto",
        str,
        "Number format of the computation; auto picks by backbone and device.",
        choices=("auto", "float32", "bfloat16"),
        is_searched=False,
    )


GROUPS: dict[str, type] = {
    "data": DataSettings,
    "model": ModelSettings,
    "training": TrainingSettings,
    "augmentation": AugmentationSettings,
    "run": RunSettings,
}


@dataclass(frozen=True, kw_only=True)
class Config(RunSettings, AugmentationSettings, TrainingSettings, ModelSettings, DataSettings):
    """The settings of one training run. Immutable; use `dataclasses.replace` to vary it.

    What is not given has the default of the backbone (`recipes.py`), else that of the setting. A
    word is accepted in upper and lower case: `optimizer="AdamW"`.

    Raises:
        InputError: a value is out of its bounds or of the wrong type.
    """

    def __post_init__(self) -> None:
        recipe = self._take_backbone()
        for name, setting in settings().items():
            value = getattr(self, name)
            if value is _Default.OF_THE_BACKBONE:
                value = recipe.get(name, setting.default)
            value = setting.normalise(value)
            setting.check(name, value)
            object.__setattr__(self, name, value)
        if self.head_epochs == 0 and self.finetune_epochs == 0:
            raise InputError(
                "head_epochs and finetune_epochs are both 0: nothing would be trained."
            )
        if self.small_epochs and not self.finetune_epochs:
            raise InputError(
                f"small_epochs is {self.small_epochs} and finetune_epochs 0: the last epoch should "
                "be one of --image-size. Give --finetune-epochs."
            )

    def _take_backbone(self) -> dict[str, Any]:
        # The name decides what the other defaults are.
        name: Any = self.backbone
        if name is _Default.OF_THE_BACKBONE:
            name = settings()["backbone"].default
        if not isinstance(name, str):  # refused with the others
            return {}
        object.__setattr__(self, "backbone", name.lower())
        return get_recipe(self.backbone)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Makes a Config from a dict of some or all fields.

        Raises:
            InputError: an unknown name, or a value that is not accepted.
        """
        unknown = sorted(set(values) - set(settings()))
        if unknown:
            raise InputError(
                f"unknown setting {shortened(unknown[0])!r}; known: {', '.join(settings())}."
            )
        return cls(**values)

    @classmethod
    def from_json(cls, path: Path) -> Self:
        """Reads a Config from a JSON file: a bare object, or a run's config.json.

        Raises:
            InputError: the file cannot be read or holds a value that is not accepted.
        """
        return cls.from_dict(read_settings(path))

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields as plain JSON values."""
        return dataclasses.asdict(self)


def read_settings(path: Path) -> dict[str, Any]:
    """Returns those settings that a JSON file holds: a bare object, or a run's config.json.

    Raises:
        InputError: the file cannot be read or holds a value that is not accepted.
    """
    values = read_json(path)
    if isinstance(values.get("settings"), dict):
        values = values["settings"]
    try:
        config = Config.from_dict(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return {name: getattr(config, name) for name in values}


@functools.cache
def settings() -> dict[str, Setting]:
    """Returns what each field of `Config` accepts, by name, in the order of the groups."""
    return {field.name: field.metadata["setting"] for field in dataclasses.fields(Config)}


@functools.cache
def groups() -> dict[str, tuple[str, ...]]:
    """Returns the names of the settings of each group."""
    return {
        group: tuple(field.name for field in dataclasses.fields(kind))
        for group, kind in GROUPS.items()
    }
