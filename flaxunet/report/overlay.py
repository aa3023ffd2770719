"""Images and labels become colours: every class in its own, over the image in gray or RGB."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flaxunet.losses import IGNORE

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
OPACITY = 0.5


def gray_or_rgb(image: np.ndarray) -> np.ndarray:
    """(H, W, C) of any range to (H, W, 3) in [0, 1], stretched from the 0.5th to the 99.5th percentile."""
    shown = np.asarray(image, np.float32)
    if shown.shape[-1] != 3:
        shown = np.repeat(shown[..., :1], 3, axis=-1)
    low, high = np.percentile(shown, (0.5, 99.5))
    if high - low > 1e-3:  # else a constant image would become noise
        shown = (shown - low) / (high - low)
    return np.clip(shown, 0, 1)


def overlay(
    base: np.ndarray, label: np.ndarray, palette: Sequence[Color] = PALETTE, opacity: float = OPACITY
) -> np.ndarray:
    """Paints a label map's (H, W) foreground over (H, W, 3), and stripes where it is IGNORE."""
    painted = base.copy()
    for value in np.unique(label):
        if value > 0:
            where = label == value
            painted[where] = _blend(base[where], class_color(int(value), palette), opacity)
    return stripe(painted, label == IGNORE)


def painted(image: np.ndarray, label: np.ndarray, palette: Sequence[Color] = PALETTE) -> np.ndarray:
    """(H, W, C) of any range and its labels (H, W) to a picture (H, W, 3) uint8."""
    return (255 * overlay(gray_or_rgb(image), label, palette) + 0.5).astype(np.uint8)


def class_color(label: int, palette: Sequence[Color] = PALETTE) -> Color:
    """Of a foreground class in every picture; a palette that is too short begins again."""
    return palette[(label - 1) % len(palette)]


def colormap(palette: Sequence[Color] = PALETTE) -> np.ndarray:
    """Colours of the labels 0 to 255 as indexed files have them: (256, 3) uint8; the background is black."""
    colors = [(0, 0, 0), *(class_color(label, palette) for label in range(1, 256))]
    return np.array(colors, np.uint8)


def indexed(palette: Sequence[Color]) -> dict[str, Any]:
    """What makes `tifffile.TiffWriter.write` give uint8 labels these colours."""
    return {"photometric": "palette", "colormap": colormap(palette).T.astype(np.uint16) * 257}


def stripe(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Diagonal stripes in place, as wide in the finished picture whatever the size of the image."""
    y, x = np.indices(where.shape)
    width = max(1, where.shape[1] // 64)
    picture[where] = np.where((x + y) // width % 2 == 0, 0.42, 0.58)[where][:, None]
    return picture


def _blend(base: np.ndarray, color: Color, opacity: float) -> np.ndarray:
    return (1 - opacity) * base + opacity * np.divide(color, 255)[None].astype(base.dtype)
