"""An image enters; the same in another size leaves, for `--fit resize` and for the predictions after it."""

import numpy as np
from PIL import Image


def fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(H, W) with the longer side as given, and the aspect ratio kept."""
    height, width = (max(1, round(length * side / max(size))) for length in size)
    return height, width


def resized(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w, C) float32 linearly resized to (H, W, C), antialiased, within the range [0, 1] or that of x."""
    height, width = size
    channels = [
        np.asarray(Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR))
        for channel in np.moveaxis(x, -1, 0)
    ]
    # Rounding may lead beyond the ends; those of [0, 1] stay the ends of what lies within.
    return np.clip(np.stack(channels, axis=-1), min(0, x.min()), max(1, x.max()))


def resized_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w) int32 to (H, W), each pixel that of the nearest one."""
    height, width = size
    return np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
