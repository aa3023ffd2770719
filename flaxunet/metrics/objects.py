"""Matches predicted objects with true ones, and computes F1 and average precision from the counts."""

from dataclasses import dataclass

import numpy as np

from flaxunet.labels import IGNORE
from flaxunet.metrics.overlap import quotient

IOU = 0.5  # two objects with a larger IoU match, for which there is one way only


@dataclass(frozen=True)
class Detections:
    """Counts of objects: true positives (matched pairs), false positives and false negatives."""

    tp: int
    fp: int
    fn: int

    def __add__(self, other: "Detections") -> "Detections":
        return Detections(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); NaN without any object."""
        return float(quotient(2 * self.tp, 2 * self.tp + self.fp + self.fn))

    @property
    def ap(self) -> float:
        """TP / (TP + FP + FN), average precision without confidences; NaN without any object."""
        return float(quotient(self.tp, self.tp + self.fp + self.fn))


def match_objects(truth: np.ndarray, prediction: np.ndarray, iou: float = IOU) -> Detections:
    """Match numbered objects one to one, as many as possible, where their IoU exceeds a threshold.

    Args:
      truth: (...) integers, a number for each object, 0 or less for background; IGNORE pixels are left out.
      prediction: the same shape; its numbers need not correspond to those of the truth.
      iou: the threshold, in [0, 1). From 0.5 on the matching is unique.
    Returns: the counts.
    Raises: ValueError for shapes that differ or another IoU.
    Source: Caicedo et al. 2019, Nucleus segmentation across imaging experiments, Nature Methods 16; Kirillov
      et al. 2019, Panoptic segmentation, CVPR.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth {truth.shape} and prediction {prediction.shape}; expected equal shapes")
    if not 0 <= iou < 1:
        raise ValueError(f"iou is {iou}; expected 0 <= iou < 1")
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    counted = truth != IGNORE
    (true, t, true_sizes), (predicted, p, predicted_sizes) = (
        np.unique(x[counted].clip(0), return_inverse=True, return_counts=True) for x in (truth, prediction)
    )
    pairs, overlap = np.unique(t.ravel() * len(predicted) + p.ravel(), return_counts=True)
    t, p = np.divmod(pairs, max(len(predicted), 1))
    union = true_sizes[t] + predicted_sizes[p] - overlap
    matches = (true[t] > 0) & (predicted[p] > 0) & (overlap / union > iou)
    # The matching reads indices of 32 bits only.
    edges = t[matches].astype(np.int32), p[matches].astype(np.int32)
    graph = csr_array((np.ones(len(edges[0]), np.int8), edges), shape=(len(true), len(predicted)))
    tp = int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum()) if graph.nnz else 0
    return Detections(tp, int((predicted > 0).sum()) - tp, int((true > 0).sum()) - tp)
