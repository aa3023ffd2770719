"""Metrics of masks: overlap, distances of surfaces, objects, and the statistics of their means."""

from flaxunet.metrics.objects import Detections, match_objects
from flaxunet.metrics.overlap import confusion_matrix, dice, iou, mean_foreground, precision, predict, recall
from flaxunet.metrics.scores import SCORES, class_scores, overlap_scores
from flaxunet.metrics.surface import SurfaceDistances, assd, hausdorff, nsd, surface_distances

__all__ = [
    "SCORES", "Detections", "SurfaceDistances", "assd", "class_scores", "confusion_matrix", "dice",
    "hausdorff", "iou", "match_objects", "mean_foreground", "nsd", "overlap_scores", "precision", "predict",
    "recall", "surface_distances",
]  # fmt: skip
