"""A NIfTI file enters, its voxels and their place in the patient leave; and the way back, for labels."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from flaxunet.files import write_whole
from flaxunet.io.pixels import Pixels, PixelsError, check_size, choose, silence, unlogged

GZIP = b"\x1f\x8b"
# The size of the header, which a NIfTI file begins with: 348 or 540, in either order of bytes.
MAGIC = (GZIP, b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c")


def read_nifti(file: BinaryIO) -> tuple[Pixels, np.ndarray]:
    """The voxels of a .nii or .nii.gz file.

    Slope and intercept are applied, and then the numbers are floats. RGB and a fourth axis are channels.

    Returns: pixels (X, Y, Z, C) in the file's order, and the affine (4, 4) from their indices to mm right,
      front and up: the sform, else the qform, else, as nibabel has it, the spacing alone with x to the left.
    Raises: PixelsError for a .hdr without its data, and for what has more than four axes.
    """
    import nibabel  # not needed by those who read no volumes
    from nibabel.filebasedimages import ImageFileError

    with _opened(file) as stream:
        start = stream.read(348)
        stream.seek(0)
        kind = nibabel.Nifti2Image if start[4:8] in (b"n+2\0", b"ni2\0") else nibabel.Nifti1Image
        if (start[4:8] if kind is nibabel.Nifti2Image else start[344:348]) not in (b"n+1\0", b"n+2\0"):
            raise PixelsError("no NIfTI file, or a header apart from its data")
        try:
            with silence(), unlogged("nibabel.global"):
                image = kind.from_stream(stream)
        except ImageFileError as error:
            raise PixelsError(str(error)) from None
        data: Any = image.dataobj
        check_size(*data.shape)
        raw = data.slope == 1 and data.inter == 0
        array = np.asarray(data.get_unscaled() if raw else data)
    return Pixels(_with_channels(array)), np.asarray(image.affine, np.float64)


def read_slice(file: BinaryIO, page: int | None, *, mask: bool) -> Pixels:
    """One axial slice, the lowest first, as `planes.slices` shows it."""
    from flaxunet.io import planes  # which loads nibabel

    pixels, affine = read_nifti(file)
    cut = planes.slices(planes.to_ras(pixels.array, planes.orientation(affine)), "axial")
    return Pixels(cut[choose(page, len(cut))])


def write_nifti(path: str, array: np.ndarray, affine: np.ndarray) -> None:
    """Writes labels (X, Y, Z), in the smallest type that holds them, or floats (X, Y, Z, K), as float32.

    The path ends with .nii or .nii.gz.

    Raises: OSError if it cannot be written.
    """
    import nibabel

    dtype: type = np.float32
    if array.dtype.kind != "f":
        low, high = int(array.min()), int(array.max())
        fits = (np.iinfo(one) for one in (np.uint8, np.int16, np.int32))
        dtype = next(fit.dtype.type for fit in fits if fit.min <= low and high <= fit.max)
    image = nibabel.Nifti1Image(array.astype(dtype), affine)
    image.header.set_xyzt_units("mm")
    data = image.to_bytes()
    # Without a time stamp, so that the same labels are the same file.
    write_whole(path, gzip.compress(data, mtime=0) if path.lower().endswith(".gz") else data)


@contextmanager
def _opened(file: BinaryIO) -> Iterator[Any]:
    packed = file.read(2) == GZIP
    file.seek(0)
    if not packed:
        yield file
        return
    with gzip.GzipFile(fileobj=file) as stream:
        yield stream


def _with_channels(array: np.ndarray) -> np.ndarray:
    """(X, Y, Z, C) of what may have less or more axes."""
    if array.dtype.names:  # RGB, or RGB with alpha
        array = np.stack([array[name] for name in array.dtype.names[:3]], axis=-1)
    shape = array.shape[:3] + (1,) * (3 - array.ndim)
    rest = [size for size in array.shape[3:] if size > 1]
    if array.ndim < 2 or len(rest) > 1:
        raise PixelsError(f"axes of sizes {array.shape}")
    return array.reshape(*shape, *(rest or [1]))
