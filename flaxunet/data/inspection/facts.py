"""Measures the images and masks of a dataset, each file read once, and keeps no pixels.

A fingerprint tells nearly equal images: 16 x 16 means of gray, less their mean, at norm 1. Two images are
nearly the same if their fingerprints correlate with at least `CORRELATION`. Measured on 60 images of nuclei:
the same image as JPEG of quality 20, at half its size, brighter, at a gamma of 0.8 or with noise of 0.02 has
0.993 or more, two different ones have at most 0.40. Slices of a brain 1 and 2 mm apart have 0.994 in the
median, those 10 mm apart at most 0.980. The signs of the differences between neighbours (dHash) fail, because
noise flips them wherever an image is black.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from flaxunet.data import DataError, Listing, Record
from flaxunet.io.images import stored_dtype

SIDE = 16  # of a fingerprint
CORRELATION = 0.99
_BLOCK = 2**24  # pairs compared at once


@dataclass(frozen=True, eq=False)
class Facts:
    """Measurements of one sample."""

    record: Record
    shape: tuple[int, ...]  # of the image, (H, W, C)
    dtype: str  # of the stored values, such as uint8
    low: float  # smallest and
    high: float  # largest value of the image, which is in [0, 1]
    values: np.ndarray  # labels of the mask, int64, and
    counts: np.ndarray  # their pixels
    digest: str  # of the image's shape and values
    fingerprint: np.ndarray  # (256,) float32; zeros, which match nothing, if the image is constant


def measure_all(listing: Listing, threads: int) -> tuple[list[Facts], list[str]]:
    """Measures every record in their order; returns a line for each problem of those that cannot be read."""
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        results = list(pool.map(_measure, listing.records))
    problems = [line for one in results if isinstance(one, DataError) for line in one.problems]
    return [one for one in results if isinstance(one, Facts)], problems


def nearest(queries: Sequence[Facts], others: Sequence[Facts]) -> tuple[np.ndarray, np.ndarray]:
    """Finds the image with the fingerprint that correlates most with that of each query.

    Returns: for each query, its index in `others`, and the correlation.
    """
    first, second = (np.stack([one.fingerprint for one in side]) for side in (queries, others))
    rows = max(1, _BLOCK // len(second))
    blocks = [first[start : start + rows] @ second.T for start in range(0, len(first), rows)]
    indices, best = zip(*((block.argmax(axis=1), block.max(axis=1)) for block in blocks), strict=True)
    return np.concatenate(indices), np.concatenate(best)


def _measure(record: Record) -> Facts | DataError:
    try:
        image, mask = record.read()
    except DataError as error:
        return error
    values, counts = np.unique(mask, return_counts=True)
    low, high, dtype = float(image.min()), float(image.max()), stored_dtype(record.image)
    content = repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    measured = values.astype(np.int64), counts, digest, _fingerprint(image)
    return Facts(record, image.shape, dtype, low, high, *measured)


def _fingerprint(image: np.ndarray) -> np.ndarray:
    gray = np.asarray(image, np.float32).mean(axis=-1)
    means = np.asarray(Image.fromarray(gray).resize((SIDE, SIDE), Image.Resampling.BOX)).ravel()
    means = means - means.mean()
    norm = np.linalg.norm(means)
    return means / norm if norm > 1e-6 else np.zeros_like(means)
