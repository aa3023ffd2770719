"""An image of any range enters; one in the range that a network was trained with leaves."""

from typing import Literal, get_args

import numpy as np

Intensity = Literal["type", "percentile", "zscore"]
INTENSITIES: tuple[str, ...] = get_args(Intensity)
PERCENTILES = (0.5, 99.5)


def apply(image: np.ndarray, name: str) -> np.ndarray:
    """Brings an image's intensities to the range that a network expects.

    "type" leaves them as `flaxunet.images.read_image` gives them: 0 is black, and 1, the largest value of the
    file's type, is white. "percentile" moves the 0.5th percentile to 0 and the 99.5th to 1, and clips; where
    both are equal, as on an almost empty image, the smallest and the largest value take their places.
    "zscore" makes the mean 0 and the standard deviation 1, and does not clip. Both do so for each channel of
    each image (or volume), which also evens out colours. A channel of one value becomes 0.

    Args:
      image: (..., C) float32 of finite numbers.
      name: "type", "percentile" or "zscore".
    Returns: (..., C) float32; in [0, 1] but for "zscore". With "type" it is the given array.
    Raises: ValueError for another name, for NaN and infinity, and, with "type", for values outside of [0, 1].
    """
    if name not in INTENSITIES:
        raise ValueError(f"unknown intensity {name!r}; known are {', '.join(INTENSITIES)}")
    low, high = float(image.min()), float(image.max())
    if not np.isfinite(low + high):
        raise ValueError("NaN or infinite pixels; accepted are numbers")
    if name == "type":
        if low < 0 or high > 1:
            raise ValueError(
                f"pixels between {low:g} and {high:g}; accepted are 0 to 1 with intensity type, "
                "and any numbers with percentile or zscore"
            )
        return image
    scale = _by_percentiles if name == "percentile" else _by_moments
    # In float64, a channel at a time: a small range on a large offset keeps what bits it has.
    channels = [scale(np.asarray(channel, np.float64)) for channel in np.moveaxis(image, -1, 0)]
    return np.stack(channels, axis=-1).astype(np.float32)


def ends(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest value of each channel of (..., C), (C,) float32 each."""
    axes = tuple(range(x.ndim - 1))
    return x.min(axes).astype(np.float32), x.max(axes).astype(np.float32)


def between(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(..., C) float32 whose `low` (C,) became 0, and `high` 1; a channel without any range becomes 0."""
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
