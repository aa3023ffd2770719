"""A grid of voxels enters in any order; slices as a radiologist looks at them leave, and go back."""

import numpy as np
from nibabel import orientations

from flaxunet.io.pixels import PixelsError

# For each plane, the axes of a grid whose axes point right, front and up: across the plane, down, across.
PLANES: dict[str, tuple[int, int, int]] = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
USUAL = "axial"
"""The plane that is taken where nothing says another one."""


def orientation(affine: np.ndarray) -> np.ndarray:
    """(3, 2): for each stored axis, to which of right, front and up it is closest, and 1 or -1.

    Args:
      affine: (4, 4) from indices of voxels to mm, whose axes point right, front and up (RAS).
    Raises: PixelsError if an axis leads nowhere.
    """
    found = orientations.io_orientation(affine) if np.isfinite(affine).all() else np.full((3, 2), np.nan)
    if np.isnan(found).any():
        raise PixelsError("an affine without three axes")
    return found


def to_ras(array: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Turns and mirrors (X, Y, Z, ...) so that indices grow to the right, the front and up."""
    return orientations.apply_orientation(array, stored)


def from_ras(array: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Undoes `to_ras`."""
    right_front_up = np.array([[0, 1], [1, 1], [2, 1]])
    return orientations.apply_orientation(array, orientations.ornt_transform(right_front_up, stored))


def ras_affine(affine: np.ndarray, stored: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The affine of what `to_ras` makes of an array of a shape."""
    return affine @ orientations.inv_ornt_aff(stored, shape[:3])


def slices(voxels: np.ndarray, plane: str) -> np.ndarray:
    """Cut a volume into pictures.

    The patient's head, or in axial slices the front, is up. The patient's right is on the left; in sagittal
    slices the front is.

    Args:
      voxels: (X, Y, Z, ...) whose indices grow to the patient's right, front and head.
      plane: "axial" (from the feet up), "coronal" (from the back to the front) or "sagittal" (from the left
        to the right).
    Returns: (N, H, W, ...), a view.
    Raises: ValueError for another plane.
    """
    order = _order(plane)
    return voxels.transpose(*order, *range(3, voxels.ndim))[:, ::-1, ::-1]


def stack(pictures: np.ndarray, plane: str) -> np.ndarray:
    """Undoes `slices`: (N, H, W, ...) to (X, Y, Z, ...)."""
    order = np.argsort(_order(plane))
    return pictures[:, ::-1, ::-1].transpose(*order, *range(3, pictures.ndim))


def _order(plane: str) -> tuple[int, int, int]:
    if plane not in PLANES:
        raise ValueError(f"unknown plane {plane!r}; known are {', '.join(PLANES)}")
    return PLANES[plane]
