"""Groups the samples of a dataset to units: images, and volumes with their slices, each scored as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flaxunet.data import DataError, Record
from flaxunet.io import dicom, planes, volumes


@dataclass(frozen=True)
class Unit:
    """An image, or a volume with its slices in order.

    Attributes:
      name: of the image or the volume.
      group: the patient, or another group of similar units; None if it is not known.
      records: one of an image, all slices of a volume.
      axis: the plane of the slices of a volume; None for an image.
      spacing: size of a pixel along rows and columns, of a volume along slices first; None if not known.
    """

    name: str
    group: str | None
    records: tuple[Record, ...]
    axis: str | None
    spacing: tuple[float, ...] | None

    @property
    def dimensions(self) -> int:
        """2 of an image, 3 of a volume."""
        return 2 if self.axis is None else 3


def group_records(
    records: Sequence[Record], *, volumes: bool, axis: str, grouped: bool, spacing: Sequence[float] | None
) -> list[Unit]:
    """Make units of records.

    Args:
      records: of a dataset.
      volumes: whether they are slices of volumes to be scored whole; else each record is a unit.
      axis: the plane of the slices.
      grouped: whether the groups of slices are more than the volumes that they belong to.
      spacing: in mm, instead of that in the files: one number for all axes, or one for each axis of a unit.
    Returns: units in the order of the records.
    Raises: ValueError if the spacing has another number of values; DataError if only some files have one.
    """
    parts: dict[Any, list[Record]] = {}
    for number, record in enumerate(records):
        parts.setdefault((record.split, record.mask) if volumes else number, []).append(record)
    dimensions, units = 3 if volumes else 2, []
    for first, *others in parts.values():
        steps = _stored_spacing(first, axis) if spacing is None else _spacing_of_option(spacing, dimensions)
        unit = Unit(
            name=first.name.rpartition("/")[0] if volumes else first.name,
            group=first.group if grouped or not volumes else None,
            records=(first, *others),
            axis=axis if volumes else None,
            spacing=None if steps is None else steps[-dimensions:],
        )
        units.append(unit)
    without = [unit.records[0].image_location for unit in units if unit.spacing is None]
    if without and len(without) < len(units):
        expected = "expected one as in other files, or --spacing"
        raise DataError([f"{image}: no pixel spacing; {expected}" for image in without])
    return units


def _spacing_of_option(spacing: Sequence[float], dimensions: int) -> tuple[float, ...]:
    steps = tuple(spacing) * dimensions if len(spacing) == 1 else tuple(spacing)
    if len(steps) != dimensions or not all(np.isfinite(step) and step > 0 for step in steps):
        values = " ".join(f"{step:g}" for step in spacing)
        axes = "rows and columns" if dimensions == 2 else "slices, rows and columns"
        raise ValueError(f"--spacing is {values}; expected one number > 0, or {dimensions}, for {axes}")
    return steps


def _stored_spacing(record: Record, axis: str) -> tuple[float, ...] | None:
    """Millimetres along slices, rows and columns of a volume, along rows and columns of a DICOM image."""
    if volumes.is_volume_file(record.mask):
        return planes.slice_spacing(volumes.read_header(record.mask)[1], axis)
    steps = (dicom.read_spacing(path) for path in (record.image, record.mask) if path.is_file())
    return next((step for step in steps if step is not None), None)
