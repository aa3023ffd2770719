"""Predicts the labels of images and volumes with a stored network, or reads them from a folder of masks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flaxunet.data import large_images
from flaxunet.data.layouts.folders import without_ending
from flaxunet.data.split import SPLITS
from flaxunet.evaluation.runs import Run, run_of
from flaxunet.evaluation.units import Unit
from flaxunet.io import images, planes, volumes
from flaxunet.prediction.postprocess import Steps
from flaxunet.prediction.predictor import Predictor
from flaxunet.prediction.tiling import ALIGN
from flaxunet.weights import store


class Source(ABC):
    """A source of predictions: `Networks` or `Masks`.

    Attributes:
      title: names it in tables.
      is_network: whether it predicts; else its predictions are stored.
      class_names: background first; None if it has none.
      axis: the plane of the slices of volumes that it was trained on; None if not known.
      steps: the post-processing of its labels.
      runs: that its networks were trained in, as far as known.
    """

    title: str
    is_network = False
    class_names: tuple[str, ...] | None = None
    axis: str | None = None
    steps = Steps()
    runs: tuple[Run, ...] = ()

    @abstractmethod
    def check(self, image: np.ndarray) -> None:
        """Raises ValueError if it cannot predict an image (H, W, C)."""

    @abstractmethod
    def set_sizes(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Prepares for images of all these sizes (H, W); comes before the first `predict`."""

    @abstractmethod
    def read_labels(self, unit: Unit) -> tuple[str, np.ndarray] | None:
        """Reads where the labels of a unit are stored, and these (N, H, W); None for a network.

        Raises: ValueError if there are none.
        """

    @abstractmethod
    def predict(self, unit: Unit, index: int, image: np.ndarray) -> np.ndarray:
        """Predicts a record of a unit, of an image (H, W, C): integer labels (H, W), not post-processed."""


class Networks(Source):
    """One stored network, or several whose probabilities are averaged."""

    is_network = True

    def __init__(
        self, folders: Sequence[str], predictor: Predictor, *, whole: bool, threshold: float, steps: Steps
    ):
        """Wraps a predictor.

        Args:
          folders: that it was loaded from.
          predictor: of one or several networks.
          whole: predict images that fit into a window as training evaluates them, in one frame of zeros that
            holds each of them.
          threshold: of the foreground, for networks of one output.
          steps: the post-processing.
        """
        self.whole, self.frame = whole, (0, 0)
        self.predictor, self.threshold, self.steps = predictor, threshold, steps
        self.title, self.class_names, self.axis = " + ".join(folders), predictor.classes, predictor.axis
        self.runs = tuple(run for folder in folders if (run := run_of(folder)) is not None)

    def check(self, image: np.ndarray) -> None:
        """See `Source`."""
        self.predictor.prepare(image)

    def set_sizes(self, sizes: Sequence[tuple[int, int]]) -> None:
        """See `Source`."""
        sizes = [self.predictor.network_size(size) for size in sizes]
        fitting = [size for size in sizes if max(size) <= self.predictor.tiling.window]
        if self.whole and fitting:
            height, width = (-(-side // ALIGN) * ALIGN for side in np.max(fitting, axis=0).tolist())
            self.frame = height, width

    def read_labels(self, unit: Unit) -> None:
        """See `Source`; nothing is stored."""

    def predict(self, unit: Unit, index: int, image: np.ndarray) -> np.ndarray:
        """See `Source`."""
        height, width = self.predictor.network_size(image.shape[:2])
        normalize = unit.records[index].normalize
        if height <= self.frame[0] and width <= self.frame[1]:
            probabilities = self.predictor.whole(image, self.frame, normalize)
        else:
            probabilities = self.predictor(image, normalize)
        return self.predictor.labels(probabilities, self.threshold)


class Masks(Source):
    """A folder of predicted masks, or volumes of labels, with the names of the images."""

    def __init__(self, folder: str):
        """Lists a folder and all folders in it.

        Raises: ValueError if there is no such folder.
        """
        self.title, self.folder = folder, Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"{folder}: no such folder; expected one with a mask for each image")
        self.files: dict[str, list[Path]] = {}
        for path in sorted(self.folder.rglob("*")):
            stem, suffix = images.split_suffix(path.relative_to(self.folder).as_posix())
            if suffix and path.is_file() and not path.name.startswith("."):
                stems = stem, Path(stem).name
                for key in {*stems, *map(without_ending, stems)}:
                    self.files.setdefault(key, []).append(path)
        self._last: tuple[Unit, np.ndarray] | None = None

    def check(self, image: np.ndarray) -> None:
        """See `Source`; any image has a mask."""

    def set_sizes(self, sizes: Sequence[tuple[int, int]]) -> None:
        """See `Source`; masks need no preparation."""

    def read_labels(self, unit: Unit) -> tuple[str, np.ndarray]:
        """See `Source`."""
        path, record = self._file_of(unit), unit.records[0]
        if record.is_patch:
            return f"{path} {record.mask_part}", large_images.read_labels(record, path)[None]
        if unit.axis is None:
            return str(path), images.read_mask(path)[None]
        return str(path), planes.slices(volumes.read_volume_mask(path).voxels, unit.axis)

    def predict(self, unit: Unit, index: int, image: np.ndarray) -> np.ndarray:
        """See `Source`."""
        if self._last is None or self._last[0] is not unit:
            self._last = (unit, self.read_labels(unit)[1])
        return self._last[1][index]

    def _file_of(self, unit: Unit) -> Path:
        """The one file of a unit: by split and name, by name, or by the last part of the name."""
        record = unit.records[0]
        name = large_images.image_name(record) if record.is_patch else unit.name
        last, splits = name.rpartition("/")[2], SPLITS.get(record.split or "", ())
        suffixes = images.SUFFIXES if unit.axis is None else images.VOLUME_SUFFIXES
        for key in (*(f"{split}/{name}" for split in splits), name, last):
            paths = [path for path in self.files.get(key, ()) if path.name.lower().endswith(suffixes)]
            if len(paths) > 1:
                both = " and ".join(str(path.relative_to(self.folder)) for path in paths[:2])
                raise ValueError(f"{self.folder}: both {both} for {name}; expected one of them")
            if paths:
                return paths[0]
        kind = "mask" if unit.axis is None else "volume"
        expected = ", ".join(last + suffix for suffix in suffixes)
        raise ValueError(
            f"{self.folder}: no {kind} called {last} for {record.image}; expected one of {expected}"
        )


def is_network(folder: str | Path) -> bool:
    """Whether a folder holds a stored network.

    Raises: StoreError for a run without a network so far.
    """
    return (store.network_folder(folder) / store.CONFIG).is_file()
