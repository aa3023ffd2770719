"""A folder or file enters; the layout that it has is found, or taken as named, and read."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from flaxunet.data import large_images
from flaxunet.data.layouts import brain, coco, dsb2018, folders, nifti, yolo
from flaxunet.data.layouts import csv_table as table
from flaxunet.data.record import DataError, Listing, Options, Record
from flaxunet.io.images import ImageError


class Layout(NamedTuple):
    """How a layout is recognised (None: never, it has to be named) and read."""

    recognize: Callable[[Path], str | None]
    find: Callable[[Path, Options], Listing]


LAYOUTS: dict[str, Layout] = {
    "folders": Layout(folders.recognize_single, folders.find_single),
    "splits": Layout(folders.recognize_split, folders.find_split),
    "dsb2018": Layout(dsb2018.recognize, dsb2018.find),
    "instances": Layout(lambda root: None, folders.find_instances),
    "csv": Layout(table.recognize, table.find),
    "nifti": Layout(nifti.recognize, nifti.find),
    "coco": Layout(coco.recognize, coco.find),
    "yolo": Layout(yolo.recognize, yolo.find),
    "brain": Layout(brain.recognize, brain.find),
}


def find(
    root: Path,
    *,
    layout: str | None = None,
    group: str | None = None,
    objects: bool = False,
    axis: str = "axial",
) -> Listing:
    """Find the samples of a dataset; of files of pixels only the headers of large TIFFs are opened.

    An image too large to be read at once becomes several samples (`flaxunet.data.large_images`).

    Args:
      root: a folder, or the CSV or JSON file of its layout, or `brain.ROOT` for the embedded data.
      layout: one of `LAYOUTS`; None finds it.
      group: a column of the CSV, or a regular expression that is searched in each image's file name; what its
        first group matches names the patient, or whatever else must not be in two splits. None takes what the
        layout knows: the column "group", or the volume of a slice.
      objects: number the objects of coco and yolo instead of naming their classes.
      axis: of the slices of volumes: axial, coronal or sagittal.
    Returns: what was found. Whatever is wrong is among its problems, all at once.
    Raises: ValueError for a layout or an axis that is not known; DataError, which is one too, for a group
      that is neither a column nor a regular expression.
    """
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known are {', '.join(LAYOUTS)}")
    if axis not in nifti.AXES:
        raise ValueError(f"unknown axis {axis!r}; known are {', '.join(nifti.AXES)}")
    if layout is None:
        seen = {name: words for name, known in LAYOUTS.items() if (words := known.recognize(root))}
        if len(seen) > 1:
            both = " and ".join(f"{name} ({words})" for name, words in seen.items())
            line = f"{root}: looks like {both}; accepted is one of them, named with --layout"
            return Listing(root, " or ".join(seen), problems=(line,))
        # What looks like nothing is refused in the words of the simplest layout that it might have been.
        usual = "splits" if (root / "train").is_dir() else "folders"
        layout = next(iter(seen), {".csv": "csv", ".json": "coco"}.get(root.suffix.lower(), usual))
    found = LAYOUTS[layout].find(root, Options(group, objects, axis))
    records: list[Record] = []
    problems = list(found.problems)
    for record in found.records:
        try:
            records += large_images.patches(record)
        except ImageError as error:
            problems.append(str(error))
    records.sort(key=lambda record: (record.split or "", record.name))
    found = dataclasses.replace(found, records=tuple(records), problems=tuple(problems))
    return found if group is None else _grouped(found, group)


def _grouped(found: Listing, group: str) -> Listing:
    """With the groups that a regular expression finds, unless the group is a column that was read."""
    if found.layout == "csv" and any(record.group for record in found.records):
        return found
    try:
        pattern = re.compile(group)
    except re.error:
        pattern = None
    if pattern is None or not pattern.groups:
        line = (
            f"{found.root}: --group is {group!r}; accepted is a column of the CSV, "
            "or a regular expression with a group (in parentheses)"
        )
        raise DataError([line])
    records: list[Record] = []
    problems = list(found.problems)
    for record in found.records:
        match = pattern.search(record.image.name)
        if match is None or match[1] is None:
            problems.append(f"{record.image_location}: --group {group!r} finds nothing in its name")
        else:
            record = dataclasses.replace(record, group=match[1])
        records.append(record)
    interpretation = (
        *found.interpretation,
        f"{len({r.group for r in records})} groups from the names of the images",
    )
    return dataclasses.replace(
        found, records=tuple(records), problems=tuple(problems), interpretation=interpretation
    )
