"""Turns decoded pixels into images or labels, and keeps the limits and errors that all readers share."""

import logging
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from flaxunet.files import StrPath

# Height x width x channels that a header may announce: 1 GiB as float32, for instance 16384 x 16384 gray.
MAX_VALUES = 2**28

# `warnings.catch_warnings` is not safe in threads, so all readers take turns.
_warnings_lock = threading.Lock()


class DecodeError(ValueError):
    """What is wrong with a file, without its name. A decoder may raise anything else for a damaged file."""


class ImageError(ValueError):
    """A file that cannot be read or written; the message is one line that begins with the file's path."""


@dataclass(frozen=True)
class DecodedPixels:
    """An image or a volume as it is stored.

    Attributes:
      array: (..., C) of any dtype, without alpha; (H, W, C) for an image, (X, Y, Z, C) for a volume.
      white: the largest value that integers may have; None means the maximum of their dtype.
      orientation: EXIF orientation, 1 to 8; 1 is upright.
      spacing: mm between rows and between columns, where the file says.
    """

    array: np.ndarray
    white: int | None = None
    orientation: int = 1
    spacing: tuple[float, float] | None = None


def to_image(pixels: DecodedPixels) -> np.ndarray:
    """Converts pixels to an upright image: integers as fractions of white, floats as they are.

    Returns: (..., C) float32.
    Raises: DecodeError for complex numbers, and for pixels that are NaN, infinite or beyond float32.
    """
    array = _upright_finite(pixels)
    with np.errstate(over="ignore"):
        image = array.astype(np.float32)
    if array.dtype.kind in "iu":
        return image / np.float32(np.iinfo(array.dtype).max if pixels.white is None else pixels.white)
    if not np.isfinite(image).all():
        raise DecodeError(f"{array.dtype} pixels beyond the range of float32")
    return image


def to_labels(pixels: DecodedPixels) -> np.ndarray:
    """Converts pixels of one channel, or of several equal ones, to upright labels.

    Returns: (...) int32.
    Raises: DecodeError as `to_image`, and for unequal channels, fractions, and labels beyond int32.
    """
    array = _upright_finite(pixels)
    if (array != array[..., :1]).any():
        raise DecodeError(f"{array.shape[-1]} different channels; expected labels in one channel")
    array = array[..., 0]
    low, high = array.min().item(), array.max().item()
    if low < np.iinfo(np.int32).min or high > np.iinfo(np.int32).max:
        raise DecodeError(f"labels between {low:g} and {high:g}; expected 32-bit integers")
    labels = array.astype(np.int32)
    if (labels != array).any():
        raise DecodeError("labels that are fractions; expected whole numbers")
    return labels


def check_size(*shape: int) -> None:
    """Raises DecodeError for a size that would not fit into memory, before anything is decoded."""
    if min(shape) < 1 or math.prod(shape) > MAX_VALUES:
        sizes = " x ".join(map(str, shape))
        raise DecodeError(f"its header announces {sizes} values; expected 1 to {MAX_VALUES}")


def select_page(page: int | None, count: int, description: str = "") -> int:
    """Returns the index of the image that `page` selects among `count`; None selects the only one.

    Args:
      page, description: from 0, or None; of the images, for the error.
    Raises: DecodeError for a page that the file does not have, and for None among several.
    """
    if count < 1:
        raise DecodeError("no images in this file")
    if page is None and count > 1:
        several = f"{description}{count} images in one file"
        raise DecodeError(f"{several}; expected one, or a page: 0 to {count - 1}")
    if page is not None and not 0 <= page < count:
        raise DecodeError(f"page {page} of a file with {count} image{'s' * (count > 1)}; pages count from 0")
    return page or 0


def error_reason(error: Exception) -> str:
    """Describes an exception of reading in one short line; damaged files make decoders raise anything."""
    system_error = getattr(error, "strerror", None)
    line = " ".join(str(system_error or error).split())[:300] or type(error).__name__
    return line if system_error or isinstance(error, DecodeError) else f"damaged file: {line}"


@contextmanager
def name_errors(path: StrPath, kind: type[ValueError] = ImageError) -> Iterator[None]:
    """Turns every exception of reading a file into one of a kind, whose message begins with the path."""
    try:
        yield
    except Exception as error:
        name = " ".join(str(path).splitlines())  # a name may have several lines, an error has one
        raise kind(f"{name}: {error_reason(error)}") from error


@contextmanager
def ignore_warnings() -> Iterator[None]:
    """Hides warnings: broken metadata makes libraries warn although the pixels are fine."""
    with _warnings_lock, warnings.catch_warnings(action="ignore"):
        yield


@contextmanager
def mute_logger(name: str) -> Iterator[None]:
    """Keeps a library from logging what the error about a damaged file already says; in this thread only."""
    logger, this_thread = logging.getLogger(name), threading.get_ident()

    def is_from_another_thread(record: logging.LogRecord) -> bool:
        return record.thread != this_thread

    logger.addFilter(is_from_another_thread)
    try:
        yield
    finally:
        logger.removeFilter(is_from_another_thread)


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Hides what a library would warn and log about a file."""
    with ignore_warnings(), mute_logger(logger):
        yield


def apply_orientation(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turns stored rows and columns (H, W, ...) upright; unknown orientations change nothing."""
    array = array.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else array
    rows, columns = -1 if orientation in (3, 4, 7, 8) else 1, -1 if orientation in (2, 3, 6, 7) else 1
    return array[::rows, ::columns]


def undo_orientation(array: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes `apply_orientation`: 6 and 8, turns to the right and to the left, undo each other."""
    return apply_orientation(array, {6: 8, 8: 6}.get(orientation, orientation))


def _upright_finite(pixels: DecodedPixels) -> np.ndarray:
    array = pixels.array
    if array.dtype.kind not in "buif":
        raise DecodeError(f"pixels of type {array.dtype}; expected integers or floats")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        places = np.argwhere(~np.isfinite(array))
        names = ("row", "column") if array.ndim == 3 else ("x", "y", "z")
        first = ", ".join(f"{name} {index}" for name, index in zip(names, places[0], strict=False))
        raise DecodeError(f"{len(places)} NaN or infinite pixels, first at {first}")
    return apply_orientation(array, pixels.orientation)
