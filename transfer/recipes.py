"""What a backbone trains best with, where that is not a setting's own default.

`Config` takes these values where nothing else was asked for. Those that are missing here have the
defaults of `transfer/config.py`, which suit pretrained backbones of 32 pixels and more.
"""

from typing import Any

# Of the networks everybody tries: the images' own size, and no zoom, turn or dropout where their
# authors have none.
_SMALL = {
    "image_size": 28,
    "batch_size": 64,
    "finetune_epochs": 20,
    "schedule": "cosine",
    "dropout": 0.0,
    "rotation_degrees": 0.0,
    "zoom_fraction": 0.0,
}

# What the networks of one or two convolutions learn by heart with Adam at 1e-3 alone.
_CONVOLUTIONS = _SMALL | {
    "batch_size": 128,
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
}

RECIPES: dict[str, dict[str, Any]] = {
    "mlp": _SMALL,
    "cnn32": _CONVOLUTIONS,
    "cnn64": _CONVOLUTIONS,
    "cnn32-64": _CONVOLUTIONS | {"rotation_degrees": 10.0},
    "lenet5": _SMALL | {"batch_size": 128, "finetune_epochs": 30, "dropout": 0.2},
    "resnet9": _SMALL
    | {
        "batch_size": 128,
        "finetune_epochs": 40,
        "optimizer": "adamw",
        "weight_decay": 0.05,
        "label_smoothing": 0.1,
        "translation_fraction": 0.07,
        "erase_probability": 0.5,
        "ema_momentum": 0.995,
        "early_stopping_patience": 40,
    },
}


def get_recipe(backbone: str) -> dict[str, Any]:
    """Returns the settings for which a backbone has a default of its own, by name."""
    return RECIPES.get(backbone, {})
