"""Images enter; pairs of images in different splits that are the same, or nearly, leave.

An image is shrunk to 9 x 9 means of gray. Whether each is darker than its right and its lower neighbour gives
2 x 72 bits (difference hash; Krawetz 2013, Kind of Like That). Two images are nearly the same if at most
`BITS` of the 144 differ and their 9 x 9 means correlate with at least `CORRELATION`: which survives another
size, compression, brightness or a little noise.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

SIDE = 9
BITS = 10
CORRELATION = 0.98
_BLOCK = 2**22  # pairs compared at once


def fingerprint(image: np.ndarray) -> np.ndarray:
    """(81,) float32: the 9 x 9 means of an image (H, W, C), mean 0 and norm 1; zeros if it is constant."""
    gray = np.asarray(image, np.float32).mean(axis=-1)
    means = np.asarray(Image.fromarray(gray).resize((SIDE, SIDE), Image.Resampling.BOX)).ravel()
    means = means - means.mean()
    norm = np.linalg.norm(means)
    return means / norm if norm > 1e-6 else np.zeros_like(means)


def similar(prints: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> Iterator[tuple[int, int, int]]:
    """Places of pairs that are nearly the same, and how many bits of theirs differ.

    Args:
      prints: fingerprints of the first images.
      others: those of the second images. Constant images are like none.
    """
    if not len(prints) or not len(others):
        return
    first, second = np.stack(prints), np.stack(others)
    first_bits, second_bits = _bits(first), _bits(second)
    rows = max(1, _BLOCK // len(second))
    for start in range(0, len(first), rows):
        close = first[start : start + rows] @ second.T >= CORRELATION
        for i, j in zip(*np.nonzero(close), strict=True):
            different = int(np.bitwise_count(first_bits[start + i] ^ second_bits[j]).sum())
            if different <= BITS:
                yield int(start + i), int(j), different


def _bits(prints: np.ndarray) -> np.ndarray:
    """(N, 18) uint8: 144 bits for each."""
    means = prints.reshape(-1, SIDE, SIDE)
    right = np.diff(means, axis=2).reshape(len(means), -1) > 0
    down = np.diff(means, axis=1).reshape(len(means), -1) > 0
    return np.packbits(np.concatenate([right, down], axis=1), axis=1)
