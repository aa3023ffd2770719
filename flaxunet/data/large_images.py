"""A record of a TIFF file too large to be read at once enters; records of patches of it leave.

They have `SIDE` x `SIDE` pixels and less, and cover the image without overlap; of the files only the tiles of
a patch are decoded.
"""

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock

import numpy as np
import tifffile

from flaxunet.data.record import DataError, Pair, Record
from flaxunet.io import tiff
from flaxunet.io.images import ImageError
from flaxunet.io.pixels import MAX_VALUES, Pixels, PixelsError, reason, to_image, to_labels

LARGE = MAX_VALUES  # height x width x channels; what has more, `flaxunet.io.images` refuses to read
SIDE = 2048  # pixels; a multiple of the tiles of any usual file, so that no tile is decoded twice
SMALL = 2**20  # bytes; a smaller file has that many values only if nearly all are alike

_SUFFIXES = (".tif", ".tiff")
_ACCEPTED = "accepted are TIFF files of one picture, upright"

Window = tuple[slice, slice]

_lock = Lock()


def patches(record: Record) -> list[Record]:
    """The records of a large pair's patches, or the record itself.

    Squares of one image belong together: without another group, the name is their group, so that no two
    splits have a part each.

    Raises: ImageError if the image is large and the mask is no TIFF file of its size.
    """
    image, mask = record.image, record.mask
    if image.suffix.lower() not in _SUFFIXES or not image.is_file() or image.stat().st_size < SMALL:
        return [record]
    shape = _shape(image)
    if shape is None or np.prod(shape) <= LARGE:
        return [record]
    height, width, _ = shape
    _check_size(mask, height, width)
    digits = len(str(max(height, width)))
    return [
        dataclasses.replace(
            record,
            name=f"{record.name} [{top:0{digits}}, {left:0{digits}}]",
            image_part=f"[{top}, {left}]",
            mask_part=f"[{top}, {left}]",
            read=partial(read, image, mask, np.s_[top : top + SIDE, left : left + SIDE]),
            group=record.group or "/".join(filter(None, (record.split, record.name))),
            files=(image, mask),
            is_patch=True,
            normalize=partial(_normalize, image),
        )
        for top in range(0, height, SIDE)
        for left in range(0, width, SIDE)
    ]


def read(image: Path, mask: Path, window: Window) -> Pair:
    """A part of an image and of its mask, as `flaxunet.io.images` reads whole ones.

    Raises: DataError if one of them cannot be read.
    """
    return _part(image, window, to_image), _part(mask, window, to_labels, mask=True)


def _normalize(path: Path, patch: np.ndarray, name: str) -> np.ndarray:
    with _lock:  # other threads wait for what one of them measures
        normalize = _normalizer(path, path.stat().st_mtime_ns, name)
    return normalize(patch)


@lru_cache(maxsize=16)
def _normalizer(path: Path, _stamp: int, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """What the intensity makes of every part of an image, as its prediction in parts does."""
    try:
        with path.open("rb") as file, tiff.open_parts(file) as parts:
            assert parts is not None
            return tiff.of_rows(parts.rows, parts.size, name)
    except Exception as error:  # damaged files make decoders raise anything
        raise DataError([f"{path}: {reason(error)}; {_ACCEPTED}"]) from error


def image_name(record: Record) -> str:
    """The name of the image that a patch is of."""
    return record.name.rpartition(" [")[0]


def read_labels(record: Record, path: Path) -> np.ndarray:
    """(h, w) int32: what lies in the place of a patch in another mask of its image.

    Raises: ImageError if that is no TIFF file of the image's size; DataError if it cannot be read.
    """
    height, width, _ = _shape(record.image) or (0, 0, 0)
    _check_size(path, height, width)
    top, left = map(int, record.image_part[1:-1].split(", "))
    return _part(path, np.s_[top : top + SIDE, left : left + SIDE], to_labels, mask=True)


def _check_size(mask: Path, height: int, width: int) -> None:
    """Raises ImageError unless a mask is a TIFF file of the size of its image."""
    found = _shape(mask) if mask.suffix.lower() in _SUFFIXES else None
    if found != (height, width, 1):
        told = (
            "no TIFF of one channel" if found is None or found[2] != 1 else f"{found[0]} x {found[1]} pixels"
        )
        raise ImageError(f"{mask}: {told}; its image has {height} x {width}, accepted are equal sizes")


def _part(
    path: Path, window: Window, meant: Callable[[Pixels], np.ndarray], *, mask: bool = False
) -> np.ndarray:
    try:
        with path.open("rb") as file, tiff.open_parts(file, mask=mask) as parts:
            if parts is None:
                raise PixelsError("several pictures, or one that is turned by its orientation")
            rows, columns = (range(side)[part] for side, part in zip(parts.size, window, strict=True))
            return meant(Pixels(parts.region(rows, columns)))
    except Exception as error:  # damaged files make decoders raise anything
        raise DataError([f"{path}: {reason(error)}; {_ACCEPTED}"]) from error


def _shape(path: Path) -> tuple[int, int, int] | None:
    """(H, W, C) of a TIFF file by its header; None if it is none or damaged, as reading it whole will say."""
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            return page.imagelength, page.imagewidth, page.samplesperpixel
    except Exception:  # damaged files make readers raise anything
        return None
