"""Writes the predictions of images and volumes: masks, probabilities, overlays, and tables of measures."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flaxunet.files import write_json
from flaxunet.io import images, planes, volumes
from flaxunet.io.images import Picture
from flaxunet.io.tiff import TiffStack
from flaxunet.io.volumes import Volume
from flaxunet.labels import PALETTE, Color
from flaxunet.prediction import slides
from flaxunet.prediction.inputs import Input
from flaxunet.prediction.postprocess import Segmentation, Steps, process
from flaxunet.prediction.tables import Table
from flaxunet.report import overlay

MASKS, PROBABILITIES, OVERLAYS = "masks", "probabilities", "overlays"
MEASURES, OBJECTS, SETTINGS = "measures.csv", "objects.csv", "prediction.json"
OVERVIEW = 2048  # pixels that the longer side of an overlay of a large image has at most
Page = tuple[int, int]  # its number from 0, and how many there are
_SIZES = ("pixels", "mm2", "mm3")
_SUFFIXES = {
    MASKS: (".png", ".tif", *images.VOLUME_SUFFIXES),
    PROBABILITIES: (".tif", *images.VOLUME_SUFFIXES),
    OVERLAYS: (".png", ".tif"),
}


@dataclass(frozen=True)
class Outputs:
    """What is written, and how.

    Attributes:
      folder: of all results; it is made.
      classes: names of the labels, background first.
      probabilities, overlays: whether probabilities, and images with painted labels, are written.
      threshold: of the foreground's probability where K = 1.
      steps: post-processing of the labels.
      axis: of the slices that volumes are cut into.
      palette: colours of the labels from 1 on; numbered objects have the default ones.
    """

    folder: Path
    classes: tuple[str, ...]
    probabilities: bool = False
    overlays: bool = False
    threshold: float = 0.5
    steps: Steps = field(default_factory=Steps)
    axis: str = planes.DEFAULT_AXIS
    palette: Sequence[Color] = PALETTE

    @property
    def kinds(self) -> list[str]:
        """Folders below `folder`, by what they hold."""
        kinds = {MASKS: True, PROBABILITIES: self.probabilities, OVERLAYS: self.overlays}
        return [kind for kind, is_written in kinds.items() if is_written]

    @property
    def tables(self) -> list[Path]:
        """Files of tables and settings that may be written."""
        return [self.folder / name for name in (MEASURES, OBJECTS, SETTINGS)]

    def paths(self, source: Input) -> list[list[Path]]:
        """Files that may be written of an input: of each kind one of several."""
        return [[self.path(kind, source, suffix) for suffix in _SUFFIXES[kind]] for kind in self.kinds]

    def path(self, kind: str, source: Input, suffix: str) -> Path:
        """The file of a kind of an input."""
        return self.folder / kind / f"{source.name}{suffix}"


class Results:
    """The folder of the results while it is filled. Errors of writing are ImageError and OSError.

    Args:
      outputs, inputs: what is written, and what will be predicted.
      settings: on which results depend; kept in the folder.
      resume: keep what is there, and whole, if it was made with equal settings.
    Raises: ValueError if the settings were others.
    """

    def __init__(self, outputs: Outputs, inputs: Sequence[Input], settings: dict[str, Any], resume: bool):
        self.outputs = outputs
        self._names = outputs.steps.classes(outputs.classes)
        measures, objects, settings_file = outputs.tables
        outputs.folder.mkdir(parents=True, exist_ok=True)
        older: dict[str, Any] | None = None
        if resume:
            with suppress(OSError, ValueError):
                older = json.loads(settings_file.read_text("utf-8"))
        before: dict[str, str] = {} if older is None else older.pop("images", {})
        settings = json.loads(json.dumps(settings))
        if older is not None and older != settings:
            names = [name for name in {**older, **settings} if older.get(name) != settings.get(name)]
            what = "; ".join(f"{name} was {older.get(name)!r}, is {settings.get(name)!r}" for name in names)
            raise ValueError(f"{outputs.folder}: cannot resume: {what}; expected equal settings")
        stamps = {one.image: one.stamp() for one in inputs}
        there = [one for one in inputs if all(any(map(Path.is_file, paths)) for paths in outputs.paths(one))]
        missing = stamps.keys() - {one.image for one in there if before.get(one.image) == stamps[one.image]}
        columns = ("image", "page", "class", *_SIZES, "objects")
        self._measures = Table(measures, columns, lambda image: older is not None and image not in missing)
        self._objects = None
        if outputs.steps.instances:
            columns = ("image", "page", "object", "class", *_SIZES)
            self._objects = Table(objects, columns, self._measures.images.__contains__)
        # After the tables, from which the rows of changed images are gone.
        write_json(settings_file, settings | {"images": before | stamps})
        self._stacks: dict[Input, dict[str, TiffStack]] = {}
        self._rows: dict[Input, tuple[list[Any], list[Any]]] = {}

    def is_done(self, source: Input) -> bool:
        """Whether an earlier run has written all of an input."""
        return source.image in self._measures.images

    def path(self, kind: str, source: Input, suffix: str) -> Path:
        """The file of a kind of an input, whose folder is made."""
        path = self.outputs.path(kind, source, suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def add_picture(
        self, source: Input, page: Page, picture: Picture, labels: np.ndarray, values: np.ndarray
    ) -> None:
        """Writes the results of a picture, or of a page of several.

        Args:
          source, picture: the input, and what was read of it.
          page: of the input.
          labels, values: (H, W) integers, and the probabilities (H, W, K) float32.
        """
        outputs, (number, count), orientation = self.outputs, page, picture.orientation
        segmentation = process(labels, outputs.steps, outputs.classes, picture.spacing)
        labels, alone, is_numbered = segmentation.labels, count == 1, segmentation.object_classes is not None
        if outputs.probabilities:
            self._add(PROBABILITIES, source, page, values.astype(np.float16), orientation=orientation)
        if outputs.overlays:
            painted = picture.image, *self._painted(segmentation)
            if alone:
                overlay.write_overlay(self.path(OVERLAYS, source, ".png"), *painted)
            else:
                self._add(OVERLAYS, source, page, overlay.overlay_picture(*painted))
        dtype = np.promote_types(np.min_scalar_type(labels.max()), np.uint16 if is_numbered else np.uint8)
        if alone and dtype.itemsize <= 2:
            path = self.path(MASKS, source, ".png")
            images.write_mask(path, labels, outputs.palette, orientation=orientation, deep=is_numbered)
        else:
            palette = outputs.palette if dtype == np.uint8 else None
            self._add(MASKS, source, page, labels.astype(dtype), orientation=orientation, palette=palette)
        area = None if picture.spacing is None else picture.spacing[0] * picture.spacing[1]
        self._measure(source, "" if alone else str(number), segmentation, area, None)
        if number + 1 == count:
            for stack in self._stacks.pop(source, {}).values():
                stack.close()
            self._finish(source)

    def add_volume(
        self, source: Input, volume: Volume, labels: np.ndarray, probabilities: np.ndarray | None
    ) -> None:
        """Writes the results of a volume.

        Args:
          source, volume: the input, and what was read of it.
          labels, probabilities: (N, H, W) integers of its slices; and (N, H, W, K), if they are written.
        """
        axis, steps, classes = self.outputs.axis, self.outputs.steps, self.outputs.classes
        segmentation = process(planes.stack(labels, axis), steps, classes, volume.spacing)
        suffix = ".nii" if source.path.suffix.lower() == ".nii" else ".nii.gz"
        if probabilities is not None:
            path = self.path(PROBABILITIES, source, suffix)
            volumes.write_volume(path, planes.stack(probabilities, axis), volume)
        if self.outputs.overlays:
            shown, palette = self._painted(segmentation)
            slices = zip(planes.slices(volume.voxels, axis), planes.slices(shown, axis), strict=True)
            for number, (image, mask) in enumerate(slices):
                painted = overlay.overlay_picture(image, mask, palette)
                self._add(OVERLAYS, source, (number, len(labels)), painted)
            self._stacks.pop(source)[OVERLAYS].close()
        volumes.write_volume_mask(self.path(MASKS, source, suffix), segmentation.labels, volume)
        self._measure(source, "", segmentation, None, float(np.prod(volume.spacing)))
        self._finish(source)

    def add_large(self, source: Input) -> None:
        """Counts pixels, not objects, in the mask of a large image, and paints a small image of it."""
        mask = self.path(MASKS, source, ".tif")
        pixels, small, step = slides.count_labels(mask, len(self._names), OVERVIEW)
        if self.outputs.overlays:
            path = self.path(OVERLAYS, source, ".png")
            overlay.write_overlay(path, slides.thumbnail(source.path, step), small, self.outputs.palette)
        counts = zip(self._names[1:], pixels[1:], strict=True)
        self._rows[source] = [(source.image, "", name, int(n), "", "", "") for name, n in counts], []
        self._finish(source)

    def abandon(self, source: Input) -> None:
        """Removes the unfinished results of an input."""
        for stack in self._stacks.pop(source, {}).values():
            stack.abandon()
        self._rows.pop(source, None)

    def close(self) -> None:
        """Removes all unfinished results."""
        for source in list(self._stacks):
            self.abandon(source)

    def _painted(self, segmentation: Segmentation) -> tuple[np.ndarray, Sequence[Color]]:
        """Labels for an overlay and their colours: those of the classes, or the default ones in turn."""
        if segmentation.object_classes is None:
            return segmentation.labels, self.outputs.palette
        labels = segmentation.labels
        return np.where(labels > 0, (labels - 1) % len(PALETTE) + 1, 0), PALETTE

    def _add(self, kind: str, source: Input, page: Page, image: np.ndarray, **options: Any) -> None:
        """Adds a page to the stack of a kind of an input."""
        stacks = self._stacks.setdefault(source, {})
        if kind not in stacks:
            stacks[kind] = TiffStack(self.path(kind, source, ".tif"), page[1])
        stacks[kind].add(image, **options)

    def _measure(self, source: Input, page: str, segmentation: Segmentation, *mm: float | None) -> None:
        """Keeps the rows of an image; of its pixels the area or the volume is known, or None of them."""

        def sizes(pixels: int) -> list[Any]:
            return [pixels, *("" if size is None else f"{pixels * size:.6g}" for size in mm)]

        measures, objects = self._rows.setdefault(source, ([], []))
        of_classes = segmentation.sizes(len(self._names))
        for name, (pixels, count) in zip(self._names[1:], of_classes, strict=True):
            measures.append((source.image, page, name, *sizes(pixels), count))
        if (of := segmentation.object_classes) is not None:
            counts = np.bincount(segmentation.labels.ravel(), minlength=len(of)).tolist()
            for number, (label, pixels) in enumerate(zip(of[1:], counts[1:], strict=True), 1):
                objects.append((source.image, page, number, self._names[label], *sizes(pixels)))

    def _finish(self, source: Input) -> None:
        """Writes the rows of an input last: what is in the table is whole."""
        measures, objects = self._rows.pop(source)
        if self._objects is not None:
            self._objects.add(objects)
        self._measures.add(measures)
