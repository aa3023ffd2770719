"""Decodes TIFF files, one image as a whole or regions of a large one, and writes stacks, with tifffile.

LZW, JPEG and the rarer compressions need imagecodecs, which comes with the medical extra.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from tifffile import TiffPage, TiffPageSeries

from flaxunet import preprocessing
from flaxunet.files import temporary_sibling
from flaxunet.io import pixels
from flaxunet.io.pixels import DecodedPixels, DecodeError, check_size, mute_logger, select_page
from flaxunet.io.png_jpeg import EXIF_ORIENTATION
from flaxunet.labels import Color, colormap

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Bytes of pixels that a TIFF of 32-bit offsets may hold, with room for the rest; more need a BigTIFF.
CLASSIC_BYTES = 2**32 - 2**25

_IMAGE_AXES = "YXSC"  # every other axis (time, depth, ...) counts images
# Kinds of files whose first series is the slide, and whose others are its label and overviews.
_SCANNERS = ("svs", "ndpi", "scn", "bif", "philips", "qpi")
_JPEG = (6, 7, 34892, 33007)
_UNCOMPRESSED_ROWS = 256  # that are read at once
_LOSSY = ("JPEG", "OJPEG", "JPEG_LOSSY", "WEBP", "APERIO_JP2000_YCBC", "APERIO_JP2000_RGB", "JPEGXR")


def read_tiff(file: BinaryIO, page: int | None, *, mask: bool) -> DecodedPixels:
    """Decodes 1 to 64 bits or floats, channels first or last, tiled or not; pages in the order of the file.

    Raises: DecodeError for colours that are neither gray, RGB nor a palette, for other axes than an image
      has, and for a mask whose compression may have blurred its labels.
    """
    with mute_logger("tifffile"), tifffile.TiffFile(file) as tiff:
        counts = [_count(series) for series in tiff.series]
        shapes = ", ".join(f"axes {series.axes} of sizes {series.shape}" for series in tiff.series[:4])
        index, number = select_page(page, sum(counts), f"{shapes}: "), 0
        while index >= counts[number]:
            index, number = index - counts[number], number + 1
        series = tiff.series[number]
        axes, keyframe = _check_axes(series, mask=mask), series.keyframe
        check_size(*keyframe.chunks)
        array = _decode(series, index)
        array = np.atleast_3d(array) if axes.startswith("YX") else np.moveaxis(array, 0, -1)
        orientation = keyframe.tags.valueof(EXIF_ORIENTATION, default=1)
        return DecodedPixels(_interpret(array, keyframe, mask=mask), orientation=orientation)


def page_count(file: BinaryIO) -> int:
    """How many images a file holds."""
    with mute_logger("tifffile"), tifffile.TiffFile(file) as tiff:
        return sum(map(_count, tiff.series))


def tiff_dtype(file: BinaryIO) -> str:
    """The type of the stored values, by the header of the first page."""
    with mute_logger("tifffile"), tifffile.TiffFile(file) as tiff:
        return str(tiff.pages.first.dtype)


class RegionReader:
    """Decodes regions of the only image, of size (H, W), of a TIFF file, or of level 0 of its pyramid."""

    def __init__(self, page: TiffPage, *, mask: bool):
        self._page, self._mask = page, mask
        separate, _, height, width, contiguous = page.shaped
        self.size = height, width
        self._is_uncompressed = page.is_final and not page.is_tiled and page.shaped[0] == 1
        # A block is a row of tiles, or a strip, or some rows of a file that needs no decoding.
        block_height = page.tilelength if page.is_tiled else page.rowsperstrip
        self._block_height = min(_UNCOMPRESSED_ROWS if self._is_uncompressed else block_height, height)
        self._last_block: tuple[int, np.ndarray] = -1, np.empty(0)
        self.block_values = self._block_height * width * separate * contiguous

    def read_rows(self, top: int, bottom: int) -> np.ndarray:
        """Reads (bottom - top, W, C) as `read_tiff` decodes them; keeps the last block for the next rows."""
        parts, (height, width) = [], self.size
        for block in range(top // self._block_height, -(-bottom // self._block_height)):
            first = block * self._block_height
            if block != self._last_block[0]:
                rows = range(first, min(first + self._block_height, height))
                self._last_block = block, self.read_region(rows, range(width))
            parts.append(self._last_block[1][max(top - first, 0) : bottom - first])
        return np.concatenate(parts)

    def read_region(self, rows: range, columns: range) -> np.ndarray:
        """Reads (h, w, C) of these rows and columns, and decodes only the tiles or strips they lie in."""
        read = self._read_uncompressed if self._is_uncompressed else self._read_segments
        return _interpret(read(rows, columns), self._page, mask=self._mask)

    def _read_uncompressed(self, rows: range, columns: range) -> np.ndarray:
        page, (width, channels) = self._page, self._page.shaped[3:]
        stored = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
        # Runs of pixels that lie one behind the other: all rows at once, or each row on its own.
        first_rows = rows[:1] if len(columns) == width else rows
        starts = [row * width + columns.start for row in first_rows]
        values = len(rows) * len(columns) * channels // len(starts)
        offsets = [page.dataoffsets[0] + start * channels * stored.itemsize for start in starts]
        parts = [page.parent.filehandle.read_array(stored, values, offset) for offset in offsets]
        return np.concatenate(parts).reshape(len(rows), len(columns), channels)

    def _read_segments(self, rows: range, columns: range) -> np.ndarray:
        page = self._page
        separate, _, height, width, contiguous = page.shaped
        segment_height, segment_width = self._block_height, page.tilewidth if page.is_tiled else width
        down, across = -(-height // segment_height), -(-width // segment_width)
        indices = [
            (plane * down + row) * across + column
            for plane in range(separate)
            for row in range(rows.start // segment_height, -(-rows.stop // segment_height))
            for column in range(columns.start // segment_width, -(-columns.stop // segment_width))
        ]
        offsets, sizes = [page.dataoffsets[i] for i in indices], [page.databytecounts[i] for i in indices]
        is_jpeg = page.compression in _JPEG
        tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if is_jpeg else {}
        region = np.full((separate, len(rows), len(columns), contiguous), page.nodata, page.dtype)
        for data, index in page.parent.filehandle.read_segments(offsets, sizes, indices=indices):
            segment, (plane, _, top, left, _), shape = page.decode(data, index, **tables)
            if segment is not None:  # else nothing is stored there
                inside = segment[0, : shape[1], : shape[2]]
                _paste(region[plane], inside, top - rows.start, left - columns.start)
        return np.moveaxis(region, 0, 2).reshape(len(rows), len(columns), -1)


@contextmanager
def open_regions(file: BinaryIO, *, mask: bool = False) -> Iterator[RegionReader | None]:
    """Opens a large image to read regions of it.

    Yields: None if the file has several images, or one that has to be turned upright.
    Raises: DecodeError as `read_tiff`.
    """
    with mute_logger("tifffile"), tifffile.TiffFile(file) as tiff:
        slide = tiff.series[0]
        is_slide = slide.kind in _SCANNERS or all(other.keyframe.is_reduced for other in tiff.series[1:])
        page = slide.keyframe
        is_readable = is_slide and len(slide.pages) == 1 and page.axes in ("YX", "YXS", "SYX")
        if not is_readable or page.tags.valueof(EXIF_ORIENTATION, default=1) != 1:
            yield None
            return
        _check_axes(slide, mask=mask)
        reader = RegionReader(page, mask=mask)
        yield reader if reader.block_values <= pixels.MAX_VALUES else None


def normalizer_by_rows(
    read_rows: Callable[[int, int], np.ndarray], size: tuple[int, int], intensity: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Makes the function of `preprocessing.normalizer_of_parts` for an image of a size (H, W).

    Args:
      read_rows: from (top, bottom) to those rows as stored, (h, W, C), as `RegionReader.read_rows`.
    """
    height, width = size

    def parts() -> Iterator[np.ndarray]:
        step = max(preprocessing.VALUES_AT_ONCE // (width * read_rows(0, 1).shape[-1]), 1)
        for top in range(0, height, step):
            yield pixels.to_image(DecodedPixels(read_rows(top, min(top + step, height))))

    return preprocessing.normalizer_of_parts(parts, intensity)


def palette_options(palette: Sequence[Color]) -> dict[str, Any]:
    """The arguments with which `tifffile.TiffWriter.write` gives uint8 labels these colours."""
    return {"photometric": "palette", "colormap": colormap(palette).T.astype(np.uint16) * 257}


class TiffStack:
    """A TIFF file that is written beside its place, until `close` moves it there.

    Args:
      path: ends with .tif.
      pages: how many images there will be; if they may exceed 4 GB, the file is a BigTIFF.
    """

    def __init__(self, path: Path, pages: int):
        self._path, self._pages, self._part = path, pages, temporary_sibling(path)
        self._file: tifffile.TiffWriter | None = None

    def add(self, image: np.ndarray, *, orientation: int = 1, palette: Sequence[Color] | None = None) -> None:
        """Appends a page.

        Args:
          image: upright (H, W), (H, W, K), or (H, W, 3) uint8 colours.
          orientation: the EXIF orientation of the image that it belongs to; the page is stored with the same.
          palette: colours of uint8 labels from 1 on; None for gray.
        Raises: OSError if it cannot be written.
        """
        image = pixels.undo_orientation(image, orientation)
        options: dict[str, Any] = {"photometric": "minisblack"}
        if image.ndim == 3 and image.dtype == np.uint8:
            options = {"photometric": "rgb"}
        elif image.ndim == 3:
            image = np.moveaxis(image, -1, 0)
            image, options["planarconfig"] = (image, "separate") if len(image) > 1 else (image[0], None)
        elif palette is not None:
            options = palette_options(palette)
        if orientation != 1:
            options["extratags"] = [(EXIF_ORIENTATION, "H", 1, orientation, True)]
        image, is_big = np.ascontiguousarray(image), self._pages * image.nbytes > CLASSIC_BYTES
        with self._name_errors():
            self._file = self._file or tifffile.TiffWriter(self._part, bigtiff=is_big)
            self._file.write(image, compression="zlib", metadata=None, contiguous=False, **options)

    def close(self) -> None:
        """Finishes the file and moves it to its place; raises OSError if that cannot be done."""
        with self._name_errors():
            if self._file is not None:
                self._file.close()
                self._part.replace(self._path)

    def abandon(self) -> None:
        """Removes what was written, unless the file was closed."""
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
        self._part.unlink(missing_ok=True)

    @contextmanager
    def _name_errors(self) -> Iterator[None]:
        """Gives errors of the disk the name of the file."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(self._path)) from None


def _paste(region: np.ndarray, segment: np.ndarray, top: int, left: int) -> None:
    """Writes the part of a segment (h, w, C) that lies in the region; top and left may be negative."""
    inner = segment[max(-top, 0) : region.shape[0] - top, max(-left, 0) : region.shape[1] - left]
    region[max(top, 0) :, max(left, 0) :][: inner.shape[0], : inner.shape[1]] = inner


def _check_axes(series: TiffPageSeries, *, mask: bool) -> str:
    """The axes of one image; DecodeError if it cannot be read as an image, or as a mask."""
    axes = "".join(axis for axis, _ in _kept(series) if axis in _IMAGE_AXES)
    if axes not in ("YX", "YXS", "SYX", "YXC", "CYX"):
        raise DecodeError(f"axes {series.axes} of sizes {series.shape}; expected rows, columns and channels")
    page = series.keyframe
    colours = tifffile.PHOTOMETRIC(page.photometric).name
    compression = tifffile.COMPRESSION(page.compression).name
    becomes_rgb = colours == "YCBCR" and compression == "JPEG"  # while it is decoded
    if colours not in ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE") and not becomes_rgb:
        raise DecodeError(f"{colours} colours; expected gray, RGB or a palette")
    if page.bitspersample == 1 and page.samplesperpixel > 1 and page.planarconfig == 1:
        # tifffile does not read the bits that it wrote.
        raise DecodeError("1-bit pixels with interleaved channels; expected channels in planes")
    if mask and compression in _LOSSY:
        raise DecodeError(f"{compression} compression, which blurs labels; expected a lossless one")
    if page.compression not in tifffile.TIFF.DECOMPRESSORS:
        raise DecodeError(f"{compression} compression, which needs pip install 'flaxunet[medical]'")
    return axes


def _interpret(array: np.ndarray, page: TiffPage, *, mask: bool) -> np.ndarray:
    """Drops alpha from stored (..., C); of an image, looks up the palette and makes white the maximum."""
    if page.extrasamples and tifffile.EXTRASAMPLE(page.extrasamples[-1]).name.endswith("ALPHA"):
        array = array[..., :-1]
    if page.colormap is not None and not mask:
        # Writers differ in the low byte of these 16-bit colours; the high one holds the 8-bit colour.
        array = np.moveaxis((page.colormap >> 8).astype(np.uint8)[:, array[..., 0]], 0, -1)
    if tifffile.PHOTOMETRIC(page.photometric).name == "MINISWHITE" and not mask:
        array = 1 - array if array.dtype.kind == "f" else ~array
    return array


def _kept(series: TiffPageSeries | TiffPage) -> list[tuple[str, int]]:
    """Axes and sizes, without those of size 1 other than rows and columns."""
    pairs = zip(series.axes, series.shape, strict=True)
    return [(axis, size) for axis, size in pairs if axis in "YX" or size > 1]


def _count(series: TiffPageSeries) -> int:
    return math.prod(size for axis, size in _kept(series) if axis not in _IMAGE_AXES)


def _decode(series: TiffPageSeries, index: int) -> np.ndarray:
    """Decodes one image of a series; only its own pages, if it has any."""
    kept, inner = _kept(series), _kept(series.keyframe)
    shape = [size for _, size in kept]
    is_image_axis = [axis in _IMAGE_AXES for axis, _ in kept]
    image = [size for axis, size in kept if axis in _IMAGE_AXES]
    order = np.argsort(is_image_axis, kind="stable")  # axes that count images come first
    outer = shape[: len(shape) - len(inner)]
    is_one = kept[len(outer) :] != inner or math.prod(outer) != len(series.pages)
    if all(is_image_axis) or is_one or not all(is_image_axis[len(outer) :]) or series.transform is not None:
        check_size(*shape)
        stack = series.asarray(maxworkers=1).reshape(shape)
        return stack.transpose(order).reshape(-1, *image)[index]
    check_size(*image)
    numbers = np.arange(len(series.pages)).reshape(outer).transpose(order[: len(outer)])
    pages = [series.pages[number] for number in numbers.reshape(_count(series), -1)[index]]
    if any(page is None for page in pages):
        raise DecodeError("missing planes; expected one for each channel")
    return np.stack([page.asarray(maxworkers=1) for page in pages if page is not None]).reshape(image)
