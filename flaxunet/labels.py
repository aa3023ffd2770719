"""Labels: the ignored value, class names, colours, and what a training target makes of a mask."""

from collections.abc import Sequence

import numpy as np

IGNORE = -1
"""The label of pixels that count neither in losses nor in metrics."""

Color = tuple[int, int, int]

# Seven colours that any colour vision tells apart (Okabe and Ito 2008, Color Universal Design), then the same
# darkened, then lightened. Class k has PALETTE[(k - 1) % 21]; the background has none.
_HUES: tuple[Color, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
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


def class_color(label: int, palette: Sequence[Color] = PALETTE) -> Color:
    """Of a foreground class in every picture; a palette that is too short begins again."""
    return palette[(label - 1) % len(palette)]


def colormap(palette: Sequence[Color] = PALETTE) -> np.ndarray:
    """Colours of the labels 0 to 255 as indexed files have them: (256, 3) uint8; the background is black."""
    colors = [(0, 0, 0), *(class_color(label, palette) for label in range(1, 256))]
    return np.array(colors, np.uint8)


def hex_color(color: Color) -> str:
    """As #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*color)
