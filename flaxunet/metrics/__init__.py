"""Metrics of masks: overlap, surfaces, objects, and their statistics."""

from flaxunet.metrics.overlap import confusion_matrix, dice, iou, mean_foreground, predict

__all__ = ["confusion_matrix", "dice", "iou", "mean_foreground", "predict"]
