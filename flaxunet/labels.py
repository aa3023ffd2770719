"""Defines labels: the ignored value, class names, colours, and how a training target changes a mask."""

from collections.abc import Collection, Sequence

import numpy as np

IGNORE = -1  # the label of pixels that count neither in losses nor in metrics

Color = tuple[int, int, int]

# Seven colours that any colour vision tells apart (Okabe and Ito 2008, Color Universal Design), then the same
# darkened, then lightened. Class k has PALETTE[(k - 1) % 21]; the background has none.
_HUES: tuple[Color, ...] = (
    *((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167)),
    *((240, 228, 66), (0, 114, 178), (213, 94, 0)),
)
PALETTE: tuple[Color, ...] = (
    *_HUES,
    *((r // 2, g // 2, b // 2) for r, g, b in _HUES),
    *((128 + r // 2, 128 + g // 2, 128 + b // 2) for r, g, b in _HUES),
)

TARGETS = ("classes", "foreground", "boundary", "3class")
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "foreground": ("background", "foreground"),
    "boundary": ("background", "boundary"),
    "3class": ("background", "inside", "boundary"),
}
OBJECT_TARGETS = ("boundary", "3class")  # those that are made of numbered objects
MAX_INFERRED = 32  # more classes have to be asked for: such labels are likelier to be numbers of objects
BOUNDARY = 2  # width inside of an object, in pixels


def default_names(classes: int) -> tuple[str, ...]:
    """Names of K classes, background first, for data without names; two for one sigmoid channel."""
    names = (f"class {label}" for label in range(1, classes))
    return CLASS_NAMES["foreground"] if classes == 1 else ("background", *names)


def relabel(mask: np.ndarray, target: str) -> np.ndarray:
    """Turns a mask into the labels of a training target.

    The boundary of an object is made of its pixels within `BOUNDARY` rows and columns of another object or of
    the background; the edge of the image and ignored pixels make none. So there are `2 * BOUNDARY` pixels
    between the insides of two objects that touch.

    Args:
      mask: (H, W) int32: classes, or numbers of objects; IGNORE where nothing is known.
      target: "classes" keeps the mask, "foreground" sets all labels above 0 to 1, "boundary" sets boundaries
        to 1 and the rest to 0, and "3class" sets insides to 1 and boundaries to 2.
    Returns: (H, W) int32, IGNORE where the mask has it.
    """
    if target == "classes":
        return mask
    if target == "foreground":
        return np.minimum(mask, 1)
    from scipy import ndimage

    is_known, side = mask != IGNORE, 2 * BOUNDARY + 1
    lowest = ndimage.minimum_filter(np.where(is_known, mask, np.iinfo(np.int32).max), side, mode="nearest")
    highest = ndimage.maximum_filter(np.where(is_known, mask, -1), side, mode="nearest")
    boundary = (lowest != highest) & (mask > 0)
    labels = np.where(boundary, np.int32(2), np.minimum(mask, 1)) if target == "3class" else boundary
    return np.where(is_known, labels, IGNORE).astype(np.int32)


def mark_ignored(mask: np.ndarray, ignore_label: int | None) -> np.ndarray:
    """Replaces the stored label of pixels that do not count, if there is one, by IGNORE; (H, W) int32."""
    return mask if ignore_label is None else np.where(mask == ignore_label, np.int32(IGNORE), mask)


def target_values(mask: np.ndarray, target: str, ignore_label: int | None = None) -> np.ndarray:
    """Finds the values of a mask that a target uses, sorted: all above 0 as 1, unless it is "classes"."""
    values = np.unique(mask if ignore_label is None else mask[mask != ignore_label])
    return values if target == "classes" else np.unique(np.minimum(values, 1))


def are_ambiguous(values: Collection[int]) -> bool:
    """Checks whether labels are likelier numbers of objects, or one class painted as 255, than classes.

    Numbers of objects reach `MAX_INFERRED`, and a mask of 0 and 255 leaves out all labels between.
    """
    foreground = {value for value in values if value > 0}
    top = max(foreground, default=0)
    return top >= MAX_INFERRED or (len(foreground) == 1 and top > 1)


def class_names(target: str, classes: int, names: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Names a target's K labels, background first; "classes" has the dataset's `names`, if there are any."""
    return CLASS_NAMES.get(target) or names or default_names(classes if classes > 2 else 1)


def target_of(names: Sequence[str] | None) -> str | None:
    """Finds the target whose labels have these names, background first; None for other names."""
    return next((target for target, known in CLASS_NAMES.items() if known == tuple(names or ())), None)


def class_color(label: int, palette: Sequence[Color] = PALETTE) -> Color:
    """The colour of a foreground class in every picture; a palette that is too short starts again."""
    return palette[(label - 1) % len(palette)]


def colormap(palette: Sequence[Color] = PALETTE) -> np.ndarray:
    """The colours of the labels 0 to 255 for indexed files: (256, 3) uint8; the background is black."""
    return np.array([(0, 0, 0), *(class_color(label, palette) for label in range(1, 256))], np.uint8)


def hex_color(color: Color) -> str:
    """Formats a colour as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*color)
