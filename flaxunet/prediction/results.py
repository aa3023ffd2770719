"""Predictions of pictures and volumes enter; files of masks, probabilities, overlays, and tables leave."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from flaxunet.files import write_json
from flaxunet.io import images, planes, tiff, volumes
from flaxunet.io.images import Picture
from flaxunet.io.pixels import DecodedPixels, to_image
from flaxunet.io.volumes import Volume
from flaxunet.labels import PALETTE, Color
from flaxunet.prediction.inputs import Source
from flaxunet.prediction.postprocess import Segmentation, Steps, process
from flaxunet.prediction.stack import Stack
from flaxunet.prediction.tables import Table
from flaxunet.report import overlay

MASKS, PROBABILITIES, OVERLAYS = "masks", "probabilities", "overlays"
MEASURES, OBJECTS, SETTINGS = "measures.csv", "objects.csv", "prediction.json"
OVERVIEW = 2048
"""DecodedPixels that the longer side of an overlay of a large picture has at most."""
_COLUMNS = ("pixels", "mm2", "mm3")


@dataclass(frozen=True)
class Wanted:
    """What is to be written.

    Attributes:
      out: the folder; it is made.
      classes: names of the labels, background first.
      probabilities: whether files of probabilities are written.
      overlays: whether pictures with painted labels are.
      steps: what is made of labels before.
      axis: of the slices that volumes are cut into.
      palette: colours of the labels from 1 on; numbered objects have the usual ones.
    """

    out: Path
    classes: tuple[str, ...]
    probabilities: bool = False
    overlays: bool = False
    steps: Steps = field(default_factory=Steps)
    axis: str = planes.DEFAULT_AXIS
    palette: Sequence[Color] = PALETTE

    def kinds(self) -> list[str]:
        """Folders below `out`."""
        asked = {MASKS: True, PROBABILITIES: self.probabilities, OVERLAYS: self.overlays}
        return [kind for kind, is_asked in asked.items() if is_asked]

    def paths(self, source: Source) -> list[list[Path]]:
        """Files that may be written of a source: of each kind one of several."""
        suffixes = {MASKS: (".png", ".tif", *images.VOLUME_SUFFIXES), OVERLAYS: (".png", ".tif")}
        return [
            [self.place(kind, source, end) for end in suffixes.get(kind, (".tif", *images.VOLUME_SUFFIXES))]
            for kind in self.kinds()
        ]

    def place(self, kind: str, source: Source, suffix: str) -> Path:
        """Of one file."""
        return self.out / kind / f"{source.name}{suffix}"


class Results:
    """The folder of the results while it is filled. Errors of writing are ImageError and OSError.

    Args:
      wanted: what is to be written.
      sources: what will be predicted.
      settings: what results depend on; kept in the folder.
      resume: keep what is there, and whole, if it was made with the same settings.
    Raises: ValueError if the settings were others.
    """

    def __init__(
        self,
        wanted: Wanted,
        sources: Sequence[Source],
        settings: dict[str, Any],
        *,
        resume: bool = False,
    ):
        self.wanted = wanted
        self.names = wanted.steps.classes(wanted.classes)
        out = wanted.out
        out.mkdir(parents=True, exist_ok=True)
        older = _settings(out / SETTINGS) if resume else None
        before: dict[str, str] = {} if older is None else older.pop("images", {})
        settings = json.loads(json.dumps(settings))
        if older is not None and older != settings:
            differing = [
                f"{name} was {older.get(name)!r}, is {settings.get(name)!r}"
                for name in {**older, **settings}
                if older.get(name) != settings.get(name)
            ]
            raise ValueError(f"{out}: cannot resume: {'; '.join(differing)}; accepted are equal settings")
        now = {source.image: source.stamp() for source in sources}
        missing = {
            source.image
            for source in sources
            if before.get(source.image) != now[source.image]
            or not all(any(path.is_file() for path in paths) for paths in wanted.paths(source))
        }
        columns = ("image", "page", "class", *_COLUMNS, "objects")
        kept = (lambda image: image not in missing) if older is not None else (lambda image: False)
        self._measures = Table(out / MEASURES, columns, keep=kept)
        objects = ("image", "page", "object", "class", *_COLUMNS)
        self._objects = None
        if wanted.steps.instances:
            self._objects = Table(out / OBJECTS, objects, keep=self._measures.images.__contains__)
        # After the tables, from which those are gone that are others now.
        settings["images"] = before | now
        write_json(out / SETTINGS, settings)
        self._stacks: dict[Source, dict[str, Stack]] = {}
        self._rows: dict[Source, tuple[list[Any], list[Any]]] = {}

    def done(self, source: Source) -> bool:
        """Whether all of a source was written by an earlier run."""
        return source.image in self._measures.images

    def add_picture(
        self,
        source: Source,
        page: tuple[int, int],
        picture: Picture,
        labels: np.ndarray,
        probabilities: np.ndarray,
    ) -> None:
        """Writes a picture, or a page of several.

        Args:
          source: where it is from.
          page: its number from 0, and how many there are.
          picture: what was read.
          labels: (H, W) integers.
          probabilities: (H, W, K) float32.
        """
        found = process(labels, self.wanted.steps, self.wanted.classes, picture.spacing)
        number, count = page
        alone, indexed = count == 1, found.object_classes is None and found.labels.max() < 256
        turned = picture.orientation
        if self.wanted.probabilities:
            self._add(PROBABILITIES, source, page, probabilities.astype(np.float16), orientation=turned)
        if self.wanted.overlays:
            shown = _shown(found), self._palette(found)
            if alone:
                overlay.write_overlay(self._place(OVERLAYS, source, ".png"), picture.image, *shown)
            else:
                self._add(OVERLAYS, source, page, overlay.painted(picture.image, *shown))
        if alone and found.labels.max() < 2**16:
            path = self._place(MASKS, source, ".png")
            deep = found.object_classes is not None
            images.write_mask(path, found.labels, self.wanted.palette, orientation=turned, deep=deep)
        else:
            stored = np.uint8 if indexed else np.uint16 if found.labels.max() < 2**16 else np.uint32
            palette = self.wanted.palette if indexed else None
            self._add(MASKS, source, page, found.labels.astype(stored), orientation=turned, palette=palette)
        area = None if picture.spacing is None else picture.spacing[0] * picture.spacing[1]
        self._measure(source, "" if alone else str(number), found, lambda pixels: (_mm(pixels, area), ""))
        if number + 1 == count:
            for stack in self._stacks.pop(source, {}).values():
                stack.close()
            self._finish(source)

    def add_volume(
        self, source: Source, volume: Volume, labels: np.ndarray, probabilities: np.ndarray | None
    ) -> None:
        """Writes a volume.

        Args:
          source: where it is from.
          volume: what was read.
          labels: (N, H, W) integers of its slices.
          probabilities: (N, H, W, K), if they are wanted.
        """
        axis = self.wanted.axis
        found = process(planes.stack(labels, axis), self.wanted.steps, self.wanted.classes, volume.spacing)
        suffix = ".nii" if source.path.suffix.lower() == ".nii" else ".nii.gz"
        if probabilities is not None:
            path = self._place(PROBABILITIES, source, suffix)
            volumes.write_volume_probabilities(path, planes.stack(probabilities, axis), volume)
        if self.wanted.overlays:
            pictures, shown = (planes.slices(x, axis) for x in (volume.voxels, _shown(found)))
            for number, picture in enumerate(pictures):
                page = (number, len(pictures))
                painted = overlay.painted(picture, shown[number], self._palette(found))
                self._add(OVERLAYS, source, page, painted)
            self._stacks.pop(source)[OVERLAYS].close()
        volumes.write_volume_mask(self._place(MASKS, source, suffix), found.labels, volume)
        size = float(np.prod(volume.spacing))
        self._measure(source, "", found, lambda pixels: ("", _mm(pixels, size)))
        self._finish(source)

    def add_slide(self, source: Source, mask: Path) -> None:
        """Counts what lies in a mask that is too large to be read whole, and paints a small picture of it;
        objects are not counted."""
        pixels = np.zeros(len(self.names), np.int64)
        with tifffile.TiffFile(mask) as file:
            page = file.pages.first
            step = -(-max(page.shape) // OVERVIEW)
            small = np.zeros([-(-side // step) for side in page.shape], np.int32)
            for tile, (_, _, top, left, _), _ in page.segments():
                if tile is None:  # nothing is stored where all is background
                    continue
                labels = tile[0, : page.shape[0] - top, : page.shape[1] - left, 0]
                pixels += np.bincount(labels.ravel(), minlength=len(pixels))
                thin = labels[-top % step :: step, -left % step :: step]
                row, column = -(-top // step), -(-left // step)
                small[row : row + thin.shape[0], column : column + thin.shape[1]] = thin
        if self.wanted.overlays:
            path = self._place(OVERLAYS, source, ".png")
            overlay.write_overlay(path, _thinned(source.path, step), small, self.wanted.palette)
        sizes = zip(self.names[1:], pixels[1:], strict=True)
        self._rows[source] = [(source.image, "", name, int(n), "", "", "") for name, n in sizes], []
        self._finish(source)

    def abandon(self, source: Source) -> None:
        """Leaves nothing of a source that is not whole."""
        for stack in self._stacks.pop(source, {}).values():
            stack.abandon()
        self._rows.pop(source, None)

    def close(self) -> None:
        """Leaves nothing that is not whole."""
        for source in list(self._stacks):
            self.abandon(source)

    def slide(self, kind: str, source: Source) -> Path:
        """Where a mask or probabilities of a large picture are to be written."""
        return self._place(kind, source, ".tif")

    def _palette(self, found: Segmentation) -> Sequence[Color]:
        return self.wanted.palette if found.object_classes is None else PALETTE

    def _place(self, kind: str, source: Source, suffix: str) -> Path:
        path = self.wanted.place(kind, source, suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _add(
        self, kind: str, source: Source, page: tuple[int, int], picture: np.ndarray, **options: Any
    ) -> None:
        """A page of the stack that a source has of a kind; a single one is whole at once."""
        stacks = self._stacks.setdefault(source, {})
        if kind not in stacks:
            stacks[kind] = Stack(self._place(kind, source, ".tif"), page[1])
        stacks[kind].add(picture, **options)

    def _measure(
        self, source: Source, page: str, found: Segmentation, in_mm: Callable[[int], tuple[str, str]]
    ) -> None:
        measures, objects = self._rows.setdefault(source, ([], []))
        for name, (pixels, count) in zip(self.names[1:], found.sizes(len(self.names)), strict=True):
            measures.append((source.image, page, name, pixels, *in_mm(pixels), count))
        if found.object_classes is not None:
            sizes = np.bincount(found.labels.ravel(), minlength=len(found.object_classes))
            for number, owner in enumerate(found.object_classes[1:], 1):
                size = int(sizes[number])
                objects.append((source.image, page, number, self.names[owner], size, *in_mm(size)))

    def _finish(self, source: Source) -> None:
        """Its rows come last: what is in the table is whole."""
        measures, objects = self._rows.pop(source)
        if self._objects is not None:
            self._objects.add(objects)
        self._measures.add(measures)


def _shown(found: Segmentation) -> np.ndarray:
    """Labels in the colours of classes; objects in one of 21 each, which begin again."""
    if found.object_classes is None:
        return found.labels
    return np.where(found.labels > 0, (found.labels - 1) % len(PALETTE) + 1, 0)


def _thinned(path: Path, step: int) -> np.ndarray:
    """Every so many rows and columns of a large TIFF."""
    with path.open("rb") as file, tiff.open_regions(file) as parts:
        assert parts is not None
        rows = []
        for top in range(0, parts.size[0], 1024):
            rows.append(parts.read_rows(top, min(top + 1024, parts.size[0]))[-top % step :: step, ::step])
    return to_image(DecodedPixels(np.concatenate(rows)))


def _mm(pixels: int, size: float | None) -> str:
    return "" if size is None else f"{pixels * size:.6g}"


def _settings(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
