"""Transfer learning as Keras's own guide writes it: whom `train.py` is measured against.

    https://keras.io/guides/transfer_learning/

Run by `benchmarks/recipes.py` in a process of its own; it reads the same images and starts from the
same weights. What differs from the guide makes it faster: the layers of the pipeline work on whole
batches, in parallel.
"""

import json
from pathlib import Path

import click
import numpy as np

from transfer.backend import load_keras
from transfer.commands.exit_codes import run

# The guide's. After 3 head and 5 fine-tune epochs on 2,700 images of 48 pixels from the included
# weights, 1e-5 gave 67.0 % on the validation images, 1e-4 53.0 % and 3e-4 (ours) 53.0 %.
HEAD_LEARNING_RATE, FINETUNE_LEARNING_RATE = 1e-3, 1e-5
ROTATION, ZOOM = 10 / 360, 0.1  # as train.py by default; Keras counts in full turns
TRAINED = "trained"  # a line that says that what is timed is done
EPOCH = "epoch "  # begins a line that tells of an epoch, as JSON


@click.command()
@click.option("--data", required=True)
@click.option("--backbone", default="mobilenetv2")
@click.option("--weights", required=True, type=click.Path(path_type=Path))
@click.option("--image-size", type=int, required=True)
@click.option("--batch-size", type=int, required=True)
@click.option("--head-epochs", type=int, required=True)
@click.option("--finetune-epochs", type=int, required=True)
@click.option("--finetune-learning-rate", type=float, default=FINETUNE_LEARNING_RATE)
@click.option("--seed", type=int, default=0)
def main(
    data: str,
    backbone: str,
    weights: Path,
    image_size: int,
    batch_size: int,
    head_epochs: int,
    finetune_epochs: int,
    finetune_learning_rate: float,
    seed: int,
) -> None:
    """Train the stock recipe, then print its accuracy on the test images as JSON."""
    load_keras()
    import keras

    from transfer.datasets.sources import load_splits
    from transfer.models.backbones import build_backbone

    splits = load_splits(data, seed=seed, offline=True)
    keras.utils.set_random_seed(seed)
    train, validation, test = (
        make_stock_dataset(part.images, part.labels, image_size, batch_size, augmented=augmented)
        for part, augmented in (
            (splits.train, True),
            (splits.validation, False),
            (splits.test, False),
        )
    )
    network = build_backbone(backbone, image_size)
    network.load_weights(weights)
    model = build_stock_model(backbone, network, len(splits.class_names))
    network.trainable = False
    compile_stock(model, HEAD_LEARNING_RATE)
    tell = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: click.echo(
            EPOCH + json.dumps({"val_accuracy": logs["val_accuracy"]})
        )
    )
    options = {"validation_data": validation, "callbacks": [tell], "verbose": 0}
    head = model.fit(train, epochs=head_epochs, **options)
    network.trainable = True
    compile_stock(model, finetune_learning_rate)
    finetune = model.fit(train, epochs=finetune_epochs, **options)
    click.echo(TRAINED)
    _, accuracy = model.evaluate(test, verbose=0)
    history = head.history["val_accuracy"] + finetune.history["val_accuracy"]
    click.echo(json.dumps({"accuracy": accuracy, "val_accuracy": history}))


def make_stock_dataset(
    images: np.ndarray, labels: np.ndarray, image_size: int, batch_size: int, *, augmented: bool
):
    """Makes batches with Keras's layers in the pipeline.

    Args:
        images: uint8 (N, H, W, 1 or 3).
        labels: int (N,).
        image_size: side in pixels.
        batch_size: images in a batch.
        augmented: shuffle, flip, rotate and zoom too.

    Returns:
        A dataset of (float32 (B, S, S, 3) in [0, 255], int (B,)).
    """
    import tensorflow as tf
    from keras import layers

    resize = layers.Resizing(image_size, image_size)
    random_layers = [
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(ROTATION),
        layers.RandomZoom(ZOOM),
    ]

    def load(batch: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        if images.shape[-1] == 1:
            batch = tf.image.grayscale_to_rgb(batch)
        batch = resize(tf.cast(batch, tf.float32))
        for layer in random_layers if augmented else ():
            batch = layer(batch, training=True)
        return batch, targets

    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    if augmented:
        dataset = dataset.shuffle(len(images))
    dataset = dataset.batch(batch_size).map(load, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.prefetch(tf.data.AUTOTUNE)


def build_stock_model(backbone: str, network, num_classes: int):
    """Returns images (B, S, S, 3) in [0, 255] -> probabilities (B, num_classes)."""
    import keras

    from transfer.models.backbones import scale

    inputs = keras.Input(network.input.shape[1:])
    x = network(scale(backbone, inputs), training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, "softmax")(x))


def compile_stock(model, learning_rate: float) -> None:
    """Compiles with Keras's defaults; on a CPU these do without XLA."""
    import keras

    optimizer = keras.optimizers.Adam(learning_rate)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])


if __name__ == "__main__":
    run(main)
