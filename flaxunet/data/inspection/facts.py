"""Measures the images and masks of a dataset, each file read once, and keeps no pixels.

A fingerprint tells nearly equal images: 16 x 16 means of gray, less their mean, at norm 1. Two images are
nearly the same if their fingerprints correlate with at least `CORRELATION`. Measured on 60 images of nuclei:
the same image as JPEG of quality 20, at half its size, brighter, at a gamma of 0.8 or with noise of 0.02 has
0.993 or more, two different ones have at most 0.40. Slices of a brain 1 and 2 mm apart have 0.994 in the
median, those 10 mm apart at most 0.980. The signs of the differences between neighbours (dHash) fail, because
noise flips them wherever an image is black.
"""

import hashlib
from collections import Counter
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
    """Measurements of one sample.

    Attributes:
      shape: of the image, (H, W, C).
      dtype: of the stored values, such as uint8.
      low, high: the smallest and the largest value of the image, which is in [0, 1].
      values, counts: the labels of the mask and their pixels, int64.
      digest: of the image's shape and values; equal for equal images.
      fingerprint: (256,) float32; zeros, which match nothing, if the image is constant.
    """

    record: Record
    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    values: np.ndarray
    counts: np.ndarray
    digest: str
    fingerprint: np.ndarray


def measure_all(listing: Listing, threads: int) -> tuple[list[Facts], list[str]]:
    """Measures every record in their order; returns a line for each problem of those that cannot be read."""
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        results = list(pool.map(_measure, listing.records))
    problems = [line for one in results if isinstance(one, DataError) for line in one.problems]
    return [one for one in results if isinstance(one, Facts)], problems


def count_values(facts: Sequence[Facts]) -> Counter[int]:
    """Counts the pixels of each value in all masks."""
    total: Counter[int] = Counter()
    for one in facts:
        total.update(dict(zip(one.values.tolist(), one.counts.tolist(), strict=True)))
    return total


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
    content = repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()
    return Facts(
        record,
        shape=image.shape,
        dtype=stored_dtype(record.image),
        low=float(image.min()),
        high=float(image.max()),
        values=values.astype(np.int64),
        counts=counts,
        digest=hashlib.blake2b(content, digest_size=16).hexdigest(),
        fingerprint=_fingerprint(image),
    )


def _fingerprint(image: np.ndarray) -> np.ndarray:
    gray = np.asarray(image, np.float32).mean(axis=-1)
    means = np.asarray(Image.fromarray(gray).resize((SIDE, SIDE), Image.Resampling.BOX)).ravel()
    means = means - means.mean()
    norm = np.linalg.norm(means)
    return means / norm if norm > 1e-6 else np.zeros_like(means)
