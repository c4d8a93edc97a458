"""Steps of training in one of several processes: `benchmarks.distribution` starts these and asks.

    python -m benchmarks.distribution_steps cnn32 32 128 trained

Arguments are the network, its image size, the images of a step, those of all processes together,
and whether its BatchNorm is trained or frozen. The process joins the others that its environment
tells of, compiles, and answers each line of standard input with one of its own: "step N" with the
seconds of N training steps, "pass N" with those in which the backbone alone looks at its own share
of N batches.
"""

import os
import sys
import time

import numpy as np

from transfer.backend import load_keras


def main() -> None:
    """Compile, and time what is asked for."""
    name, image_size, batch_size, norm = sys.argv[1], *map(int, sys.argv[2:4]), sys.argv[4]
    answers = open(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # where Gloo and others speak
    load_keras()
    import keras

    from transfer.acceleration.doors import with_frozen_batch_norm, with_trained_batch_norm
    from transfer.models.backbones import build_backbone
    from transfer.models.batch_norm import batch_norm_layers
    from transfer.training import distribution

    distribution.join_others()
    own = batch_size // distribution.num_processes()
    generator = np.random.default_rng(distribution.process_number())
    keras.utils.set_random_seed(0)
    with distribution.over_all_devices():
        prepare = with_trained_batch_norm if norm == "trained" else with_frozen_batch_norm
        backbone = prepare(build_backbone(name, image_size))
        for layer in batch_norm_layers(backbone):
            layer.trainable = norm == "trained"
        pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
        model = keras.Model(backbone.input, keras.layers.Dense(10, "softmax")(pooled))
        model.compile("adam", "sparse_categorical_crossentropy")
        images = generator.normal(size=(own, *backbone.input_shape[1:])).astype(np.float32)
        labels = np.arange(own) % 10

        def step(count: int) -> None:
            epoch = np.repeat(np.arange(own)[None], count, 0).ravel()
            model.fit(images[epoch], labels[epoch], own, shuffle=False, verbose=0)

        with distribution.alone():
            other = with_frozen_batch_norm(build_backbone(name, image_size))
        look = {"step": step, "pass": lambda count: _look(other, images, count)}
        for one in look.values():
            one(2)  # compiles
        print("ready", model.count_params(), file=answers)
        for line in sys.stdin:
            what, count = line.split()
            started = time.perf_counter()
            look[what](int(count))
            print(time.perf_counter() - started, file=answers)


def _look(backbone, images: np.ndarray, count: int) -> None:
    from transfer.training import distribution

    with distribution.alone():
        for _ in range(count):
            backbone.predict_on_batch(images)


if __name__ == "__main__":
    main()
