"""The one warp: crop, flip, rotation, zoom, translation and the resize, resampled once.

Each image's random choices are composed into a single affine matrix, so the image
is interpolated once instead of once a layer; brightness, contrast, saturation and hue into a
second one, of its colours. Evaluation is the same warp with the identity matrix: a plain resize.
"""

import math
from typing import NamedTuple

import tensorflow as tf

from transfer.config import Config
from transfer.data.randomness import Purpose, epoch_key

ERASED_AREAS = (0.02, 0.33)  # shares of the image
MOST_ERASED_RATIO = 10 / 3  # of height to width, and of width to height
MOST_CROP_RATIO = 4 / 3  # likewise

# Luma and the two colour axes of YIQ, by red, green and blue: gray has no colour.
_TO_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


class Draws(NamedTuple):
    """The random choices about N images of an epoch.

    Attributes:
        warps: float32 (N, 2, 3), see `draw_warps`.
        boxes: float32 (N, 4), see `draw_boxes`.
        colours: float32 (N, 4), see `draw_colours`.
        mixes: float32 (N, 5), see `draw_mixes`.
    """

    warps: tf.Tensor
    boxes: tf.Tensor
    colours: tf.Tensor
    mixes: tf.Tensor

    def take(self, indices: tf.Tensor) -> "Draws":
        """Returns the choices about some of the images; indices int (K,)."""
        return Draws(*(tf.gather(each, indices) for each in self))


def draw(config: Config, epoch: tf.Tensor | int, num_images: int) -> Draws:
    """Draws all that is random about the images of an epoch.

    Args:
        config: uses `seed` and the augmentation.
        epoch: number of the epoch from 0; each epoch draws anew.
        num_images: N, the images of the split.
    """
    return Draws(
        draw_warps(config, epoch, num_images),
        draw_boxes(config, epoch, num_images),
        draw_colours(config, epoch, num_images),
        draw_mixes(config, epoch, num_images),
    )


def draw_warps(config: Config, epoch: tf.Tensor | int, num_images: int) -> tf.Tensor:
    """Draws one random affine map for each image of an epoch.

    Args:
        config: uses `seed`, `flip`, `rotation_degrees`, `zoom_fraction`,
            `translation_fraction`, `smallest_crop_fraction`.
        epoch: number of the epoch from 0; each epoch draws anew.
        num_images: N, the images of the split.

    Returns:
        float32 (N, 2, 3). Row i belongs to image i. A map takes a point (x, y, 1) of the
        output square, coordinates in [-0.5, 0.5] from the centre, to a point of the input.
    """
    key = epoch_key(config.seed, epoch, Purpose.WARP)
    draws = tf.random.stateless_uniform((num_images, 5), key, -1.0, 1.0)  # (N, 5)
    mirror, turn, zoom, shift_x, shift_y = tf.unstack(draws, axis=1)
    angle = turn * (config.rotation_degrees * math.pi / 180.0)
    scale = 1.0 / (1.0 + zoom * config.zoom_fraction)  # zooming in looks at less of the input
    sign = tf.where(mirror < 0.0, -1.0, 1.0) if config.flip else tf.ones_like(mirror)
    cosine, sine = tf.cos(angle) * scale, tf.sin(angle) * scale
    rows = [
        tf.stack([sign * cosine, -sign * sine, shift_x * config.translation_fraction], axis=1),
        tf.stack([sine, cosine, shift_y * config.translation_fraction], axis=1),
    ]
    warps = tf.stack(rows, axis=1)  # (N, 2, 3)
    return _within_crops(warps, config, epoch) if config.smallest_crop_fraction < 1 else warps


def _within_crops(warps: tf.Tensor, config: Config, epoch: tf.Tensor | int) -> tf.Tensor:
    # Each map then sees a random crop in place of the image: the crop of Inception, Szegedy et al.,
    # arXiv:1409.4842, its area and its ratio of width to height drawn evenly, the latter's
    # logarithm.
    key = epoch_key(config.seed, epoch, Purpose.CROP)
    area, ratio, left, top = tf.unstack(
        tf.random.stateless_uniform((warps.shape[0], 4), key), axis=1
    )
    area = config.smallest_crop_fraction + area * (1 - config.smallest_crop_fraction)
    ratio = tf.exp((2 * ratio - 1) * math.log(MOST_CROP_RATIO))
    width, height = tf.minimum(tf.sqrt(area * ratio), 1.0), tf.minimum(tf.sqrt(area / ratio), 1.0)
    sizes = tf.stack([width, height], axis=1)  # (N, 2)
    middles = (tf.stack([left, top], axis=1) - 0.5) * (1 - sizes)
    scaled = warps * sizes[:, :, tf.newaxis]
    return tf.concat([scaled[..., :2], scaled[..., 2:] + middles[..., tf.newaxis]], axis=2)


def draw_boxes(config: Config, epoch: tf.Tensor | int, num_images: int) -> tf.Tensor:
    """Draws the rectangle that is erased in each image of an epoch, empty in most.

    Random erasing, Zhong et al., arXiv:1708.04896: of an image's area 2 to 33 %, its height
    0.3 to 3.3 times its width.

    Args:
        config: uses `seed` and `erase_probability`.
        epoch: number of the epoch from 0; each epoch draws anew.
        num_images: N, the images of the split.

    Returns:
        float32 (N, 4): top, left, bottom, right in [0, 1]; all 0 where nothing is erased.
    """
    key = epoch_key(config.seed, epoch, Purpose.BOX)
    chance, area, ratio, top, left = tf.unstack(
        tf.random.stateless_uniform((num_images, 5), key), axis=1
    )
    area = ERASED_AREAS[0] + area * (ERASED_AREAS[1] - ERASED_AREAS[0])
    ratio = tf.exp((2 * ratio - 1) * math.log(MOST_ERASED_RATIO))
    height, width = tf.minimum(tf.sqrt(area * ratio), 1.0), tf.minimum(tf.sqrt(area / ratio), 1.0)
    top, left = top * (1 - height), left * (1 - width)
    boxes = tf.stack([top, left, top + height, left + width], axis=1)
    return tf.where(chance[:, tf.newaxis] < config.erase_probability, boxes, 0.0)


def draw_colours(config: Config, epoch: tf.Tensor | int, num_images: int) -> tf.Tensor:
    """Draws what light and colours become in each image of an epoch.

    Args:
        config: uses `seed`, `brightness_fraction`, `contrast_fraction`, `saturation_fraction`,
            `hue_degrees`.
        epoch: number of the epoch from 0; each epoch draws anew.
        num_images: N, the images of the split.

    Returns:
        float32 (N, 4): factors of brightness, contrast and saturation, 1 for none, and the turn of
        the hue in radians.
    """
    key = epoch_key(config.seed, epoch, Purpose.COLOUR)
    draws = tf.random.stateless_uniform((num_images, 4), key, -1.0, 1.0)
    most = [config.brightness_fraction, config.contrast_fraction, config.saturation_fraction]
    most.append(config.hue_degrees * math.pi / 180)
    return tf.constant([1.0, 1.0, 1.0, 0.0]) + draws * tf.constant(most, tf.float32)


def change_colours(images: tf.Tensor, colours: tf.Tensor) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue of each image, in this order, at once.

    Brightness is a factor of all values, contrast one of their distance from the image's mean
    luma; saturation scales and hue turns the plane of colours of YIQ, whose luma stays. Gray
    pixels stay gray.

    Args:
        images: float32 (B, S, S, 3) in [0, 255].
        colours: float32 (B, 4), as `draw_colours` makes them.

    Returns:
        float32 (B, S, S, 3) in [0, 255], clipped.
    """
    brightness, contrast, saturation, hue = tf.unstack(colours, axis=1)  # (B,) each
    to_yiq = tf.constant(_TO_YIQ, tf.float32)
    cosine, sine = saturation * tf.cos(hue), saturation * tf.sin(hue)
    none = tf.zeros_like(hue)
    rows = [(none + 1, none, none), (none, cosine, sine), (none, -sine, cosine)]
    turns = tf.stack([tf.stack(row, axis=1) for row in rows], axis=1)  # (B, 3, 3)
    matrices = tf.linalg.inv(to_yiq) @ turns @ to_yiq
    matrices *= (brightness * contrast)[:, tf.newaxis, tf.newaxis]
    luma = brightness * tf.linalg.matvec(tf.reduce_mean(images, axis=(1, 2)), to_yiq[0])
    shifts = ((1 - contrast) * luma)[:, tf.newaxis, tf.newaxis]
    pixels = tf.reshape(images, (tf.shape(images)[0], -1, 3))
    changed = tf.linalg.matmul(pixels, matrices, transpose_b=True) + shifts
    return tf.reshape(tf.clip_by_value(changed, 0.0, 255.0), tf.shape(images))


def draw_mixes(config: Config, epoch: tf.Tensor | int, num_images: int) -> tf.Tensor:
    """Draws how much of another image each image of an epoch takes.

    mixup, Zhang et al., arXiv:1710.09412; CutMix, Yun et al., arXiv:1905.04899. With both, each
    image takes one or the other at random.

    Args:
        config: uses `seed`, `mixup_alpha` and `cutmix_alpha`.
        epoch: number of the epoch from 0; each epoch draws anew.
        num_images: N, the images of the split.

    Returns:
        float32 (N, 5): the share of mixup, in [0, 1], and top, left, bottom and right of the
        rectangle of CutMix; all 0 where nothing is mixed.
    """
    if not (config.mixup_alpha or config.cutmix_alpha):
        return tf.zeros((num_images, 5))
    mixup_key, cutmix_key, key = (
        epoch_key(config.seed, epoch, each) for each in (Purpose.MIXUP, Purpose.CUTMIX, Purpose.MIX)
    )
    mixup = _draw_beta(config.mixup_alpha, mixup_key, num_images)
    area = _draw_beta(config.cutmix_alpha, cutmix_key, num_images)
    draws = tf.random.stateless_uniform((num_images, 3), key)
    choice, middle_y, middle_x = tf.unstack(draws, axis=1)
    half = tf.sqrt(area) / 2
    sides = [middle_y - half, middle_x - half, middle_y + half, middle_x + half]
    boxes = tf.clip_by_value(tf.stack(sides, axis=1), 0.0, 1.0)
    both = config.mixup_alpha > 0 and config.cutmix_alpha > 0
    takes_mixup = (choice < (0.5 if both else float(config.mixup_alpha > 0)))[:, tf.newaxis]
    return tf.where(
        takes_mixup,
        tf.concat([mixup[:, tf.newaxis], tf.zeros_like(boxes)], axis=1),
        tf.concat([tf.zeros_like(mixup[:, tf.newaxis]), boxes], axis=1),
    )


def _draw_beta(alpha: float, key: tf.Tensor, num_images: int) -> tf.Tensor:
    # float32 (num_images,) from Beta(alpha, alpha), zeros for alpha 0.
    if not alpha:
        return tf.zeros(num_images)
    one, other = tf.unstack(tf.random.stateless_gamma((2, num_images), key, alpha))
    return tf.math.divide_no_nan(one, one + other)


def mixes(config: Config) -> bool:
    """Returns whether the settings mix images at all."""
    return bool(config.mixup_alpha or config.cutmix_alpha)


def mix(images: tf.Tensor, labels: tf.Tensor, mixes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes each image of a batch with its neighbour: the first two, the next two, and so on.

    The order of an epoch is random, so the partner is. The label is mixed by what is seen of each.
    The last of an odd number is left as it is.

    Args:
        images: float32 (B, S, S, 3) in [0, 255].
        labels: float32 (B, num_classes) that sum to 1.
        mixes: float32 (B, 5), as `draw_mixes` makes them.

    Returns:
        The images and the labels, of the same shapes and ranges.
    """
    share, boxes = mixes[:, 0], mixes[:, 1:]
    inside = tf.cast(_inside(boxes, images.shape[1]), tf.float32)  # (B, S, S, 1)
    weights = tf.maximum(share[:, tf.newaxis, tf.newaxis, tf.newaxis], inside)
    places = tf.range(tf.shape(images)[0])
    partners = tf.minimum(tf.bitwise.bitwise_xor(places, 1), tf.shape(images)[0] - 1)
    mixed = images + weights * (tf.gather(images, partners) - images)
    seen = tf.reduce_mean(weights, axis=(1, 2))  # (B, 1)
    return mixed, labels + seen * (tf.gather(labels, partners) - labels)


def changes_colours(config: Config) -> bool:
    """Returns whether the settings change light or colours at all."""
    return any(
        (
            config.brightness_fraction,
            config.contrast_fraction,
            config.saturation_fraction,
            config.hue_degrees,
        )
    )


def erase(images: tf.Tensor, boxes: tf.Tensor, indices: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Replaces a rectangle of each image by noise.

    Args:
        images: float32 (B, S, S, 3) in [0, 255].
        boxes: float32 (B, 4), as `draw_boxes` makes them.
        indices: int64 (B,), of the images within their split: each has noise of its own.
        key: (2,) integers, the key of the epoch's noise.

    Returns:
        float32 (B, S, S, 3) in [0, 255].
    """
    size = images.shape[1]
    inside = _inside(boxes, size)

    def noise(index: tf.Tensor) -> tf.Tensor:
        own = tf.random.experimental.stateless_fold_in(key, index)
        return tf.random.stateless_uniform((size, size, 3), own, 0.0, 255.0)

    return tf.where(inside, tf.map_fn(noise, indices, fn_output_signature=tf.float32), images)


def _inside(boxes: tf.Tensor, size: int) -> tf.Tensor:
    # bool (B, size, size, 1): whether the middle of a pixel is in the rectangle.
    middles = (tf.range(size, dtype=tf.float32) + 0.5) / size  # (S,)
    top, left, bottom, right = (side[:, tf.newaxis] for side in tf.unstack(boxes, axis=1))
    rows = (middles >= top) & (middles < bottom)  # (B, S)
    columns = (middles >= left) & (middles < right)
    return (rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :])[..., tf.newaxis]


def augment(
    images: tf.Tensor,
    indices: tf.Tensor,
    draws: Draws,
    config: Config,
    epoch: tf.Tensor | int,
) -> tf.Tensor:
    """Returns what an epoch shows of images: what training sees, and the report's picture of it.

    Args:
        images: uint8 (B, H, W, 1 or 3).
        indices: int64 (B,), of the images within their split.
        draws: those of `draw` that belong to the images.
        config: uses `seed`, `image_size` and the augmentation.
        epoch: number of the epoch from 0.

    Returns:
        float32 (B, image_size, image_size, 3) in [0, 255].
    """
    shown = warp(images, draws.warps, config.image_size)
    if changes_colours(config):
        shown = change_colours(shown, draws.colours)
    if not config.erase_probability:
        return shown
    return erase(shown, draws.boxes, indices, epoch_key(config.seed, epoch, Purpose.NOISE))


def augment_some(
    images: tf.Tensor, indices: tf.Tensor, config: Config, epoch: int, num_images: int
) -> tf.Tensor:
    """Returns what an epoch shows of a few images, as `augment` does for batches of all.

    Args:
        images: uint8 (K, H, W, 1 or 3).
        indices: int64 (K,), of the images within their split.
        config: uses `seed`, `image_size` and the augmentation.
        epoch: number of the epoch from 0.
        num_images: of the whole split.
    """
    draws = draw(config, epoch, num_images).take(indices)
    return augment(images, tf.constant(indices, tf.int64), draws, config, epoch)


def warp(images: tf.Tensor, warps: tf.Tensor, image_size: int) -> tf.Tensor:
    """Resamples each image once, bilinearly, through its affine map.

    What lies outside of the image repeats its edge.

    Args:
        images: uint8 (B, H, W, 1 or 3).
        warps: float32 (B, 2, 3), as `draw_warps` makes them.
        image_size: side of the output, in pixels.

    Returns:
        float32 (B, image_size, image_size, 3) in [0, 255].
    """
    height, width = images.shape[1], images.shape[2]
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=_pixel_transforms(warps, height, width, image_size),
        output_shape=(image_size, image_size),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    return tf.repeat(warped, 3, axis=-1) if images.shape[3] == 1 else warped


def resize(images: tf.Tensor, image_size: int, *, flipped: bool = False) -> tf.Tensor:
    """Returns what `warp` makes with the identity map, to within 1/255, at a fifth of the cost.

    Args:
        images: uint8 (B, H, W, 1 or 3).
        image_size: side of the output, in pixels.
        flipped: mirror every image left to right.

    Returns:
        float32 (B, image_size, image_size, 3) in [0, 255].
    """
    colored = tf.repeat(images, 3, axis=-1) if images.shape[3] == 1 else images
    turned = tf.reverse(colored, axis=[2]) if flipped else colored
    pixels = tf.cast(turned, tf.float32)
    if pixels.shape[1:3] == (image_size, image_size):  # TensorFlow would compute it all the same
        return pixels
    return tf.image.resize(pixels, (image_size, image_size))


def _pixel_transforms(warps: tf.Tensor, height: int, width: int, image_size: int) -> tf.Tensor:
    # From output pixel numbers to centred coordinates, u = (x + 0.5) / size - 0.5, through the
    # map, and back to input pixel numbers, x = (u + 0.5) * width - 0.5: one matrix, (B, 8).
    to_centred = tf.constant(
        [[1 / image_size, 0, 0.5 / image_size - 0.5], [0, 1 / image_size, 0.5 / image_size - 0.5]]
        + [[0, 0, 1]],
        tf.float32,
    )
    size = tf.constant([[width], [height]], tf.float32)
    matrices = tf.linalg.matmul(warps, to_centred[tf.newaxis]) * size  # (B, 2, 3)
    matrices += tf.constant([[0, 0, width / 2 - 0.5], [0, 0, height / 2 - 0.5]], tf.float32)
    flat = tf.reshape(matrices, (-1, 6))
    return tf.concat([flat, tf.zeros_like(flat[:, :2])], axis=1)
