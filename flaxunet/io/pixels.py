"""What a reader found in a file becomes an image or labels; and the limits that every reader keeps."""

import logging
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

# Height x width x channels that a header may announce: 1 GiB as float32, for instance 16384 x 16384 gray.
MAX_VALUES = 2**28

# `warnings.catch_warnings` is not safe in threads, so those of all readers take turns.
_warnings_lock = threading.Lock()


class PixelsError(ValueError):
    """What is wrong with a file, without its name; other exceptions are a decoder's, of a damaged file."""


class SeveralError(PixelsError):
    """A file of several pictures was read without a page; `count` says how many they are."""

    def __init__(self, count: int, what: str = ""):
        super().__init__(f"{what}{count} pictures, of which page would choose one (0 to {count - 1})")
        self.count = count


@dataclass(frozen=True)
class Pixels:
    """A picture, or a volume, as it is stored.

    Attributes:
      array: (..., C) of any numbers, without alpha; (H, W, C) for a picture.
      top: the largest value that its integers may have, which is white; None means that of their dtype.
      orientation: EXIF's, 1 to 8; 1 is upright.
      spacing: mm from a row to the next, and from a column to the next, where the file says.
    """

    array: np.ndarray
    top: int | None = None
    orientation: int = 1
    spacing: tuple[float, float] | None = None


def to_image(pixels: Pixels) -> np.ndarray:
    """Upright float32 (..., C): integers as fractions of `top`, floats as they are.

    Raises: PixelsError for pixels that are NaN, infinite, beyond float32, or no real numbers.
    """
    array = _checked(pixels)
    with np.errstate(over="ignore"):
        image = array.astype(np.float32)
    if array.dtype.kind == "f":
        if not np.isfinite(image).all():
            raise PixelsError(f"{array.dtype} pixels beyond the range of float32")
        return image
    if array.dtype.kind == "b":
        return image
    return image / np.float32(np.iinfo(array.dtype).max if pixels.top is None else pixels.top)


def reason(error: Exception) -> str:
    """An exception of reading in one short line; damaged files make decoders raise anything."""
    told = getattr(error, "strerror", None)
    line = " ".join(str(told or error).split())[:300] or type(error).__name__
    return line if told or isinstance(error, PixelsError) else f"a damaged file: {line}"


def to_labels(pixels: Pixels) -> np.ndarray:
    """Upright int32 (...) of one channel, or of several equal ones.

    Raises: PixelsError as `to_image`, and for unequal channels, fractions, and labels beyond int32.
    """
    array = _checked(pixels)
    if (array != array[..., :1]).any():
        raise PixelsError(f"{array.shape[-1]} different channels")
    array = array[..., 0]
    low, high = array.min().item(), array.max().item()
    if low < np.iinfo(np.int32).min or high > np.iinfo(np.int32).max:
        raise PixelsError(f"labels between {low:g} and {high:g}")
    labels = array.astype(np.int32)
    if (labels != array).any():
        raise PixelsError("labels that are fractions")
    return labels


def check_size(*shape: int) -> None:
    """Refuse what would not fit before anything is decoded."""
    if min(shape) < 1 or math.prod(shape) > MAX_VALUES:
        announced = " x ".join(map(str, shape))
        raise PixelsError(f"its header announces {announced} values, the limit is {MAX_VALUES}")


def choose(page: int | None, count: int, what: str = "") -> int:
    """The index of the picture that is meant among `count`, which is `what`; None means the only one."""
    if count < 1:
        raise PixelsError("no pictures")
    if page is None and count > 1:
        raise SeveralError(count, what)
    if page is not None and not 0 <= page < count:
        raise PixelsError(f"page {page} of {count} picture" + "s" * (count != 1))
    return page or 0


@contextmanager
def silence() -> Iterator[None]:
    """Broken metadata makes libraries warn although the pixels are fine."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def unlogged(name: str) -> Iterator[None]:
    """Keeps what a library would log of a damaged file from the terminal; the error says it."""
    logger, here = logging.getLogger(name), threading.get_ident()

    def elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != here

    logger.addFilter(elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(elsewhere)


def _checked(pixels: Pixels) -> np.ndarray:
    """The upright array, of finite real numbers."""
    array = pixels.array
    if array.dtype.kind not in "buif":
        raise PixelsError(f"pixels of type {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        places = np.argwhere(~np.isfinite(array))
        names = ("row", "column") if array.ndim == 3 else ("x", "y", "z")
        first = ", ".join(f"{name} {place}" for name, place in zip(names, places[0], strict=False))
        raise PixelsError(f"{len(places)} NaN or infinite pixels, first at {first}")
    return _upright(array, pixels.orientation)


def as_stored(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn upright rows and columns (H, W, ...) back to what an orientation makes upright."""
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else array


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored rows and columns the way they are meant to be seen; unknown orientations change nothing."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array
