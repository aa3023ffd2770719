"""Predicts an uploaded image, and paints, counts and saves the result. Knows no browser."""

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
from flaxunet.io.pixels import select_page
from flaxunet.labels import Color
from flaxunet.prediction.predictor import Predictor
from flaxunet.report import overlay
from flaxunet.report.overlay import to_bytes

SIDE = 1536  # pixels of the longer side of a displayed picture, at most; downloads have all of them


@dataclass(frozen=True)
class Prediction:
    """The prediction of an image.

    `scores` (H, W) are enough for any threshold: the foreground's probability as float32 with one sigmoid
    channel, or else the most probable class as integers.
    """

    name: str  # of the image's file
    base: np.ndarray  # (h, w, 3) float32 in [0, 1], the image for display
    scores: np.ndarray
    pages: int  # number of images in the file
    page: int  # which of them this is, from 0

    @property
    def stem(self) -> str:
        """How the names of downloads begin."""
        return Path(self.name).stem + (f"-page{self.page}" if self.pages > 1 else "")

    def labels(self, threshold: float) -> np.ndarray:
        """Labels (H, W) int32; the threshold is for one sigmoid channel."""
        binary = self.scores.dtype == np.float32
        return (self.scores > threshold if binary else self.scores).astype(np.int32)


@dataclass(frozen=True)
class Style:
    """How a prediction is painted; colours and visibility are those of the foreground classes."""

    colors: tuple[Color, ...]
    visible: tuple[bool, ...]
    opacity: float
    threshold: float


def predict(predictor: Predictor, path: str | Path, page: int | None = None) -> Prediction:
    """Reads an image and predicts it.

    Args:
      predictor: called with the image.
      path: a NIfTI file, whose pages are its slices along the axis of the training (else from the feet up),
        or any other file that `flaxunet.io.read_image` reads.
      page: which image of several, from 0; None takes the first.
    Raises: ValueError, in one line that names the file, but not the folder it was uploaded to.
    """
    name = Path(path).name
    try:
        image, page, pages = _read(predictor, path, page)
        probabilities = predictor(image)
    except ImageError as error:
        raise ValueError(str(error).replace(str(path), name)) from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    scores, outputs = probabilities[..., 0], probabilities.shape[-1]
    if outputs > 1:
        scores = predictor.labels(probabilities).astype(np.min_scalar_type(outputs))
    base = overlay.gray_or_rgb(image)
    if max(base.shape[:2]) > SIDE:
        picture = PIL.Image.fromarray(to_bytes(base))
        picture.thumbnail((SIDE, SIDE))
        base = np.asarray(picture, np.float32) / 255
    return Prediction(name, base, scores, pages, page)


def paint(prediction: Prediction, style: Style) -> tuple[np.ndarray, np.ndarray]:
    """Paints the overlay and the mask, (h, w, 3) uint8 each, as large as `prediction.base`."""
    labels = prediction.labels(style.threshold)
    hidden = [label for label, visible in enumerate(style.visible, 1) if not visible]
    labels = np.where(np.isin(labels, hidden), 0, labels).astype(np.int32)
    height, width = prediction.base.shape[:2]
    if labels.shape != (height, width):
        labels = preprocessing.resize_labels(labels, (height, width))
    over = overlay.overlay(prediction.base, labels, style.colors, style.opacity)
    mask = overlay.overlay(np.zeros_like(prediction.base), labels, style.colors, 1.0)
    return to_bytes(over), to_bytes(mask)


def areas(prediction: Prediction, classes: Sequence[str], style: Style) -> list[tuple[int, str, int, float]]:
    """Measures every class: label, name, pixels, and fraction of the image."""
    counts = np.bincount(prediction.labels(style.threshold).ravel(), minlength=len(classes))
    total = counts.sum()
    return [(label, name, int(counts[label]), counts[label] / total) for label, name in enumerate(classes)]


def mask_png(prediction: Prediction, style: Style) -> bytes:
    """Encodes the labels of all classes, hidden or not, as an indexed PNG in their colours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.png"
        images.write_mask(path, prediction.labels(style.threshold), style.colors)
        return path.read_bytes()


def areas_csv(prediction: Prediction, classes: Sequence[str], style: Style) -> str:
    """Writes `areas` as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("label", "class", "pixels", "fraction"))
    rows.writerows((*row, f"{part:.6f}") for *row, part in areas(prediction, classes, style))
    return text.getvalue()


def _read(predictor: Predictor, path: str | Path, page: int | None) -> tuple[np.ndarray, int, int]:
    """The image (H, W, C) as `python -m flaxunet predict` reads it, its page, and the number of pages."""
    if images.FORMATS[images.file_format(path)].is_volume:
        axis = predictor.axis or planes.DEFAULT_AXIS
        slices = volumes.training_slices(volumes.read_volume(path), axis, predictor.intensity)
        page = select_page(page or 0, len(slices))
        return np.ascontiguousarray(slices[page]), page, len(slices)
    pages = images.page_count(path)
    return images.read_image(path, page=0 if page is None and pages > 1 else page), page or 0, pages
