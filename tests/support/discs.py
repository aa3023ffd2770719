"""Draws discs, alone or touching, as masks and as numbered objects."""

import numpy as np

PLACES = ((20, 18, 14), (20, 45, 14), (60, 24, 12), (58, 47, 12), (0, 70, 10), (75, 75, 2))
"""Row, column and radius of discs in an image of 90 x 90 pixels; some touch, some reach the edge."""


def discs(size, *places):
    """(H, W) bool: discs at (row, column, radius)."""
    rows, columns = np.indices(size)
    return np.any([(rows - y) ** 2 + (columns - x) ** 2 <= r * r for y, x, r in places], axis=0)


def numbered_discs(size, *places):
    """(H, W): a number for each disc; where they overlap, the nearer centre has the pixel."""
    rows, columns = np.indices(size)
    far = [(rows - y) ** 2 + (columns - x) ** 2 - r * r for y, x, r in places]
    return np.where(np.min(far, axis=0) <= 0, np.argmin(far, axis=0) + 1, 0).astype(np.int32)
