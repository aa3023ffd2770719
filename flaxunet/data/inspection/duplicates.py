"""Compares images by perceptual fingerprints, to find nearly the same image in two splits.

A fingerprint is an image's 16 x 16 means of gray, less their mean, at norm 1. Two images are nearly the same
if their fingerprints correlate with at least `CORRELATION`. Measured on 60 images of nuclei: the same image
as JPEG of quality 20, at half its size, brighter, at a gamma of 0.8 or with noise of 0.02 has 0.993 or more,
two different ones have at most 0.40. Slices of a brain 1 and 2 mm apart have 0.994 in the median, those 10 mm
apart at most 0.980. The signs of the differences between neighbours (dHash) fail, because noise flips them
wherever an image is black.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

SIDE = 16
CORRELATION = 0.99
_BLOCK = 2**24  # pairs compared at once


def fingerprint(image: np.ndarray) -> np.ndarray:
    """Computes a fingerprint.

    Args:
      image: (H, W, C).
    Returns: (256,) float32; zeros, which match nothing, if the image is constant.
    """
    gray = np.asarray(image, np.float32).mean(axis=-1)
    means = np.asarray(Image.fromarray(gray).resize((SIDE, SIDE), Image.Resampling.BOX)).ravel()
    means = means - means.mean()
    norm = np.linalg.norm(means)
    return means / norm if norm > 1e-6 else np.zeros_like(means)


def nearest(queries: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Finds the most similar image for each query.

    Args:
      queries, others: fingerprints.
    Returns: for each query, the index in `others` of the fingerprint that correlates most, and the
      correlation.
    """
    first, second = np.stack(queries), np.stack(others)
    rows = max(1, _BLOCK // len(second))
    blocks = [first[start : start + rows] @ second.T for start in range(0, len(first), rows)]
    indices = np.concatenate([block.argmax(axis=1) for block in blocks])
    return indices, np.concatenate([block.max(axis=1) for block in blocks])
