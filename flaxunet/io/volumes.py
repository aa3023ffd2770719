"""A NIfTI file or a folder of DICOM files enters, a volume leaves; and labels go back."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaxunet import preprocessing as intensity
from flaxunet.io import dicom, nifti, planes
from flaxunet.io.images import ImageError
from flaxunet.io.pixels import Pixels, reason, to_image, to_labels

SUFFIXES = (".nii", ".nii.gz")

_ACCEPTED = "a NIfTI file (.nii, .nii.gz) or a folder with one DICOM series"

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Volume:
    """Voxels whose indices grow to the patient's right, front and head (RAS), or nearly so.

    Axes are exchanged and mirrored; nothing is resampled, so oblique scans stay oblique. `planes.slices` cuts
    the voxels into pictures, `planes.stack` puts pictures together again.

    Attributes:
      voxels: (X, Y, Z, C) float32 of an image, or (X, Y, Z) int32 of labels.
      affine: (4, 4) float64, from indices of these voxels to mm right, front and up.
      stored_affine: (4, 4) float64 of the file.
      stored_axes: (3, 2) float64, to which of these axes each of the file's is closest, and its sign.
    """

    voxels: np.ndarray
    affine: np.ndarray
    stored_affine: np.ndarray
    stored_axes: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from a voxel to the next, along each axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z


def read_volume(path: StrPath) -> Volume:
    """Read an image: numbers as `flaxunet.io.images.read_image` gives them, rescaled ones in the file's unit.

    Args:
      path: a .nii or .nii.gz file, or a folder with the DICOM files of one series (needs the medical extra).
    Returns: the volume; voxels (X, Y, Z, C) float32.
    Raises: ImageError if it cannot be read whole, has NaN or infinite voxels, or lies nowhere.
    """
    return _volume(path, mask=False)


def read_labels(path: StrPath) -> Volume:
    """Read labels: whole numbers of one channel.

    Args:
      path: as of `read_volume`.
    Returns: the volume; voxels (X, Y, Z) int32.
    Raises: ImageError as `read_volume`, and for fractions, several channels, and labels beyond int32.
    """
    return _volume(path, mask=True)


def pictures(volume: Volume, plane: str, name: str) -> np.ndarray:
    """Slices of an image as the layout nifti gives them to training.

    With intensity "dtype", of each channel the volume's smallest value becomes 0 and its largest 1, whatever
    its unit is. The other intensities find a range of their own in every slice, and leave the values alone.

    Args:
      volume: of voxels (X, Y, Z, C).
      plane: as of `planes.slices`.
      name: of the intensity that `flaxunet.preprocessing.apply` gives the slices then.
    Returns: (N, H, W, C) float32.
    Raises: ValueError for another plane.
    """
    voxels = volume.voxels
    if name == "dtype":
        voxels = intensity.between(voxels, *intensity.ends(voxels))
    return planes.slices(voxels, plane)


def write_labels(path: StrPath, labels: np.ndarray, like: Volume) -> None:
    """Write labels as NIfTI in the order and with the affine of the file that a volume was read from.

    Args:
      path: ends with .nii or .nii.gz; the file appears whole or not at all.
      labels: (X, Y, Z) integers, of the shape of `like.voxels`.
      like: the image that they belong to.
    Raises: ImageError if path or labels do not fit, or the file cannot be written.
    """
    if not str(path).lower().endswith(SUFFIXES):
        raise ImageError(f"{path}: another suffix; accepted are {', '.join(SUFFIXES)}")
    if labels.shape != like.voxels.shape[:3] or labels.dtype.kind not in "bui":
        given = f"{labels.dtype}{list(labels.shape)}"
        raise ImageError(f"{path}: {given}; accepted are integers{list(like.voxels.shape[:3])}")
    _write(path, labels, like)


def write_probabilities(path: StrPath, probabilities: np.ndarray, like: Volume) -> None:
    """Write probabilities (X, Y, Z, K), as float32, in the way of `write_labels`."""
    _write(path, np.asarray(probabilities, np.float32), like)


def _write(path: StrPath, array: np.ndarray, like: Volume) -> None:
    try:
        nifti.write_nifti(os.fspath(path), planes.from_ras(array, like.stored_axes), like.stored_affine)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}; accepted is where a file can be written") from None


def _volume(path: StrPath, *, mask: bool) -> Volume:
    try:
        pixels, affine = _read(Path(path), mask=mask)
        stored = planes.orientation(affine)
        voxels = (to_labels if mask else to_image)(pixels)
    except Exception as error:
        raise ImageError(f"{path}: {reason(error)}; accepted is {_ACCEPTED}") from error
    shape = pixels.array.shape
    return Volume(planes.to_ras(voxels, stored), planes.ras_affine(affine, stored, shape), affine, stored)


def _read(path: Path, *, mask: bool) -> tuple[Pixels, np.ndarray]:
    if path.is_dir():
        return dicom.read_series(path, mask=mask)
    with path.open("rb") as file:
        return nifti.read_nifti(file)
