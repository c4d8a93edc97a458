"""Training images: sprites laid over a texture, composed on the device from a small plan.

NumPy draws the plan of a batch (which sprites, where, how large, which colours) from the seed
and the number of the step alone, so the images are the same on every backend, whatever the
number of threads, and after a resume. The pixels are computed inside the training step with
`keras.ops`: resizing, mirroring and shifting a sprite is one small matrix from each side, and
its colours are linear in what the matrices give.
"""

import keras
import numpy as np
from keras import ops
from matplotlib.colors import hsv_to_rgb

from transfer.pretraining.fractals import SPRITE_SIZE
from transfer.pretraining.textures import TEXTURE_SIZE

Plan = dict[str, np.ndarray]

# Share of the image's side, for one sprite in an image and for several.
SIZES = {"one": (0.6, 1.4), "several": (0.35, 0.9)}
CENTERS = {"one": (0.3, 0.7), "several": (0.1, 0.9)}
LARGEST_STRETCH = 1.25  # of one side against the other
OUTSIDE = 9.0  # the centre of a sprite that is not there, in sides of the image
GRAY_SHARE = 0.5
DIM, BRIGHT = (0.1, 0.5), (0.6, 1.0)  # values (of hue, saturation, value) of a sprite's colours
EASY_COLORS = (120.0, 255.0)  # of the thinnest and the densest
LIGHTS = (0.3, 1.5)  # what a texture is multiplied by
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green, blue; ITU-R BT.601

TRAINING, VALIDATION = 0, 1  # streams of random numbers


class Batches(keras.utils.PyDataset):
    """Plans and labels of batches; batch `i` depends on the settings and `i` alone.

    Args:
        num_classes: number of classes in the bank.
        renderings: range of the renderings of each class to take.
        per_class: renderings of each class in the bank.
        instances: most sprites in an image.
        num_textures: number of backgrounds.
        batch_size: images in a batch.
        seed: with the stream and the number of the batch, source of the random numbers.
        stream: `TRAINING` or `VALIDATION`.
        length: number of batches that `fit` is to see.
        ramp: number of batches over which the images become as hard as they get; 0 for hard
            ones from the first on.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        renderings: range,
        per_class: int,
        instances: int,
        num_textures: int,
        batch_size: int,
        seed: int,
        stream: int,
        length: int,
        ramp: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes, self.renderings, self.per_class = num_classes, renderings, per_class
        self.instances, self.num_textures, self.batch_size = instances, num_textures, batch_size
        self.seed, self.stream, self.length, self.ramp = seed, stream, length, ramp

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Plan, np.ndarray]:
        """Returns the plan of a batch, see `make_plan`, and its labels.

        The labels are float32 (B, num_classes); the classes in an image share a sum of 1.
        """
        generator = np.random.default_rng([self.seed, 4, self.stream, index])
        shape = (self.batch_size, self.instances)
        classes = generator.integers(self.num_classes, size=shape)
        present = np.arange(self.instances) < generator.integers(
            1, self.instances, (self.batch_size, 1), endpoint=True
        )
        rendering = generator.integers(self.renderings.start, self.renderings.stop, shape)
        plan = make_plan(generator, present, self.num_textures)
        if index < self.ramp:
            ease_plan(plan, index / self.ramp)
        plan["sprite"] = (classes * self.per_class + rendering).astype(np.int32)
        labels = np.zeros((self.batch_size, self.num_classes), np.float32)
        image, instance = np.nonzero(present)
        labels[image, classes[image, instance]] = 1
        return plan, labels / labels.sum(1, keepdims=True)


def make_plan(generator: np.random.Generator, present: np.ndarray, num_textures: int) -> Plan:
    """Draws all about a batch of images but the sprites themselves.

    Args:
        generator: source of the choices.
        present: bool (B, K), whether an image has its k-th sprite.
        num_textures: number of backgrounds.

    Returns:
        "center", "size" float32 (B, K, 2): row and column, in sides of the image; a negative
        size mirrors. "colors" float32 (B, K, 2, 3): RGB in [0, 255] of the thinnest and the
        densest. "texture" int32 (B,), "corner" float32 (B, 2) in [0, 1], "flip" int32 (B, 2).
        "mix" float32 (B, 3, 3): what RGB is multiplied by at last, to gray in half of the
        images. "light" float32 (B,): what the texture is multiplied by.
    """
    count, instances = present.shape
    several = "several" if instances > 1 else "one"
    stretch = generator.uniform(-0.5, 0.5, (count, instances, 1)) * [1, -1]
    size = generator.uniform(*SIZES[several], (count, instances, 1)) * LARGEST_STRETCH**stretch
    size *= generator.choice([-1, 1], size.shape)
    center = generator.uniform(*CENTERS[several], (count, instances, 2))
    gray = generator.random((count,)) < GRAY_SHARE
    luminance = np.repeat(np.array(LUMINANCE)[:, None], 3, axis=1)
    drawn = {
        "center": np.where(present[..., None], center, OUTSIDE),
        "size": size,
        "colors": 255 * _draw_colors(generator, gray, instances),
        "corner": generator.random((count, 2)),
        "mix": np.where(gray[:, None, None], luminance, np.eye(3)),
        "light": generator.uniform(*LIGHTS, (count,)),
    }
    plan: Plan = {name: values.astype(np.float32) for name, values in drawn.items()}
    plan["texture"] = generator.integers(num_textures, size=(count,), dtype=np.int32)
    plan["flip"] = generator.integers(2, size=(count, 2), dtype=np.int32)
    return plan


def ease_plan(plan: Plan, difficulty: float) -> None:
    """Makes images easier: a darker background, paler sprites, single ones larger and centred.

    From random weights the hard images teach nothing for tens of thousands of them: a small
    network told ten classes apart at 22 % after 12,800 hard images, at 99.7 % after as many easy
    ones.

    Args:
        plan: of `make_plan`; changed in place.
        difficulty: from 0, white sprites on black, to 1, no change.
    """
    easy_colors = np.array(EASY_COLORS, np.float32)[:, None]
    plan["colors"] = easy_colors + difficulty * (plan["colors"] - easy_colors)
    plan["light"] *= difficulty
    if plan["size"].shape[1] == 1:
        sides = np.sign(plan["size"])
        plan["size"] = sides + difficulty * (plan["size"] - sides)
        plan["center"] = 0.5 + difficulty * (plan["center"] - 0.5)
    for name in ("colors", "size", "center"):
        plan[name] = plan[name].astype(np.float32)


def _draw_colors(generator: np.random.Generator, gray: np.ndarray, instances: int) -> np.ndarray:
    """One dim and one bright colour for each sprite, so that it shows on any texture.

    Returns:
        float64 (B, K, 2, 3), RGB in [0, 1]; gray where `gray` (B,) is true.
    """
    shape = (len(gray), instances, 2)
    hsv = generator.uniform((0, 0.2, 0), 1, (*shape, 3))
    hsv[..., 1] *= ~gray[:, None, None]
    lowest, highest = np.transpose([DIM, BRIGHT])
    values = generator.uniform(lowest, highest, shape)
    hsv[..., 2] = generator.permuted(values, axis=-1)
    return hsv_to_rgb(hsv)


class Composer(keras.layers.Layer):
    """Turns plans into images, float32 (B, image_size, image_size, 3) in [0, 255].

    Args:
        bank: uint8 (classes, renderings, SPRITE_SIZE, SPRITE_SIZE).
        textures: uint8 (T, TEXTURE_SIZE, TEXTURE_SIZE, 3).
        image_size: side of the images; may be set anew, at most TEXTURE_SIZE.
    """

    def __init__(self, bank: np.ndarray, textures: np.ndarray, image_size: int) -> None:
        super().__init__(trainable=False, dtype="float32", name="composer")
        self.image_size = image_size
        self.bank = _constant(bank.reshape(-1, SPRITE_SIZE, SPRITE_SIZE))
        self.textures = _constant(textures.reshape(-1, 3))  # one row a pixel

    def call(self, plan: Plan) -> keras.KerasTensor:
        """Returns the images of a plan; see `make_plan`."""
        cover, ink = self._place_sprites(plan)  # (B, K, S, S)
        thin, dense = ops.unstack(plan["colors"], axis=2)  # (B, K, 3)
        shares = []  # of the two colours of each sprite
        bare: keras.KerasTensor = 1.0  # what nothing covers yet
        for k in reversed(range(plan["sprite"].shape[1])):  # each lies over those before it
            shares += [bare * cover[:, k], bare * ink[:, k]]
            bare = bare * (1.0 - cover[:, k])
        colors = ops.stack([thin, dense - thin], axis=2)[:, ::-1]  # (B, K, 2, 3), the last first
        colors = ops.reshape(colors, (-1, len(shares), 3))
        sprites = ops.einsum("nbhw,bnc->bhwc", ops.stack(shares), colors)
        image = bare[..., None] * self._cut_textures(plan) + sprites
        return ops.clip(ops.einsum("bhwc,bcd->bhwd", image, plan["mix"]), 0.0, 255.0)

    def _cut_textures(self, plan: dict) -> keras.KerasTensor:
        """A piece of each texture, mirrored or not: float32 (B, S, S, 3)."""
        room = TEXTURE_SIZE - self.image_size + 1
        corner = ops.cast(plan["corner"] * room, "int32")
        corner = ops.minimum(corner, room - 1)[..., None]  # (B, 2, 1); float32 rounds up to 1
        steps = ops.arange(self.image_size, dtype="int32")
        backwards = self.image_size - 1 - 2 * steps
        rows, columns = ops.unstack(corner + steps + plan["flip"][..., None] * backwards, axis=1)
        first = plan["texture"][:, None, None] * TEXTURE_SIZE**2
        pixels = first + rows[:, :, None] * TEXTURE_SIZE + columns[:, None, :]
        piece = ops.cast(ops.take(self.textures, pixels, axis=0), "float32")
        return piece * plan["light"][:, None, None, None]

    def _place_sprites(self, plan: dict) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Where the sprites cover the image, and how densely: float32 (B, K, S, S) in [0, 1]."""
        sprites = ops.cast(ops.take(self.bank, plan["sprite"], axis=0), "float32") / 255.0
        both = ops.concatenate([ops.cast(sprites > 0, "float32"), sprites], axis=-1)
        matrices = self._resize_matrices(plan["center"], plan["size"])  # (B, K, 2, S, source)
        placed = ops.matmul(matrices[:, :, 0], both)  # rows: (B, K, S, 2 x source)
        size, count = self.image_size, plan["sprite"].shape[1]
        placed = ops.reshape(placed, (-1, count, 2 * size, SPRITE_SIZE))
        placed = ops.matmul(placed, ops.swapaxes(matrices[:, :, 1], -1, -2))  # columns
        placed = ops.minimum(ops.reshape(placed, (-1, count, size, 2, size)), 1.0)
        return placed[:, :, :, 0], placed[:, :, :, 1]

    def _resize_matrices(
        self, center: keras.KerasTensor, size: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Linear interpolation, and where it shrinks a mean over the pixels it leaves out.

        The triangle filter of Pillow's resize and of `jax.image.scale_and_translate`.
        (B, K, 2) -> float32 (B, K, 2, S, SPRITE_SIZE).
        """
        outputs = (ops.arange(self.image_size, dtype="float32") + 0.5) / self.image_size
        inputs = (ops.arange(SPRITE_SIZE, dtype="float32") + 0.5) / SPRITE_SIZE - 0.5
        place = (outputs - center[..., None]) / size[..., None]  # 0 is the middle of the sprite
        support = SPRITE_SIZE / self.image_size / ops.abs(size)[..., None, None]
        support = ops.maximum(support, 1.0)
        distance = ops.abs(place[..., None] - inputs) * SPRITE_SIZE
        return ops.relu(1.0 - distance / support) / support


def _constant(values: np.ndarray) -> keras.Variable:
    return keras.Variable(values, dtype=values.dtype.name, trainable=False)
