"""The settings of a pretraining."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What a pretraining is; the same settings and backend give the same images and steps.

    The defaults are those of the weights that come with the package. What else was tried stands
    in their card, transfer/models/pretrained/README.md.
    """

    backbone: str = "mobilenetv2"  # a row of BACKBONES
    systems: int = 500  # iterated function systems, each a class
    silhouettes: int = 0  # textured silhouettes, further classes
    renderings: int = 64  # sprites of each class
    instances: int = 1  # most sprites in an image; 1 makes it a single-label task
    curriculum: float = 0.5  # share of the steps over which the images become harder
    image_size: int = 64  # pixels, for most of the schedule
    final_image_size: int = 96  # pixels, for the rest
    final_share: float = 0.08  # share of the steps at the final size
    batch_size: int = 64
    sample_steps: int = 1_000_000  # images seen in all
    learning_rate: float = 2e-3  # the peak of the one cycle
    precision: str = "auto"  # auto, float32 or bfloat16
    seed: int = 0
