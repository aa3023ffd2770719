"""Names of files, folders and patterns enter; what is to be predicted leaves, each with its results' name."""

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flaxunet.io import dicom, images
from flaxunet.io.images import ImageError

SUFFIXES = (*images.SUFFIXES, *images.VOLUME_SUFFIXES)
_NOT_DICOM = tuple(suffix for suffix in SUFFIXES if suffix not in images.FORMATS["dicom"].suffixes)


class SourceError(ValueError):
    """What cannot be predicted, before anything is; the message is one line."""


@dataclass(frozen=True)
class Source:
    """A file, or a folder with the DICOM files of one series.

    Attributes:
      path: where it is.
      image: its name in tables: below the folder that was given, else its own.
      name: the same without suffix; that of its results.
      more: files with the other channels of a volume.
    """

    path: Path
    image: str
    name: str
    more: tuple[Path, ...] = ()

    def stamp(self) -> str:
        """Tells it from another of the same name, and from what it was before it was changed."""
        files = [*(sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]), *self.more]
        told = json.dumps([(str(path.resolve()), *_state(path)) for path in files])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def kind(self) -> str:
        """A key of `flaxunet.io.images.FORMATS`; "volume" for volumes and folders; "" if unreadable."""
        if self.path.is_dir():
            return "volume"
        try:
            kind = images.file_format(self.path)
        except ImageError:
            return ""
        return "volume" if images.FORMATS[kind].is_volume else kind


def find(words: Sequence[str], out: Path) -> list[Source]:
    """What is to be predicted.

    Args:
      words: files of any name; folders, with all below them that has a known suffix or is DICOM, where files
        of one series in a folder are one volume; patterns with *, ** and ?. Hidden files are passed over.
      out: the folder of the results, in which nothing is looked for.
    Returns: in the order of the words, and by name in folders; none twice.
    Raises: SourceError for what is not there, for a folder or a pattern with nothing in it, and where two
      would have results of the same name.
    """
    found: dict[Path, Source] = {}
    for word in words:
        for path in _matches(word):
            if not path.is_dir():
                mine: Iterable[Source] = [_source(path, path.name)]
            else:
                mine = list(_below(path, out.resolve()))
                if not mine:
                    accepted = ", ".join(SUFFIXES)
                    raise SourceError(f"{path}: no images in this folder; accepted are {accepted}")
            for one in mine:
                found.setdefault(one.path.resolve(), one)
    return _of_different_names(list(found.values()))


def join_channels(sources: Sequence[Source], channels: int) -> list[Source]:
    """Volumes whose channels are files NAME_0000, NAME_0001, ... in a folder become one source NAME.

    Args:
      sources: as `find` has found them.
      channels: of the network; as many files make a volume, and of a network of one nothing is joined.
    Raises: SourceError as `find`, for the new names.
    """
    numbered: dict[tuple[Path, str], list[Source]] = {}
    for one in sources:
        match = re.fullmatch(r"(.+)_(\d{4})", one.name)
        if match and one.path.name.lower().endswith(images.VOLUME_SUFFIXES):
            numbered.setdefault((one.path.parent, match[1]), []).append(one)
    joined: dict[Source, Source | None] = {}
    for (_, name), parts in numbered.items():
        parts.sort(key=lambda one: one.name)
        if [one.name[len(name) :] for one in parts] == [f"_{k:04}" for k in range(channels)] and channels > 1:
            first = parts[0]
            image = name + first.image[len(first.name) :]
            joined |= dict.fromkeys(parts)
            joined[first] = Source(first.path, image, name, tuple(one.path for one in parts[1:]))
    whole = [joined.get(one, one) for one in sources]
    return _of_different_names([one for one in whole if one is not None])


def _of_different_names(sources: list[Source]) -> list[Source]:
    """The same, or SourceError."""
    names: dict[str, Source] = {}
    for one in sources:
        other = names.setdefault(one.name, one)
        if other is not one:
            raise SourceError(
                f"{other.path} and {one.path} would both be written as {one.name}; accepted are images of "
                "different names, or a folder that they are in"
            )
    return sources


def refuse_overwriting(sources: Sequence[Source], written: Iterable[Path]) -> None:
    """Raises SourceError if a file that will be written is one that is read."""
    read = {path.resolve() for one in sources for path in (one.path, *one.more)}
    for path in written:
        if path.resolve() in read:
            raise SourceError(f"{path} would be written over the image itself; accepted is another --out")


def _matches(word: str) -> list[Path]:
    """The path that a word names, or those that fit it as a pattern."""
    if os.path.lexists(word):
        return [Path(word)]
    if not glob.has_magic(word):
        raise SourceError(f"{word}: no such file or folder")
    found = [Path(name) for name in sorted(glob.glob(word, recursive=True))]
    if not found:
        raise SourceError(f"{word}: no file fits this pattern")
    return found


def _below(root: Path, out: Path) -> Iterator[Source]:
    for place, folders, files in os.walk(root):
        folder = Path(place)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (folder / name).resolve() != out
        )
        relative = folder.relative_to(root)
        paths = [folder / name for name in sorted(files) if not name.startswith(".")]
        # Others have any name: often that of their UID, whose end looks like a suffix.
        other = {path for path in paths if path.name.lower().endswith(_NOT_DICOM)}
        slices = {path for path in paths if path not in other and dicom.is_dicom(path)}
        if dicom.is_series(slices):
            yield _source(folder, folder.resolve().name if folder == root else relative.as_posix())
            paths = sorted(other)
        for path in paths:
            if path in slices or path.name.lower().endswith(SUFFIXES):
                yield _source(path, (relative / path.name).as_posix())


def _state(path: Path) -> tuple[int, ...]:
    """Changes when the file does; reading one that is gone says so."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_size, stat.st_mtime_ns


def _source(path: Path, image: str) -> Source:
    return Source(path, image, image if path.is_dir() else images.split_suffix(image)[0] or image)
