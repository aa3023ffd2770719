"""Labels of a picture or a volume enter; labels without specks and holes leave, or a number for each object.

Pixels of a class that touch, corners included, are an object; background is joined at sides only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from flaxunet import labels as targets

OBJECT = "object"
"""The one class of what is found by a network of boundaries."""
NECK = 1.0
"""Pixels by which the radii of two parts exceed that of what joins them, for the parts to be two objects."""

Objects = tuple[np.ndarray, np.ndarray]
"""Numbers of objects (...) int32, 0 is background; and the class (N + 1,) of each number."""


@dataclass(frozen=True)
class Steps:
    """What is made of predicted labels, in this order.

    Attributes:
      min_size: objects of fewer pixels become background: one number for all classes, or one for each
        foreground class.
      keep_largest: of each class, all but the largest object becomes background.
      fill_holes: background that is enclosed, by one class alone, becomes that class.
      instances: each object gets a number; objects that touch are told apart.
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
            raise ValueError(f"--min-size is {given}; accepted is a number of pixels >= 0{each}")

    def classes(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Names of what is left of a network's classes: insides and boundaries make objects."""
        return (classes[0], OBJECT) if self.instances and _of_boundaries(classes) else tuple(classes)


@dataclass(frozen=True)
class Found:
    """What was found in a picture or a volume.

    Attributes:
      labels: (...) int32: classes, or numbers of objects from 1.
      owners: (N + 1,) the class of each object, 0 for the background; None where labels are classes.
    """

    labels: np.ndarray
    owners: np.ndarray | None = None

    def sizes(self, classes: int) -> list[tuple[int, int]]:
        """Pixels and number of objects of each foreground class of so many classes."""
        numbers, owners = number(self.labels) if self.owners is None else (self.labels, self.owners)
        pixels = np.bincount(numbers.ravel(), minlength=len(owners))
        return [
            (int(pixels[owners == label].sum()), int((owners == label).sum())) for label in range(1, classes)
        ]


def process(
    labels: np.ndarray, steps: Steps, classes: Sequence[str], spacing: Sequence[float] | None = None
) -> Found:
    """Take all steps.

    Args:
      labels: (H, W) or (X, Y, Z) integers, 0 is background.
      steps: what is to be done.
      classes: names of the labels, background first. Those of the targets "3class" and "boundary" (see
        `flaxunet.labels`) tell that instances are insides, or what boundaries enclose, with the boundaries
        around; then all steps are about these. Instances of other classes are parted where they are thin.
      spacing: distances of neighbours along each axis; equal ones if left out.
    Returns: labels, or instances numbered from 1, class after class.
    """
    labels = np.asarray(labels, np.int32)
    if steps.instances and (target := _of_boundaries(classes)):
        numbers, owners = around_insides(labels) if target == "3class" else within_boundaries(labels)
        numbers = _without(numbers, owners, steps)
        return _in_a_row(fill_holes(numbers) if steps.fill_holes else numbers, owners)
    if steps.min_size or steps.keep_largest:
        numbers, owners = number(labels)
        labels = owners[_without(numbers, owners, steps)]
    if steps.fill_holes:
        labels = fill_holes(labels)
    if not steps.instances:
        return Found(labels)
    numbers, owners = number(labels, lambda mask: parts(mask, spacing))
    return _in_a_row(_without(numbers, owners, Steps(steps.min_size)), owners)


def components(mask: np.ndarray) -> np.ndarray:
    """Numbers of the objects of a mask (...), from 1, int32."""
    return _joined(mask, mask.ndim)


def number(labels: np.ndarray, objects: Callable[[np.ndarray], np.ndarray] = components) -> Objects:
    """The objects of all classes, class after class."""
    numbers, owners = np.zeros(labels.shape, np.int32), [0]
    for label in np.flatnonzero(np.bincount(labels.ravel()))[1 if (labels == 0).any() else 0 :]:
        found = objects(labels == label)
        numbers = np.where(found > 0, found + np.int32(len(owners) - 1), numbers)
        owners += [int(label)] * int(found.max())
    return numbers, np.array(owners)


def fill_holes(labels: np.ndarray) -> np.ndarray:
    """Background that does not reach the edge and touches one label only becomes that label."""
    holes = _joined(labels == 0, 1)
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


def parts(mask: np.ndarray, spacing: Sequence[float] | None = None) -> np.ndarray:
    """Numbers of the objects of a mask (...), int32; those that touch are parted where they are thin.

    The distance to the background is flooded from its maxima that rise by more than `NECK` above what joins
    them to another one.
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
    return _with_the_rest(watershed(-distance, peaks, mask.ndim, mask=mask), mask)


def around_insides(labels: np.ndarray) -> Objects:
    """Objects of the target "3class": each inside (1) with the boundary (2) that is nearest to it."""
    return _grown(components(labels == 1), labels > 0)


def within_boundaries(labels: np.ndarray) -> Objects:
    """Objects of the target "boundary": what boundaries (1) enclose, with the boundary that is nearest.

    The largest region that reaches the edge is the background. Background that objects enclose is taken for
    an object: boundaries alone do not tell.
    """
    regions = _joined(labels == 0, 1)
    outer = _at_edges(regions)
    if outer.size:
        regions[regions == outer[np.bincount(regions.ravel())[outer].argmax()]] = 0
    return _grown(regions, (labels > 0) | (regions > 0))


def _at_edges(numbers: np.ndarray) -> np.ndarray:
    """Those above 0 that reach an edge."""
    edges = [np.moveaxis(numbers, axis, 0)[[0, -1]].ravel() for axis in range(numbers.ndim)]
    found = np.unique(np.concatenate(edges))
    return found[found > 0]


def _joined(mask: np.ndarray, connectivity: int) -> np.ndarray:
    """Numbers of what is joined at sides (1), at edges too (2), or at all corners (the number of axes)."""
    found: Any = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, connectivity))
    return found[0]


def _grown(inner: np.ndarray, mask: np.ndarray) -> Objects:
    """Objects that fill the mask, each from its inner part."""
    from skimage.segmentation import watershed

    distance = ndimage.distance_transform_edt(inner == 0)
    numbers = _with_the_rest(watershed(distance, inner, mask.ndim, mask=mask), mask)
    return numbers, (np.arange(numbers.max() + 1) > 0).astype(int)


def _with_the_rest(numbers: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Objects that no flood has reached, because they are too thin to have an inner part, get numbers too."""
    rest = components(mask & (numbers == 0))
    return np.where(rest > 0, rest + numbers.max(), numbers).astype(np.int32)


def _without(numbers: np.ndarray, owners: np.ndarray, steps: Steps) -> np.ndarray:
    """0 in place of the objects that are too small, and of those that are not the largest."""
    pixels = np.bincount(numbers.ravel(), minlength=len(owners))
    kept = pixels > 0
    if steps.min_size:
        least = np.array([0, *steps.min_size])
        kept &= pixels >= least[np.minimum(owners, len(least) - 1)]
    for label in np.unique(owners[1:]) if steps.keep_largest else ():
        mine = np.flatnonzero(owners == label)
        kept[mine[mine != mine[pixels[mine].argmax()]]] = False
    return np.where(kept[numbers], numbers, 0)


def _in_a_row(numbers: np.ndarray, owners: np.ndarray) -> Found:
    """Numbered from 1, without those that are gone."""
    left = np.unique(numbers)
    left = left[left > 0]
    places = np.zeros(len(owners), np.int32)
    places[left] = np.arange(1, len(left) + 1)
    return Found(places[numbers], np.array([0, *owners[left]]))


def _of_boundaries(classes: Sequence[str]) -> str | None:
    """The target of a network whose classes are made of boundaries, else None."""
    known = ("boundary", "3class")
    return next((target for target in known if targets.CLASS_NAMES[target] == tuple(classes)), None)
