"""Normalises the intensities of images, and resizes images and labels."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

Intensity = Literal["dtype", "percentile", "zscore"]
INTENSITIES: tuple[str, ...] = get_args(Intensity)
_EARLIER_NAMES: dict[str, Intensity] = {"type": "dtype"}
PERCENTILES = (0.5, 99.5)
VALUES_AT_ONCE = 2**22  # of a large image
Parts = Callable[[], Iterable[np.ndarray]]
"""Iterates over the parts (h, W, C) float32 of an image, from the first one at each call."""


def canonical(name: Any) -> Any:
    """Today's name of an intensity; earlier ones, and they alone, are replaced: stored networks have them."""
    return _EARLIER_NAMES.get(name, name) if isinstance(name, str) else name


def normalize_intensity(image: np.ndarray, intensity: str) -> np.ndarray:
    """Normalises the intensities of an image to the range that a network expects.

    - "dtype" returns the image as `flaxunet.io.read_image` gives it: integers divided by the maximum
      of their dtype: 0 is black and 1 is white.
    - "percentile" maps the 0.5th percentile to 0 and the 99.5th to 1, and clips. Where both are equal, as in
      an almost empty image, the smallest and the largest value take their places.
    - "zscore" makes the mean 0 and the standard deviation 1, and does not clip.

    The last two normalise each channel of each image (or volume) by itself, which also evens out colours. A
    constant channel becomes 0.

    Args:
      image: (..., C) float32 of finite numbers.
      intensity: "dtype", "percentile" or "zscore".
    Returns: (..., C) float32, in [0, 1] unless it is "zscore"; with "dtype" the same array.
    Raises: ValueError for another name, for NaN and infinity, and with "dtype" for values outside of [0, 1].
    """
    intensity = canonical(intensity)
    if intensity not in INTENSITIES:
        raise ValueError(f"unknown intensity {intensity!r}; expected one of {', '.join(INTENSITIES)}")
    low, high = float(image.min()), float(image.max())
    if not np.isfinite(low + high):
        raise ValueError("NaN or infinite pixels; expected finite numbers")
    if intensity == "dtype":
        if low < 0 or high > 1:
            expected = "expected 0 to 1 with intensity dtype (percentile and zscore take any range)"
            raise ValueError(f"pixels between {low:g} and {high:g}; {expected}")
        return image
    scale = _by_percentiles if intensity == "percentile" else _by_moments
    # In float64, a channel at a time: a small range on a large offset keeps what bits it has.
    channels = [scale(np.asarray(channel, np.float64)) for channel in np.moveaxis(image, -1, 0)]
    return np.stack(channels, axis=-1).astype(np.float32)


def channel_range(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest value of each channel of (..., C): two arrays (C,) float32."""
    axes = tuple(range(x.ndim - 1))
    return x.min(axes).astype(np.float32), x.max(axes).astype(np.float32)


def rescale(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Maps `low` (C,) to 0 and `high` (C,) to 1 in (..., C) float32; a constant channel becomes 0."""
    return ((x - low) / np.maximum(high - low, np.float32(1e-30))).astype(np.float32, copy=False)


def _by_percentiles(x: np.ndarray) -> np.ndarray:
    low, high = np.percentile(x, PERCENTILES)
    if low == high:
        low, high = x.min(), x.max()
    return np.clip((x - low) / ((high - low) or 1.0), 0, 1)


def _by_moments(x: np.ndarray) -> np.ndarray:
    # Not by the deviation, which rounding keeps from being 0 on a constant channel.
    constant = x.min() == x.max()
    return np.zeros_like(x) if constant else (x - x.mean()) / x.std()


def normalizer_of_parts(parts: Parts, intensity: str) -> Callable[[np.ndarray], np.ndarray]:
    """Makes the function that normalises parts of an image that is too large for memory.

    Percentiles are exact: one pass counts the upper halves of the bits of all values, a second one the lower
    halves where they matter. Means and deviations are computed in float64, in one pass.

    Args:
      parts, intensity: of finite numbers; as of `normalize_intensity`.
    Returns: from a part (h, w, C) float32 to what `normalize_intensity` makes of it in the whole image, which
      raises ValueError as that does.
    """
    if intensity not in ("percentile", "zscore"):
        return partial(normalize_intensity, intensity=intensity)
    is_clipped = intensity == "percentile"
    offset, length = _percentiles(parts) if is_clipped else _moments(parts)

    def normalize(part: np.ndarray) -> np.ndarray:
        x = (part.astype(np.float64) - offset) / length
        return (np.clip(x, 0, 1) if is_clipped else x).astype(np.float32)

    return normalize


def _moments(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (C,) of each channel; its value and 1 if it is constant."""
    count, mean, squares, low, high = 0, 0.0, 0.0, np.inf, -np.inf
    for part in parts():
        rows = part.reshape(-1, part.shape[-1])
        x = rows.astype(np.float64)
        here, total = x.mean(0), count + len(x)
        gap = here - mean
        mean = mean + gap * len(x) / total
        squares = squares + ((x - here) ** 2).sum(0) + gap**2 * count * len(x) / total
        count, low, high = total, np.minimum(low, rows.min(0)), np.maximum(high, rows.max(0))
    constant = low == high
    return np.where(constant, low, mean), np.where(constant, 1.0, np.sqrt(squares / max(count, 1)))


def _percentiles(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """The lower percentile (C,) of each channel and the distance to the upper one."""
    upper: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(2**16, np.int64))
    for channel, keys in _ordered_channels(parts):
        upper[channel] += np.bincount(keys >> 16, minlength=2**16)
    last = int(upper[0].sum()) - 1
    places = [last * percentile / 100 for percentile in PERCENTILES]
    # Ranks of the smallest value, of the two that each percentile lies between, and of the largest.
    ranks = np.unique([0, *(min(int(place) + more, last) for place in places for more in (0, 1)), last])
    halves = {channel: np.searchsorted(counts.cumsum(), ranks, "right") for channel, counts in upper.items()}
    lower: dict[tuple[int, int], np.ndarray] = defaultdict(lambda: np.zeros(2**16, np.int64))
    for channel, keys in _ordered_channels(parts):
        for half in np.unique(halves[channel]).tolist():
            lower[channel, half] += np.bincount(keys[keys >> 16 == half] & 0xFFFF, minlength=2**16)
    offsets, lengths = [], []
    for channel, counts in upper.items():
        before = counts.cumsum() - counts
        keys = [
            half << 16 | int(np.searchsorted(lower[channel, half].cumsum(), rank - before[half], "right"))
            for rank, half in zip(ranks.tolist(), halves[channel].tolist(), strict=True)
        ]
        bits = [key & 0x7FFFFFFF if key >> 31 else ~key & 0xFFFFFFFF for key in keys]
        values = np.array(bits, np.uint32).view(np.float32).astype(np.float64)
        low, high = np.interp(places, ranks, values)
        if low == high:
            low, high = values[0], values[-1]
        offsets.append(low)
        lengths.append((high - low) or 1.0)
    return np.array(offsets), np.array(lengths)


def _ordered_channels(parts: Parts) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each channel of each part: its number, and its values as uint32 of the same order."""
    for part in parts():
        for channel, x in enumerate(np.moveaxis(part, -1, 0)):
            bits = np.ascontiguousarray(x, np.float32).view(np.uint32).ravel()
            yield channel, np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def fit_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The size (H, W) whose longer side is `side` and whose aspect ratio is that of another size."""
    height, width = (max(1, round(length * side / max(size))) for length in size)
    return height, width


def resize_image(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes (h, w, C) float32 to (H, W, C), bilinearly and antialiased.

    Values stay within [0, 1] or, where it is larger, within the range of x.
    """
    channels = [_resize(channel, size, Image.Resampling.BILINEAR) for channel in np.moveaxis(x, -1, 0)]
    # Rounding may lead beyond the range.
    return np.clip(np.stack(channels, axis=-1), min(0, x.min()), max(1, x.max()))


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes (h, w) int32 to (H, W); each pixel gets the label of the nearest one."""
    return _resize(labels, size, Image.Resampling.NEAREST)


def _resize(x: np.ndarray, size: tuple[int, int], resampling: Image.Resampling) -> np.ndarray:
    height, width = size
    return np.asarray(Image.fromarray(x).resize((width, height), resampling))
