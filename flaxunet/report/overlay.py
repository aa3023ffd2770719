"""Paints labels over images, each class in its colour, and marks the errors of a prediction."""

from collections.abc import Sequence

import numpy as np
import PIL.Image

from flaxunet.io.images import ImageError, StrPath, write_png
from flaxunet.labels import IGNORE, PALETTE, Color, class_color

OPACITY = 0.5
MISSED: Color = (255, 64, 150)
EXTRA: Color = (254, 225, 64)
CONFUSED: Color = (255, 255, 255)
PANELS = ("image", "truth", "prediction", "errors")


def gray_or_rgb(image: np.ndarray) -> np.ndarray:
    """Scales (H, W, C) of any range to (H, W, 3) in [0, 1], from the 0.5th to the 99.5th percentile."""
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
    """Paints the foreground of labels (H, W) over a picture (H, W, 3) in [0, 1], and stripes over IGNORE."""
    painted = base.copy()
    for value in np.unique(label):
        if value > 0:
            where = label == value
            color = np.divide(class_color(int(value), palette), 255)[None].astype(base.dtype)
            painted[where] = (1 - opacity) * base[where] + opacity * color
    return stripe(painted, label == IGNORE)


def overlay_picture(image: np.ndarray, label: np.ndarray, palette: Sequence[Color] = PALETTE) -> np.ndarray:
    """Paints labels (H, W) over an image (H, W, C) of any range; returns (H, W, 3) uint8."""
    return (255 * overlay(gray_or_rgb(image), label, palette) + 0.5).astype(np.uint8)


def write_overlay(
    path: StrPath, image: np.ndarray, labels: np.ndarray, palette: Sequence[Color] | None = None
) -> None:
    """Writes an image with its labels painted over it, as an RGB PNG; whole or not at all.

    The image is scaled from its 0.5th to its 99.5th percentile; without three channels, the first is shown.

    Args:
      path, palette: as of `write_mask`; it ends with .png.
      image: (H, W, C) of any range.
      labels: (H, W) integers; 0 shows the image, `labels.IGNORE` is striped.
    Raises: ImageError if the shapes differ, or the file cannot be written.
    """
    if image.ndim != 3 or image.shape[:2] != labels.shape or not labels.size:
        shapes = f"an image {image.shape} with labels {labels.shape}"
        raise ImageError(f"{path}: {shapes}; expected (H, W, C) and (H, W)")
    write_png(path, PIL.Image.fromarray(overlay_picture(image, labels, palette or PALETTE)))


def to_bytes(picture: np.ndarray) -> np.ndarray:
    """Converts floats in [0, 1] to uint8."""
    return np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def errors(base: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Marks missed, extra and confused foreground in a dimmed picture (H, W, 3) in [0, 1].

    Foreground that is right is slightly brighter; IGNORE is striped.
    """
    known = truth != IGNORE
    wrong = known & (truth != prediction)
    painted = 0.4 * base.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    right = known & ~wrong & (truth > 0)
    painted[right] += 0.1
    painted[wrong] = np.divide(CONFUSED, 255)
    painted[wrong & (prediction == 0)] = np.divide(MISSED, 255)
    painted[wrong & (truth == 0)] = np.divide(EXTRA, 255)
    return stripe(painted, ~known)


def panels(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, ...]:
    """Draws the PANELS of an image (H, W, C) of any range with labels (H, W): four (H, W, 3) in [0, 1]."""
    base = gray_or_rgb(image)
    painted = np.where(truth == IGNORE, IGNORE, prediction.astype(np.int32))
    return base, overlay(base, truth), overlay(base, painted), errors(base, truth, painted)


def mistakes(classes: int) -> list[tuple[str, Color]]:
    """Names and colours of the errors that are possible with so many classes."""
    kinds = [("missed", MISSED), ("extra", EXTRA), ("wrong class", CONFUSED)]
    return kinds[: 3 if classes > 2 else 2]


def stripe(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Draws diagonal stripes in place, of a width in proportion to the image's."""
    y, x = np.indices(where.shape)
    width = max(1, where.shape[1] // 64)
    picture[where] = np.where((x + y) // width % 2 == 0, 0.42, 0.58)[where][:, None]
    return picture
