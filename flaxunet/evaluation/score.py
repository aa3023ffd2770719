"""A plan enters; each image or volume is read, predicted and scored; the scores and the worst cases leave."""

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from flaxunet import labels as targets
from flaxunet import metrics
from flaxunet.evaluation.plan import CLASSES, FOREGROUND, NUMBERS, Plan
from flaxunet.evaluation.units import Unit
from flaxunet.labels import IGNORE
from flaxunet.prediction.postprocess import Steps, process


@dataclass(frozen=True)
class Scored:
    """The scores of one image or volume.

    Attributes:
      name: of it.
      group: of it, or None.
      table: (K - 1, 7) float64; see `flaxunet.metrics.class_scores`.
      confusion: (K, K) int64.
      objects: that were matched, extra and missed; None if none are counted.
    """

    name: str
    group: str | None
    table: np.ndarray
    confusion: np.ndarray
    objects: metrics.Detections | None

    @property
    def dice(self) -> float:
        """Mean of the classes that are there or were found; 1 if none is."""
        return metrics.mean_foreground(np.concatenate([[np.nan], self.table[:, 0]]))


@dataclass(frozen=True)
class Case:
    """What is shown of an image, or of the slice of a volume that has most errors.

    Attributes:
      name: of the image, or of the volume and its slice.
      dice: of the image or the whole volume.
      image: (H, W, C) float32.
      truth: (H, W) int32, IGNORE where pixels do not count.
      prediction: (H, W) integers.
    """

    name: str
    dice: float
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def measure(
    plan: Plan,
    *,
    tolerance: float = 1.0,
    kind: str = "border",
    cases: int = 8,
    done: Callable[[], None] = lambda: None,
) -> tuple[list[list[Scored]], list[Case]]:
    """Predict and score.

    Args:
      plan: what.
      tolerance: of NSD, in the plan's unit.
      kind: of surface; see `flaxunet.metrics.surface`.
      cases: how many are kept to be shown.
      done: called after each unit.
    Returns: for each source the scores of all units in the plan's order; and the cases of the first source
      with the lowest Dice, the lowest first.
    Raises: DataError if a file can no longer be read.
    """
    scored: list[list[Scored]] = [[] for _ in plan.sources]
    worst: list[Case] = []
    for unit in plan.units:
        masks, predicted = _predicted(plan, unit)
        truth = _relabelled(plan, masks)
        for number in range(len(plan.sources)):
            labels, objects = _parts(plan, number, np.stack(predicted[number]), unit)
            shown = (truth, labels) if unit.axis else (truth[0], labels[0])
            one = Scored(
                unit.name,
                unit.group,
                metrics.class_scores(
                    *shown,
                    len(plan.names),
                    spacing=unit.spacing,
                    tolerance=tolerance,
                    surface_kind=kind,
                ),
                np.asarray(metrics.confusion_matrix(*shown, len(plan.names))),
                metrics.match_objects(masks[0], objects[0])
                if objects is not None
                else None,  # only images have them
            )
            scored[number].append(one)
            if number == 0 and cases and (len(worst) < cases or one.dice < worst[-1].dice):
                insort(worst, _case(unit, one.dice, truth, labels), key=lambda case: case.dice)
                del worst[cases:]
        done()
    return scored, worst


def _predicted(plan: Plan, unit: Unit) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """The masks of a unit's records, and what each source predicts for them."""
    masks: list[np.ndarray] = []
    predicted: list[list[np.ndarray]] = [[] for _ in plan.sources]
    for place, record in enumerate(unit.records):
        image, mask = record.read()
        masks.append(plan.counted(mask))
        for source, mine in zip(plan.sources, predicted, strict=True):
            mine.append(source.labels(unit, place, image))
    return masks, predicted


def _parts(
    plan: Plan, number: int, predicted: np.ndarray, unit: Unit
) -> tuple[np.ndarray, np.ndarray | None]:
    """The classes (N, H, W) of what a source predicts for a unit, and its objects, if they are counted."""
    kind, taken = plan.kinds[number], plan.sources[number].steps
    if kind == NUMBERS:
        return _relabelled(plan, predicted), predicted if plan.objects else None
    names = targets.CLASS_NAMES.get(FOREGROUND if kind == FOREGROUND else plan.target, plan.names)
    predicted = (predicted > 0).astype(np.int32) if kind == FOREGROUND else predicted

    def made(steps: Steps) -> np.ndarray:
        labels = predicted if unit.axis else predicted[0]
        return process(labels, steps, names, unit.spacing).labels.reshape(predicted.shape)

    objects = made(replace(taken, instances=True)) if plan.objects else None
    if kind == CLASSES:
        return made(taken), objects
    return _relabelled(plan, predicted if objects is None else objects), objects


def _relabelled(plan: Plan, masks: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """(N, H, W) labels of the target, of masks as they are stored."""
    return np.stack([targets.relabel(mask, plan.target) for mask in masks])


def _case(unit: Unit, dice: float, truth: np.ndarray, labels: np.ndarray) -> Case:
    wrong = ((truth != labels) & (truth != IGNORE)).sum((1, 2))
    place = int(wrong.argmax())
    record = unit.records[place]
    name = f"{unit.name}, {record.image_part}" if unit.axis else unit.name
    return Case(name, dice, record.read()[0], truth[place], labels[place])
