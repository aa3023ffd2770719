"""A TIFF file enters; the pixels of one of its pictures leave. Tiles, BigTIFF, ImageJ and OME are tifffile's.

Decoding LZW, JPEG and the rarer compressions needs imagecodecs, which comes with the medical extra.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import tifffile
from tifffile import TiffPage, TiffPageSeries

from flaxunet import preprocessing
from flaxunet.io.pixels import MAX_VALUES, Pixels, PixelsError, check_size, choose, to_image, unlogged
from flaxunet.io.png_jpeg import ORIENTATION
from flaxunet.labels import Color, colormap

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Of a picture; every other axis (time, depth, ...) counts pictures.
_PICTURE_AXES = "YXSC"
_SCANNERS = ("svs", "ndpi", "scn", "bif", "philips", "qpi")
"""Kinds of files whose first series is the slide, and whose others are its label and overviews."""
_JPEG = (6, 7, 34892, 33007)
_PLAIN_ROWS = 256
_LOSSY = ("JPEG", "OJPEG", "JPEG_LOSSY", "WEBP", "APERIO_JP2000_YCBC", "APERIO_JP2000_RGB", "JPEGXR")
"""Compressions that change numbers."""


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
    axes, page = _checked_axes(series, mask=mask), series.keyframe
    check_size(*page.chunks)
    array = _decode(series, place)
    if len(axes) == 2:
        array = array[..., None]
    elif not axes.startswith("YX"):
        array = np.moveaxis(array, 0, -1)
    array = _meant(array, page, mask=mask)
    return Pixels(array, orientation=page.tags.valueof(ORIENTATION, default=1))


class Parts:
    """The only picture of a TIFF file, or level 0 of its pyramid, of which some pixels at a time are decoded.

    Attributes:
      size: (H, W).
    """

    def __init__(self, page: TiffPage, *, mask: bool):
        self._page, self._mask = page, mask
        _, _, height, width, _ = page.shaped
        self.size = height, width
        self._plain = page.is_final and not page.is_tiled and page.shaped[0] == 1
        # A block is a row of tiles, or a strip, or some rows of a file that needs no decoding.
        self._tall = _PLAIN_ROWS if self._plain else page.tilelength if page.is_tiled else page.rowsperstrip
        self._tall = min(self._tall, height)
        self._last: tuple[int, np.ndarray] = -1, np.empty(0)

    @property
    def block(self) -> int:
        """Numbers that are decoded at once by `rows`."""
        separate, _, _, width, contiguous = self._page.shaped
        return self._tall * width * separate * contiguous

    def rows(self, top: int, bottom: int) -> np.ndarray:
        """(bottom - top, W, C) as `read_tiff` gives it of the whole picture; the last block is kept."""
        found, (height, width) = [], self.size
        for block in range(top // self._tall, -(-bottom // self._tall)):
            first = block * self._tall
            if block != self._last[0]:
                self._last = block, self.region(range(first, min(first + self._tall, height)), range(width))
            found.append(self._last[1][max(top - first, 0) : bottom - first])
        return np.concatenate(found)

    def region(self, rows: range, columns: range) -> np.ndarray:
        """(h, w, C) of these rows and columns; only the tiles or strips that they lie in are decoded."""
        page = self._page
        separate, _, height, width, contiguous = page.shaped
        if self._plain:
            stored = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
            # Runs of pixels that lie one behind the other: all at once, or of each row its own.
            runs = [rows] if len(columns) == width else [range(row, row + 1) for row in rows]
            found = [
                page.parent.filehandle.read_array(
                    stored,
                    len(run) * len(columns) * contiguous,
                    page.dataoffsets[0] + (run.start * width + columns.start) * contiguous * stored.itemsize,
                )
                for run in runs
            ]
            whole = np.concatenate(found).reshape(len(rows), len(columns), contiguous)
            return _meant(whole, page, mask=self._mask)
        tall, wide = self._tall, page.tilewidth if page.is_tiled else width
        down, across = -(-height // tall), -(-width // wide)
        indices = [
            (plane * down + row) * across + column
            for plane in range(separate)
            for row in range(rows.start // tall, -(-rows.stop // tall))
            for column in range(columns.start // wide, -(-columns.stop // wide))
        ]
        places = [page.dataoffsets[i] for i in indices], [page.databytecounts[i] for i in indices]
        tables = {}
        if page.compression in _JPEG:
            tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        array = np.full((separate, len(rows), len(columns), contiguous), page.nodata, page.dtype)
        for data, index in page.parent.filehandle.read_segments(*places, indices=indices):
            segment, (plane, _, top, left, _), shape = page.decode(data, index, **tables)
            if segment is not None:  # else nothing is stored there
                inside = segment[0, : shape[1], : shape[2]]
                _put(array[plane], inside, top - rows.start, left - columns.start)
        whole = np.moveaxis(array, 0, 2).reshape(len(rows), len(columns), -1)
        return _meant(whole, page, mask=self._mask)


def _put(out: np.ndarray, segment: np.ndarray, top: int, left: int) -> None:
    """Writes what of a segment (h, w, C) lies in the part; top and left may be negative."""
    height, width = segment.shape[:2]
    inner = segment[max(-top, 0) : out.shape[0] - top, max(-left, 0) : out.shape[1] - left]
    out[max(top, 0) : top + height, max(left, 0) : left + width] = inner


@contextmanager
def open_parts(file: BinaryIO, *, mask: bool = False) -> Iterator[Parts | None]:
    """A large picture to be read in parts; None if it cannot be, because there are several, or it is turned.

    Raises: PixelsError as `read_tiff`.
    """
    with unlogged("tifffile"), tifffile.TiffFile(file) as tiff:
        slide = tiff.series[0]
        scanned = slide.kind in _SCANNERS or all(other.keyframe.is_reduced for other in tiff.series[1:])
        page = slide.keyframe
        usable = scanned and len(slide.pages) == 1 and page.axes in ("YX", "YXS", "SYX")
        if not usable or page.tags.valueof(ORIENTATION, default=1) != 1:
            yield None
            return
        _checked_axes(slide, mask=mask)
        parts = Parts(page, mask=mask)
        yield parts if parts.block <= MAX_VALUES else None


def _checked_axes(series: TiffPageSeries, *, mask: bool) -> str:
    """Those of one picture; PixelsError if there is no reading it as an image, or as a mask."""
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
    return axes


def _meant(array: np.ndarray, page: TiffPage, *, mask: bool) -> np.ndarray:
    """What stored numbers (..., C) mean: without alpha, a palette's colours, white as the largest number."""
    if page.extrasamples and tifffile.EXTRASAMPLE(page.extrasamples[-1]).name.endswith("ALPHA"):
        array = array[..., :-1]
    if page.colormap is not None and not mask:
        # Writers differ in the low byte of these 16-bit colours; the high one holds the 8-bit colour.
        array = np.moveaxis((page.colormap >> 8).astype(np.uint8)[:, array[..., 0]], 0, -1)
    if tifffile.PHOTOMETRIC(page.photometric).name == "MINISWHITE" and not mask:
        array = 1 - array if array.dtype.kind == "f" else ~array
    return array


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


def indexed(palette: Sequence[Color]) -> dict[str, Any]:
    """What makes `tifffile.TiffWriter.write` give uint8 labels these colours."""
    return {"photometric": "palette", "colormap": colormap(palette).T.astype(np.uint16) * 257}


def of_rows(
    rows: Callable[[int, int], np.ndarray], size: tuple[int, int], name: str
) -> Callable[[np.ndarray], np.ndarray]:
    """What `flaxunet.preprocessing.apply` does to an image that is too large for memory, for parts of it.

    Args:
      rows: from (top, bottom) to those rows as stored, (h, W, C), as `Parts.rows` gives them.
      size: (H, W) of the image.
      name: of the intensity.
    """
    height, width = size

    def parts() -> Iterable[np.ndarray]:
        step = max(preprocessing.VALUES // (width * rows(0, 1).shape[-1]), 1)
        for top in range(0, height, step):
            yield to_image(Pixels(rows(top, min(top + step, height))))

    return preprocessing.of_parts(parts, name)
