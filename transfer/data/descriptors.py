"""What an image looks like, in numbers, without a network: for the audit and its searches."""

from collections.abc import Iterator

import numpy as np

from transfer.data.decode import shrink_images

COMPARED_SIZE = 32  # images are compared at no more than this side, in pixels
CHUNK_IMAGES = 2048  # whose float32 pixels are in memory at once

_FREQUENCIES = 8  # in each direction; the higher ones change when a picture is recompressed
_CELL = 4  # pixels
_ORIENTATIONS = 9
_CLIP = 0.2  # of a normalised block
_GRADIENT_FLOOR = 0.2  # blocks with less are noise, and are not raised to full contrast


def shrink(images: np.ndarray) -> np.ndarray:
    """Returns uint8 images (N, H, W, C) with sides of at most `COMPARED_SIZE`."""
    return shrink_images(images, COMPARED_SIZE)


def spectra(images: np.ndarray) -> np.ndarray:
    """Describes images such that shifts, brightness and contrast change next to nothing.

    A shift changes only the phase of the Fourier transform, so the magnitude of its lower
    frequencies is taken; mean and length are normalised away.

    Args:
        images: uint8 (N, H, W, C), sides of at most `COMPARED_SIZE`.

    Returns:
        float32 (N, D), rows of mean 0 and length 1 (all zeros for an image of one colour).
    """
    height, width = images.shape[1:3]
    rows, columns = (min(_FREQUENCIES, (side - 1) // 2) for side in (height, width))
    parts = []
    for gray in _gray_chunks(images):
        gray = gray - gray.mean(axis=(1, 2), keepdims=True)
        # The root, because a few low frequencies would else be all that counts.
        magnitude = np.sqrt(np.abs(np.fft.rfft2(gray)))
        kept = np.concatenate([magnitude[:, : rows + 1], magnitude[:, height - rows :]], axis=1)
        parts.append(_normalised(kept[:, :, : columns + 1].reshape(len(gray), -1)))
    return np.concatenate(parts)


def _gray_chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(images), CHUNK_IMAGES):
        yield images[start : start + CHUNK_IMAGES].mean(axis=3, dtype=np.float32)  # (B, H, W)


def _normalised(rows: np.ndarray) -> np.ndarray:
    rows = rows - rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(lengths, 1e-6)).astype(np.float32)


def appearance_features(images: np.ndarray) -> np.ndarray:
    """Describes the shapes in images and their colours, for a plain classifier.

    Histograms of oriented gradients (Dalal and Triggs, CVPR 2005; cells of 4 x 4 pixels, 9
    orientations, blocks of 2 x 2 cells), beside the pixels themselves.

    Args:
        images: uint8 (N, H, W, C); seen at no more than `COMPARED_SIZE`.

    Returns:
        float32 (N, D): the gradients' total variance is 1, the pixels' 0.5.
    """
    images = _whole_cells(shrink(images))
    gradients = np.concatenate([_oriented_gradients(gray) for gray in _gray_chunks(images)])
    pixels = images.reshape(len(images), -1).astype(np.float32)
    return np.concatenate(
        [_with_variance(gradients, 1.0), _with_variance(pixels, 0.5)], axis=1, dtype=np.float32
    )


def _whole_cells(images: np.ndarray) -> np.ndarray:
    # At least two cells each way, for one block.
    wanted = [max(-(-side // _CELL), 2) * _CELL for side in images.shape[1:3]]
    missing = [want - side for want, side in zip(wanted, images.shape[1:3], strict=True)]
    return np.pad(images, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")


def _with_variance(features: np.ndarray, total: float) -> np.ndarray:
    scale = np.sqrt(total / max(features.var(axis=0, dtype=np.float64).sum(), 1e-12))
    return features * np.float32(scale)


def _oriented_gradients(gray: np.ndarray) -> np.ndarray:
    # gray float32 (B, H, W) in [0, 255] -> float32 (B, blocks * 36)
    padded = np.pad(np.sqrt(gray / 255), ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    strength = np.hypot(across, down)  # (B, H, W)
    # A gradient counts for the two orientations that it lies between.
    orientation = np.arctan2(down, across) / np.pi % 1 * _ORIENTATIONS
    lower = np.floor(orientation)
    upper_share = orientation - lower
    cells = np.stack(
        [
            _sum_cells(
                strength
                * (
                    (lower % _ORIENTATIONS == number) * (1 - upper_share)
                    + ((lower + 1) % _ORIENTATIONS == number) * upper_share
                )
            )
            for number in range(_ORIENTATIONS)
        ],
        axis=-1,
    )  # (B, H / 4, W / 4, 9)
    corners = (cells[:, :-1, :-1], cells[:, :-1, 1:], cells[:, 1:, :-1], cells[:, 1:, 1:])
    blocks = np.concatenate(corners, axis=-1)  # (B, H / 4 - 1, W / 4 - 1, 36)
    blocks = np.minimum(_unit_length(blocks, _GRADIENT_FLOOR), _CLIP)
    return _unit_length(blocks, 0.03).reshape(len(gray), -1).astype(np.float32)


def _sum_cells(values: np.ndarray) -> np.ndarray:
    count, height, width = values.shape
    return values.reshape(count, height // _CELL, _CELL, width // _CELL, _CELL).sum(axis=(2, 4))


def _unit_length(blocks: np.ndarray, floor: float) -> np.ndarray:
    return blocks / np.sqrt((blocks**2).sum(axis=-1, keepdims=True) + floor**2)
