"""A TIFF file too large to be read whole enters; squares of it leave, of which only the tiles are decoded.

Such an image becomes samples of `SIDE` x `SIDE` pixels and less, which cover it without overlap.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import tifffile

from flaxunet.images import MAX_VALUES, ImageError
from train.samples import Window

LARGE = MAX_VALUES  # height x width x channels; what has more, `flaxunet.images` refuses to read
SIDE = 2048  # pixels; a multiple of the tiles of any usual file, so that no tile is decoded twice
SMALL = 2**20  # bytes; a smaller file has that many values only if nearly all are alike

_ACCEPTED = "accepted are gray or RGB TIFF files of one picture, upright, with channels last"

Read = Callable[[], tuple[np.ndarray, np.ndarray]]


def squares(image: Path, mask: Path) -> dict[str, Read] | None:
    """How to read a large pair in parts.

    Args:
      image: any file.
      mask: of the image.
    Returns: None if the image is no TIFF or not large. Else, by a suffix for the sample's name, a function
      that reads a square: image (h, w, C) float32 in [0, 1] and label (h, w) int32.
    Raises: ImageError if one of them cannot be read in parts or their sizes differ.
    """
    if image.suffix.lower() not in (".tif", ".tiff") or not image.is_file() or image.stat().st_size < SMALL:
        return None
    shape = _shape(image)
    if shape is None or np.prod(shape) <= LARGE:
        return None
    height, width, _ = shape
    truth = _shape(mask)
    if truth != (height, width, 1):
        found = (
            "no TIFF of one channel" if truth is None or truth[2] != 1 else f"{truth[0]} x {truth[1]} pixels"
        )
        raise ImageError(f"{mask}: {found}; its image has {height} x {width}, accepted are equal sizes")
    return {
        f" [{top}, {left}]": partial(read, image, mask, np.s_[top : top + SIDE, left : left + SIDE])
        for top in range(0, height, SIDE)
        for left in range(0, width, SIDE)
    }


def read(image: Path, mask: Path, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """A part of an image and of its mask, as `flaxunet.images` reads whole ones.

    Raises: ImageError as there.
    """
    return _guarded(image, lambda: _scaled(_part(image, window))), _guarded(
        mask, lambda: _labels(_part(mask, window))
    )


def _guarded(path: Path, call: Callable[[], np.ndarray]) -> np.ndarray:
    try:
        return call()
    except Exception as error:  # damaged files make decoders raise anything
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        raise ImageError(f"{path}: {reason}; {_ACCEPTED}") from error


def _shape(path: Path) -> tuple[int, int, int] | None:
    """(H, W, C) of a TIFF file by its header; None if it is none or damaged, as reading it whole will say."""
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            return page.imagelength, page.imagewidth, page.samplesperpixel
    except Exception:  # damaged files make readers raise anything
        return None


def _part(path: Path, window: Window) -> np.ndarray:
    """The stored numbers (h, w, C) of a part."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        separate, depth, height, width, channels = page.shaped
        kind = tifffile.PHOTOMETRIC(page.photometric).name
        if len(tiff.series) != 1 or (separate, depth) != (1, 1) or page.axes not in ("YX", "YXS"):
            raise ValueError(f"{len(tiff.series)} pictures with axes {page.axes}")
        if kind not in ("MINISBLACK", "RGB") or page.tags.valueof(274, default=1) != 1 or page.extrasamples:
            raise ValueError(f"{kind} colours, or alpha, or turned by its orientation")
        rows, columns = (range(side)[part] for side, part in zip((height, width), window, strict=True))
        if page.is_memmappable:
            stored = tifffile.memmap(path, page=0, mode="r").reshape(height, width, channels)
            return np.array(stored[rows.start : rows.stop, columns.start : columns.stop])
        tall, wide = page.chunks[:2]
        across = -(-width // wide)
        indices = [
            row * across + column
            for row in range(rows.start // tall, -(-rows.stop // tall))
            for column in range(columns.start // wide, -(-columns.stop // wide))
        ]
        places = [page.dataoffsets[i] for i in indices], [page.databytecounts[i] for i in indices]
        out = np.full((len(rows), len(columns), channels), page.nodata, page.dtype)
        jpeg = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.compression == 7 else {}
        for data, index in tiff.filehandle.read_segments(*places, indices=indices):
            segment, (_, _, top, left, _), shape = page.decode(data, index, **jpeg)
            if segment is not None:
                _put(out, segment[0, : shape[1], : shape[2]], top - rows.start, left - columns.start)
        return out


def _put(out: np.ndarray, segment: np.ndarray, top: int, left: int) -> None:
    """Writes what of a segment lies in the part; top and left may be negative."""
    height, width = segment.shape[:2]
    inner = segment[max(-top, 0) : out.shape[0] - top, max(-left, 0) : out.shape[1] - left]
    out[max(top, 0) : top + height, max(left, 0) : left + width] = inner


def _scaled(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "u":
        return array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)
    if array.dtype.kind != "f" or not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise ValueError(f"{array.dtype} pixels that are not all from 0 to 1")
    return array.astype(np.float32)


def _labels(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "iu" or array.max() > np.iinfo(np.int32).max:
        raise ValueError(f"{array.dtype} labels; they must be whole numbers below 2^31")
    return array[..., 0].astype(np.int32)
