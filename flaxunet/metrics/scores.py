"""Label maps of an image or a volume enter; the scores of its classes leave, and of its objects.

A score that is a quotient of nothing by nothing is NaN, and means leave it out:

| truth | prediction | Dice, IoU | precision | recall | HD95, ASSD | NSD | object F1, AP |
|---|---|---|---|---|---|---|---|
| empty | empty | NaN | NaN | NaN | NaN | NaN | NaN |
| empty | not empty | 0 | 0 | NaN | the diagonal | 0 | 0 |
| not empty | empty | 0 | NaN | 0 | the diagonal | 0 | 0 |

The diagonal is that of the image or volume: no two surfaces in it are farther apart. A class that is missed
altogether so costs more than any that is found, and the mean stays finite.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flaxunet import metrics
from flaxunet.labels import IGNORE
from flaxunet.metrics import surface

OVERLAPS = ("dice", "iou", "precision", "recall")
DISTANCES = ("hd95", "assd", "nsd")
SCORES = (*OVERLAPS, *DISTANCES)


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Pixel counts of every pair of a true and a predicted class, on the host.

    Args:
      truth: (...) integers in [0, classes), or IGNORE, which is dropped.
      prediction: the same shape, integers in [0, classes).
      classes: from 2.
    Returns: (classes, classes) int64; rows are truth, columns prediction.
    Raises: ValueError if the shapes differ.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth {truth.shape} and prediction {prediction.shape}; accepted are equal shapes")
    known = truth != IGNORE
    pairs = truth[known].astype(np.int64) * classes + prediction[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def overlaps(confusion: np.ndarray) -> np.ndarray:
    """Dice, IoU, precision and recall of each class.

    Args:
      confusion: (C, C) counts, rows truth, columns prediction; of an image, or summed over a set.
    Returns: (C, 4) float64, in the order of `OVERLAPS`; NaN as in the table above.
    """
    hits, true, found = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
    parts = [np.where(size > 0, hits / np.maximum(size, 1), np.nan) for size in (found, true)]
    return np.stack([metrics.dice(confusion), metrics.iou(confusion), *parts], axis=1)


def score(
    truth: np.ndarray,
    prediction: np.ndarray,
    classes: int,
    *,
    spacing: Sequence[float] | None = None,
    tolerance: float = 1.0,
    kind: str = "border",
) -> np.ndarray:
    """All scores of an image or a volume.

    Pixels whose truth is IGNORE are left out of the overlaps; for the surfaces they are background.

    Args:
      truth, prediction, classes: as of `confusion_matrix`; of any number of axes.
      spacing: from a pixel to the next along each axis; 1 if left out.
      tolerance: of NSD, in the unit of the spacing.
      kind: "border" or "pieces"; see `flaxunet.metrics.surface`.
    Returns: (classes - 1, 7) float64 of the foreground classes, in the order of `SCORES`.
    """
    table = np.empty((classes - 1, len(SCORES)))
    table[:, : len(OVERLAPS)] = overlaps(confusion_matrix(truth, prediction, classes))[1:]
    found = np.where(truth == IGNORE, 0, prediction)
    steps = np.ones(truth.ndim) if spacing is None else np.asarray(spacing, np.float64)
    diagonal = float(np.linalg.norm((np.array(truth.shape) - 1) * steps))
    for label in range(1, classes):
        between = surface.distances(found == label, truth == label, steps.tolist(), surface=kind)
        far = [surface.hd(between), surface.assd(between)]
        table[label - 1, len(OVERLAPS) :] = *np.minimum(far, diagonal), surface.nsd(between, tolerance)
    return table


@dataclass(frozen=True)
class Objects:
    """How many objects of an image were matched, were found but are not true, and were missed."""

    hits: int
    extra: int
    missed: int

    def __add__(self, other: "Objects") -> "Objects":
        return Objects(self.hits + other.hits, self.extra + other.extra, self.missed + other.missed)

    @property
    def f1(self) -> float:
        """2 hits / (2 hits + extra + missed); NaN if nothing is true and nothing found."""
        size = 2 * self.hits + self.extra + self.missed
        return 2 * self.hits / size if size else float("nan")

    @property
    def ap(self) -> float:
        """hits / (hits + extra + missed), the average precision of objects without confidences."""
        size = self.hits + self.extra + self.missed
        return self.hits / size if size else float("nan")


def match(truth: np.ndarray, prediction: np.ndarray, iou: float = 0.5) -> Objects:
    """Match numbered objects one to one, as many as can be, where their IoU is larger than a threshold.

    Args:
      truth: (...) integers, a number for each object, 0 or less for none; pixels with IGNORE are dropped.
      prediction: the same shape; numbers that have nothing to do with those of the truth.
      iou: the threshold, in [0, 1). From 0.5 there is but one way to match.
    Returns: the counts.
    Raises: ValueError for shapes that differ or another IoU.
    Source: Caicedo et al. 2019, Nucleus segmentation across imaging experiments, Nature Methods 16; Kirillov
      et al. 2019, Panoptic segmentation, CVPR.
    """
    if truth.shape != prediction.shape or not 0 <= iou < 1:
        given = f"truth {truth.shape}, prediction {prediction.shape}, IoU {iou}"
        raise ValueError(f"{given}; accepted are equal shapes and 0 <= IoU < 1")
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    known = truth != IGNORE
    (true, t, true_sizes), (found, f, found_sizes) = (
        np.unique(x[known].clip(0), return_inverse=True, return_counts=True) for x in (truth, prediction)
    )
    pairs, both = np.unique(t.reshape(-1) * len(found) + f.reshape(-1), return_counts=True)
    t, f = pairs // max(len(found), 1), pairs % max(len(found), 1)
    fits = (true[t] > 0) & (found[f] > 0) & (both / (true_sizes[t] + found_sizes[f] - both) > iou)
    # The matching reads indices of 32 bits only.
    places = t[fits].astype(np.int32), f[fits].astype(np.int32)
    graph = csr_array((np.ones(len(places[0]), np.int8), places), shape=(len(true), len(found)))
    hits = int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum()) if graph.nnz else 0
    return Objects(hits, int((found > 0).sum()) - hits, int((true > 0).sum()) - hits)
