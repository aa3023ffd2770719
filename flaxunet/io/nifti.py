"""Reads the voxels of NIfTI files and their place in the patient, and writes them."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, BinaryIO

import numpy as np

from flaxunet.files import write_whole
from flaxunet.io import planes
from flaxunet.io.pixels import DecodedPixels, DecodeError, check_size, quiet, select_page

_GZIP = b"\x1f\x8b"
# The size of the header, which a NIfTI file begins with: 348 or 540, in either byte order.
MAGIC = (_GZIP, b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c")


@contextmanager
def open_nifti(file: BinaryIO) -> Iterator[Any]:
    """Opens a NIfTI file, compressed or not, of which only the header is read at first.

    Yields: a nibabel image. Its affine (4, 4) leads from indices to mm right, front and up: the sform, else
      the qform, else, as nibabel has it, the spacing alone with x to the left.
    Raises: DecodeError for another kind of file, and for a .hdr file without its data.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    is_compressed = file.read(2) == _GZIP
    file.seek(0)
    content: Any = gzip.GzipFile(fileobj=file) if is_compressed else nullcontext(file)
    with content as stream:
        start = stream.read(348)
        stream.seek(0)
        nifti2 = start[4:8] in (b"n+2\0", b"ni2\0")
        if (start[4:8] if nifti2 else start[344:348]) not in (b"n+1\0", b"n+2\0"):
            raise DecodeError("not a NIfTI file, or a header apart from its data")
        try:
            with quiet("nibabel.global"):
                image = (nibabel.Nifti2Image if nifti2 else nibabel.Nifti1Image).from_stream(stream)
        except ImageFileError as error:
            raise DecodeError(str(error)) from None
        yield image


def read_voxels(image: Any) -> np.ndarray:
    """Reads the voxels of an image that `open_nifti` has opened.

    Slope and intercept are applied, and then the numbers are float64. RGB and a fourth axis are channels.

    Returns: (X, Y, Z, C) in the file's order.
    Raises: DecodeError for more than four axes.
    """
    data = image.dataobj
    is_unscaled = data.slope == 1 and data.inter == 0
    array = np.asarray(data.get_unscaled() if is_unscaled else data)
    if array.dtype.names:  # RGB, or RGB with alpha
        array = np.stack([array[name] for name in array.dtype.names[:3]], axis=-1)
    channels = [size for size in array.shape[3:] if size > 1]
    if array.ndim < 2 or len(channels) > 1:
        raise DecodeError(f"axes of sizes {array.shape}; expected three, and a fourth for channels")
    return array.reshape(*array.shape[:3], *(1,) * (3 - array.ndim), *(channels or [1]))


def read_nifti(file: BinaryIO) -> tuple[DecodedPixels, np.ndarray]:
    """Reads the voxels and the affine (4, 4) of a file of at most `pixels.MAX_VALUES` voxels."""
    with open_nifti(file) as image:
        check_size(*image.shape)
        return DecodedPixels(read_voxels(image)), np.asarray(image.affine, np.float64)


def read_slice(file: BinaryIO, page: int | None, *, mask: bool) -> DecodedPixels:
    """Reads one axial slice, the lowest first, as `planes.slices` shows it."""
    pixels, affine = read_nifti(file)
    slices = planes.slices(planes.to_ras(pixels.array, affine), "axial")
    return DecodedPixels(slices[select_page(page, len(slices))])


def nifti_dtype(file: BinaryIO) -> str:
    """The type of the stored values, by the header."""
    with open_nifti(file) as image:
        return str(image.get_data_dtype())


def write_nifti(path: str, array: np.ndarray, affine: np.ndarray) -> None:
    """Writes a file, whole or not at all.

    Args:
      path: ends with .nii or .nii.gz.
      array: labels (X, Y, Z), for the smallest type that holds them, or floats (X, Y, Z, K), for float32.
    Raises: OSError if it cannot be written.
    """
    import nibabel

    dtype = np.dtype(np.float32)
    if array.dtype.kind != "f":
        ranges = map(np.iinfo, (np.uint8, np.int16, np.int32))
        dtype = next(one.dtype for one in ranges if one.min <= array.min() and array.max() <= one.max)
    image = nibabel.Nifti1Image(array.astype(dtype), affine)
    image.header.set_xyzt_units("mm")
    data = image.to_bytes()
    # Without a time stamp, so that the same labels are the same file.
    write_whole(path, gzip.compress(data, mtime=0) if path.lower().endswith(".gz") else data)
