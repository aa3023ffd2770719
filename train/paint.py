"""Images and labels become colours: what is missed, extra or confused, and every class in its own."""

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
MISSED: Color = (255, 64, 150)
EXTRA: Color = (254, 225, 64)
CONFUSED: Color = (255, 255, 255)
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


def overlay(base: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Paints a label map's (H, W) foreground over (H, W, 3) with OPACITY, and stripes where it is IGNORE."""
    painted = base.copy()
    for value in np.unique(label):
        if value > 0:
            where = label == value
            painted[where] = _blend(base[where], class_color(int(value)))
    return _stripe(painted, label == IGNORE)


def errors(base: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Paints missed, extra and confused foreground over a dimmed (H, W, 3); what is right is faintly lit."""
    known = truth != IGNORE
    wrong = known & (truth != prediction)
    painted = 0.4 * base.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    right = known & ~wrong & (truth > 0)
    painted[right] += 0.1
    for where, color in (
        (wrong & (prediction == 0), MISSED),
        (wrong & (truth == 0), EXTRA),
        (wrong & (truth > 0) & (prediction > 0), CONFUSED),
    ):
        painted[where] = np.divide(color, 255)
    return _stripe(painted, ~known)


def class_color(label: int) -> Color:
    """Of a foreground class in every picture."""
    return PALETTE[(label - 1) % len(PALETTE)]


def _blend(base: np.ndarray, color: Color) -> np.ndarray:
    return (1 - OPACITY) * base + OPACITY * np.divide(color, 255)[None].astype(base.dtype)


def _stripe(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Diagonal stripes, as wide in the finished picture whatever the size of the image."""
    y, x = np.indices(where.shape)
    width = max(1, where.shape[1] // 64)
    picture[where] = np.where((x + y) // width % 2 == 0, 0.42, 0.58)[where][:, None]
    return picture


def hex_color(color: Color) -> str:
    """As #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*color)
