"""Images that fit neither into memory nor onto the disk: decoded anew whenever they are asked for.

What gathers a batch by its indices does not know them from an array. The head phase asks once for
each image and keeps the features; to fine-tune decodes all of them in every epoch.
"""

from collections.abc import Callable

import numpy as np


class StreamedImages:
    """N encoded images, as an array uint8 (N, H, W, 1 or 3) has them."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        num_images: int,
        shape: tuple[int, int, int],
        decode: Callable[[np.ndarray], np.ndarray],
        identify: Callable[[], str],
    ) -> None:
        """Keeps what makes them.

        Args:
            num_images: N.
            shape: of an image.
            decode: indices, int (K,), to the images, uint8 (K, H, W, C).
            identify: returns the same text for the same pixels, without decoding them.
        """
        self.shape = (num_images, *shape)
        self._decode, self.identify = decode, identify

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        """Returns uint8 (K, H, W, C), or (H, W, C) of one; what it takes grows with K alone.

        Raises:
            IndexError: there is no such image.
            InputError: an image does not decode.
        """
        if isinstance(index, slice):
            return self._decode(np.arange(*index.indices(len(self))))
        chosen = np.asarray(index)
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        if chosen.size and not -len(self) <= chosen.min() <= chosen.max() < len(self):
            raise IndexError(f"there are {len(self):,} images")
        decoded = self._decode(np.atleast_1d(np.where(chosen < 0, chosen + len(self), chosen)))
        return decoded if chosen.ndim else decoded[0]

    @property
    def nbytes(self) -> int:
        """What they would take decoded."""
        return int(np.prod(self.shape, dtype=np.int64))
