"""What "auto" means in a training run, once it is known what the backbone starts from.

Small pure functions of the settings and the weights.
"""

import dataclasses
from typing import Any

from transfer.config import Config
from transfer.data.geometry import Geometry
from transfer.errors import InputError
from transfer.models.backbones import get_backbone
from transfer.models.head import LAST, MULTI, choose_hidden_units
from transfer.models.pretrained import BUNDLED, FASHION
from transfer.models.weights import PHOTOS, Weights

# Low for weights that know photographs, so that what they know is not lost at once. Fractals are
# further from a user's images: after two epochs on 10,000 images of Fashion-MNIST at 64 pixels
# 3e-4 gave 88.5 % on the validation images, 1e-4 the same, 1e-3 86.7 %.
FINETUNE_LEARNING_RATES = {BUNDLED: 3e-4, FASHION: 3e-4}
OTHER_FINETUNE_LEARNING_RATE = 1e-4


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


def choose_finetune_learning_rate(config: Config, weights: Weights) -> float:
    """Returns the learning rate that "auto" means.

    For pretrained weights by their kind, for random weights the backbone's own rate; ten times
    that for SGD, whose steps are not normalised as Adam's are.
    """
    rate = get_backbone(config.backbone).scratch_learning_rate
    if weights.pretrained:
        rate = FINETUNE_LEARNING_RATES.get(weights.name, OTHER_FINETUNE_LEARNING_RATE)
    return rate * 10 if config.optimizer == "sgd" else rate
