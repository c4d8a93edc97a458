"""Times one step of training and of inference in the ways they can be done.

    python -m benchmarks [--backbone mobilenetv2] [--image-size 96] [--repeats 5]

The ways take turns in one process, so that a machine whose speed drifts slows all of them;
what counts is the ratio of the medians.
"""

import json
import statistics
import time
from collections.abc import Callable

import click

from transfer import cli
from transfer.models.backbones import BACKBONES

STEPS = 3  # timed together, once a repeat


@click.command()
@click.option("--backbone", type=click.Choice(list(BACKBONES)), default="mobilenetv2")
@click.option("--image-size", type=click.IntRange(32), default=96, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=128, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def main(backbone: str, image_size: int, batch_size: int, repeats: int, as_json: bool) -> None:
    """Measure images/s of training and inference steps on this machine."""
    cli.load_tensorflow(verbose=False)
    ways = make_ways(backbone, image_size, batch_size)
    rates = measure(ways, batch_size, repeats)
    if as_json:
        click.echo(json.dumps(rates, indent=2))
        return
    console = cli.make_console(quiet=False)
    console.print(
        f"{backbone}, {image_size} pixels, batch {batch_size}, "
        f"median of {repeats} x {STEPS} steps in turn",
        highlight=False,
    )
    for kind in ("training", "inference"):
        stock = statistics.median(rates[f"{kind}: as Keras builds it"])
        for name, values in rates.items():
            if name.startswith(kind):
                rate = statistics.median(values)
                console.print(
                    f"{name:45} {rate:8,.0f} images/s  {rate / stock:5.2f} x  "
                    f"({min(values):,.0f} to {max(values):,.0f})",
                    highlight=False,
                )


def make_ways(backbone: str, image_size: int, batch_size: int) -> dict[str, Callable[[], None]]:
    """Returns a function for each way, that runs one step on a batch that stays in memory."""
    import numpy as np
    import tensorflow as tf

    from transfer.models.backbones import build_backbone
    from transfer.models.folding import fold_classifier
    from transfer.models.normalization import freeze_batch_norm, fuse_batch_norm

    generator = np.random.default_rng(0)
    shape = (batch_size, image_size, image_size, 3)
    images = tf.constant(generator.uniform(0, 255, shape).astype(np.float32))
    labels = tf.one_hot(generator.integers(0, 10, batch_size), 10)

    def training(network, train_batch_norm: bool) -> Callable[[], None]:
        model = _compiled(network, backbone, image_size, train_batch_norm)
        return lambda: model.train_on_batch(images, labels)

    def inference(model) -> Callable[[], None]:
        forward = tf.function(lambda batch: model(batch, training=False))
        return lambda: forward(images)

    stock = _compiled(build_backbone(backbone, image_size), backbone, image_size, False)
    fused = fuse_batch_norm(build_backbone(backbone, image_size))
    return {
        "training: as Keras builds it": training(build_backbone(backbone, image_size), True),
        "training: fused BatchNorm (from scratch)": training(fused, True),
        "training: BatchNorm frozen, as Keras does": training(
            build_backbone(backbone, image_size), False
        ),
        "training: BatchNorm frozen (fine-tuning)": training(
            freeze_batch_norm(build_backbone(backbone, image_size)), False
        ),
        "inference: as Keras builds it": inference(stock),
        "inference: BatchNorm folded": inference(fold_classifier(stock)),
    }


def _compiled(network, backbone: str, image_size: int, train_batch_norm: bool):
    from transfer.config import Config
    from transfer.models.classifier import build_classifier, unfreeze_backbone

    config = Config(backbone=backbone, image_size=image_size)
    model = build_classifier(config, network, 10, train_batch_norm=train_batch_norm)
    unfreeze_backbone(backbone, network, "all", train_batch_norm=train_batch_norm)
    model.compile("adam", "categorical_crossentropy", jit_compile=False)
    return model


def measure(
    ways: dict[str, Callable[[], None]], batch_size: int, repeats: int
) -> dict[str, list[float]]:
    """Returns images/s of each way, one number a repeat, after two steps of warm-up."""
    for step in ways.values():
        step(), step()
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, step in ways.items():
            started = time.perf_counter()
            for _ in range(STEPS):
                step()
            rates[name].append(STEPS * batch_size / (time.perf_counter() - started))
    return rates


if __name__ == "__main__":
    cli.run(main)
