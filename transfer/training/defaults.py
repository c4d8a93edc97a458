"""What "auto" means in a training run, and what suits few images, and many.

Small pure functions of the settings, the weights and the number of images, as the rule of BiT
(https://github.com/google-research/big_transfer, bit_hyperrule.py) is.
"""

import dataclasses
from collections.abc import Container
from typing import Any

from transfer.config import Config
from transfer.data.geometry import Geometry
from transfer.errors import InputError
from transfer.models.backbones import get_backbone
from transfer.models.head import LAST, MULTI, choose_hidden_units
from transfer.models.pretrained import BUNDLED, FASHION
from transfer.models.weights import NONE, PHOTOS, Weights
from transfer.training.optimizers import PLATEAU

# Low for weights that know photographs, so that what they know is not lost at once. Fractals are
# further from a user's images: after two epochs on 10,000 images of Fashion-MNIST at 64 pixels
# 3e-4 gave 88.5 % on the validation images, 1e-4 the same, 1e-3 86.7 %.
FINETUNE_LEARNING_RATES = {BUNDLED: 3e-4, FASHION: 3e-4}
OTHER_FINETUNE_LEARNING_RATE = 1e-4
# A cosine ends low and so begins higher: docs/training.md has what was measured. No higher than
# from scratch, where VGG16, which has no BatchNorm, bears 1e-4.
COSINE_FINETUNE_LEARNING_RATE = 3e-4


# Of few images an epoch of 128 at a time is a handful of steps, and five of them teach little:
# docs/training.md has what was measured.
FEW = 2_000  # training images, fewer than these
_FOR_FEW_IMAGES: dict[str, Any] = {"batch_size": 32, "head_epochs": 20, "finetune_epochs": 10}
_FOR_FEW_PHOTOS: dict[str, Any] = _FOR_FEW_IMAGES | {"smallest_crop_fraction": 0.35}

# A few epochs of so many are long enough for a schedule of their own, and too few for a plateau.
# The lowest blocks, which see the images at their largest, take a third of a step, and to train
# them gains nothing that can be told. Smoothed labels keep the network from learning
# by heart.
MANY = 30_000  # training images, or more
_FOR_MANY_IMAGES: dict[str, Any] = {
    "unfreeze": 0.7,
    "label_smoothing": 0.1,
    "optimizer": "adamw",
    "schedule": "cosine",
    "warm_up_fraction": 0.1,
    "rotation_degrees": 5.0,
    "zoom_fraction": 0.05,
    "translation_fraction": 0.05,
}


def suit_size(config: Config, num_images: int, channels: int, given: Container[str]) -> Config:
    """Returns the settings with those that the user left open suited to the number of images.

    Args:
        config: the settings.
        num_images: number of training images.
        channels: of the images, 1 or 3.
        given: names of the settings that the user gave, which stay.
    """
    suited = _choose_for_size(config, num_images, channels)
    return dataclasses.replace(
        config, **{name: value for name, value in suited.items() if name not in given}
    )


def _choose_for_size(config: Config, num_images: int, channels: int) -> dict[str, Any]:
    if get_backbone(config.backbone).channels == 1:  # it has a recipe of its own
        return {}
    if num_images < FEW:
        return _FOR_FEW_PHOTOS if channels == 3 and config.finetune_epochs else _FOR_FEW_IMAGES
    is_finetuned = config.finetune_epochs and config.weights != NONE
    return _FOR_MANY_IMAGES if num_images >= MANY and is_finetuned else {}


def shows_mirror_images_to_head(config: Config, num_images: int) -> bool:
    """Returns whether the head phase learns from the images' mirror images too.

    They cost it a second pass of the frozen backbone. Fine-tuning sees them anyhow: after it 10,000
    images of Fashion-MNIST, seeds 0 to 2, came to 92.21 % of the validation images without that
    pass and to 92.19 % with it. Few images cost little.

    Args:
        config: uses `flip` and `finetune_epochs`.
        num_images: number of training images.
    """
    return config.flip and (not config.finetune_epochs or num_images < FEW)


def settle(config: Config, weights: Weights, geometry: Geometry | None = None) -> Config:
    """Returns the settings with every "auto" replaced that depends on weights or images.

    A random backbone has no head phase (frozen, it would teach nothing), and all of it trains,
    BatchNorm included.

    Args:
        config: the settings.
        weights: what the backbone starts from.
        geometry: of the decoded images; None where they are not known yet.

    Raises:
        InputError: nothing would be trained.
    """
    if not weights.pretrained and not config.finetune_epochs:
        raise InputError(
            "--finetune-epochs is 0 and there are no pretrained weights: a frozen random backbone "
            "teaches nothing. Give --finetune-epochs, or --weights."
        )
    settled: dict[str, Any] = {
        "finetune_learning_rate": config.finetune_learning_rate,
        "head_features": config.head_features,
    }
    chosen: dict[str, Any] = {
        "finetune_learning_rate": choose_finetune_learning_rate(config, weights),
        "head_features": MULTI if weights.name in (PHOTOS, BUNDLED, FASHION) else LAST,
    }
    settled = {name: chosen[name] if value == "auto" else value for name, value in settled.items()}
    if geometry:
        settled["fit"] = geometry.fit
    settled["hidden_units"] = choose_hidden_units(dataclasses.replace(config, **settled))
    if not weights.pretrained:
        settled |= {"head_epochs": 0, "unfreeze": "all", "train_batch_norm": True}
        settled |= {"recalibrate_batch_norm": False}
    return dataclasses.replace(config, **settled)


def check_folds(config: Config) -> None:
    """Refuses a cross-validation that would take fine-tuning once a fold.

    Raises:
        InputError: the settings ask for one.
    """
    if config.folds == 1:
        raise InputError("--folds should be from 2 on, or 0 for none. Received: 1.")
    if config.folds and (config.finetune_epochs or not config.head_epochs):
        raise InputError(
            "--folds cross-validates the head alone: give --finetune-epochs 0. Received: "
            f"--head-epochs {config.head_epochs}, --finetune-epochs {config.finetune_epochs}."
        )


def choose_finetune_learning_rate(config: Config, weights: Weights) -> float:
    """Returns the learning rate that "auto" means.

    For pretrained weights by their kind and the schedule, for random weights the backbone's own
    rate; ten times that for SGD, whose steps are not normalised as Adam's are.
    """
    rate = get_backbone(config.backbone).scratch_learning_rate
    if weights.pretrained:
        other = OTHER_FINETUNE_LEARNING_RATE
        if config.schedule != PLATEAU:
            other = min(rate, COSINE_FINETUNE_LEARNING_RATE)
        rate = FINETUNE_LEARNING_RATES.get(weights.name, other)
    return rate * 10 if config.optimizer == "sgd" else rate
