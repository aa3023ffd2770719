"""A TIFF file enters; the pixels of one of its pictures leave. Tiles, BigTIFF, ImageJ and OME are tifffile's.

Decoding LZW, JPEG and the rarer compressions needs imagecodecs, which comes with the medical extra.
"""

import math
from typing import BinaryIO

import numpy as np
import tifffile
from tifffile import TiffPage, TiffPageSeries

from flaxunet.pixels import Pixels, PixelsError, check_size, choose, unlogged
from flaxunet.raster import ORIENTATION

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Of a picture; every other axis (time, depth, ...) counts pictures.
_PICTURE_AXES = "YXSC"
_LOSSY = ("JPEG", "OJPEG", "JPEG_LOSSY", "WEBP", "APERIO_JP2000_YCBC", "APERIO_JP2000_RGB", "JPEGXR")


def read_tiff(file: BinaryIO, page: int | None, *, mask: bool) -> Pixels:
    """1 to 64 bit or float, channels first or last, tiled or not; pictures in the order of the file.

    Raises: PixelsError for colours that are neither gray, RGB nor a palette, for axes that are no picture's,
      and for a mask whose compression may have blurred its labels.
    """
    with unlogged("tifffile"), tifffile.TiffFile(file) as tiff:
        counts = [_count(series) for series in tiff.series]
        axes = [f"axes {series.axes} of sizes {series.shape}" for series in tiff.series]
        place = choose(page, sum(counts), f"{', '.join(axes[:4])}: ")
        for series, count in zip(tiff.series, counts, strict=True):
            if place < count:
                return _read_series(series, place, mask=mask)
            place -= count
    raise PixelsError("a TIFF file without pictures")


def _read_series(series: TiffPageSeries, place: int, *, mask: bool) -> Pixels:
    axes = "".join(axis for axis, _ in _kept(series) if axis in _PICTURE_AXES)
    if axes not in ("YX", "YXS", "SYX", "YXC", "CYX"):
        raise PixelsError(f"axes {series.axes} of sizes {series.shape}")
    page = series.keyframe
    kind = tifffile.PHOTOMETRIC(page.photometric).name
    compression = tifffile.COMPRESSION(page.compression).name
    becomes_rgb = kind == "YCBCR" and compression == "JPEG"  # while it is decoded
    if kind not in ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE") and not becomes_rgb:
        raise PixelsError(f"{kind} colours; convert them to RGB")
    if page.bitspersample == 1 and page.samplesperpixel > 1 and page.planarconfig == 1:
        # tifffile does not read the bits that it wrote.
        raise PixelsError("1-bit pixels with interleaved channels")
    if mask and compression in _LOSSY:
        raise PixelsError(f"{compression} compression, which blurs labels")
    if page.compression not in tifffile.TIFF.DECOMPRESSORS:
        raise PixelsError(f"{compression} compression, which needs pip install 'flaxunet[medical]'")
    check_size(*page.chunks)
    array = _decode(series, place)
    if len(axes) == 2:
        array = array[..., None]
    elif not axes.startswith("YX"):
        array = np.moveaxis(array, 0, -1)
    if page.extrasamples and tifffile.EXTRASAMPLE(page.extrasamples[-1]).name.endswith("ALPHA"):
        array = array[..., :-1]
    if page.colormap is not None and not mask:
        # Writers differ in the low byte of these 16-bit colours; the high one holds the 8-bit colour.
        array = np.moveaxis((page.colormap >> 8).astype(np.uint8)[:, array[..., 0]], 0, -1)
    if kind == "MINISWHITE" and not mask:
        array = 1 - array if array.dtype.kind == "f" else ~array
    return Pixels(array, orientation=page.tags.valueof(ORIENTATION, default=1))


def _kept(series: TiffPageSeries | TiffPage) -> list[tuple[str, int]]:
    """Axes and sizes, without those of size 1 that are no row and no column."""
    pairs = zip(series.axes, series.shape, strict=True)
    return [(axis, size) for axis, size in pairs if axis in "YX" or size > 1]


def _count(series: TiffPageSeries) -> int:
    return math.prod(size for axis, size in _kept(series) if axis not in _PICTURE_AXES)


def _decode(series: TiffPageSeries, place: int) -> np.ndarray:
    """The picture at a place among those of a series; of its pages alone, if it has pages of its own."""
    kept, inner = _kept(series), _kept(series.keyframe)
    shape = [size for _, size in kept]
    own = [axis in _PICTURE_AXES for axis, _ in kept]
    picture = [size for size, is_own in zip(shape, own, strict=True) if is_own]
    order = np.argsort(own, kind="stable")  # what counts pictures comes first
    outer = shape[: len(shape) - len(inner)]
    whole = kept[len(outer) :] != inner or math.prod(outer) != len(series.pages)
    if all(own) or whole or not all(own[len(outer) :]) or series.transform is not None:
        check_size(*shape)
        stack = series.asarray(maxworkers=1).reshape(shape)
        return stack.transpose(order).reshape(-1, *picture)[place]
    check_size(*picture)
    numbers = np.arange(len(series.pages)).reshape(outer).transpose(order[: len(outer)])
    pages = [series.pages[number] for number in numbers.reshape(_count(series), -1)[place]]
    if any(page is None for page in pages):
        raise PixelsError("planes that are missing")
    return np.stack([page.asarray(maxworkers=1) for page in pages if page is not None]).reshape(picture)


def count(file: BinaryIO) -> int:
    """How many pictures there are."""
    with unlogged("tifffile"), tifffile.TiffFile(file) as tiff:
        return sum(map(_count, tiff.series))
