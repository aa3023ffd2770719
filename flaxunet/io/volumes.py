"""Reads volumes from NIfTI files and folders of DICOM files, and writes labels that belong to them."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaxunet.io import dicom, nifti, planes
from flaxunet.io.images import VOLUME_SUFFIXES, StrPath
from flaxunet.io.pixels import ImageError, name_errors, to_image, to_labels
from flaxunet.preprocessing import channel_range, rescale


@dataclass(frozen=True)
class Volume:
    """Voxels whose indices grow to the patient's right, front and head (RAS), or nearly so.

    Axes are exchanged and mirrored; nothing is resampled, so oblique scans stay oblique.

    Attributes:
      voxels: (X, Y, Z, C) float32 of an image, or (X, Y, Z) int32 of labels.
      affine: (4, 4) float64, from indices of these voxels to mm right, front and up.
      stored_affine: (4, 4) float64 of the file.
    """

    voxels: np.ndarray
    affine: np.ndarray
    stored_affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from a voxel to the next, along each axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z


def read_volume(path: StrPath) -> Volume:
    """Reads an image: numbers as `flaxunet.io.read_image` gives them, rescaled ones in the file's unit.

    Args:
      path: a .nii or .nii.gz file, or a folder with the DICOM files of one series (needs the medical extra).
    Returns: voxels (X, Y, Z, C) float32.
    Raises: ImageError if it cannot be read whole, has NaN or infinite voxels, or no orientation.
    """
    return _read_volume(path, mask=False)


def read_volume_mask(path: StrPath) -> Volume:
    """Reads labels: whole numbers of one channel; `path` is as of `read_volume`.

    Returns: voxels (X, Y, Z) int32.
    Raises: ImageError as `read_volume`, and for fractions, several channels, and labels beyond int32.
    """
    return _read_volume(path, mask=True)


def _read_volume(path: StrPath, *, mask: bool) -> Volume:
    with name_errors(path):
        if Path(path).is_dir():
            pixels, affine = dicom.read_series(Path(path), mask=mask)
        else:
            with Path(path).open("rb") as file:
                pixels, affine = nifti.read_nifti(file)
        ras_affine = planes.ras_affine(affine, pixels.array.shape)
        return Volume(planes.to_ras((to_labels if mask else to_image)(pixels), affine), ras_affine, affine)


def is_volume_file(path: StrPath) -> bool:
    """Whether a file's name has the suffix of a format of volumes."""
    return os.fspath(path).lower().endswith(VOLUME_SUFFIXES)


def read_header(path: StrPath) -> tuple[tuple[int, ...], np.ndarray]:
    """Reads the header of a NIfTI file.

    Returns: the sizes of its axes as stored, and its affine (4, 4) from their indices to mm.
    Raises: DecodeError, or what a decoder raises for a damaged file.
    """
    with Path(path).open("rb") as file, nifti.open_nifti(file) as image:
        return image.shape, np.asarray(image.affine, np.float64)


def read_ras_voxels(path: StrPath) -> np.ndarray:
    """Reads the voxels of a NIfTI file of any size as they are stored, except for the order of the axes.

    Returns: (X, Y, Z, C) of any dtype, whose indices grow to the right, the front and the head.
    Raises: as `read_header`.
    """
    with Path(path).open("rb") as file, nifti.open_nifti(file) as image:
        return planes.to_ras(nifti.read_voxels(image), image.affine)


def training_slices(volume: Volume, axis: str, intensity: str) -> np.ndarray:
    """Cuts an image into slices with the values that the nifti layout gives to training.

    For the intensity "dtype", the smallest value of each channel of the volume becomes 0 and the largest 1,
    whatever its unit. The other intensities normalise each slice later, and keep the values here.

    Args:
      volume, axis: with voxels (X, Y, Z, C); as of `planes.slices`.
      intensity: which `flaxunet.preprocessing.normalize_intensity` will apply to the slices.
    Returns: (N, H, W, C) float32.
    Raises: ValueError for another axis.
    """
    voxels = volume.voxels
    return planes.slices(rescale(voxels, *channel_range(voxels)) if intensity == "dtype" else voxels, axis)


def write_volume_mask(path: StrPath, labels: np.ndarray, like: Volume) -> None:
    """Writes labels as NIfTI in the axis order and with the affine of the file that a volume was read from.

    Args:
      path: ends with .nii or .nii.gz; the file appears whole or not at all.
      labels, like: (X, Y, Z) integers; the image of the same shape that they belong to.
    Raises: ImageError if path or labels do not fit, or the file cannot be written.
    """
    if not is_volume_file(path):
        raise ImageError(f"{path}: another suffix; expected {' or '.join(VOLUME_SUFFIXES)}")
    shape, expected = list(labels.shape), list(like.voxels.shape[:3])
    if shape != expected or labels.dtype.kind not in "bui":
        raise ImageError(f"{path}: {labels.dtype}{shape}; expected integers{expected}")
    write_volume(path, labels, like)


def write_volume(path: StrPath, array: np.ndarray, like: Volume) -> None:
    """Writes labels (X, Y, Z), or probabilities (X, Y, Z, K) as float32, as `write_volume_mask` does."""
    try:
        nifti.write_nifti(os.fspath(path), planes.from_ras(array, like.stored_affine), like.stored_affine)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from None
