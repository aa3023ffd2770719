"""Describes a dataset before its pixels are read: records of samples, and the listing that a layout makes."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from flaxunet import preprocessing
from flaxunet.io.images import ImageError, read_image, read_mask
from flaxunet.io.pixels import error_reason

MAX_LISTED = 20  # problems that an error prints

Pair = tuple[np.ndarray, np.ndarray]  # image (H, W, C) float32 in [0, 1], mask (H, W) int32


class DataError(ValueError):
    """Lists every problem of a dataset, one line each; the message prints the first `MAX_LISTED`."""

    def __init__(self, problems: Sequence[str]):
        self.problems = tuple(problems)
        more = [f"... and {len(problems) - MAX_LISTED} more"] if len(problems) > MAX_LISTED else []
        super().__init__("\n".join([*problems[:MAX_LISTED], *more]))


@dataclass(frozen=True)
class Record:
    """One sample whose pixels are not read yet.

    Attributes:
      name: unique in its split.
      image, mask: the file of the image, or the first of several; the file or folder of the mask.
      read: returns image and mask, or raises DataError; can be pickled.
      split: "train", "validation", "test", or None where the layout does not say.
      group: a patient, or whatever else must not be in two splits.
      image_part, mask_part: where in its file the image or mask is, such as "axial slice 12".
      files: all files that `read` opens.
      is_patch: whether it is a patch of an image that is too large to be read at once.
      normalize: as `flaxunet.preprocessing.normalize_intensity`, for the image that `read` returns; a patch
        has the statistics of the whole image. Can be pickled.
    """

    name: str
    image: Path
    mask: Path
    read: Callable[[], Pair]
    split: str | None = None
    group: str | None = None
    image_part: str = ""
    mask_part: str = ""
    files: tuple[Path, ...] = ()
    is_patch: bool = False
    normalize: Callable[[np.ndarray, str], np.ndarray] = preprocessing.normalize_intensity

    @property
    def image_location(self) -> str:
        """The image's file, and its part of it, for messages."""
        return f"{self.image} {self.image_part}".rstrip()

    @property
    def mask_location(self) -> str:
        """The mask's file, and its part of it, for messages."""
        return f"{self.mask} {self.mask_part}".rstrip()


@dataclass
class Listing:
    """The samples of a dataset, as its layout lists them.

    Attributes:
      root: the folder or file.
      layout: its name in `flaxunet.data.layouts.LAYOUTS`.
      interpretation: a line for each folder or file that was used, such as "masks/ as masks".
      records: sorted by split and name.
      problems: a line for each missing, extra or ambiguous file; training refuses a dataset with problems.
      class_names: background first, or None where the layout does not say.
      instances: whether masks hold numbers of objects instead of classes.
    """

    root: Path
    layout: str
    interpretation: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    class_names: tuple[str, ...] | None = None
    instances: bool = False


@dataclass(frozen=True)
class Options:
    """Options for listing a layout; see `flaxunet.data.find`."""

    group: str | None = None
    objects: bool = False
    axis: str = "axial"


def unmatched(files: Mapping[str, Path], others: Container[str], kind: str, folder: Path) -> list[str]:
    """Lists the files, by name, that have none of the other kind in its folder; a line for each."""
    return [f"{one}: no {kind} of this name in {folder}" for name, one in files.items() if name not in others]


def of_files(name: str, image: Path, mask: Path, split: str | None, group: str | None = None) -> Record:
    """Describes the sample of an image file and a mask file."""
    return Record(name, image, mask, partial(read_pair, image, mask), split, group, files=(image, mask))


def read_pair(image: Path, mask: Path) -> Pair:
    """Reads an image and its mask; raises DataError if one cannot be read, or their sizes differ."""
    problems, arrays = [], []
    for read_file, path in ((read_image, image), (read_mask, mask)):
        try:
            arrays.append(read_file(path))
        except ImageError as error:
            problems.append(str(error))
    if problems:
        raise DataError(problems)
    check_sizes(arrays[0].shape, arrays[1].shape, str(mask))
    return arrays[0], arrays[1]


@contextmanager
def named_errors(path: Path, expected: str = "") -> Iterator[None]:
    """Raises DataError that names the file, whatever fails: damaged files make decoders raise anything."""
    try:
        yield
    except Exception as error:
        raise DataError([f"{path}: {error_reason(error)}{expected}"]) from error


def load_image(path: Path) -> np.ndarray:
    """Reads an image (H, W, C); raises DataError if it cannot be read."""
    try:
        return read_image(path)
    except ImageError as error:
        raise DataError([str(error)]) from error


def check_sizes(image: tuple[int, ...], mask: tuple[int, ...], name: str) -> None:
    """Raises DataError, naming the mask, if the shapes of an image and its mask differ in height or width."""
    if image[:2] != mask[:2]:
        expected, size = (f"{height} x {width}" for height, width, *_ in (image, mask))
        raise DataError([f"{name}: {size} pixels; expected {expected}, the size of its image"])
