"""The head phase's training data: the frozen backbone's outputs, computed once.

Frozen features do not change from epoch to epoch, so the backbone runs over each image
once (and once over its mirror image where flips are on), and a head epoch then costs
milliseconds instead of a pass through the network.
"""

import keras
import numpy as np

from transfer.config import Config
from transfer.data.pipeline import make_evaluation_dataset
from transfer.data.sources import Split


def compute_features(
    extractor: keras.Model,
    split: Split,
    config: Config,
    *,
    flipped: bool = False,
    callbacks: list[keras.callbacks.Callback] | None = None,
) -> np.ndarray:
    """Runs the frozen backbone over a split, each image once, in order.

    Args:
        extractor: images (B, S, S, 3) -> (B, features).
        split: N images as uint8 arrays.
        config: uses `image_size` and `batch_size`.
        flipped: mirror the images left to right.
        callbacks: for progress.

    Returns:
        float16 (N, features).
    """
    batches = make_evaluation_dataset(
        split, config.image_size, config.batch_size, num_classes=1, flipped=flipped
    )
    images_only = batches.map(lambda images, labels: images)
    features = extractor.predict(images_only, verbose=0, callbacks=callbacks)
    # float16 halves the memory; its 11 bits are more than a head can use.
    return np.clip(features, -65504, 65504).astype(np.float16)
