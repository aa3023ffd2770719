"""A record of a TIFF file too large to be read at once enters; records of squares of it leave.

They have `SIDE` x `SIDE` pixels and less, and cover the image without overlap; of the files only the tiles of
a square are decoded.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import tifffile

from flaxunet.images import ImageError
from flaxunet.layouts.record import DataError, Pair, Record
from flaxunet.pixels import MAX_VALUES, Pixels, PixelsError, reason, to_image, to_labels
from flaxunet.tiff import LOSSY

LARGE = MAX_VALUES  # height x width x channels; what has more, `flaxunet.images` refuses to read
SIDE = 2048  # pixels; a multiple of the tiles of any usual file, so that no tile is decoded twice
SMALL = 2**20  # bytes; a smaller file has that many values only if nearly all are alike

_SUFFIXES = (".tif", ".tiff")
_ACCEPTED = "accepted are gray or RGB TIFF files of one picture, upright, with channels last"

Window = tuple[slice, slice]


def squares(record: Record) -> list[Record]:
    """The records of a large pair's squares, or the record itself.

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
    truth = _shape(mask) if mask.suffix.lower() in _SUFFIXES else None
    if truth != (height, width, 1):
        found = (
            "no TIFF of one channel" if truth is None or truth[2] != 1 else f"{truth[0]} x {truth[1]} pixels"
        )
        raise ImageError(f"{mask}: {found}; its image has {height} x {width}, accepted are equal sizes")
    digits = len(str(max(height, width)))
    return [
        dataclasses.replace(
            record,
            name=f"{record.name} [{top:0{digits}}, {left:0{digits}}]",
            image_part=f"[{top}, {left}]",
            mask_part=f"[{top}, {left}]",
            read=partial(read, image, mask, np.s_[top : top + SIDE, left : left + SIDE]),
            group=record.group or record.name,
            files=(image, mask),
            whole=False,
        )
        for top in range(0, height, SIDE)
        for left in range(0, width, SIDE)
    ]


def read(image: Path, mask: Path, window: Window) -> Pair:
    """A part of an image and of its mask, as `flaxunet.images` reads whole ones.

    Raises: DataError if one of them cannot be read.
    """
    return _guarded(image, lambda: to_image(Pixels(_part(image, window)))), _guarded(
        mask, lambda: to_labels(Pixels(_part(mask, window, lossless=True)))
    )


def _guarded(path: Path, call: Callable[[], np.ndarray]) -> np.ndarray:
    try:
        return call()
    except Exception as error:  # damaged files make decoders raise anything
        raise DataError([f"{path}: {reason(error)}; {_ACCEPTED}"]) from error


def _shape(path: Path) -> tuple[int, int, int] | None:
    """(H, W, C) of a TIFF file by its header; None if it is none or damaged, as reading it whole will say."""
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            return page.imagelength, page.imagewidth, page.samplesperpixel
    except Exception:  # damaged files make readers raise anything
        return None


def _part(path: Path, window: Window, *, lossless: bool = False) -> np.ndarray:
    """The stored numbers (h, w, C) of a part."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        separate, depth, height, width, channels = page.shaped
        kind = tifffile.PHOTOMETRIC(page.photometric).name
        if len(tiff.series) != 1 or (separate, depth) != (1, 1) or page.axes not in ("YX", "YXS"):
            raise PixelsError(f"{len(tiff.series)} pictures with axes {page.axes}")
        compression = tifffile.COMPRESSION(page.compression).name
        becomes_rgb = kind == "YCBCR" and compression == "JPEG"  # while it is decoded
        plain = kind in ("MINISBLACK", "RGB") or becomes_rgb
        if not plain or page.tags.valueof(274, default=1) != 1 or page.extrasamples:
            raise PixelsError(f"{kind} colours, or alpha, or turned by its orientation")
        if lossless and compression in LOSSY:
            raise PixelsError(f"{compression} compression, which blurs labels")
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
