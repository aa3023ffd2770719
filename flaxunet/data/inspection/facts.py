"""Measures the images and masks of a dataset, each file read once, and keeps no pixels."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from flaxunet.data import DataError, Listing, Record
from flaxunet.data.inspection.duplicates import fingerprint
from flaxunet.io.images import stored_dtype

_EMPTY = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Facts:
    """Measurements of one sample, or why it cannot be read.

    Attributes:
      record: the sample.
      problems: a line for each reason; then nothing else is set.
      shape: of the image, (H, W, C).
      dtype: of the stored values, such as uint8.
      low, high: the smallest and the largest value of the image, which is in [0, 1].
      values, counts: the labels of the mask and their pixels, int64.
      digest: of the image's shape and values; equal for equal images.
      fingerprint: see `flaxunet.data.inspection.duplicates`.
    """

    record: Record
    problems: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: str = ""
    low: float = 0.0
    high: float = 0.0
    values: np.ndarray = field(default_factory=lambda: _EMPTY)
    counts: np.ndarray = field(default_factory=lambda: _EMPTY)
    digest: str = ""
    fingerprint: np.ndarray = field(default_factory=lambda: _EMPTY)


def measure_all(listing: Listing, threads: int) -> list[Facts]:
    """Measures every record, in their order."""
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        return list(pool.map(measure, listing.records))


def measure(record: Record) -> Facts:
    """Measures one record."""
    try:
        image, mask = record.read()
    except DataError as error:
        return Facts(record, error.problems)
    values, counts = np.unique(mask, return_counts=True)
    content = repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()
    return Facts(
        record,
        shape=image.shape,
        dtype=stored_dtype(record.image),
        low=float(image.min()),
        high=float(image.max()),
        values=values.astype(np.int64),
        counts=counts.astype(np.int64),
        digest=hashlib.blake2b(content, digest_size=16).hexdigest(),
        fingerprint=fingerprint(image),
    )


def count_values(facts: Sequence[Facts]) -> Counter[int]:
    """Counts the pixels of each value in all masks."""
    total: Counter[int] = Counter()
    for one in facts:
        total.update(dict(zip(one.values.tolist(), one.counts.tolist(), strict=True)))
    return total
