"""Prepared samples, in memory, in a shard on disk or in their files, and windows of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload

import numpy as np

Window = tuple[slice, slice]
WHOLE: Window = np.s_[:, :]

STEPS = {np.dtype(np.uint8): np.float32(255), np.dtype(np.uint16): np.float32(65535)}
"""What the integers of packed images are divided by."""


class Source(Protocol):
    """Gives the pixels of a sample when they are asked for."""

    def read(self, window: Window = WHOLE) -> tuple[np.ndarray, np.ndarray]:
        """An image (h, w, C) float32 and its label (h, w) int32."""
        ...


@dataclass(frozen=True)
class Arrays:
    """A sample in arrays, packed or not, of memory or of a file that is mapped into it."""

    image: np.ndarray
    label: np.ndarray

    def read(self, window: Window = WHOLE) -> tuple[np.ndarray, np.ndarray]:
        """Unpacks what the window shows, and touches nothing else."""
        image, label = self.image[window], self.label[window]
        if image.dtype in STEPS:
            image = image.astype(np.float32) / STEPS[image.dtype]
        return image, label.astype(np.int32, copy=False)

    def packed(self) -> "Arrays":
        """The same in as few bytes as give back every bit: most images were 8 or 16 bits once."""
        return Arrays(_packed_image(self.image), _packed_label(self.label))


@dataclass(frozen=True)
class Again:
    """A sample that is read from its files each time."""

    prepare: Callable[[], "Prepared"]

    def read(self, window: Window = WHOLE) -> tuple[np.ndarray, np.ndarray]:
        """Reads the files whole, whatever the window.

        Raises: DataError if they have become unreadable.
        """
        return self.prepare().source.read(window)


@dataclass(frozen=True)
class Prepared:
    """A pair of files after its first reading, or what is wrong with it.

    Attributes:
      pair: what was read.
      shape: (H, W, C).
      values: the numbers of the mask that count.
      classes: the labels that occur.
      source: of the pixels.
      problems: a line for each.
    """

    pair: Any
    shape: tuple[int, ...]
    values: np.ndarray
    classes: np.ndarray
    source: Source
    problems: Sequence[str] = ()


class Stored(Sequence[Any]):
    """A split whose samples are read when they are looked at; it holds on to none of them.

    Args:
      prepared: without problems.
      channels: of every image; gray ones are repeated to it.
    """

    def __init__(self, prepared: Sequence[Prepared], channels: int):
        self._prepared, self._channels = prepared, channels

    def __len__(self) -> int:
        return len(self._prepared)

    @overload
    def __getitem__(self, place: int) -> "Pending": ...
    @overload
    def __getitem__(self, place: slice) -> "Stored": ...
    def __getitem__(self, place: int | slice) -> "Pending | Stored":
        if isinstance(place, slice):
            return Stored(self._prepared[place], self._channels)
        return Pending(self._prepared[place], self._channels)

    def __iter__(self) -> Iterator["Pending"]:
        return (self[place] for place in range(len(self)))


class Pending(dict[str, Any]):
    """A sample whose name is there at once, and whose image and label are read when they are asked for."""

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
        """Image and label where the window is; a shard is read there only."""
        image, label = self._prepared.source.read(window)
        return image if image.shape[-1] == self._channels else np.repeat(
            image, self._channels, axis=-1
        ), label


def size(sample: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of a sample, which a pending one knows without reading."""
    return sample.size if isinstance(sample, Pending) else sample["label"].shape


def classes(sample: Mapping[str, Any]) -> np.ndarray:
    """The labels that occur in a sample, IGNORE perhaps among them."""
    return sample.classes if isinstance(sample, Pending) else np.unique(sample["label"])


def window(sample: Mapping[str, Any], where: Window) -> tuple[np.ndarray, np.ndarray]:
    """A part of a sample's image and label."""
    if isinstance(sample, Pending):
        return sample.window(where)
    return sample["image"][where], sample["label"][where]


def _packed_image(image: np.ndarray) -> np.ndarray:
    if image.size and image.min() >= 0 and image.max() <= 1:
        for kind, step in STEPS.items():
            codes = np.rint(image * step).astype(kind)
            if np.array_equal(codes.astype(np.float32) / step, image):
                return codes
    return image


def _packed_label(label: np.ndarray) -> np.ndarray:
    low, high = (label.min(), label.max()) if label.size else (0, 0)
    kinds = (np.int8, np.int16, np.int32)
    return label.astype(next(k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max))
