"""A mask enters; the length or area of the surface that runs between its pixels leaves, at every corner.

Around a corner where pixels meet lie four (2D) or eight (3D) of them. The surface that keeps the foreground
among them from the background goes through the midpoints of the edges that it cuts, as marching squares and
marching cubes have it. Where that can be done in several ways, those of the smaller kind, foreground or
background, are kept apart from each other unless they share a face.

Source: Lorensen and Cline 1987, Marching cubes, SIGGRAPH 21.
"""

import itertools
from functools import lru_cache

import numpy as np

Corner = tuple[int, ...]


def measure(mask: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Length or area at the corners of pixels.

    Args:
      mask: (...) booleans with two or three axes; beyond its edges is background.
      steps: from a pixel to the next along each axis.
    Returns: float64 of one corner more than pixels along each axis; 0 where no surface runs.
    """
    code = np.zeros([side + 1 for side in mask.shape], np.int64)
    padded = np.pad(mask, 1)
    for bit, corner in enumerate(itertools.product((0, 1), repeat=mask.ndim)):
        part = tuple(slice(at, at + side + 1) for at, side in zip(corner, mask.shape, strict=True))
        code += padded[part].astype(np.int64) << bit
    return _table(tuple(steps.tolist()))[code]


@lru_cache(maxsize=32)
def _table(spacing: tuple[float, ...]) -> np.ndarray:
    """The measure of each of the 16 or 256 ways in which pixels around a corner may be set."""
    steps = np.array(spacing)
    corners: list[Corner] = list(itertools.product((0, 1), repeat=len(steps)))
    measures = np.zeros(2 ** len(corners))
    for code in range(1, len(measures) - 1):
        inside = [corner for bit, corner in enumerate(corners) if code >> bit & 1]
        outside = [corner for corner in corners if corner not in inside]
        smaller = min(inside, outside, key=len)
        measures[code] = sum(_around(part, steps) for part in _connected(smaller))
    return measures


def _connected(corners: list[Corner]) -> list[list[Corner]]:
    """Parts whose pixels share faces."""
    left, parts = list(corners), []
    while left:
        part = [left.pop()]
        for corner in part:  # which grows meanwhile
            near = [other for other in left if len(_axes(corner, other)) == 1]
            left = [other for other in left if other not in near]
            part += near
        parts.append(part)
    return parts


def _axes(one: Corner, other: Corner) -> list[int]:
    """Those in which two corners differ."""
    return [axis for axis, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]


def _around(part: list[Corner], steps: np.ndarray) -> float:
    """Of the surface around up to half of the pixels at a corner, which are connected."""
    edges = [
        found[0]
        for pair in itertools.combinations(part, 2)
        if len(found := _axes(*pair)) == 1  # the axis of a face that two have in common
    ]
    if len(steps) == 2:
        return float(np.hypot(*steps)) / 2 if len(part) == 1 else float(steps[edges[0]])
    face = np.prod(steps) / steps  # the area of a voxel's face across each axis
    oblique = float(np.linalg.norm(face))
    across = [axis for axis in range(3) if axis not in edges]
    if len(part) == 1:  # a triangle
        return oblique / 8
    if len(part) == 2:  # a rectangle
        return float(np.linalg.norm(face[across])) / 2
    if len(part) == 3:  # a triangle across the axis that they do not leave, and a trapezoid
        return float(face[across[0]]) / 2 + 3 * oblique / 8
    if len(edges) == 4:  # a face
        return float(face[across[0]])
    neighbours = [sum(len(_axes(one, other)) == 1 for other in part) for one in part]
    if max(neighbours) == 3:  # a hexagon
        return 3 * oblique / 4
    first, middle, last = _along(part)  # a bent path: a triangle, a trapezoid, and two triangles
    return oblique / 2 + float(np.hypot(face[middle], face[first]) + np.hypot(face[middle], face[last])) / 4


def _along(part: list[Corner]) -> tuple[int, int, int]:
    """The axes of the steps of a path of four."""
    for path in itertools.permutations(part):
        steps = [_axes(*pair) for pair in itertools.pairwise(path)]
        if all(len(axes) == 1 for axes in steps):
            return steps[0][0], steps[1][0], steps[2][0]
    raise AssertionError(part)
