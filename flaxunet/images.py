"""A PNG, JPEG or TIFF file enters; a float32 image in [0, 1] or int32 labels leave, or an error naming it."""

import math
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
from PIL.Image import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
# Height x width x channels that a header may announce: 1 GiB as float32, for instance 16384 x 16384 gray.
MAX_VALUES = 2**28

StrPath = str | os.PathLike[str]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 0x0112
_IMAGE = "one PNG, JPEG or TIFF picture of unsigned integers or of floats in [0, 1]"
_MASK = "one PNG or TIFF picture with one channel (or equal ones) of whole numbers"

# `warnings.catch_warnings` is not safe in threads, so those of this module take turns.
_warnings_lock = threading.Lock()


class ImageError(ValueError):
    """A file that is not a usable image or mask; the message is one line and starts with the file's path."""


def read_image(path: StrPath) -> np.ndarray:
    """Read an image, upright (EXIF orientation applied), with one, three or any number of channels.

    Integers are divided by the largest value of their type, not of the picture: 1 for 1 bit, 255 for 8 bit,
    65535 for 16 bit (so a 12-bit camera's picture in a 16-bit file stays below 0.0625). Floats are taken as
    they are and must lie in [0, 1]. Palettes are looked up. Alpha is dropped, not blended: colours hidden
    under it show.

    Args:
      path: a PNG (1 to 16 bit), JPEG (gray or RGB) or TIFF file (1 to 32 bit or float, channels first or
        last), told apart by content, not by name.
    Returns: (H, W, C) float32 in [0, 1].
    Raises: ImageError if the file is missing, damaged, of another kind, holds several pictures, announces
      more than `MAX_VALUES` values, or has negative, NaN, infinite or out-of-range pixels.
    """
    try:
        return _scaled(_read(path, mask=False))
    except Exception as error:
        raise _named(path, error, _IMAGE) from error


def read_mask(path: StrPath) -> np.ndarray:
    """Read a label mask: the stored numbers as they are, upright (EXIF orientation applied).

    A palette's indices are the labels, whatever its colours. 1-bit masks give 0 and 1. Floats must be whole.
    Alpha is dropped, and several channels count as one if they are equal.

    Args:
      path: a PNG or TIFF file. JPEG is refused: its compression blurs labels.
    Returns: (H, W) int32; negative labels of signed files are kept.
    Raises: ImageError as `read_image`, and for JPEG, unequal channels, fractions, and labels beyond int32.
    """
    try:
        return _labels(_read(path, mask=True))
    except Exception as error:
        raise _named(path, error, _MASK) from error


def _named(path: StrPath, error: Exception, accepted: str) -> ImageError:
    """The one-line error; damaged files make decoders raise anything, from OSError to SyntaxError."""
    reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    return ImageError(f"{os.fspath(path)}: {reason}; accepted is {accepted}")


def _scaled(array: np.ndarray) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    if low < 0 or (array.dtype.kind == "f" and high > 1):
        raise ValueError(f"{array.dtype} pixels between {low:g} and {high:g}")
    image = array.astype(np.float32)
    return image / np.float32(np.iinfo(array.dtype).max) if array.dtype.kind in "iu" else image


def _labels(array: np.ndarray) -> np.ndarray:
    if (array != array[..., :1]).any():
        raise ValueError(f"{array.shape[-1]} different channels")
    array = array[..., 0]
    low, high = array.min(), array.max()
    if low < np.iinfo(np.int32).min or high > np.iinfo(np.int32).max:
        raise ValueError(f"labels between {low:g} and {high:g}")
    labels = array.astype(np.int32)
    if (labels != array).any():
        raise ValueError("labels that are fractions")
    return labels


def _read(path: StrPath, *, mask: bool) -> np.ndarray:
    """The stored numbers (H, W, C), finite, upright and without alpha."""
    with Path(path).open("rb") as file:
        magic = file.read(8)
        file.seek(0)
        if magic.startswith(_PNG):
            array, orientation = _read_png(file, mask=mask)
        elif magic.startswith(_JPEG):
            array, orientation = _read_jpeg(file, mask=mask)
        elif magic.startswith(_TIFF):
            array, orientation = _read_tiff(file, mask=mask)
        else:
            raise ValueError("neither PNG nor JPEG nor TIFF" if magic else "an empty file")
    if array.dtype.kind not in "buif":
        raise ValueError(f"pixels of type {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        rows, columns, _ = np.nonzero(~np.isfinite(array))
        raise ValueError(f"{len(rows)} NaN or infinite pixels, first at row {rows[0]}, column {columns[0]}")
    return _upright(array, orientation)


def _read_png(file: BinaryIO, *, mask: bool) -> tuple[np.ndarray, int]:
    # The format's own class, not PIL.Image.open: no other format is tried, and the size limit is ours alone.
    with _silence():
        image = PngImageFile(file)
    _check_size(image.height, image.width, len(image.getbands()))
    layout = str(image.tile[0].args) if image.tile else ""  # as stored, in Pillow's words
    if getattr(image, "n_frames", 1) > 1:
        raise ValueError("an animation")
    if layout == "LA;16B":
        raise ValueError("16-bit gray with alpha, which would lose 8 bits")
    array = np.asarray(image)
    if layout in ("RGB;16B", "RGBA;16B"):
        # Pillow keeps only the high byte. The same file declared little-endian gives the low one.
        file.seek(0)
        with _silence():
            low = PngImageFile(file)
        low.tile = [low.tile[0]._replace(args=layout.replace("16B", "16L"))]
        array = array.astype(np.uint16) << 8 | np.asarray(low)
    if mask and layout in ("L;2", "L;4"):
        array = array // {"L;2": 85, "L;4": 17}[layout]  # Pillow stretches 2 and 4 bits to 0..255
    if image.mode == "P" and not mask:
        array = _palette(image)[array]
    return _drop_alpha(array, image), _exif_orientation(image)


def _read_jpeg(file: BinaryIO, *, mask: bool) -> tuple[np.ndarray, int]:
    if mask:
        raise ValueError("a JPEG file, whose compression blurs labels")
    with _silence():
        image = JpegImageFile(file)
    _check_size(image.height, image.width, len(image.getbands()))
    if image.mode not in ("L", "RGB"):
        raise ValueError(f"{image.mode} colours")
    return _drop_alpha(np.asarray(image), image), _exif_orientation(image)


def _read_tiff(file: BinaryIO, *, mask: bool) -> tuple[np.ndarray, int]:
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        if len(tiff.series) != 1:
            raise ValueError(f"{len(tiff.series)} pictures")
        series = tiff.series[0]
        kept = [place for place, axis in enumerate(series.axes) if axis in "YX" or series.shape[place] > 1]
        axes, shape = "".join(series.axes[i] for i in kept), tuple(series.shape[i] for i in kept)
        if axes not in ("YX", "YXS", "SYX", "YXC", "CYX"):
            raise ValueError(f"a stack with axes {series.axes} of sizes {series.shape}")
        _check_size(*shape)
        _check_size(*page.chunks)
        kind = tifffile.PHOTOMETRIC(page.photometric).name
        if kind not in ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE"):
            raise ValueError(f"{kind} colours")
        if mask and page.compression in (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG):
            raise ValueError("JPEG compression, which blurs labels")
        array = series.asarray(maxworkers=1).reshape(shape)
        if len(shape) == 2:
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
        return array, page.tags.valueof(_ORIENTATION, default=1)


def _check_size(*shape: int) -> None:
    """Refuse what would not fit before anything is decoded."""
    if not 0 < math.prod(shape) <= MAX_VALUES:
        raise ValueError(
            f"its header announces {' x '.join(map(str, shape))} values, the limit is {MAX_VALUES}"
        )


def _palette(image: Image) -> np.ndarray:
    """(256, 3) uint8 colours; black beyond the end of a short palette."""
    stored = image.getpalette("RGB") or []
    return np.array(stored + [0] * (256 * 3 - len(stored)), np.uint8).reshape(256, 3)


def _drop_alpha(array: np.ndarray, image: Image) -> np.ndarray:
    if array.ndim == 2:
        return array[..., None]
    return array[..., :-1] if image.mode in ("LA", "RGBA") else array


def _exif_orientation(image: Image) -> int:
    with _silence():
        return image.getexif().get(_ORIENTATION, 1)


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored rows and columns the way they are meant to be seen; unknown orientations change nothing."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


@contextmanager
def _silence() -> Iterator[None]:
    """Broken metadata makes Pillow warn although the pixels are fine."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
