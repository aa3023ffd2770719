"""Masks of classes or of numbered objects enter; the labels that a network is trained on leave."""

import numpy as np

from flaxunet.losses import IGNORE

TARGETS = ("classes", "foreground", "boundary", "3class")
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "foreground": ("background", "foreground"),
    "boundary": ("background", "boundary"),
    "3class": ("background", "inside", "boundary"),
}
BOUNDARY = 2
"""Width of a boundary, in pixels inside of an object."""


def usual_names(classes: int) -> tuple[str, ...]:
    """Names of K classes, background first, where nothing says better ones; two for one sigmoid channel."""
    if classes == 1:
        return "background", "foreground"
    return ("background", *(f"class {label}" for label in range(1, classes)))


def relabel(mask: np.ndarray, target: str) -> np.ndarray:
    """Make labels of a mask.

    An object's boundary is what lies within `BOUNDARY` pixels, in rows and columns, of another object or of
    the background; the edge of the image and ignored pixels make none. So there are `2 * BOUNDARY` pixels
    between the insides of two objects that touch.

    Args:
      mask: (H, W) int32: classes, or numbers of objects; IGNORE where nothing is known.
      target: "classes" leaves it as it is, "foreground" makes all above 0 a 1, "boundary" makes boundaries 1
        and all else 0, and "3class" makes insides 1 and boundaries 2.
    Returns: (H, W) int32, IGNORE where it was.
    """
    if target == "classes":
        return mask
    if target == "foreground":
        return np.minimum(mask, 1)
    from scipy import ndimage

    known, side = mask != IGNORE, 2 * BOUNDARY + 1
    lowest = ndimage.minimum_filter(np.where(known, mask, np.iinfo(np.int32).max), side, mode="nearest")
    highest = ndimage.maximum_filter(np.where(known, mask, -1), side, mode="nearest")
    boundary = (lowest != highest) & (mask > 0)
    labels = np.where(boundary, np.int32(2), np.minimum(mask, 1)) if target == "3class" else boundary
    return np.where(known, labels, IGNORE).astype(np.int32)
