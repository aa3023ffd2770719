"""The samples of a layout enter; images and volumes, each of which is scored as one, leave."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaxunet.data import DataError, Record
from flaxunet.io import dicom, planes, volumes


@dataclass(frozen=True)
class Unit:
    """An image, or a volume with its slices in order.

    Attributes:
      name: of the image or the volume.
      group: the patient, or whatever it has in common with others; None if that is not known.
      records: one of an image, all slices of a volume.
      axis: of the slices of a volume, None for an image.
      spacing: from a pixel to the next, along rows and columns, before them along slices; None if not known.
    """

    name: str
    group: str | None
    records: tuple[Record, ...]
    axis: str | None
    spacing: tuple[float, ...] | None

    @property
    def dimensions(self) -> int:
        """Two of an image, three of a volume."""
        return 2 if self.axis is None else 3


def gather(
    records: Sequence[Record], *, volumes: bool, axis: str, grouped: bool, spacing: Sequence[float] | None
) -> list[Unit]:
    """Put slices together.

    Args:
      records: as a layout finds them.
      volumes: whether they are slices of volumes that are scored as one; else each record is a unit.
      axis: of the slices.
      grouped: whether the groups of slices say more than which volume they are from.
      spacing: in mm, instead of what the files say: one number for all axes, or one for each axis of a unit.
    Returns: units in the order of the records.
    Raises: ValueError if the spacing has another number of values; DataError if some files tell their spacing
      and others do not.
    """
    found: dict[tuple[str | None, Path], list[Record]] = {}
    if volumes:
        for record in records:
            found.setdefault((record.split, record.mask), []).append(record)
    parts = [tuple(part) for part in found.values()] if volumes else [(record,) for record in records]
    units = []
    for part in parts:
        first = part[0]
        name = first.name.rpartition("/")[0] if volumes else first.name
        group = first.group if grouped or not volumes else None
        size = 3 if volumes else 2
        steps = _told(first, axis) if spacing is None else _given(spacing, size)
        steps = None if steps is None else steps[-size:]
        units.append(Unit(name, group, part, axis if volumes else None, steps))
    silent = [unit for unit in units if unit.spacing is None]
    if silent and len(silent) < len(units):
        accepted = "other files tell theirs; accepted is --spacing for all"
        raise DataError(
            [f"{unit.records[0].image_location}: no pixel spacing, {accepted}" for unit in silent]
        )
    return units


def _given(spacing: Sequence[float], size: int) -> tuple[float, ...]:
    steps = tuple(spacing) * size if len(spacing) == 1 else tuple(spacing)
    if len(steps) != size or not all(np.isfinite(step) and step > 0 for step in steps):
        listed = " ".join(f"{step:g}" for step in spacing)
        what = "rows and columns" if size == 2 else "slices, rows and columns"
        raise ValueError(f"--spacing is {listed}; accepted are one number > 0, or {size}, for {what}")
    return steps


def _told(record: Record, axis: str) -> tuple[float, ...] | None:
    """Millimetres along slices, rows and columns of a volume, along rows and columns of a DICOM image."""
    if volumes.is_volume_file(record.mask):
        return planes.slice_spacing(volumes.read_header(record.mask)[1], axis)
    for path in (record.image, record.mask):
        if path.is_file():
            steps = dicom.read_spacing(path)
            if steps is not None:
                return steps
    return None
