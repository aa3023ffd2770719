"""Finds the images and volumes that files, folders and patterns name, and the names of their results."""

import glob
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flaxunet.io import dicom, images
from flaxunet.io.images import ImageError

SUFFIXES = (*images.SUFFIXES, *images.VOLUME_SUFFIXES)
_NOT_DICOM = tuple(suffix for suffix in SUFFIXES if suffix not in images.FORMATS["dicom"].suffixes)


@dataclass(frozen=True)
class Input:
    """A file, or a folder with the DICOM files of one series.

    Attributes:
      path: of the file or folder.
      image: its name in tables: relative to the folder that was given, else its own.
      name: the same without suffix; the name of its results.
      other_channels: files with the other channels of a volume.
    """

    path: Path
    image: str
    name: str
    other_channels: tuple[Path, ...] = ()

    def stamp(self) -> str:
        """A digest of where the files are, of their sizes and their times of change."""
        first = sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]
        states: list[tuple[str | int, ...]] = []
        for path in (*first, *self.other_channels):
            states.append((str(path.resolve()),))
            with suppress(OSError):  # of one that is gone, which is reported when it is read
                stat = path.stat()
                states[-1] += stat.st_size, stat.st_mtime_ns
        return hashlib.sha256(json.dumps(states).encode()).hexdigest()[:16]

    def kind(self) -> str:
        """A key of `flaxunet.io.images.FORMATS`; "volume" for volumes and folders; "" if unreadable."""
        if self.path.is_dir():
            return "volume"
        with suppress(ImageError):
            kind = images.file_format(self.path)
            return "volume" if images.FORMATS[kind].is_volume else kind
        return ""


def find(words: Sequence[str], out: Path) -> list[Input]:
    """Finds what is to be predicted, in the order of the words, and by name in folders; nothing twice.

    Args:
      words: files of any name; folders, which stand for all files below them that have a known suffix or are
        DICOM, where the files of one series in a folder are one volume; patterns with *, ** and ?. Hidden
        files are skipped.
      out: the folder of the results, in which nothing is looked for.
    Raises: ValueError for a word without files, and where two inputs would have results of the same name.
    """
    inputs: dict[Path, Input] = {}
    for path in itertools.chain.from_iterable(map(_matches, words)):
        below = list(_below(path, out.resolve())) if path.is_dir() else [_input(path, path.name)]
        if not below:
            raise ValueError(f"{path}: no images in this folder; expected {', '.join(SUFFIXES)}")
        for one in below:
            inputs.setdefault(one.path.resolve(), one)
    return _check_names(inputs.values())


def join_channels(inputs: Sequence[Input], channels: int) -> list[Input]:
    """Joins volumes whose channels are files NAME_0000, NAME_0001, ... in a folder into one input NAME.

    Args:
      inputs: as `find` returns them.
      channels: of the network; as many files make a volume, and for one channel nothing is joined.
    Raises: ValueError as `find`, for the new names.
    """
    numbered: dict[tuple[Path, str], list[Input]] = {}
    for one in inputs:
        match = re.fullmatch(r"(.+)_(\d{4})", one.name)
        if match and one.path.name.lower().endswith(images.VOLUME_SUFFIXES):
            numbered.setdefault((one.path.parent, match[1]), []).append(one)
    joined: dict[Input, Input | None] = {}
    for (_, name), parts in numbered.items():
        first, *others = sorted(parts, key=lambda one: one.name)
        if others and [one.name for one in (first, *others)] == [f"{name}_{k:04}" for k in range(channels)]:
            image = name + first.image[len(first.name) :]
            joined |= dict.fromkeys(others)
            joined[first] = Input(first.path, image, name, tuple(one.path for one in others))
    return _check_names(filter(None, (joined.get(one, one) for one in inputs)))


def refuse_overwriting(inputs: Sequence[Input], outputs: Iterable[Path]) -> None:
    """Raises ValueError if a file that will be written is one that is read."""
    read = {path.resolve() for one in inputs for path in (one.path, *one.other_channels)}
    for path in outputs:
        if path.resolve() in read:
            raise ValueError(f"{path} would be written over the image itself; expected another --out")


def _check_names(inputs: Iterable[Input]) -> list[Input]:
    names: dict[str, Input] = {}
    for one in inputs:
        other = names.setdefault(one.name, one)
        if other is not one:
            raise ValueError(
                f"{other.path} and {one.path} would both be written as {one.name}; expected images of "
                "different names, or a folder that contains them"
            )
    return list(names.values())


def _matches(word: str) -> list[Path]:
    """The path that a word names, or those that match it as a pattern."""
    if os.path.lexists(word):
        return [Path(word)]
    if not glob.has_magic(word):
        raise ValueError(f"{word}: no such file or folder")
    if paths := [Path(name) for name in sorted(glob.glob(word, recursive=True))]:
        return paths
    raise ValueError(f"{word}: no file matches this pattern")


def _below(root: Path, out: Path) -> Iterator[Input]:
    for place, folders, files in os.walk(root):
        folder = Path(place)
        shown = (name for name in folders if not name.startswith("."))
        folders[:] = sorted(name for name in shown if (folder / name).resolve() != out)
        relative = folder.relative_to(root)
        paths = [folder / name for name in sorted(files) if not name.startswith(".")]
        # DICOM files have any name: often that of their UID, whose end looks like a suffix.
        other = {path for path in paths if path.name.lower().endswith(_NOT_DICOM)}
        slices = {path for path in paths if path not in other and dicom.is_dicom(path)}
        if dicom.is_series(slices):
            yield _input(folder, folder.resolve().name if folder == root else relative.as_posix())
            paths = sorted(other)
        for path in paths:
            if path in slices or path.name.lower().endswith(SUFFIXES):
                yield _input(path, (relative / path.name).as_posix())


def _input(path: Path, image: str) -> Input:
    return Input(path, image, image if path.is_dir() else images.split_suffix(image)[0] or image)
