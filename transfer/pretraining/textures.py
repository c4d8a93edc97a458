"""Backgrounds and fillings: noise of a power-law spectrum, and dead leaves. NumPy and Pillow only.

A texture is drawn once, larger than an image, and kept in memory; each training image takes a
piece of one at random.
"""

import numpy as np
from matplotlib.colors import hsv_to_rgb
from PIL import Image, ImageDraw

TEXTURE_SIZE = 128  # pixels
NUM_TEXTURES = 1024
# Three quarters of the backgrounds are clouds, an eighth noise and an eighth dead leaves.
NUM_CLOUDS, NUM_NOISES, NUM_LEAVES = 768, 128, 128

# Amplitude 1 / frequency ** slope: a slope of 1.5 to 2 is what the diamond-square algorithm
# of Anderson and Farrell draws; 0.5 to 1.75 is the range of Baradad et al., for whom it is
# the slope of the power, twice as steep.
CLOUD_SLOPES = (1.4, 2.2)
NOISE_SLOPES = (0.25, 1.75)
LEAVES = 400  # enough to cover a texture
SMALLEST_LEAF = 0.04  # radius, as a share of the texture's side
LARGEST_LEAF = 0.3


def make_textures(seed: int, count: int = NUM_TEXTURES) -> np.ndarray:
    """Draws backgrounds: 6 in 8 clouds, 1 in 8 coloured noise, 1 in 8 dead leaves, in this order.

    Args:
        seed: the same seed gives the same textures.
        count: how many, a multiple of 8.

    Returns:
        uint8 (count, TEXTURE_SIZE, TEXTURE_SIZE, 3), RGB.
    """
    generator = np.random.default_rng([seed, 1])
    eighth = count // 8
    clouds = np.stack([_make_cloud(generator) for _ in range(count - 2 * eighth)])
    noises = np.stack([_make_noise(generator) for _ in range(eighth)])
    leaves = np.stack([_make_leaves(generator) for _ in range(eighth)])
    return np.concatenate([clouds, noises, leaves])


def random_colors(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draws colours of any hue, from pale to full and from dim to bright.

    Returns:
        float64 (*shape, 3), RGB in [0, 1].
    """
    lowest = (0.0, 0.2, 0.15)  # hue, saturation, value
    return hsv_to_rgb(generator.uniform(lowest, 1.0, (*shape, 3)))


def power_noise(
    generator: np.random.Generator, count: int, size: int, slopes: tuple[float, float]
) -> np.ndarray:
    """Draws fields of noise whose amplitude falls as 1 / frequency ** slope.

    Args:
        generator: source of the slopes and phases.
        count: number of fields.
        size: side of a field, in pixels; its edges fit together.
        slopes: least and greatest slope.

    Returns:
        float64 (count, size, size), each field from 0 to 1.
    """
    rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf  # no constant part
    slope = generator.uniform(*slopes, (count, 1, 1))
    white = np.fft.rfft2(generator.standard_normal((count, size, size)))
    fields = np.fft.irfft2(white / frequency**slope, (size, size))
    lowest = fields.min((1, 2), keepdims=True)
    return (fields - lowest) / (fields.max((1, 2), keepdims=True) - lowest)


def _make_cloud(generator: np.random.Generator) -> np.ndarray:
    """One field of smooth noise shown as a ramp between two colours, uint8 (S, S, 3)."""
    field = power_noise(generator, 1, TEXTURE_SIZE, CLOUD_SLOPES)[0, :, :, None]
    dark, light = random_colors(generator, (2,))
    return (255 * (dark + (light - dark) * field)).astype(np.uint8)


def _make_noise(generator: np.random.Generator) -> np.ndarray:
    """Colour noise, its channels mixed at random, uint8 (S, S, 3).

    Source: Baradad et al. 2021, arXiv:2106.05963, "Spectrum + Color".
    """
    fields = power_noise(generator, 3, TEXTURE_SIZE, NOISE_SLOPES)
    mix = generator.dirichlet(np.ones(3), 3)  # the rows sum to 1, so values stay in [0, 1]
    return (255 * np.einsum("kc,chw->hwk", mix, fields)).astype(np.uint8)


def _make_leaves(generator: np.random.Generator) -> np.ndarray:
    """Shapes of one colour each, of all sizes, laid over each other, uint8 (S, S, 3).

    The radii have the density r ** -3, which no zoom changes. Source: Baradad et al. 2021,
    arXiv:2106.05963, "Dead leaves, mixed shapes".
    """
    scale = 2  # drawn larger and reduced, so that edges are smooth
    side = scale * TEXTURE_SIZE
    colors = (255 * random_colors(generator, (LEAVES + 1,))).astype(np.uint8).tolist()
    image = Image.new("RGB", (side, side), tuple(colors.pop()))
    draw = ImageDraw.Draw(image)
    radii = SMALLEST_LEAF / np.sqrt(1 - generator.random(LEAVES))
    for radius, color in zip(np.minimum(radii, LARGEST_LEAF) * side, colors, strict=True):
        _draw_leaf(draw, generator, radius, side, tuple(color))
    return np.asarray(image.resize((TEXTURE_SIZE, TEXTURE_SIZE), Image.Resampling.BOX))


def _draw_leaf(
    draw: ImageDraw.ImageDraw,
    generator: np.random.Generator,
    radius: float,
    side: int,
    color: tuple[int, int, int],
) -> None:
    x, y = generator.uniform(0, side, 2)
    corners = generator.choice([3, 4, 0])  # 0: an ellipse
    if corners == 0:
        wide, high = radius * generator.uniform(0.5, 1, 2)
        draw.ellipse((x - wide, y - high, x + wide, y + high), fill=color)
        return
    angles = generator.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners
    points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=-1)
    draw.polygon([tuple(point) for point in points.tolist()], fill=color)
