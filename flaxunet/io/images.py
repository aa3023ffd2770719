"""Reads images and masks of every file format, and writes masks; `FORMATS` is the one table of formats."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL.Image

from flaxunet.files import StrPath, write_whole
from flaxunet.io import dicom, nifti, tiff
from flaxunet.io.pixels import (
    DecodedPixels,
    DecodeError,
    ImageError,
    name_errors,
    to_image,
    to_labels,
    undo_orientation,
)
from flaxunet.io.png_jpeg import EXIF_ORIENTATION, JPEG_MAGIC, PNG_MAGIC, png_dtype, read_jpeg, read_png
from flaxunet.labels import PALETTE, Color, colormap


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
      title: for people.
      suffixes: of its files' names, in lower case.
      magic, offset: one of these bytes lies that far from the beginning of its files.
      read: decodes an image or a mask (file, page, mask=...) -> DecodedPixels; raises DecodeError.
      dtype, page_count: (file) -> the type of the stored values, in words; how many images the file holds.
      is_volume: whether its files are volumes, of which `read` gives an axial slice.
    """

    title: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...]
    read: Callable[..., DecodedPixels]
    dtype: Callable[[BinaryIO], str] = lambda file: "unknown"
    page_count: Callable[[BinaryIO], int] = lambda file: 1
    offset: int = 0
    is_volume: bool = False


# By name; the first format that matches a file's first bytes is the file's.
FORMATS: dict[str, Format] = {
    "png": Format("PNG", (".png",), PNG_MAGIC, read_png, png_dtype),
    "jpeg": Format("JPEG", (".jpg", ".jpeg"), JPEG_MAGIC, read_jpeg, lambda file: "uint8 (JPEG)"),
    # Before TIFF: a DICOM file may begin with anything, and whole-slide files do with a TIFF header.
    "dicom": Format(
        "DICOM", (".dcm",), dicom.MAGIC, dicom.read_dicom, page_count=dicom.frame_count, offset=dicom.PREAMBLE
    ),
    "tiff": Format("TIFF", (".tif", ".tiff"), tiff.MAGIC, tiff.read_tiff, tiff.tiff_dtype, tiff.page_count),
    "nifti": Format(
        *("NIfTI", (".nii", ".nii.gz"), nifti.MAGIC, nifti.read_slice, nifti.nifti_dtype), is_volume=True
    ),
}
SUFFIXES = tuple(suffix for one in FORMATS.values() if not one.is_volume for suffix in one.suffixes)
VOLUME_SUFFIXES = tuple(suffix for one in FORMATS.values() if one.is_volume for suffix in one.suffixes)

MIN_COLOR_DISTANCE = 32  # by which two colours of a mask differ, in red, green or blue, to be of use
_START = max(one.offset + len(magic) for one in FORMATS.values() for magic in one.magic)


def read_image(path: StrPath, *, page: int | None = None) -> np.ndarray:
    """Reads an image, upright (EXIF orientation applied), with one, three or any number of channels.

    Integers are divided by the maximum of their type, not of the image: by 1 for 1 bit, 255 for 8 bit and
    65535 for 16 bit (so a 12-bit camera's image in a 16-bit file stays below 0.0625). Floats are kept,
    whatever their range; `flaxunet.preprocessing.normalize_intensity` comes next. Palettes are looked up.
    Alpha is dropped, not blended: colours hidden under it show.

    Args:
      path: a PNG (1 to 16 bit), JPEG (gray or RGB), TIFF (1 to 64 bit or float, channels first or last),
        DICOM (see `flaxunet.io.dicom`; needs the medical extra) or NIfTI file, whatever its name.
      page: which image of several, from 0: of a TIFF stack in the order of the file, of a DICOM file its
        frame, of a NIfTI file its axial slice, the lowest first. None: the file must hold only one.
    Returns: (H, W, C) float32, in [0, 1] if the file has unsigned integers.
    Raises: ImageError if the file is missing, damaged, of another format, holds several images and no page is
      given, announces more than `pixels.MAX_VALUES` values, or has NaN or infinite pixels.
    """
    return read_picture(path, page=page).image


@dataclass(frozen=True)
class Picture:
    """An image, and what is needed to write labels that lie over its file.

    Attributes:
      image: (H, W, C) float32, upright.
      orientation: the EXIF orientation, 1 to 8, that was applied.
      spacing: mm between rows and between columns of the upright image; None where unknown.
    """

    image: np.ndarray
    orientation: int = 1
    spacing: tuple[float, float] | None = None


def read_picture(path: StrPath, *, page: int | None = None) -> Picture:
    """Reads an image as `read_image`, with the orientation and the spacing of its file."""
    with _open(path) as (file, kind):
        pixels = FORMATS[kind].read(file, page, mask=False)
        orientation = pixels.orientation if pixels.orientation in range(1, 9) else 1
        return Picture(to_image(pixels), orientation, pixels.spacing)


def file_format(path: StrPath) -> str:
    """The format of a file by its content, a key of `FORMATS`; raises ImageError if it has none of them."""
    with _open(path) as (_, kind):
        return kind


def page_count(path: StrPath) -> int:
    """How many images a file holds, of which `page` selects one; 1 for NIfTI. Raises ImageError."""
    with _open(path) as (file, kind):
        return FORMATS[kind].page_count(file)


def stored_dtype(path: StrPath) -> str:
    """The type of a file's values, such as uint8, from its header, or "unknown". Raises ImageError."""
    with _open(path) as (file, kind):
        return FORMATS[kind].dtype(file)


def split_suffix(name: str) -> tuple[str, str]:
    """Splits a file's name into stem and suffix, in any case; the suffix is empty if no format has it."""
    known = sorted((*SUFFIXES, *VOLUME_SUFFIXES), key=len, reverse=True)
    length = next((len(suffix) for suffix in known if name.lower().endswith(suffix)), 0)
    return name[: len(name) - length], name[len(name) - length :]


def read_mask(path: StrPath, *, page: int | None = None) -> np.ndarray:
    """Reads a label mask: the stored numbers as they are, upright (EXIF orientation applied).

    The indices of a palette are the labels, whatever its colours. 1-bit masks give 0 and 1. Floats must be
    whole. Alpha is dropped, and several channels count as one if they are equal.

    Args:
      path, page: as of `read_image`. JPEG, the file or a TIFF's compression, is refused: it blurs labels.
    Returns: (H, W) int32; negative labels of signed files are kept.
    Raises: ImageError as `read_image`, and for JPEG, unequal channels, fractions, and labels beyond int32.
    """
    with _open(path) as (file, kind):
        return to_labels(FORMATS[kind].read(file, page, mask=True))


def mask_colors(path: StrPath, classes: int) -> tuple[Color, ...] | None:
    """Reads the colours in which an indexed mask shows its labels.

    Returns: RGB, from 0 to 255, of the labels 1 to `classes` - 1; None if the mask is not indexed, or its
      colours can hardly be told apart, as those of a gray ramp.
    """
    try:
        with PIL.Image.open(path) as image:
            stored = (image.getpalette("RGB") or []) if image.mode == "P" else []
    except Exception:  # a file that Pillow cannot read has no palette either
        return None
    colors = np.array(stored[: 3 * classes], int).reshape(-1, 3)
    distances = np.abs(colors[:, None] - colors).max(-1) + 255 * np.eye(len(colors), dtype=int)
    if len(colors) < classes or distances.min() < MIN_COLOR_DISTANCE:
        return None
    return tuple((int(r), int(g), int(b)) for r, g, b in colors[1:])


def write_mask(
    path: StrPath,
    labels: np.ndarray,
    palette: Sequence[Color] | None = None,
    *,
    orientation: int = 1,
    deep: bool = False,
) -> None:
    """Writes labels as an indexed PNG: the stored numbers are the labels, its palette shows them in colours.

    Labels beyond 255, such as instance ids, make it a 16-bit gray PNG without colours. `read_mask` reads both
    back. The file appears whole or not at all, and replaces an older one.

    Args:
      path: ends with .png.
      labels: (H, W) integers or booleans in 0..65535.
      palette: RGB colours of labels 1, 2, ..., from 0 to 255, repeated if they are too few;
        `flaxunet.labels.PALETTE` if left out. Label 0 is black.
      orientation: EXIF orientation of the image that the upright labels belong to: they are stored as its
        pixels are, with the same tag, so that they lie over it whether or not a program heeds orientations.
      deep: write 16-bit gray whatever the labels are.
    Raises: ImageError if the path or the labels do not fit, or the file cannot be written.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or not labels.size or labels.dtype.kind not in "bui":
        raise ImageError(f"{path}: {labels.dtype}{list(labels.shape)}; expected labels (H, W) of integers")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > 65535:
        raise ImageError(f"{path}: labels between {low} and {high}; expected 0 to 65535")
    is_indexed = high < 256 and not deep
    stored = undo_orientation(labels, orientation)
    image = PIL.Image.fromarray(np.ascontiguousarray(stored, np.uint8 if is_indexed else np.uint16))
    if is_indexed:
        image.putpalette(colormap(palette or PALETTE).tobytes())
    write_png(path, image, orientation)


def write_png(path: StrPath, image: PIL.Image.Image, orientation: int = 1) -> None:
    """Writes a PNG file, whole or not at all; raises ImageError for another suffix, and if that fails."""
    if Path(path).suffix.lower() != ".png":
        raise ImageError(f"{path}: suffix {Path(path).suffix!r}; expected .png")
    exif = PIL.Image.Exif()
    if orientation != 1:
        exif[EXIF_ORIENTATION] = orientation
    file = io.BytesIO()
    image.save(file, format="PNG", exif=exif)
    try:
        write_whole(path, file.getvalue())
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None


@contextmanager
def _open(path: StrPath) -> Iterator[tuple[BinaryIO, str]]:
    """Opens a file of one of `FORMATS`, at its beginning; every error of reading names the file."""
    with name_errors(path):
        if not Path(path).is_file() and not Path(path).is_dir() and Path(path).exists():
            raise DecodeError("not a regular file")  # a pipe would keep its reader waiting
        with Path(path).open("rb") as file:
            start = file.read(_START)
            file.seek(0)
            if not start:
                raise DecodeError("an empty file")
            for kind, one in FORMATS.items():
                if start.startswith(one.magic, one.offset):
                    yield file, kind
                    return
        *titles, last = (one.title for one in FORMATS.values())
        raise DecodeError(f"unrecognised format; expected {', '.join(titles)} or {last}")
