"""Gives the pixels of samples, or windows of them, from memory, from a shard on disk or from their files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Window = tuple[slice, slice]
WHOLE: Window = np.s_[:, :]

# The value of integers in packed images that means 1.
MAXIMA = {np.dtype(np.uint8): np.float32(255), np.dtype(np.uint16): np.float32(65535)}


@dataclass(frozen=True)
class Arrays:
    """Arrays of a sample, packed or not, in memory or in a memory-mapped file."""

    image: np.ndarray
    label: np.ndarray

    def read(self, window: Window = WHOLE) -> tuple[np.ndarray, np.ndarray]:
        """Unpacks a window to (h, w, C) float32 and (h, w) int32, and touches no other part of the arrays."""
        image, label = self.image[window], self.label[window]
        if image.dtype in MAXIMA:
            image = image.astype(np.float32) / MAXIMA[image.dtype]
        return image, label.astype(np.int32, copy=False)

    def packed(self) -> "Arrays":
        """Returns the smallest arrays that give back every bit: most images once had 8 or 16 bits."""
        label = self.label
        low, high = (label.min(), label.max()) if label.size else (0, 0)
        ranges = map(np.iinfo, (np.int8, np.int16, np.int32))
        smallest = next(one.dtype for one in ranges if one.min <= low and high <= one.max)
        return Arrays(_packed_image(self.image), label.astype(smallest))


@dataclass(frozen=True)
class Files:
    """Files of a sample, which are read each time."""

    prepare: Callable[[], "Prepared"]

    def read(self, window: Window = WHOLE) -> tuple[np.ndarray, np.ndarray]:
        """Reads the whole files, whatever the window.

        Raises: DataError if they have become unreadable.
        """
        return self.prepare().source.read(window)


@dataclass(frozen=True)
class Prepared:
    """A pair of image and mask after its first reading."""

    pair: Any
    shape: tuple[int, ...]  # (H, W, C)
    values: np.ndarray  # of the mask, without those that are ignored
    classes: np.ndarray  # the labels that occur
    source: Arrays | Files  # of the pixels
    problems: Sequence[str] = ()  # a line for each thing wrong with the files; the others are usable


class LazySplit(Sequence[Any]):
    """A split whose samples are read on access and not kept; gray images are repeated to `channels`."""

    def __init__(self, prepared: Sequence[Prepared], channels: int):
        self._prepared, self._channels = prepared, channels

    def __len__(self) -> int:
        return len(self._prepared)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return LazySplit(self._prepared[index], self._channels)
        return LazySample(self._prepared[index], self._channels)

    def __iter__(self) -> Iterator["LazySample"]:
        return (self[index] for index in range(len(self)))


class LazySample(dict[str, Any]):
    """A sample whose image and label are read on first access; its name is always there."""

    def __init__(self, prepared: Prepared, channels: int):
        super().__init__(name=prepared.pair.name)
        self._prepared, self._channels = prepared, channels

    def __missing__(self, key: str) -> np.ndarray:
        if key not in ("image", "label"):
            raise KeyError(key)
        self["image"], self["label"] = self.window(WHOLE)
        return self[key]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, without reading."""
        return self._prepared.shape[0], self._prepared.shape[1]

    @property
    def classes(self) -> np.ndarray:
        """The labels that occur, without reading."""
        return self._prepared.classes

    def window(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Reads image and label in a window; of a shard, only the window is read."""
        image, label = self._prepared.source.read(window)
        return image if image.shape[-1] == self._channels else image.repeat(self._channels, -1), label


def size(sample: Mapping[str, Any]) -> tuple[int, int]:
    """Returns height and width of a sample, in pixels."""
    return sample.size if isinstance(sample, LazySample) else sample["label"].shape


def classes(sample: Mapping[str, Any]) -> np.ndarray:
    """Returns the labels that occur in a sample, sorted; IGNORE may be among them."""
    return sample.classes if isinstance(sample, LazySample) else np.unique(sample["label"])


def window(sample: Mapping[str, Any], where: Window) -> tuple[np.ndarray, np.ndarray]:
    """Reads a window of a sample's image and label."""
    if isinstance(sample, LazySample):
        return sample.window(where)
    return sample["image"][where], sample["label"][where]


def _packed_image(image: np.ndarray) -> np.ndarray:
    if image.size and image.min() >= 0 and image.max() <= 1:
        for kind, maximum in MAXIMA.items():
            integers = np.rint(image * maximum).astype(kind)
            if np.array_equal(integers.astype(np.float32) / maximum, image):
                return integers
    return image
