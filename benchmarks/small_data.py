"""Few training images: which steps, learning rates and changes of images suit them.

    python -m benchmarks.small_data [--data photos] [--images 100] [--way plain ...] [--seeds 3]

Fashion-MNIST's images are drawn from its training part by seed: so many to learn from, a tenth of
them held out for validation, and 2,000 others to score on; its test images are not read. Those of
`benchmarks/photos.py` come from their own two parts, 20 a class. Every way sees the same images.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np

import transfer
from benchmarks.photos import make_photos
from transfer.commands.exit_codes import run
from transfer.data.geometry import Geometry, fit_pixels
from transfer.formatting import format_spread

SCORED_IMAGES = 2000
PHOTO_SIZE, PHOTOS_A_CLASS = 96, 20
GRAY_SIZE = 64
COLOUR = {
    "brightness_fraction": 0.2,
    "contrast_fraction": 0.2,
    "saturation_fraction": 0.2,
    "hue_degrees": 10,
}
# One recipe to begin with, whatever the defaults are by now.
BASE = {
    "batch_size": 128,
    "head_epochs": 10,
    "finetune_epochs": 5,
    "smallest_crop_fraction": 1.0,
    "optimizer": "adam",
    "schedule": "plateau",
    "finetune_learning_rate": 1e-4,
}
STEPS = {"batch_size": 32, "head_epochs": 20, "finetune_epochs": 10}
CROPS = {"smallest_crop_fraction": 0.35}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "head": {"finetune_epochs": 0},
    "steps": STEPS,
    "steps, colour": STEPS | COLOUR,
    "steps, crops": STEPS | CROPS,
    "steps, both": STEPS | COLOUR | CROPS,
}


def draw(data: str, count: int, seed: int) -> dict[str, np.ndarray]:
    """Returns the images and labels of one repeat as `transfer.train` takes them."""
    if data == "photos":
        geometry = Geometry(PHOTO_SIZE, PHOTO_SIZE, 3, "squash")
        train, test = (make_photos(part, PHOTOS_A_CLASS, seed) for part in ("train", "test"))
        pixels = [[fit_pixels(image, geometry) for image in made.images] for made in (train, test)]
        x_train, x_test = map(np.stack, pixels)
        return {
            "x_train": x_train,
            "y_train": train.labels,
            "x_test": x_test,
            "y_test": test.labels,
        }
    from transfer.datasets.sources import load_undivided

    train = load_undivided("fashion-mnist").train
    order = np.random.default_rng(seed).permutation(train.num_images)
    scored, learnt = order[:SCORED_IMAGES], order[SCORED_IMAGES:][:count]
    return {
        "x_train": train.images[learnt],
        "y_train": train.labels[learnt],
        "x_test": train.images[scored],
        "y_test": train.labels[scored],
    }


def measure(data: str, count: int, way: str, seed: int, weights: str) -> float:
    """Returns the accuracy that one way comes to on images that it has not seen."""
    keras.backend.clear_session()
    with tempfile.TemporaryDirectory() as folder:
        done = transfer.train(
            draw(data, count, seed),
            run_dir=Path(folder) / "run",
            seed=seed,
            weights=weights,
            image_size=PHOTO_SIZE if data == "photos" else GRAY_SIZE,
            **BASE | WAYS[way],
        )
        return done.evaluate().accuracy


@click.command()
@click.option("--data", type=click.Choice(["photos", "fashion-mnist"]), default="photos")
@click.option("--images", type=click.IntRange(50), default=1000, show_default=True)
@click.option("--way", "ways", type=click.Choice(list(WAYS)), multiple=True, default=list(WAYS))
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--weights", default="photos", show_default=True)
@click.option(
    "--kept", type=click.Path(path_type=Path), help="A file of what was measured, to go on with."
)
def main(
    data: str, images: int, ways: tuple[str, ...], seeds: int, weights: str, kept: Path | None
) -> None:
    """Measure ways of training on few images."""
    known = json.loads(kept.read_text()) if kept and kept.is_file() else {}
    size = f"{PHOTOS_A_CLASS} a class" if data == "photos" else f"{images:,} images"
    for way in ways:
        for seed in range(seeds):
            name = f"{data}, {size}, {weights}, {way}, {seed}"
            if name not in known:
                known[name] = measure(data, images, way, seed, weights)
            if kept:
                kept.write_text(json.dumps(known, indent=1))
        found = [known[f"{data}, {size}, {weights}, {way}, {seed}"] for seed in range(seeds)]
        click.echo(f"{data}, {size}, {way}: {format_spread(found)}")


if __name__ == "__main__":
    run(main, "python -m benchmarks.small_data")
