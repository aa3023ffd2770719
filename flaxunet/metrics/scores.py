"""Computes the scores of every class of an image or a volume; `SCORES` is the one list of them.

A quotient of nothing by nothing is NaN, and means leave it out:

| truth | prediction | Dice, IoU | precision | recall | HD95, ASSD | NSD | object F1, AP |
|---|---|---|---|---|---|---|---|
| empty | empty | NaN | NaN | NaN | NaN | NaN | NaN |
| empty | not empty | 0 | 0 | NaN | the diagonal | 0 | 0 |
| not empty | empty | 0 | NaN | 0 | the diagonal | 0 | 0 |

The diagonal is that of the image or volume, the largest distance possible in it: a class that is missed
altogether costs more than any that is predicted, and the mean stays finite.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flaxunet.labels import IGNORE
from flaxunet.metrics import overlap, surface
from flaxunet.metrics.surface import SurfaceDistances


@dataclass(frozen=True)
class Score:
    """One score of a class, by exactly one of two functions.

    Attributes:
      title: its name in tables, in which {unit} and {tolerance} are filled in.
      definition: its formula in words or symbols, likewise.
      overlap: confusion matrix (C, C) -> (C,) scores.
      distance: surface distances and tolerance -> score.
      is_length: whether it is a length, which the diagonal of the image bounds; else it is in [0, 1].
    """

    title: str
    definition: str
    overlap: Callable[[np.ndarray], np.ndarray] | None = None
    distance: Callable[[SurfaceDistances, float], float] | None = None
    is_length: bool = False


SCORES: dict[str, Score] = {
    "dice": Score("Dice", "2 TP / (2 TP + FP + FN)", overlap=overlap.dice),
    "iou": Score("IoU", "TP / (TP + FP + FN)", overlap=overlap.iou),
    "precision": Score("precision", "TP / (TP + FP)", overlap=overlap.precision),
    "recall": Score("recall", "TP / (TP + FN)", overlap=overlap.recall),
    "hd95": Score(
        "HD95, {unit}",
        "the larger of the two directed 95th percentiles",
        distance=lambda distances, tolerance: surface.hausdorff(distances, 95),
        is_length=True,
    ),
    "assd": Score(
        "ASSD, {unit}",
        "the mean of all distances from both surfaces",
        distance=lambda distances, tolerance: surface.assd(distances),
        is_length=True,
    ),
    "nsd": Score(
        "NSD at {tolerance} {unit}",
        "the part of both surfaces that is within {tolerance} {unit} of the other one",
        distance=surface.nsd,
    ),
}
"""Every score of `evaluate`, by its name in scores.csv and scores.json, in the order of tables.

A new score is a function and an entry here; tables, files and the page follow.
"""


def overlap_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """The scores that a confusion matrix has.

    Args:
      confusion: (C, C) counts, rows truth, columns prediction; of an image, or summed over a set.
    Returns: (C,) float64 of each score by name; NaN as in the table above.
    """
    return {name: score.overlap(confusion) for name, score in SCORES.items() if score.overlap is not None}


def class_scores(
    truth: np.ndarray,
    prediction: np.ndarray,
    classes: int,
    *,
    spacing: Sequence[float] | None = None,
    tolerance: float = 1.0,
    surface_kind: str = "border",
) -> np.ndarray:
    """All scores of the foreground classes of an image or a volume.

    Pixels whose truth is IGNORE are left out of the overlaps; for the surfaces they are background.

    Args:
      truth: (...) integers in [0, classes), or IGNORE; of any number of axes.
      prediction: the same shape, integers in [0, classes).
      classes: from 2.
      spacing: size of a pixel along each axis; 1 if left out.
      tolerance: of NSD, in the unit of the spacing.
      surface_kind: "border" or "pieces"; see `flaxunet.metrics.surface`.
    Returns: (classes - 1, S) float64, in the order of `SCORES`.
    Raises: ValueError if the shapes differ.
    """
    overlaps = overlap_scores(np.asarray(overlap.confusion_matrix(truth, prediction, classes)))
    counted = np.where(truth == IGNORE, 0, prediction)
    steps = np.ones(truth.ndim) if spacing is None else np.asarray(spacing, np.float64)
    diagonal = float(np.linalg.norm((np.array(truth.shape) - 1) * steps))
    table = np.empty((classes - 1, len(SCORES)))
    for label, row in enumerate(table, 1):
        pair = counted == label, truth == label
        distances = surface.surface_distances(*pair, steps.tolist(), surface=surface_kind)
        for column, (name, score) in enumerate(SCORES.items()):
            value = score.distance(distances, tolerance) if score.distance else overlaps[name][label]
            row[column] = np.minimum(value, diagonal) if score.is_length else value
    return table
