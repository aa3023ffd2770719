"""An image too large for memory enters in parts; what `intensity.apply` makes of each part leaves."""

from collections.abc import Callable, Iterable

import numpy as np

from flaxunet import intensity

Parts = Callable[[], Iterable[np.ndarray]]
"""The parts (h, W, C) float32 of an image, from the first one at each call."""


def scale(parts: Parts, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function of parts (h, w, C) that does what `intensity.apply` does to the whole image.

    Percentiles are exact: one pass counts the upper halves of the numbers' bits, another the lower halves
    where that has to be known. Means and deviations are taken in float64, in one pass.

    Args:
      parts: of finite numbers.
      name: of the intensity.
    Raises: ValueError as `intensity.apply`, where the function is called.
    """
    if name not in ("percentile", "zscore"):
        return lambda part: intensity.apply(part, name)
    offset, length = _percentiles(parts) if name == "percentile" else _moments(parts)

    def scaled(part: np.ndarray) -> np.ndarray:
        x = (part.astype(np.float64) - offset.reshape(1, 1, -1)) / length.reshape(1, 1, -1)
        return (np.clip(x, 0, 1) if name == "percentile" else x).astype(np.float32)

    return scaled


def _moments(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel; its value and 1 if it has only one."""
    count, mean, squares, low, high = 0, 0.0, 0.0, np.inf, -np.inf
    for part in parts():
        rows = part.reshape(-1, part.shape[-1])
        x = rows.astype(np.float64)
        here, total = x.mean(0), count + len(x)
        gap = here - mean
        mean = mean + gap * len(x) / total
        squares = squares + ((x - here.reshape(1, -1)) ** 2).sum(0) + gap**2 * count * len(x) / total
        count, low, high = total, np.minimum(low, rows.min(0)), np.maximum(high, rows.max(0))
    constant = low == high
    return np.where(constant, low, mean), np.where(constant, 1.0, np.sqrt(squares / max(count, 1)))


def _percentiles(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """The lower one of each channel and the distance of the upper one, as `intensity.apply` chooses them."""
    halves: list[np.ndarray] = []
    for part in parts():
        channels = np.moveaxis(_ordered(part), -1, 0)
        halves = halves or [np.zeros(2**16, np.int64) for _ in channels]
        for counts, channel in zip(halves, channels, strict=True):
            counts += np.bincount((channel >> 16).ravel(), minlength=2**16)
    last = int(halves[0].sum()) - 1
    places = [last * percentile / 100 for percentile in intensity.PERCENTILES]
    # Of the smallest number, of the two that each percentile lies between, and of the largest.
    ranks = [0, *(min(int(place) + more, last) for place in places for more in (0, 1)), last]
    bins = [[int(np.searchsorted(counts.cumsum(), rank, "right")) for rank in ranks] for counts in halves]
    inner = [{upper: np.zeros(2**16, np.int64) for upper in wanted} for wanted in bins]
    for part in parts():
        for found, channel in zip(inner, np.moveaxis(_ordered(part), -1, 0), strict=True):
            for upper, counts in found.items():
                lower = channel[channel >> 16 == upper] & 0xFFFF
                counts += np.bincount(lower, minlength=2**16)
    offsets, lengths = [], []
    for counts, wanted, found in zip(halves, bins, inner, strict=True):
        before = counts.cumsum() - counts
        lower = [
            int(np.searchsorted(found[upper].cumsum(), rank - before[upper], "right"))
            for rank, upper in zip(ranks, wanted, strict=True)
        ]
        keys = np.array(wanted, np.uint32) << 16 | np.array(lower, np.uint32)
        values = _unordered(keys).astype(np.float64)
        low, high = (
            values[2 * i + 1] + (values[2 * i + 2] - values[2 * i + 1]) * (place - int(place))
            for i, place in enumerate(places)
        )
        if low == high:
            low, high = values[0], values[-1]
        offsets.append(low)
        lengths.append((high - low) or 1.0)
    return np.array(offsets), np.array(lengths)


def _ordered(x: np.ndarray) -> np.ndarray:
    """float32 as uint32 that sort alike."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _unordered(keys: np.ndarray) -> np.ndarray:
    """Those float32 again."""
    return np.where(keys >> 31, keys & np.uint32(0x7FFFFFFF), ~keys).astype(np.uint32).view(np.float32)
