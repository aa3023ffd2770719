"""Two masks enter; how far their surfaces are apart leaves: HD95, ASSD and NSD, in any dimension.

Where packages differ, the first of each is the default, that of Maier-Hein et al. 2024:

- the surface: `border` is the foreground pixels that share a face with the background, as in MONAI and medpy;
  `pieces` is the lines (2D) or faces (3D) that run between pixels, weighed by their length or area, as in
  surface-distance (Nikolov et al. 2021). What lies beyond the image is background.
- HD95: the larger of two directed percentiles (MONAI, surface-distance), or that of all distances (medpy).
- ASSD: the mean of all distances (MONAI, medpy 0.5), or of the two directed means, which Maier-Hein et al.
  call MASD, and which surface-distance gives one by one.
- NSD: the part of both surfaces within the tolerance of the other one (MONAI, surface-distance).

Of an empty mask and another one HD95 and ASSD are infinite and NSD is 0; of two empty ones all are NaN.

Source: Maier-Hein et al. 2024, Metrics reloaded, Nature Methods 21; Nikolov et al. 2021, Clinically
applicable segmentation of head and neck anatomy, JMIR 23.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flaxunet.metrics import pieces

SURFACES = ("border", "pieces")


@dataclass(frozen=True)
class Distances:
    """From each element of a surface to the nearest one of another surface.

    Attributes:
      found: (N,) float64, from the prediction's surface to the truth's, the shortest first.
      truth: (M,) float64, the other way.
      found_weights: (N,) float64, lengths or areas; ones for the pixels of a border.
      truth_weights: (M,) float64.
      weighted: whether the elements are pieces.
    """

    found: np.ndarray
    truth: np.ndarray
    found_weights: np.ndarray
    truth_weights: np.ndarray
    weighted: bool


def distances(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing: Sequence[float] | None = None,
    *,
    surface: str = "border",
) -> Distances:
    """Measure once, for all of the scores below.

    Args:
      prediction: (...) booleans, or numbers that are foreground where they are not 0.
      truth: the same shape.
      spacing: from a pixel to the next along each axis, such as in mm; 1 if left out.
      surface: "border", or "pieces" of masks with two or three axes.
    Returns: distances in the unit of the spacing; infinite where the other mask is empty.
    Raises: ValueError for shapes that differ, a spacing that does not fit, or another surface.
    """
    found, true = (np.asarray(mask) != 0 for mask in (prediction, truth))
    if found.shape != true.shape or not found.ndim:
        raise ValueError(f"masks of shapes {found.shape} and {true.shape}; accepted are equal ones")
    steps = np.ones(found.ndim) if spacing is None else np.asarray(spacing, np.float64)
    if steps.shape != (found.ndim,) or not (np.isfinite(steps) & (steps > 0)).all():
        raise ValueError(f"spacing {spacing}; accepted are {found.ndim} numbers > 0")
    if surface not in SURFACES or (surface == "pieces" and found.ndim not in (2, 3)):
        raise ValueError(
            f"surface {surface!r} in {found.ndim} dimensions; accepted are border, and pieces in 2 or 3"
        )
    box = _box(found | true)
    found, true = (np.pad(mask[box], 1) for mask in (found, true))
    marked = [_border(mask) if surface == "border" else pieces.measure(mask, steps) for mask in (found, true)]
    there, weights = (_to(marked[1], marked[0], steps)), (_to(marked[0], marked[1], steps))
    return Distances(there[0], weights[0], there[1], weights[1], surface == "pieces")


def hd(between: Distances, percentile: float = 95, *, pooled: bool = False) -> float:
    """Hausdorff distance at a percentile, HD95 by default, in the unit of the spacing.

    Between ranks of a border's pixels it is interpolated; of pieces it is the shortest distance that this
    part of their length or area does not exceed.

    Args:
      between: of two masks.
      percentile: from 0 to 100, which is the largest distance.
      pooled: the percentile of both directions together instead of the larger one of two.
    Returns: infinite if one mask is empty, NaN if both are.
    """
    sides = _sides(between)
    if pooled:
        joined = [np.concatenate(both) for both in zip(*sides, strict=True)]
        sides = [tuple(one[np.argsort(joined[0], kind="stable")] for one in joined)]
    if not between.found.size + between.truth.size:
        return float("nan")
    if not (between.found.size and between.truth.size):
        return float("inf")
    return max(_percentile(far, weights, percentile, between.weighted) for far, weights in sides)


def assd(between: Distances, *, pooled: bool = True) -> float:
    """Average symmetric surface distance, in the unit of the spacing.

    Args:
      between: of two masks.
      pooled: the mean over both surfaces together; else the mean of the two directed means.
    Returns: infinite if one mask is empty, NaN if both are.
    """
    if not between.found.size + between.truth.size:
        return float("nan")
    if not (between.found.size and between.truth.size):
        return float("inf")
    sums = [float((far * weights).sum()) for far, weights in _sides(between)]
    sizes = [float(weights.sum()) for _, weights in _sides(between)]
    if pooled:
        return sum(sums) / sum(sizes)
    return (sums[0] / sizes[0] + sums[1] / sizes[1]) / 2


def nsd(between: Distances, tolerance: float) -> float:
    """Normalised surface distance, or surface Dice: the part of both surfaces that is near enough the other.

    Args:
      between: of two masks.
      tolerance: the largest distance that is near enough, in the unit of the spacing; from 0.
    Returns: in [0, 1]; 0 if one mask is empty, NaN if both are.
    Raises: ValueError for a negative tolerance.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance {tolerance}; accepted are numbers from 0")
    size = sum(weights.sum() for _, weights in _sides(between))
    near = sum(weights[far <= tolerance].sum() for far, weights in _sides(between))
    return float(near / size) if size else float("nan")


def _sides(between: Distances) -> list[tuple[np.ndarray, ...]]:
    return [(between.found, between.found_weights), (between.truth, between.truth_weights)]


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest one that holds all foreground."""
    box = []
    for axis in range(mask.ndim):
        where = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(where[0], where[-1] + 1) if where.size else slice(0, 0))
    return tuple(box)


def _border(mask: np.ndarray) -> np.ndarray:
    """1 where a pixel of the foreground has a face in common with the background."""
    from scipy import ndimage

    return (mask & ~ndimage.binary_erosion(mask)).astype(np.float64)


def _to(goal: np.ndarray, start: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances from the elements of one surface to another surface, sorted, and the elements' weights."""
    from scipy import ndimage

    here = start > 0
    weights = start[here]
    if not goal.any():
        return np.full(weights.shape, np.inf), weights
    far = np.asarray(ndimage.distance_transform_edt(goal == 0, sampling=steps))[here]
    order = np.lexsort((weights, far))
    return far[order], weights[order]


def _percentile(far: np.ndarray, weights: np.ndarray, percentile: float, weighted: bool) -> float:
    if not weighted:
        return float(np.percentile(far, percentile))
    parts = np.cumsum(weights) / weights.sum()
    return float(far[min(int(np.searchsorted(parts, percentile / 100)), len(far) - 1)])
