"""A stored network or a folder of masks enters; the labels that it predicts for images and volumes leave."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from flaxunet.data import large_images
from flaxunet.data.layouts.folders import without_ending
from flaxunet.data.record import SPLITS
from flaxunet.evaluation.runs import Run, run_of
from flaxunet.evaluation.units import Unit
from flaxunet.io import images, planes, volumes
from flaxunet.prediction.postprocess import Steps
from flaxunet.prediction.predictor import Predictor
from flaxunet.prediction.tiling import ALIGN
from flaxunet.weights import store


class Source(Protocol):
    """What predicts.

    Attributes:
      title: what it is called in tables.
      names: of its classes, background first; None if it has none.
      networks: whether it predicts, instead of holding what was predicted.
      axis: of the slices of volumes that it was trained on; None if that is not known.
      steps: what is still to be made of its labels.
      runs: those that its networks are from, as far as that is known.
    """

    title: str
    names: tuple[str, ...] | None
    networks: bool
    axis: str | None
    steps: Steps
    runs: tuple[Run, ...]

    def check(self, image: np.ndarray) -> None:
        """Raises ValueError if it cannot predict an image (H, W, C)."""

    def expect(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Told before the first of `labels`: (H, W) of all images that there will be."""

    def stored(self, unit: Unit) -> tuple[str, np.ndarray] | None:
        """Where the labels (N, H, W) of a unit are stored, and they; None if they are still to be predicted.

        Raises: ValueError if there are none.
        """

    def labels(self, unit: Unit, place: int, image: np.ndarray) -> np.ndarray:
        """(H, W) integers for one record of a unit, before the steps."""
        ...


class Networks:
    """One stored network, or several whose probabilities are averaged."""

    networks = True

    def __init__(
        self, folders: Sequence[str], predictor: Predictor, *, whole: bool, threshold: float, steps: Steps
    ):
        """Of a predictor and the folders that it was loaded from.

        If `whole`, images that fit into a window are predicted as training evaluates them: in one frame of
        zeros that holds each of them.
        """
        self.whole, self.frame = whole, (0, 0)
        self.predictor, self.threshold, self.steps = predictor, threshold, steps
        self.title = " + ".join(folders)
        self.names: tuple[str, ...] | None = predictor.classes
        self.axis = predictor.axis
        self.runs = tuple(run for folder in folders if (run := run_of(folder)) is not None)

    def check(self, image: np.ndarray) -> None:
        """See `Source`."""
        self.predictor.prepare(image)

    def expect(self, sizes: Sequence[tuple[int, int]]) -> None:
        """See `Source`."""
        seen = (self.predictor.network_size(size) for size in sizes)
        fitting = [size for size in seen if max(size) <= self.predictor.tiling.window]
        if self.whole and fitting:
            height, width = (-(-side // ALIGN) * ALIGN for side in np.max(fitting, axis=0).tolist())
            self.frame = height, width

    def stored(self, unit: Unit) -> None:
        """See `Source`."""
        return

    def labels(self, unit: Unit, place: int, image: np.ndarray) -> np.ndarray:
        """See `Source`."""
        height, width = self.predictor.network_size(image.shape[:2])
        scaled = unit.records[place].normalize
        fits = height <= self.frame[0] and width <= self.frame[1]
        probabilities = (
            self.predictor.whole(image, self.frame, scaled) if fits else self.predictor(image, scaled)
        )
        return self.predictor.labels(probabilities, self.threshold)


class Masks:
    """A folder of masks that have the names of the images, or of volumes of labels."""

    networks = False
    axis: str | None = None
    steps = Steps()
    runs: tuple[Run, ...] = ()

    def __init__(self, folder: str):
        self.title, self.folder = folder, Path(folder)
        self.names: tuple[str, ...] | None = None
        if not self.folder.is_dir():
            raise ValueError(f"{folder}: no such folder; accepted is one with a mask for each image")
        self.files: dict[str, list[Path]] = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            stem, suffix = images.split_suffix(name)
            if suffix and path.is_file() and not path.name.startswith("."):
                for key in {
                    stem,
                    without_ending(stem),
                    Path(stem).name,
                    without_ending(Path(stem).name),
                }:
                    self.files.setdefault(key, []).append(path)
        self._last: tuple[Unit, np.ndarray] | None = None

    def check(self, image: np.ndarray) -> None:
        """See `Source`."""

    def expect(self, sizes: Sequence[tuple[int, int]]) -> None:
        """See `Source`."""

    def stored(self, unit: Unit) -> tuple[str, np.ndarray]:
        """See `Source`."""
        path, record = self._of(unit), unit.records[0]
        if record.is_patch:
            return f"{path} {record.mask_part}", large_images.read_labels(record, path)[None]
        if unit.axis is None:
            return str(path), images.read_mask(path)[None]
        return str(path), planes.slices(volumes.read_volume_mask(path).voxels, unit.axis)

    def labels(self, unit: Unit, place: int, image: np.ndarray) -> np.ndarray:
        """See `Source`."""
        if self._last is None or self._last[0] is not unit:
            self._last = (unit, self.stored(unit)[1])
        return self._last[1][place]

    def _of(self, unit: Unit) -> Path:
        """The one file of a unit: by split and name, by name, or by the name's last part."""
        record = unit.records[0]
        whole = large_images.image_name(record) if record.is_patch else unit.name
        last, splits = whole.rpartition("/")[2], SPLITS.get(record.split or "", ())
        wanted = (*(f"{split}/{whole}" for split in splits), whole, last)
        kind = "masks" if unit.axis is None else "volumes"
        suffixes = images.SUFFIXES if unit.axis is None else images.VOLUME_SUFFIXES
        for name in wanted:
            found = [path for path in self.files.get(name, ()) if path.name.lower().endswith(suffixes)]
            if len(found) > 1:
                both = " and ".join(str(path.relative_to(self.folder)) for path in found[:2])
                raise ValueError(f"{self.folder}: both {both} for {whole}; accepted is one")
            if found:
                return found[0]
        accepted = f"accepted is one of {', '.join(suffixes)}"
        raise ValueError(
            f"{self.folder}: none of its {kind} is called {last}, as {record.image} is; {accepted}"
        )


def is_network(folder: str | Path) -> bool:
    """Whether a folder holds a stored network. StoreError for a run that has none yet."""
    return (store.network_folder(folder) / store.CONFIG).is_file()
