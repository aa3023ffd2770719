"""Computes HD95, ASSD and NSD from the distances between the surfaces of two masks, in any dimension.

Packages define these scores differently. The first definition of each is the default here, and that of
Maier-Hein et al. 2024:

- surface: `border` is the foreground pixels that share a face with the background, as in MONAI and medpy;
  `pieces` is the contour (2D) or mesh (3D) of marching squares or cubes between the pixels, weighted by its
  length or area, as in surface-distance (Nikolov et al. 2021). Beyond the image lies background.
- HD95: the larger of two directed percentiles (MONAI, surface-distance), or that of all distances (medpy).
- ASSD: the mean of all distances (MONAI, medpy 0.5), or of the two directed means, which Maier-Hein et al.
  call MASD, and which surface-distance gives one by one.
- NSD: the part of both surfaces within the tolerance of the other one (MONAI, surface-distance).

If one mask is empty, HD95 and ASSD are infinite and NSD is 0; if both are, all three are NaN.

Source: Maier-Hein et al. 2024, Metrics reloaded, Nature Methods 21; Nikolov et al. 2021, Clinically
applicable segmentation of head and neck anatomy, JMIR 23.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

SURFACES = {
    "border": "the foreground pixels that share a face with the background",
    "pieces": "the lines or faces that run between pixels, weighed by their length or area",
}


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances from each element of a surface to the nearest element of the other surface.

    Attributes:
      prediction: (N,) float64, from the prediction's surface to the truth's, ascending.
      truth: (M,) float64, from the truth's surface to the prediction's, ascending.
      prediction_weights, truth_weights: float64, lengths or areas; ones for the pixels of a border.
      weighted: whether the elements are pieces of a contour or mesh.
    """

    prediction: np.ndarray
    truth: np.ndarray
    prediction_weights: np.ndarray
    truth_weights: np.ndarray
    weighted: bool

    @property
    def directed(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Distances and weights of both directions."""
        return [(self.prediction, self.prediction_weights), (self.truth, self.truth_weights)]

    @property
    def undefined(self) -> float | None:
        """The distance of empty masks: infinite if one is empty, NaN if both are; None if neither is."""
        empty = [distances.size == 0 for distances, _ in self.directed]
        return float("nan") if all(empty) else float("inf") if any(empty) else None


def surface_distances(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing: Sequence[float] | None = None,
    *,
    surface: str = "border",
) -> SurfaceDistances:
    """Measure the distances that all of the scores below are computed from.

    Args:
      prediction, truth: (...) booleans, or numbers that are foreground where they are not 0.
      spacing: size of a pixel along each axis, such as in mm; 1 if left out.
      surface: "border", or "pieces" of masks with two or three axes.
    Returns: distances in the unit of the spacing; infinite where the other mask is empty.
    Raises: ValueError for shapes that differ, a spacing that does not fit, or another surface.
    """
    pair = [np.asarray(mask) != 0 for mask in (prediction, truth)]
    dimensions = pair[0].ndim
    if pair[0].shape != pair[1].shape or not dimensions:
        raise ValueError(f"masks of shapes {pair[0].shape} and {pair[1].shape}; expected equal shapes")
    steps = np.ones(dimensions) if spacing is None else np.asarray(spacing, np.float64)
    if steps.shape != (dimensions,) or not (np.isfinite(steps) & (steps > 0)).all():
        raise ValueError(f"spacing {spacing}; expected {dimensions} numbers > 0")
    if surface not in SURFACES:
        raise ValueError(f"unknown surface {surface!r}; expected one of {', '.join(SURFACES)}")
    if surface == "pieces" and dimensions not in (2, 3):
        raise ValueError(f"surface 'pieces' in {dimensions} dimensions; expected 2 or 3")
    from scipy import ndimage

    boxes = ndimage.find_objects((pair[0] | pair[1]).astype(np.int8))
    pair = [np.pad(mask[boxes[0]], 1) for mask in pair] if boxes else pair
    ours, theirs = (
        surface_measure(mask, steps)
        if surface == "pieces"
        else mask & ~np.asarray(ndimage.binary_erosion(mask))
        for mask in pair
    )
    prediction, prediction_weights = _nearest(ours, theirs, steps)
    truth, truth_weights = _nearest(theirs, ours, steps)
    return SurfaceDistances(prediction, truth, prediction_weights, truth_weights, surface == "pieces")


def hausdorff(distances: SurfaceDistances, percentile: float = 95, *, pooled: bool = False) -> float:
    """Hausdorff distance at a percentile, HD95 by default, in the unit of the spacing.

    Among a border's pixels the percentile is interpolated between ranks; among pieces it is the shortest
    distance that covers this part of their length or area.

    Args:
      distances: of two masks.
      percentile: from 0 to 100; 100 gives the largest distance.
      pooled: take the percentile of both directions together instead of the larger of two.
    Returns: infinite if one mask is empty, NaN if both are.
    """
    if distances.undefined is not None:
        return distances.undefined
    directed = distances.directed
    if pooled:
        values, weights = (np.concatenate(both) for both in zip(*directed, strict=True))
        order = np.argsort(values, kind="stable")
        directed = [(values[order], weights[order])]
    if not distances.weighted:
        return max(float(np.percentile(values, percentile)) for values, _ in directed)
    parts = ((values, np.cumsum(weights) / weights.sum()) for values, weights in directed)
    return max(
        float(values[min(np.searchsorted(part, percentile / 100), len(part) - 1)]) for values, part in parts
    )


def assd(distances: SurfaceDistances, *, pooled: bool = True) -> float:
    """Average symmetric surface distance, in the unit of the spacing.

    Args:
      distances: of two masks.
      pooled: take the mean over both surfaces together; else the mean of the two directed means.
    Returns: infinite if one mask is empty, NaN if both are.
    """
    if distances.undefined is not None:
        return distances.undefined
    a, b = (float((values * weights).sum()) for values, weights in distances.directed)
    of_a, of_b = (float(weights.sum()) for _, weights in distances.directed)
    return (a + b) / (of_a + of_b) if pooled else (a / of_a + b / of_b) / 2


def nsd(distances: SurfaceDistances, tolerance: float) -> float:
    """Normalised surface distance (surface Dice): the part of both surfaces within a tolerance of the other.

    Args:
      distances: of two masks.
      tolerance: the largest distance that counts as within, in the unit of the spacing; >= 0.
    Returns: in [0, 1]; 0 if one mask is empty, NaN if both are.
    Raises: ValueError for a negative tolerance.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance {tolerance}; expected a number >= 0")
    size = sum(weights.sum() for _, weights in distances.directed)
    within = sum(weights[values <= tolerance].sum() for values, weights in distances.directed)
    return float(within / size) if size else float("nan")


def surface_measure(mask: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Contour length (2D) or surface area (3D) at every pixel corner, by marching squares or cubes.

    The surface passes through the midpoints between pixels. Where several surfaces are possible at a corner,
    the pixels of the smaller kind, foreground or background, are kept apart unless they share a face.

    Args:
      mask: (...) booleans with two or three axes; beyond its edges lies background.
      steps: size of a pixel along each axis.
    Returns: float64 of one corner more than pixels along each axis; 0 where no surface passes.
    Source: Lorensen and Cline 1987, Marching cubes, SIGGRAPH 21.
    """
    from scipy import ndimage

    bits = 1 << np.arange(2**mask.ndim).reshape((2,) * mask.ndim)
    configuration = ndimage.correlate(np.pad(mask, (0, 1)).astype(np.int64), bits, mode="constant")
    return _measures(tuple(steps.tolist()))[np.asarray(configuration, np.int64)]


@lru_cache(maxsize=32)
def _measures(spacing: tuple[float, ...]) -> np.ndarray:
    """Length or area for each of the 16 or 256 configurations of the pixels around a corner."""
    steps = np.array(spacing)
    scale = steps if len(steps) == 2 else np.prod(steps) / steps
    return np.array([np.linalg.norm(part * scale, axis=1).sum() for part in _configurations(len(steps))])


@cache
def _configurations(dimensions: int) -> list[np.ndarray]:
    """(N, D) segments (2D) or area vectors of triangles (3D) of each configuration, for a spacing of 1."""
    from scipy import ndimage

    surfaces = []
    for code in range(2**2**dimensions):
        inside = (code >> np.arange(2**dimensions) & 1).reshape((2,) * dimensions)
        smaller = inside if 2 * inside.sum() <= inside.size else 1 - inside
        parts = np.empty_like(smaller)
        ndimage.label(smaller, output=parts)
        around = [_surface_around(parts == number) for number in range(1, parts.max() + 1)]
        surfaces.append(np.concatenate([np.empty((0, dimensions)), *around]))
    return surfaces


def _surface_around(pixels: np.ndarray) -> np.ndarray:
    """Segments or area vectors around some of 2 x 2 or 2 x 2 x 2 pixels."""
    from skimage.measure import find_contours, marching_cubes

    if pixels.ndim == 2:
        return np.concatenate([np.diff(line, axis=0) for line in find_contours(pixels.astype(float), 0.5)])
    vertices, triangles, *_ = marching_cubes(pixels.astype(np.float32), 0.5)
    a, b, c = np.moveaxis(vertices.astype(np.float64)[triangles], 1, 0)
    return np.cross(b - a, c - a) / 2


def _nearest(start: np.ndarray, goal: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances from the elements of one surface to another surface, ascending, and the elements' weights."""
    from scipy import ndimage

    elements = start > 0
    weights = start[elements].astype(np.float64)
    if not goal.any():
        return np.full(weights.shape, np.inf), weights
    values = np.asarray(ndimage.distance_transform_edt(goal == 0, sampling=steps))[elements]
    order = np.lexsort((weights, values))
    return values[order], weights[order]
