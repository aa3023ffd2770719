"""Files of pictures enter, float32 images or int32 labels leave; and files of labels are written.

PNG, JPEG, TIFF, DICOM and NIfTI are told apart by their content. `flaxunet.preprocessing` makes of an image
what a network expects; `flaxunet.io.volumes` reads whole volumes.
"""

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL.Image

from flaxunet.files import write_whole
from flaxunet.io import dicom, nifti, tiff
from flaxunet.io import png_jpeg as raster
from flaxunet.io.pixels import Pixels, PixelsError, as_stored, reason, to_image, to_labels
from flaxunet.labels import PALETTE, Color, colormap

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm")

StrPath = str | os.PathLike[str]
DISTINCT = 32
"""What two colours of a mask differ by at least, in one of red, green and blue, if they are to be used."""

_KINDS = "one PNG, JPEG, TIFF, DICOM or NIfTI picture"
_IMAGE = f"{_KINDS} of gray, RGB or other channels, in integers or finite floats"
_MASK = f"{_KINDS} (but no JPEG) with one channel (or equal ones) of whole numbers"


class ImageError(ValueError):
    """A file that cannot be used, or written; the message is one line and starts with the file's path."""


def read_image(path: StrPath, *, page: int | None = None) -> np.ndarray:
    """Read an image, upright (EXIF orientation applied), with one, three or any number of channels.

    Integers are divided by the largest value of their type, not of the picture: 1 for 1 bit, 255 for 8 bit,
    65535 for 16 bit (so a 12-bit camera's picture in a 16-bit file stays below 0.0625). Floats are taken as
    they are, whatever their range; `flaxunet.preprocessing.apply` comes next, and refuses what does not suit
    a network. Palettes are looked up. Alpha is dropped, not blended: colours hidden under it show.

    Args:
      path: a PNG (1 to 16 bit), JPEG (gray or RGB), TIFF (1 to 64 bit or float, channels first or last),
        DICOM (see `flaxunet.io.dicom`; needs the medical extra) or NIfTI file; its content tells, not
        its name.
      page: which picture of several, from 0: of a TIFF stack in the order of the file, of a DICOM file its
        frame, of a NIfTI file its axial slice, the lowest first. None: the file must hold only one.
    Returns: (H, W, C) float32, in [0, 1] if the file has unsigned integers.
    Raises: ImageError if the file is missing, damaged, of another kind, holds several pictures and no page is
      given, announces more than `pixels.MAX_VALUES` values, or has NaN or infinite pixels.
    """
    return read_picture(path, page=page).image


@dataclass(frozen=True)
class Picture:
    """An image, and what is needed to write labels that lie over its file.

    Attributes:
      image: (H, W, C) float32, upright.
      orientation: EXIF's, 1 to 8, which has made it upright.
      spacing: mm from row to row and from column to column of the upright image; None where unknown.
    """

    image: np.ndarray
    orientation: int = 1
    spacing: tuple[float, float] | None = None


def read_picture(path: StrPath, *, page: int | None = None) -> Picture:
    """What `read_image` reads, with the orientation and the spacing of its file; raises as it does."""
    try:
        pixels = _read(path, page, mask=False)
        turned = pixels.orientation if pixels.orientation in range(1, 9) else 1
        return Picture(to_image(pixels), turned, pixels.spacing)
    except Exception as error:
        raise _named(path, error, _IMAGE) from error


def kind(path: StrPath) -> str:
    """By its content: "png", "jpeg", "tiff", "dicom" or "nifti". Raises ImageError for anything else."""
    try:
        with _opened(path) as file:
            return _kind(file)
    except Exception as error:
        raise _named(path, error, _IMAGE) from error


def count(path: StrPath) -> int:
    """How many pictures a file holds, of which `page` chooses one; but 1 of NIfTI. Raises ImageError."""
    try:
        with _opened(path) as file:
            counts = {"tiff": tiff.count, "dicom": dicom.count}.get(_kind(file))
            return counts(file) if counts else 1
    except Exception as error:
        raise _named(path, error, _IMAGE) from error


def read_mask(path: StrPath, *, page: int | None = None) -> np.ndarray:
    """Read a label mask: the stored numbers as they are, upright (EXIF orientation applied).

    A palette's indices are the labels, whatever its colours. 1-bit masks give 0 and 1. Floats must be whole.
    Alpha is dropped, and several channels count as one if they are equal.

    Args:
      path: as of `read_image`. JPEG, the file or a TIFF's compression, is refused: it blurs labels.
      page: as of `read_image`.
    Returns: (H, W) int32; negative labels of signed files are kept.
    Raises: ImageError as `read_image`, and for JPEG, unequal channels, fractions, and labels beyond int32.
    """
    try:
        return to_labels(_read(path, page, mask=True))
    except Exception as error:
        raise _named(path, error, _MASK) from error


def mask_colors(path: StrPath, classes: int) -> tuple[Color, ...] | None:
    """RGB colours, from 0 to 255, in which an indexed mask shows the labels 1 to K - 1.

    None if it is not indexed or its colours can hardly be told apart, as those of a gray ramp.
    """
    try:
        with PIL.Image.open(path) as picture:
            stored = (picture.getpalette("RGB") or []) if picture.mode == "P" else []
    except Exception:  # whatever it is, it tells no colours
        return None
    colors = np.array(stored[: 3 * classes], int).reshape(-1, 3)
    if len(colors) < classes:
        return None
    apart = np.abs(colors[:, None] - colors[None]).max(-1) + 255 * np.eye(classes, dtype=int)
    return tuple((int(r), int(g), int(b)) for r, g, b in colors[1:]) if apart.min() >= DISTINCT else None


def write_mask(
    path: StrPath,
    labels: np.ndarray,
    palette: Sequence[Color] | None = None,
    *,
    orientation: int = 1,
    deep: bool = False,
) -> None:
    """Write labels as an indexed PNG: the stored numbers are the labels, its palette shows them in colours.

    Labels beyond 255, such as instance ids, make it a 16-bit gray PNG without colours. Either is what
    `read_mask` reads back. The file appears whole or not at all, and takes the place of an older one.

    Args:
      path: ends with .png.
      labels: (H, W) integers or booleans in 0..65535.
      palette: RGB colours of labels 1, 2, ..., from 0 to 255 and repeated if they are too few;
        `flaxunet.labels.PALETTE` if left out. Label 0 is black.
      orientation: EXIF's of the picture that the upright labels belong to: they are stored as its pixels are,
        with the same tag, so that they lie over it whether or not a program heeds orientations.
      deep: write 16-bit gray whatever the labels are.
    Raises: ImageError if the path or the labels do not fit, or the file cannot be written.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or not labels.size or labels.dtype.kind not in "bui":
        raise ImageError(f"{path}: {labels.dtype}{list(labels.shape)}; accepted are (H, W) integers")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > 65535:
        raise ImageError(f"{path}: labels between {low} and {high}; accepted are 0 to 65535")
    indexed = high < 256 and not deep
    stored = np.ascontiguousarray(as_stored(labels, orientation), np.uint8 if indexed else np.uint16)
    picture = PIL.Image.fromarray(stored)
    if indexed:
        picture.putpalette(colormap(palette or PALETTE).tobytes())
    write_png(path, picture, orientation)


def _named(path: StrPath, error: Exception, accepted: str) -> ImageError:
    """The one-line error."""
    name = " ".join(str(path).splitlines())  # a name may have several lines, an error has one
    return ImageError(f"{name}: {reason(error)}; accepted is {accepted}")


def _read(path: StrPath, page: int | None, *, mask: bool) -> Pixels:
    """What a file of any kind holds."""
    readers: dict[str, Callable[..., Pixels]] = {
        "png": raster.read_png,
        "jpeg": raster.read_jpeg,
        "dicom": dicom.read_dicom,
        "tiff": tiff.read_tiff,
        "nifti": nifti.read_slice,
    }
    with _opened(path) as file:
        return readers[_kind(file)](file, page, mask=mask)


def _opened(path: StrPath) -> BinaryIO:
    if not Path(path).is_file() and not Path(path).is_dir() and Path(path).exists():
        raise PixelsError("no file of bytes")  # a pipe would keep its reader waiting
    return Path(path).open("rb")


def _kind(file: BinaryIO) -> str:
    """By the first bytes; the file is then at its beginning again."""
    start = file.read(dicom.PREAMBLE + 4)
    file.seek(0)
    if not start:
        raise PixelsError("an empty file")
    if start[dicom.PREAMBLE :] == dicom.MAGIC and not start.startswith((raster.PNG, raster.JPEG)):
        return "dicom"
    magic = {"png": raster.PNG, "jpeg": raster.JPEG, "tiff": tiff.MAGIC, "nifti": nifti.MAGIC}
    found = next((kind for kind, begins in magic.items() if start.startswith(begins)), None)
    if found is None:
        raise PixelsError("neither PNG nor JPEG, TIFF, DICOM or NIfTI")
    return found


def write_png(path: StrPath, picture: PIL.Image.Image, orientation: int = 1) -> None:
    """Save a PNG, whole or not at all."""
    if Path(path).suffix.lower() != ".png":
        raise ImageError(f"{path}: the suffix {Path(path).suffix!r}; accepted is .png")
    file = io.BytesIO()
    exif = PIL.Image.Exif()
    if orientation != 1:
        exif[raster.ORIENTATION] = orientation
    picture.save(file, format="PNG", **({"exif": exif} if len(exif) else {}))
    try:
        write_whole(path, file.getvalue())
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}; accepted is where a file can be written") from None
