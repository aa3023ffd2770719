"""A file enters; its prediction leaves, painted, counted, and as files to keep. Knows no browser."""

import csv
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from flaxunet import preprocessing
from flaxunet.io import images, planes, volumes
from flaxunet.io.images import ImageError
from flaxunet.io.pixels import SeveralImagesError, select_page
from flaxunet.labels import Color
from flaxunet.prediction.predictor import Predictor
from flaxunet.report import overlay

SIDE = 1536  # pixels of the longer side of what is shown, at most; files to keep have all of them


@dataclass(frozen=True)
class Found:
    """What was found in an image.

    Attributes:
      name: of its file.
      base: (h, w, 3) float32 in [0, 1], as it is shown.
      scores: (H, W), all that later choices need: the probability of the foreground as float32 of one
        sigmoid channel, or else the most probable class as integers.
      pages: how many pictures the file holds; page: which of them this is, from 0.
    """

    name: str
    base: np.ndarray
    scores: np.ndarray
    pages: int
    page: int

    @property
    def stem(self) -> str:
        """How the names of files to keep begin."""
        return Path(self.name).stem + (f"-page{self.page}" if self.pages > 1 else "")

    @property
    def binary(self) -> bool:
        """Whether a threshold chooses."""
        return self.scores.dtype == np.float32

    def labels(self, threshold: float) -> np.ndarray:
        """(H, W) int32; the threshold counts for one sigmoid channel."""
        return (self.scores > threshold if self.binary else self.scores).astype(np.int32)


@dataclass(frozen=True)
class Look:
    """How a prediction is shown: one colour and one word per foreground class."""

    colors: tuple[Color, ...]
    visible: tuple[bool, ...]
    opacity: float
    threshold: float


def find(predictor: Predictor, path: str | Path, page: int | None = None, pages: int = 1) -> Found:
    """Reads an image and predicts it.

    Args:
      predictor: that predicts.
      path: of a NIfTI file, whose pages are its slices along the axis of the training (else from the feet
        up), or any other file that `flaxunet.io.read_image` reads.
      page: which picture of several, from 0; None takes the first, and counts them.
      pages: their number, where it is known.
    Raises: ValueError, in one line that names the file, but not the place where it was put.
    """
    name = Path(path).name
    try:
        image, page, pages = _read(predictor, path, page, pages)
        probabilities = predictor(image)
    except ImageError as error:
        raise ValueError(str(error).replace(str(path), name)) from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if probabilities.shape[-1] == 1:
        scores = probabilities[..., 0]
    else:
        scores = predictor.labels(probabilities).astype(np.min_scalar_type(probabilities.shape[-1]))
    return Found(name, _smaller(overlay.gray_or_rgb(image)), scores, pages, page)


def paint(found: Found, look: Look) -> tuple[np.ndarray, np.ndarray]:
    """The overlay and the mask in colours, (h, w, 3) uint8 each, as large as `found.base`."""
    labels = found.labels(look.threshold)
    hidden = [label for label, visible in enumerate(look.visible, 1) if not visible]
    labels = np.where(np.isin(labels, hidden), 0, labels).astype(np.int32)
    height, width = found.base.shape[:2]
    if labels.shape != (height, width):
        labels = preprocessing.resize_labels(labels, (height, width))
    over = overlay.overlay(found.base, labels, look.colors, look.opacity)
    mask = overlay.overlay(np.zeros_like(found.base), labels, look.colors, 1.0)
    return to_bytes(over), to_bytes(mask)


def areas(found: Found, classes: Sequence[str], look: Look) -> list[tuple[int, str, int, float]]:
    """Label, class, pixels, and part of the image of every class."""
    counts = np.bincount(found.labels(look.threshold).ravel(), minlength=len(classes))
    total = counts.sum()
    return [(label, name, int(counts[label]), counts[label] / total) for label, name in enumerate(classes)]


def mask_png(found: Found, look: Look) -> bytes:
    """The labels of all classes, hidden or not, as an indexed PNG in their colours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.png"
        images.write_mask(path, found.labels(look.threshold), look.colors)
        return path.read_bytes()


def areas_csv(found: Found, classes: Sequence[str], look: Look) -> str:
    """A row per class, below a head."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("label", "class", "pixels", "fraction"))
    rows.writerows((*row, f"{part:.6f}") for *row, part in areas(found, classes, look))
    return text.getvalue()


def to_bytes(picture: np.ndarray) -> np.ndarray:
    """(..., 3) floats in [0, 1] to uint8."""
    return np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def _smaller(base: np.ndarray) -> np.ndarray:
    if max(base.shape[:2]) <= SIDE:
        return base
    picture = PIL.Image.fromarray(to_bytes(base))
    picture.thumbnail((SIDE, SIDE))
    return np.asarray(picture, np.float32) / 255


def _read(
    predictor: Predictor, path: str | Path, page: int | None, pages: int
) -> tuple[np.ndarray, int, int]:
    """A picture (H, W, C) as `python -m flaxunet predict` has it, which it is, and of how many."""
    if images.FORMATS[images.file_format(path)].is_volume:
        plane = predictor.axis or planes.DEFAULT_AXIS
        cut = volumes.training_slices(volumes.read_volume(path), plane, predictor.intensity)
        page = select_page(page or 0, len(cut))
        return np.ascontiguousarray(cut[page]), page, len(cut)
    try:
        return images.read_image(path, page=page), page or 0, pages
    except ImageError as error:
        if page is not None or not isinstance(error.__cause__, SeveralImagesError):
            raise
        return images.read_image(path, page=0), 0, error.__cause__.count
