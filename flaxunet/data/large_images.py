"""Cuts TIFF images that are too large to be read at once into patches, each a record of its own.

Patches have at most `SIDE` x `SIDE` pixels and cover the image without overlap; reading a patch decodes only
the file's tiles in it.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock

import numpy as np
import tifffile

from flaxunet.data.record import Pair, Record, named_errors
from flaxunet.io import tiff
from flaxunet.io.images import FORMATS, ImageError
from flaxunet.io.pixels import MAX_VALUES, DecodedPixels, DecodeError, to_image, to_labels

LARGE = MAX_VALUES  # height x width x channels; `flaxunet.io.images` refuses to read more
SIDE = 2048  # pixels; a multiple of the usual tile sizes, so that no tile is decoded twice
SMALL = 2**20  # bytes; a smaller file has so many values only if nearly all are equal

TIFF = FORMATS["tiff"].suffixes

Window = tuple[slice, slice]

_lock = Lock()


def patches(record: Record) -> list[Record]:
    """Cuts a record into patches.

    Patches of one image stay in one split: where the record has no group, its name is their group.

    Returns: the records of the patches, or the record itself if its image can be read at once.
    Raises: ImageError if the image is large, and the mask is no TIFF file of its size.
    """
    image, mask = record.image, record.mask
    if image.suffix.lower() not in TIFF or image.stat().st_size < SMALL:
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
    """Reads rows and columns of a TIFF image and mask; raises DataError if one cannot be read."""
    return _read(image, window, mask=False), _read(mask, window, mask=True)


def _normalize(path: Path, patch: np.ndarray, name: str) -> np.ndarray:
    with _lock:  # other threads wait for the statistics that one of them measures
        normalize = _normalizer(path, path.stat().st_mtime_ns, name)
    return normalize(patch)


@lru_cache(maxsize=16)
def _normalizer(path: Path, _stamp: int, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """An intensity with the statistics of a whole image, as prediction of a large image applies it."""
    with _open(path) as regions:
        return tiff.normalizer_by_rows(regions.read_rows, regions.size, name)


def image_name(record: Record) -> str:
    """Returns the name of a patch's image."""
    return record.name.rpartition(" [")[0]


def read_labels(record: Record, path: Path) -> np.ndarray:
    """Reads a patch (h, w) int32 of another mask of its image, such as a predicted one.

    Raises: ImageError if the file is no TIFF file of the image's size; DataError if it cannot be read.
    """
    height, width, _ = _shape(record.image) or (0, 0, 0)
    _check_size(path, height, width)
    top, left = map(int, record.image_part[1:-1].split(", "))
    return _read(path, np.s_[top : top + SIDE, left : left + SIDE], mask=True)


def _check_size(mask: Path, height: int, width: int) -> None:
    """Raises ImageError unless a mask is a TIFF file of the size of its image."""
    shape = _shape(mask) if mask.suffix.lower() in TIFF else None
    if shape != (height, width, 1):
        problem = f"{shape[0]} x {shape[1]} pixels" if shape and shape[2] == 1 else "no TIFF of one channel"
        raise ImageError(f"{mask}: {problem}; expected {height} x {width}, the size of its image")


def _read(path: Path, window: Window, *, mask: bool) -> np.ndarray:
    with _open(path, mask=mask) as regions:
        rows, columns = (range(side)[part] for side, part in zip(regions.size, window, strict=True))
        return (to_labels if mask else to_image)(DecodedPixels(regions.read_region(rows, columns)))


@contextmanager
def _open(path: Path, *, mask: bool = False) -> Iterator[tiff.RegionReader]:
    """Opens a TIFF file; raises DataError for whatever fails within."""
    errors = named_errors(path, "; expected a TIFF file of one upright picture")
    with errors, path.open("rb") as file, tiff.open_regions(file, mask=mask) as regions:
        if regions is None:
            raise DecodeError("several pictures, or one that is turned by its orientation")
        yield regions


def _shape(path: Path) -> tuple[int, int, int] | None:
    """(H, W, C) by the header of a TIFF file; None if it cannot be read, which reading it whole reports."""
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            return page.imagelength, page.imagewidth, page.samplesperpixel
    except Exception:  # damaged files make readers raise anything
        return None
