"""Cuts volumes into slices as a radiologist looks at them, and puts slices together again."""

import numpy as np

from flaxunet.io.pixels import DecodeError

# For each axis of slicing, the axes of an RAS volume that become slices, rows and columns.
AXES: dict[str, tuple[int, int, int]] = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
DEFAULT_AXIS = "axial"


def orientation(affine: np.ndarray) -> np.ndarray:
    """Finds the anatomical axis closest to each stored axis of a volume with an affine (4, 4) to RAS in mm.

    Returns: (3, 2) for each stored axis: 0 for right, 1 for front, 2 for head; and its direction, 1 or -1.
    Raises: DecodeError if an axis leads nowhere.
    """
    from nibabel import orientations

    axes = orientations.io_orientation(affine) if np.isfinite(affine).all() else np.full((3, 2), np.nan)
    if np.isnan(axes).any():
        raise DecodeError("an affine without three axes")
    return axes


def to_ras(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Transposes and mirrors (X, Y, Z, ...) so that indices grow to the right, the front and the head."""
    from nibabel import orientations

    return orientations.apply_orientation(array, orientation(affine))


def from_ras(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Undoes `to_ras`; the affine is that of the volume as stored."""
    from nibabel import orientations

    ras = np.array([[0, 1], [1, 1], [2, 1]])
    return orientations.apply_orientation(array, orientations.ornt_transform(ras, orientation(affine)))


def ras_affine(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The affine (4, 4) of what `to_ras` makes of an array of this shape."""
    from nibabel import orientations

    return affine @ orientations.inv_ornt_aff(orientation(affine), shape[:3])


def slice_spacing(affine: np.ndarray, axis: str) -> tuple[float, float, float]:
    """Millimetres between slices, rows and columns of what `slices` cuts from a volume with a stored affine.

    Raises: DecodeError as `orientation`, ValueError as `slices`.
    """
    steps = np.empty(3)
    steps[orientation(affine)[:, 0].astype(int)] = np.linalg.norm(affine[:3, :3], axis=0)
    depth, rows, columns = steps[list(_axes(axis))].tolist()
    return depth, rows, columns


def slices(voxels: np.ndarray, axis: str) -> np.ndarray:
    """Cuts a volume into slices.

    The patient's head, or in axial slices the front, is up. The patient's right is on the left; in sagittal
    slices the front is.

    Args:
      voxels: (X, Y, Z, ...) whose indices grow to the patient's right, front and head.
      axis: "axial" (from the feet up), "coronal" (from the back to the front) or "sagittal" (from the left
        to the right).
    Returns: (N, H, W, ...), a view.
    Raises: ValueError for another axis.
    """
    return voxels.transpose(*_axes(axis), *range(3, voxels.ndim))[:, ::-1, ::-1]


def stack(images: np.ndarray, axis: str) -> np.ndarray:
    """Undoes `slices`: (N, H, W, ...) to (X, Y, Z, ...)."""
    order = np.argsort(_axes(axis))
    return images[:, ::-1, ::-1].transpose(*order, *range(3, images.ndim))


def _axes(axis: str) -> tuple[int, int, int]:
    if axis not in AXES:
        raise ValueError(f"unknown axis {axis!r}; expected one of {', '.join(AXES)}")
    return AXES[axis]
