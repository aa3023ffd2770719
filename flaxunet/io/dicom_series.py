"""Stacks the DICOM files of a series into a volume."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flaxunet.io.dicom import NoPixelsError, decode_frame, has_magic, is_rescaled, read_dataset
from flaxunet.io.pixels import DecodedPixels, DecodeError, check_size, name_errors, quiet

_SPACING_TOLERANCE = 0.1  # of the usual distance: positions are rounded, and a missing slice makes it 1


def is_series(paths: Iterable[Path]) -> bool:
    """Whether several DICOM files are one series of slices in a patient; False without pydicom."""
    try:
        import pydicom
    except ImportError:
        return False
    tags = ["SeriesInstanceUID", "ImagePositionPatient", "Rows"]
    series, slices = set(), 0
    with quiet("pydicom"):
        for path in paths:
            try:
                dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
            except Exception:  # a damaged file does not decide
                continue
            if "Rows" in dataset:
                series.add(str(dataset.get("SeriesInstanceUID", "")))
                slices += "ImagePositionPatient" in dataset
    return len(series) == 1 and slices > 1


def read_series(folder: Path, *, mask: bool) -> tuple[DecodedPixels, np.ndarray]:
    """Reads the slices of a folder, sorted by their positions; names and instance numbers play no part.

    Objects other than images are skipped, and so are files that are not DICOM, unless their suffix is .dcm.

    Returns: pixels (X, Y, Z, C): columns, rows and slices as stored; and the affine (4, 4) from their
      indices to mm right, front and up.
    Raises: DecodeError, which names the file or the series, for several series or frames, and for slices that
      differ in size, orientation or spacing, lie at the same place or are missing.
    """
    with quiet("pydicom"):
        return _stack(_find_slices(folder), mask=mask)


@dataclass(frozen=True)
class _Slice:
    """A file of a series."""

    name: str
    dataset: Any
    layout: tuple[int, ...]  # rows, columns and samples per pixel
    axes: (
        np.ndarray
    )  # (3, 2), steps in mm left, back and up, from a column to the next and from a row to the next
    position: np.ndarray  # (3,) of the first pixel, in mm left, back and up


def _find_slices(folder: Path) -> list[_Slice]:
    """The slices of the one series in a folder, in the order of their names."""
    series: dict[str, list[_Slice]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        is_visible = path.is_file() and not path.name.startswith(".")
        if is_visible and (slice_ := _read_slice(path)) is not None:
            series[str(slice_.dataset.get("SeriesInstanceUID", ""))].append(slice_)
    if len(series) != 1:
        listed = "".join(f", {len(files)} from {files[0].name}" for files in series.values())
        raise DecodeError(f"{len(series)} DICOM series{listed}; expected one")
    return next(iter(series.values()))


def _read_slice(path: Path) -> _Slice | None:
    with path.open("rb") as file:
        if not has_magic(file):
            if path.suffix.lower() == ".dcm":
                raise DecodeError(f"{path.name} is not a DICOM file")
            return None
        with name_errors(path.name, DecodeError):
            try:
                dataset = read_dataset(file)
            except NoPixelsError as error:
                if "Image Storage" in error.object_class:
                    raise
                return None
    try:
        orientation = np.array(dataset.ImageOrientationPatient, np.float64).reshape(2, 3)
        position = np.array(dataset.ImagePositionPatient, np.float64).reshape(3)
        down, across = map(float, dataset.PixelSpacing)  # between rows, between columns
        layout = (int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel))
    except (AttributeError, TypeError, ValueError):
        raise DecodeError(f"{path.name} has no position, orientation or spacing") from None
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise DecodeError(f"{path.name} has several frames")
    return _Slice(path.name, dataset, layout, orientation.T * [across, down], position)


def _stack(slices: list[_Slice], *, mask: bool) -> tuple[DecodedPixels, np.ndarray]:
    first = slices[0]
    for one in slices:
        if one.layout != first.layout or not np.allclose(one.axes, first.axes, atol=1e-3):
            raise DecodeError(f"{one.name} has another size, spacing or orientation than {first.name}")
    normal = np.cross(first.axes[:, 0], first.axes[:, 1])
    normal /= np.linalg.norm(normal)
    slices.sort(key=lambda one: float(one.position @ normal))
    _check_spacing(slices, np.array([one.position @ normal for one in slices]))
    check_size(len(slices), *first.layout)
    unit = any(is_rescaled(one.dataset, 0) for one in slices)
    images = []
    for one in slices:
        with name_errors(one.name, DecodeError):
            images.append(decode_frame(one.dataset, 0, mask=mask, unit=unit))
    array = np.stack([image.array for image in images]).transpose(2, 1, 0, 3)
    step = normal * float(first.dataset.get("SliceThickness") or 1)
    if len(slices) > 1:
        step = (slices[-1].position - slices[0].position) / (len(slices) - 1)
    affine = np.eye(4)
    affine[:3, :2], affine[:3, 2], affine[:3, 3] = first.axes, step, slices[0].position
    # DICOM's axes point to the patient's left and back.
    return DecodedPixels(array, images[0].white), np.diag([-1, -1, 1, 1]) @ affine


def _check_spacing(slices: list[_Slice], heights: np.ndarray) -> None:
    """Raises DecodeError where two slices are at one place, or farther apart than the others."""
    gaps = np.diff(heights)
    usual = np.median(gaps) if gaps.size else 0.0
    for before, after, gap in zip(slices, slices[1:], gaps, strict=False):
        if gap <= 1e-3:
            raise DecodeError(f"{before.name} and {after.name} are at the same place")
        if abs(gap - usual) > _SPACING_TOLERANCE * usual:
            raise DecodeError(f"{gap:g} mm between {before.name} and {after.name}, and mostly {usual:g} mm")
