"""What every layout gives: samples that are not read yet, what was taken for what, and what is wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaxunet import preprocessing as intensity
from flaxunet.io.images import ImageError, read_image, read_mask

MAX_LISTED = 20  # problems that an error prints
SPLITS = {"train": ("train",), "validation": ("val", "validation", "valid"), "test": ("test",)}
"""The splits and how folders, columns and files spell them."""

Pair = tuple[np.ndarray, np.ndarray]
"""An image (H, W, C) float32 in [0, 1] and its mask (H, W) int32."""


class DataError(ValueError):
    """Lists every problem of a dataset, one line each; the message prints the first `MAX_LISTED`."""

    def __init__(self, problems: Sequence[str]):
        self.problems = tuple(problems)
        more = [f"... and {len(problems) - MAX_LISTED} more"] if len(problems) > MAX_LISTED else []
        super().__init__("\n".join([*problems[:MAX_LISTED], *more]))


@dataclass(frozen=True)
class Record:
    """One sample, not read yet.

    Attributes:
      name: of the sample, unique in its split.
      image: the file, or the first of the files, that its image is in.
      mask: the file or folder that its mask is in.
      read: gives image and mask; raises DataError if they cannot be read or do not fit. It can be pickled.
      split: "train", "validation", "test", or None where the layout does not say.
      group: what must not be in two splits with others of the same group, such as a patient.
      image_part: where in its file the image is, such as "axial slice 12".
      mask_part: where in its file the mask is.
      files: all that `read` opens.
      is_patch: whether it is a patch of an image that is too large to be read at once.
      normalize: what `flaxunet.preprocessing.apply` makes of the image that `read` gives and the name of an
        intensity; of a patch, by the numbers of the whole image. It can be pickled too.
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
    normalize: Callable[[np.ndarray, str], np.ndarray] = intensity.apply

    @property
    def image_location(self) -> str:
        """Names the image in a message."""
        return f"{self.image} {self.image_part}".rstrip()

    @property
    def mask_location(self) -> str:
        """Names the mask in a message."""
        return f"{self.mask} {self.mask_part}".rstrip()


@dataclass(frozen=True)
class Listing:
    """A dataset as a layout sees it.

    Attributes:
      root: the folder or file.
      layout: its name.
      interpretation: a line for each role that a file or folder was given, such as "masks/ as masks".
      records: sorted by split and name.
      problems: a line for each missing, extra or ambiguous file; training is refused if there are any.
      class_names: background first, or None where nothing says.
      instances: whether masks hold numbers of objects instead of classes.
    """

    root: Path
    layout: str
    interpretation: tuple[str, ...] = ()
    records: tuple[Record, ...] = ()
    problems: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    instances: bool = False


@dataclass(frozen=True)
class Options:
    """How a layout is read: see `flaxunet.data.find`."""

    group: str | None = None
    objects: bool = False
    axis: str = "axial"


def parse_split(word: str) -> str | None:
    """The split that a word names, in any case; None if it names none."""
    return next((split for split, spelt in SPLITS.items() if word.strip().lower() in spelt), None)


def existing_folder(parent: Path, names: Sequence[str], problems: list[str]) -> Path | None:
    """The folder that exists among several spellings; a line if there are more."""
    found = [parent / name for name in names if (parent / name).is_dir()]
    if len(found) > 1:
        both = " and ".join(f"{folder.name}/" for folder in found)
        problems.append(f"{parent}: has both {both}; accepted is one of them")
    return found[0] if found else None


def read_pair(image: Path, mask: Path) -> Pair:
    """Read an image (H, W, C) and its mask (H, W) as `flaxunet.io.images` does.

    Raises: DataError if one or both cannot be read or their sizes differ.
    """
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


def check_sizes(image: tuple[int, ...], mask: tuple[int, ...], name: str) -> None:
    """Raises DataError, in the name of the mask, if its shape has another size than that of its image."""
    if image[:2] != mask[:2]:
        sizes = [f"{height} x {width}" for height, width, *_ in (mask, image)]
        raise DataError([f"{name}: {sizes[0]} pixels, its image has {sizes[1]}; accepted are equal sizes"])


def read_or_refuse(path: Path) -> np.ndarray:
    """An image (H, W, C), or a DataError."""
    try:
        return read_image(path)
    except ImageError as error:
        raise DataError([str(error)]) from error
