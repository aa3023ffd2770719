"""A prediction and the truth become colours: what is missed, extra or confused."""

import numpy as np

from flaxunet.losses import IGNORE
from flaxunet.report.overlay import Color, stripe

MISSED: Color = (255, 64, 150)
EXTRA: Color = (254, 225, 64)
CONFUSED: Color = (255, 255, 255)


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
    return stripe(painted, ~known)


def hex_color(color: Color) -> str:
    """As #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*color)
