"""Predicts and scores each image or volume of a plan, and keeps the cases with the lowest Dice."""

from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from flaxunet import labels, metrics
from flaxunet.evaluation.plan import CLASSES, FOREGROUND, NUMBERS, Plan
from flaxunet.evaluation.units import Unit
from flaxunet.labels import IGNORE
from flaxunet.prediction.postprocess import Steps, process


@dataclass(frozen=True)
class ScoreOptions:
    """How masks are scored.

    Attributes:
      tolerance: of NSD, in the plan's unit of length.
      surface: "border" or "pieces"; see `flaxunet.metrics.surface`.
      cases: how many cases are kept to be shown.
    """

    tolerance: float = 1.0
    surface: str = "border"
    cases: int = 8


@dataclass(frozen=True)
class UnitScores:
    """The scores of one image or volume.

    Attributes:
      name, group: of the unit.
      table: (K - 1, S) float64; see `flaxunet.metrics.class_scores`.
      confusion: (K, K) int64.
      objects: None if none are counted.
    """

    name: str
    group: str | None
    table: np.ndarray
    confusion: np.ndarray
    objects: metrics.Detections | None

    @property
    def dice(self) -> float:
        """Mean over the foreground classes that are present or predicted; 1 if none is."""
        return metrics.mean_foreground([np.nan, *self.table[:, 0]])


@dataclass(frozen=True)
class Case:
    """An image to be shown, or the slice of a volume with the most errors.

    Attributes:
      name: of the image, or of the volume and its slice.
      dice: of the image or the whole volume.
      image: (H, W, C) float32.
      truth: (H, W) int32, IGNORE where pixels are left out.
      prediction: (H, W) integers.
    """

    name: str
    dice: float
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def score_units(
    plan: Plan, options: ScoreOptions, *, on_unit: Callable[[], None] = lambda: None
) -> tuple[list[list[UnitScores]], list[Case]]:
    """Predict and score every unit.

    Args:
      plan: of the units and sources.
      options: how they are scored.
      on_unit: called after each unit.
    Returns: for each source the scores of all units in the plan's order; and the cases of the first source
      with the lowest Dice, the lowest first.
    Raises: DataError if a file can no longer be read.
    """
    scores: list[list[UnitScores]] = [[] for _ in plan.sources]
    worst: list[Case] = []
    for unit in plan.units:
        masks, *predictions = zip(*_predict(plan, unit), strict=True)
        truth = _relabel(plan, masks)
        for number, predicted in enumerate(predictions):
            prediction, objects = _labels_and_objects(plan, number, np.stack(predicted), unit)
            pair = (truth, prediction) if unit.axis else (truth[0], prediction[0])
            classes, spacing, tolerance = len(plan.class_names), unit.spacing, options.tolerance
            table = metrics.class_scores(
                *pair, classes, spacing=spacing, tolerance=tolerance, surface_kind=options.surface
            )
            # Only images have objects.
            matched = None if objects is None else metrics.match_objects(masks[0], objects[0])
            confusion = np.asarray(metrics.confusion_matrix(*pair, classes))
            one = UnitScores(unit.name, unit.group, table, confusion, matched)
            scores[number].append(one)
            if number == 0 and options.cases and (len(worst) < options.cases or one.dice < worst[-1].dice):
                insort(worst, _case(unit, one.dice, truth, prediction), key=lambda case: case.dice)
                del worst[options.cases :]
        on_unit()
    return scores, worst


def _predict(plan: Plan, unit: Unit) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields the mask of each record of a unit, and the labels that each source predicts for it."""
    for index, record in enumerate(unit.records):
        image, mask = record.read()
        predictions = [source.predict(unit, index, image) for source in plan.sources]
        yield labels.mark_ignored(mask, plan.options.ignore_label), *predictions


def _labels_and_objects(
    plan: Plan, number: int, predicted: np.ndarray, unit: Unit
) -> tuple[np.ndarray, np.ndarray | None]:
    """(N, H, W) classes of the labels that a source predicts, and numbered objects if they are counted."""
    kind, steps = plan.label_kinds[number], plan.sources[number].steps
    if kind == NUMBERS:
        return _relabel(plan, predicted), predicted if plan.count_objects else None
    names = labels.CLASS_NAMES.get(FOREGROUND if kind == FOREGROUND else plan.target, plan.class_names)
    predicted = (predicted > 0).astype(np.int32) if kind == FOREGROUND else predicted

    def postprocess(steps: Steps) -> np.ndarray:
        array = predicted if unit.axis else predicted[0]
        return process(array, steps, names, unit.spacing).labels.reshape(predicted.shape)

    objects = postprocess(replace(steps, instances=True)) if plan.count_objects else None
    if kind == CLASSES:
        return postprocess(steps), objects
    return _relabel(plan, predicted if objects is None else objects), objects


def _relabel(plan: Plan, masks: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """(N, H, W) labels of the plan's target, of masks as they are stored."""
    return np.stack([labels.relabel(mask, plan.target) for mask in masks])


def _case(unit: Unit, dice: float, truth: np.ndarray, prediction: np.ndarray) -> Case:
    index = int(((truth != prediction) & (truth != IGNORE)).sum((1, 2)).argmax())
    record = unit.records[index]
    name = f"{unit.name}, {record.image_part}" if unit.axis else unit.name
    return Case(name, dice, record.read()[0], truth[index], prediction[index])
