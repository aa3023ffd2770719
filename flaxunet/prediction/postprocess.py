"""Removes specks and fills holes in predicted labels, and numbers their objects.

Pixels of a class that touch, corners included, are one object; background is connected at sides only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from flaxunet import labels as targets

OBJECT = "object"  # the only class of the objects that a network of boundaries predicts
NECK = 1.0  # pixels by which the radii of two parts must exceed that of the neck between them

Objects = tuple[np.ndarray, np.ndarray]  # their numbers (...) int32, 0 for background; their classes (N + 1,)


@dataclass(frozen=True)
class Steps:
    """Steps of post-processing, in this order.

    Attributes:
      min_size: remove objects of fewer pixels: one number for all classes, or one for each foreground class.
      keep_largest: remove all but the largest object of each class.
      fill_holes: give background that one class alone encloses to that class.
      instances: number the objects, and split those that touch.
    """

    min_size: tuple[int, ...] = ()
    keep_largest: bool = False
    fill_holes: bool = False
    instances: bool = False

    def __bool__(self) -> bool:
        return bool(self.min_size or self.keep_largest or self.fill_holes or self.instances)

    def check(self, classes: Sequence[str]) -> None:
        """Raises ValueError unless there is one smallest size, or one for each foreground class."""
        names = self.classes(classes)[1:]
        if len(self.min_size) not in (0, 1, len(names)) or min(self.min_size, default=0) < 0:
            given = " ".join(map(str, self.min_size))
            each = f", or {len(names)} numbers, for {', '.join(names)}" if len(names) > 1 else ""
            raise ValueError(f"--min-size is {given}; expected a number of pixels >= 0{each}")

    def classes(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Names of the classes after the steps: a network's insides and boundaries become objects."""
        become_objects = self.instances and targets.target_of(classes) in targets.OBJECT_TARGETS
        return (classes[0], OBJECT) if become_objects else tuple(classes)


@dataclass(frozen=True)
class Segmentation:
    """Labels of an image or a volume after post-processing.

    Attributes:
      labels: (...) int32: classes, or numbers of objects from 1.
      object_classes: (N + 1,) the class of each object, 0 for the background; None if labels are classes.
    """

    labels: np.ndarray
    object_classes: np.ndarray | None = None

    def sizes(self, classes: int) -> list[tuple[int, int]]:
        """Pixels and number of objects of each foreground class of so many classes."""
        numbers, of = self.labels, self.object_classes
        if of is None:
            numbers, of = number(numbers)
        pixels = np.bincount(numbers.ravel(), minlength=len(of))
        return [(int(pixels[of == label].sum()), int((of == label).sum())) for label in range(1, classes)]


def process(
    labels: np.ndarray, steps: Steps, classes: Sequence[str], spacing: Sequence[float] | None = None
) -> Segmentation:
    """Applies steps of post-processing to predicted labels.

    Args:
      labels: (H, W) or (X, Y, Z) integers, 0 for background.
      steps: applied in the order of their attributes.
      classes: names of the labels, background first. With the names of the targets "3class" and "boundary"
        (see `flaxunet.labels`), instances are insides, or regions that boundaries enclose, together with the
        boundaries around them, and all steps apply to these. Other instances are split where they are thin.
      spacing: distances of neighbours along each axis; equal ones by default.
    Returns: labels, or instances numbered from 1, class after class.
    """
    labels = np.asarray(labels, np.int32)
    if steps.instances and targets.target_of(classes) in targets.OBJECT_TARGETS:
        numbers, of = _objects_of(labels, targets.target_of(classes))
        numbers = _remove_objects(numbers, of, steps)
        return _renumber(fill_holes(numbers) if steps.fill_holes else numbers, of)
    if steps.min_size or steps.keep_largest:
        numbers, of = number(labels)
        labels = of[_remove_objects(numbers, of, steps)]
    if steps.fill_holes:
        labels = fill_holes(labels)
    if not steps.instances:
        return Segmentation(labels)
    numbers, of = number(labels, lambda mask: split_touching(mask, spacing))
    return _renumber(_remove_objects(numbers, of, Steps(steps.min_size)), of)


def components(mask: np.ndarray, connectivity: int | None = None) -> np.ndarray:
    """Numbers regions (...) from 1, int32, that are connected at sides (1), or at corners too (None)."""
    structure = ndimage.generate_binary_structure(mask.ndim, connectivity or mask.ndim)
    labelled: Any = ndimage.label(mask, structure)
    return labelled[0]


def number(labels: np.ndarray, objects: Callable[[np.ndarray], np.ndarray] = components) -> Objects:
    """Numbers the objects of all classes, class after class; `objects` numbers those of one class's mask."""
    numbers, object_classes = np.zeros(labels.shape, np.int32), [0]
    for label in np.unique(labels[labels > 0]):
        of_class = objects(labels == label)
        numbers = np.where(of_class > 0, of_class + np.int32(len(object_classes) - 1), numbers)
        object_classes += [int(label)] * int(of_class.max())
    return numbers, np.array(object_classes)


def fill_holes(labels: np.ndarray) -> np.ndarray:
    """Fills background that does not reach the edge and touches one label only with that label."""
    holes = components(labels == 0, 1)
    lowest = np.full(holes.max() + 1, np.iinfo(labels.dtype).max, labels.dtype)
    highest = np.zeros_like(lowest)
    for axis in range(labels.ndim):
        hole, label = (np.moveaxis(x, axis, 0) for x in (holes, labels))
        for here, there in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
            beside = (hole[here] > 0) & (label[there] > 0)
            np.minimum.at(lowest, hole[here][beside], label[there][beside])
            np.maximum.at(highest, hole[here][beside], label[there][beside])
    highest[_at_edges(holes)] = 0
    return np.where(holes > 0, np.where(lowest == highest, highest, 0)[holes], labels)


def split_touching(mask: np.ndarray, spacing: Sequence[float] | None = None) -> np.ndarray:
    """Numbers the objects of a mask (...), int32, and splits those that touch where they are thin.

    A watershed floods the distance to the background from its maxima that rise by more than `NECK` above the
    saddle to another one.
    """
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    step = None if spacing is None else np.divide(spacing, min(spacing))
    # Beyond the image lies more of the same, and a picture that is all object has no distance at all.
    distance = np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"), step))
    distance = distance[(slice(1, -1),) * mask.ndim] if not mask.all() else mask.astype(np.float64)
    peaks = components(h_maxima(distance, NECK) > 0) if distance.max() > NECK else np.zeros_like(mask)
    return _number_the_rest(watershed(-distance, peaks, mask.ndim, mask=mask), mask)


def _objects_of(labels: np.ndarray, target: str | None) -> Objects:
    """Objects of a target: inner parts, each with the boundary that is nearest to it.

    "3class" has insides (1) and boundaries (2). "boundary" has boundaries (1) alone, and inner parts are the
    regions between them: the largest that reaches the edge is background, and what objects enclose is not.
    """
    from skimage.segmentation import watershed

    inner, mask = components(labels == 1), labels > 0
    if target == "boundary":
        inner = components(labels == 0, 1)
        outer = _at_edges(inner)
        if outer.size:
            inner[inner == outer[np.bincount(inner.ravel())[outer].argmax()]] = 0
        mask |= inner > 0
    distance = ndimage.distance_transform_edt(inner == 0)
    numbers = _number_the_rest(watershed(distance, inner, mask.ndim, mask=mask), mask)
    return numbers, (np.arange(numbers.max() + 1) > 0).astype(int)


def _at_edges(numbers: np.ndarray) -> np.ndarray:
    """Numbers above 0 that reach an edge."""
    edges = [np.moveaxis(numbers, axis, 0)[[0, -1]].ravel() for axis in range(numbers.ndim)]
    return np.setdiff1d(np.concatenate(edges), 0)


def _number_the_rest(numbers: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Numbers the objects that no flood has reached, because they are too thin to have an inner part."""
    rest = components(mask & (numbers == 0))
    return np.where(rest > 0, rest + numbers.max(), numbers).astype(np.int32)


def _remove_objects(numbers: np.ndarray, object_classes: np.ndarray, steps: Steps) -> np.ndarray:
    """Sets objects to 0 that are too small, or that are not the largest of their class."""
    pixels = np.bincount(numbers.ravel(), minlength=len(object_classes))
    kept = pixels > 0
    if steps.min_size:
        least = np.array([0, *steps.min_size])
        kept &= pixels >= least[np.minimum(object_classes, len(least) - 1)]
    for label in np.unique(object_classes[1:]) if steps.keep_largest else ():
        of_class = np.flatnonzero(object_classes == label)
        kept[of_class[of_class != of_class[pixels[of_class].argmax()]]] = False
    return np.where(kept[numbers], numbers, 0)


def _renumber(numbers: np.ndarray, object_classes: np.ndarray) -> Segmentation:
    """Numbers objects from 1 without gaps."""
    left = np.setdiff1d(numbers, 0)
    renumbered = np.zeros(len(object_classes), np.int32)
    renumbered[left] = np.arange(1, len(left) + 1)
    return Segmentation(renumbered[numbers], np.array([0, *object_classes[left]]))
