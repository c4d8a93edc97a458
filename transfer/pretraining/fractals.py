"""Sprites: fractals of iterated function systems, and silhouettes. NumPy only.

A system of 2 to 4 affine maps is a class; its attractor, rendered many times with one map
changed a little, gives the class its examples. Sources: Kataoka et al., "Pre-training without
Natural Images", ACCV 2020 (FractalDB); Anderson and Farrell, "Improving Fractal Pre-training",
WACV 2022, arXiv:2110.03091, whose sampling of the maps by their singular values needs no
search for systems that look like something.

All sprites are rendered once, in seconds, and kept on disk.
"""

import hashlib
from pathlib import Path

import numpy as np

from transfer.pretraining import textures
from transfer.storage.cache import checked_file, is_as_written

SPRITE_SIZE = 64  # pixels
MAP_COUNTS = (2, 3, 4)
JITTER = (0.8, 1.1)  # what one map of a system is multiplied by

# The chaos game is played by many walkers at once, so that NumPy computes arrays, not numbers.
WALKERS = 128
STEPS = 64  # walkers x steps: two points for each pixel, as the paper has
BURN_IN = 12  # steps until the walkers have spread over the attractor

HARMONICS = np.arange(2, 9)  # of the outline of a silhouette; the first would only shift it
FILLING_SLOPES = (0.5, 2.0)


def sample_singular_values(count: int, total: float, generator: np.random.Generator) -> np.ndarray:
    """Draws the singular values of contractions whose weighted sum is given.

    Args:
        count: number of maps.
        total: the sum of s1 + 2 s2 over all maps, between 0 and 3 * count.
        generator: source of the numbers.

    Returns:
        float64 (count, 2) with 1 >= s1 >= s2 >= 0. Source: arXiv:2110.03091, algorithm 1.
    """
    values = np.empty((count, 2))
    rest = total
    for index in range(count - 1):
        needed = rest - 3 * (count - 1 - index)  # what the maps after this one cannot make up
        s1 = _draw_between(generator, max(0.0, needed / 3), min(1.0, rest))
        s2 = _draw_between(generator, max(0.0, (needed - s1) / 2), min(s1, (rest - s1) / 2))
        values[index] = s1, s2
        rest -= s1 + 2 * s2
    s2 = _draw_between(generator, max(0.0, (rest - 1) / 2), rest / 3)
    values[-1] = rest - 2 * s2, s2
    return values


def _draw_between(generator: np.random.Generator, low: float, high: float) -> float:
    return generator.uniform(low, max(low, high))  # rounding may put `high` below `low`


def sample_system(generator: np.random.Generator) -> np.ndarray:
    """Draws an iterated function system: 2 to 4 contracting affine maps.

    Returns:
        float64 (n, 2, 3): a matrix and a translation each. The sum of s1 + 2 s2 lies between
        (5 + n) / 2 and (6 + n) / 2, where attractors are neither dust nor solid.
    """
    count = generator.choice(MAP_COUNTS)
    total = generator.uniform((5 + count) / 2, (6 + count) / 2)
    values = sample_singular_values(count, total, generator)
    left, right = (_random_orthogonal(generator, count) for _ in range(2))
    maps = np.empty((count, 2, 3))
    maps[:, :, :2] = left * values[:, None, :] @ right
    maps[:, :, 2] = generator.uniform(-1, 1, (count, 2))
    return maps


def _random_orthogonal(generator: np.random.Generator, count: int) -> np.ndarray:
    angle = generator.uniform(-np.pi, np.pi, count)
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.stack([cos, -sin, sin, cos], axis=-1).reshape(count, 2, 2)
    return rotation * generator.choice([-1.0, 1.0], (count, 1, 2))


def jitter_system(maps: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Makes variants of a system, one map of each multiplied by a number in `JITTER`.

    Args:
        maps: float64 (n, 2, 3).
        count: number of variants.
        generator: source of the choices.

    Returns:
        float64 (count, n, 2, 3); every map still contracts.
    """
    variants = np.repeat(maps[None], count, axis=0)
    chosen = generator.integers(len(maps), size=count)
    largest = np.linalg.svd(maps[chosen, :, :2], compute_uv=False)[:, 0]
    factor = generator.uniform(JITTER[0], np.minimum(JITTER[1], 1 / largest))
    variants[np.arange(count), chosen] *= factor[:, None, None]
    return variants


def play_chaos_game(systems: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Follows walkers that take one of a system's maps at random, again and again.

    A map is taken in proportion to its determinant, the share of the attractor it covers.

    Args:
        systems: float64 (R, n, 2, 3).
        generator: source of the choices.

    Returns:
        float32 (2, R, STEPS * WALKERS): x and y of points of each system's attractor.
    """
    count, num_maps = systems.shape[:2]
    shares = np.abs(np.linalg.det(systems[..., :2]))
    edges = np.cumsum(shares / shares.sum(1, keepdims=True), axis=1)[:, :-1].astype(np.float32)
    first_map = np.arange(count)[:, None] * num_maps
    a, b, e, c, d, f = np.moveaxis(systems.reshape(-1, 6), -1, 0).astype(np.float32)
    # The first map's own fixed point lies on the attractor.
    start = np.linalg.solve(np.eye(2) - systems[:, 0, :, :2], systems[:, 0, :, 2:])
    x, y = np.repeat(start.astype(np.float32), WALKERS, axis=2).swapaxes(0, 1)
    points = np.empty((2, count, STEPS, WALKERS), np.float32)
    for step in range(-BURN_IN, STEPS):
        chance = generator.random((count, WALKERS), np.float32)
        chosen = first_map + sum(chance >= edges[:, k, None] for k in range(num_maps - 1))
        moved = a[chosen] * x + b[chosen] * y + e[chosen]
        x, y = moved, c[chosen] * x + d[chosen] * y + f[chosen]
        if step >= 0:
            points[:, :, step] = x, y
    return points.reshape(2, count, -1)


def draw_points(points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draws clouds of points, each point as a 3x3 patch, filling the sprite.

    Args:
        points: float32 (2, R, P), x and y.
        generator: source of the patches: in each sprite some of the nine pixels are left out.

    Returns:
        uint8 (R, SPRITE_SIZE, SPRITE_SIZE): 0 outside, 1 to 255 with the density of points.
    """
    count = points.shape[1]
    lowest = points.min(2, keepdims=True)
    scale = (SPRITE_SIZE - 2.001) / np.maximum(points.max(2, keepdims=True) - lowest, 1e-6)
    column, row = ((points - lowest) * scale).astype(np.int32)
    padded_size = SPRITE_SIZE + 2  # the patches of points at the edge need room
    sprite = np.arange(count, dtype=np.int32)[:, None]
    flat = ((sprite * padded_size + row + 2) * padded_size + column + 2).ravel()
    hits = np.bincount(flat, minlength=count * padded_size**2).astype(np.float32)
    hits = hits.reshape(count, padded_size, padded_size)
    patches = generator.random((3, 3, count, 1, 1)) < 0.5
    patches[1, 1] = True
    density = np.zeros((count, SPRITE_SIZE, SPRITE_SIZE), np.float32)
    for i, j in np.ndindex(3, 3):
        density += hits[:, i : i + SPRITE_SIZE, j : j + SPRITE_SIZE] * patches[i, j]
    return _to_bytes(density)


def _to_bytes(density: np.ndarray) -> np.ndarray:
    # Against the mean of the covered pixels: the greatest may be a spike that hides the rest.
    mean = density.sum((1, 2)) / np.count_nonzero(density, (1, 2))
    return np.ceil(255 * np.sqrt(np.minimum(density / (4 * mean[:, None, None]), 1))).astype(
        np.uint8
    )


def render_system(seed: int, number: int, count: int) -> np.ndarray:
    """Renders the variants of one class of fractals.

    Args:
        seed: seed of the bank.
        number: of the class; the same whatever the number of classes.
        count: number of sprites.

    Returns:
        uint8 (count, SPRITE_SIZE, SPRITE_SIZE); half of them mirrored along the diagonal.
    """
    generator = np.random.default_rng([seed, 2, number])
    variants = jitter_system(sample_system(generator), count, generator)
    return _transpose_half(draw_points(play_chaos_game(variants, generator), generator), generator)


def render_silhouette(seed: int, number: int, count: int) -> np.ndarray:
    """Renders the variants of one class of silhouettes: a smooth outline, filled with noise.

    The outline's radius is a sum of waves over the angle. Variants differ in the amplitudes,
    a little, and in their filling.

    Args: as `render_system`.

    Returns:
        uint8 (count, SPRITE_SIZE, SPRITE_SIZE): 0 outside, 1 to 255 inside.
    """
    generator = np.random.default_rng([seed, 3, number])
    waves = generator.normal(0, 0.6, (2, len(HARMONICS))) / HARMONICS**0.7
    amplitudes = waves * generator.normal(1, 0.1, (count, *waves.shape))
    row, column = (np.indices((SPRITE_SIZE, SPRITE_SIZE)) + 0.5) / SPRITE_SIZE * 2 - 1
    angles = np.arctan2(row, column)[..., None] * HARMONICS
    basis = np.stack([np.cos(angles), np.sin(angles)])  # (2, S, S, harmonics)
    outline = np.exp(np.einsum("nkh,kijh->nij", amplitudes, basis))
    radius = np.hypot(row, column)
    reach = (outline * np.maximum(np.abs(row), np.abs(column)) / radius).max((1, 2), keepdims=True)
    inside = radius < outline / reach
    fillings = textures.power_noise(generator, count, SPRITE_SIZE, FILLING_SLOPES)
    return _transpose_half((inside * (1 + 254 * fillings)).astype(np.uint8), generator)


def _transpose_half(sprites: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    turned = generator.random(len(sprites)) < 0.5
    return np.where(turned[:, None, None], sprites.transpose(0, 2, 1), sprites)


def render_bank(systems: int, silhouettes: int, renderings: int, seed: int) -> np.ndarray:
    """Renders all sprites of all classes, fractals first.

    Returns:
        uint8 (systems + silhouettes, renderings, SPRITE_SIZE, SPRITE_SIZE).
    """
    bank = np.empty((systems + silhouettes, renderings, SPRITE_SIZE, SPRITE_SIZE), np.uint8)
    for number in range(systems):
        bank[number] = render_system(seed, number, renderings)
    for number in range(silhouettes):
        bank[systems + number] = render_silhouette(seed, number, renderings)
    return bank


def load_bank(
    folder: Path, systems: int, silhouettes: int, renderings: int, seed: int
) -> np.ndarray:
    """Returns the bank, from the file in `folder` if it is there, else rendered and kept there.

    The name of the file holds a fingerprint of the numbers asked for and of the code that
    draws, so a file is never taken for another.
    """
    request = [systems, silhouettes, renderings, seed]
    code = Path(__file__).read_bytes() + Path(textures.__file__).read_bytes()
    fingerprint = hashlib.sha256(repr(request).encode() + code).hexdigest()[:12]
    path = folder / f"sprites-{fingerprint}.npy"
    if is_as_written(path):
        bank = np.load(path, allow_pickle=False)
    else:
        bank = render_bank(*request)
        with checked_file(path) as file:
            np.save(file, bank)
    return bank
