"""Label maps enter; the corners of random squares leave, some of them centred on the foreground."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from train.data import samples

Corner = Callable[[int, np.random.Generator], tuple[int, int]]
"""(place of a sample, its random numbers) to (top, left)."""


def corners(split: Sequence[Mapping[str, Any]], size: int, foreground: float) -> Corner:
    """How squares are chosen in a split.

    A square lies anywhere in the image with equal probability, or else, with probability `foreground`, its
    centre is a pixel of the foreground: first a class is drawn among those that the image has, each as
    probable, then one of its pixels. Where the square would leave the image, it is moved back.

    Args:
      split: samples with a label (H, W) int32; classes above 0 are foreground.
      size: side of the squares in pixels; an image that is smaller begins at its corner.
      foreground: probability in [0, 1]; an image without foreground takes no part in it.
    """
    classes = [samples.classes(sample) for sample in split] if foreground else []

    def corner(place: int, rng: np.random.Generator) -> tuple[int, int]:
        sample = split[place]
        height, width = (max(side - size, 0) for side in samples.size(sample))
        if foreground:  # else not a single number may be drawn more than without this
            found = classes[place][classes[place] > 0]
            if rng.random() < foreground and found.size:
                label: np.ndarray = sample["label"]
                pixels = np.flatnonzero(label == rng.choice(found))
                row, column = divmod(int(rng.choice(pixels)), label.shape[1])
                return _within(row - size // 2, height), _within(column - size // 2, width)
        return int(rng.integers(height + 1)), int(rng.integers(width + 1))

    return corner


def _within(start: int, last: int) -> int:
    return min(max(start, 0), last)
