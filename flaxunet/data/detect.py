"""Detects the layout of a dataset, and lists its samples."""

import dataclasses
import re
from pathlib import Path

from flaxunet.data import large_images
from flaxunet.data.layouts import LAYOUTS
from flaxunet.data.record import DataError, Listing, Options, Record
from flaxunet.io import planes
from flaxunet.io.images import ImageError


def find(
    root: Path,
    *,
    layout: str | None = None,
    group: str | None = None,
    objects: bool = False,
    axis: str = "axial",
) -> Listing:
    """Lists the samples of a dataset; no pixels are read, only headers of volumes and of large TIFF files.

    An image too large to be read at once becomes several samples (`flaxunet.data.large_images`).

    Args:
      root: a folder, or the CSV or JSON file of its layout, or `brain.ROOT` for the embedded data.
      layout: one of `LAYOUTS`; None detects it.
      group: a column of the CSV, or a regular expression that is searched in each image's file name; what its
        first group matches names the patient, or whatever else must not be in two splits. None is what the
        layout knows: the column "group", or the volume of a slice.
      objects: number the objects of coco and yolo instead of naming their classes.
      axis: of the slices of volumes: axial, coronal or sagittal.
    Returns: the listing, with all problems of the dataset.
    Raises: ValueError for an unknown layout or axis; DataError for a group that is neither a column nor a
      regular expression with a group.
    """
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; expected one of {', '.join(LAYOUTS)}")
    if axis not in planes.AXES:
        raise ValueError(f"unknown axis {axis!r}; expected one of {', '.join(planes.AXES)}")
    if layout is None:
        looks = ((name, entry.recognize and entry.recognize(root)) for name, entry in LAYOUTS.items())
        evidence = {name: words for name, words in looks if words}
        if len(evidence) > 1:
            several = " and ".join(f"{name} ({words})" for name, words in evidence.items())
            line = f"{root}: looks like {several}; expected one of them to be named with --layout"
            return Listing(root, " or ".join(evidence), problems=[line])
        layout = next(iter(evidence), None) or _closest(root)
    listing = LAYOUTS[layout].find(root, Options(group, objects, axis))
    records: list[Record] = []
    for record in listing.records:
        try:
            records += large_images.patches(record)
        except ImageError as error:
            listing.problems.append(str(error))
    listing.records = sorted(records, key=lambda record: (record.split or "", record.name))
    if group is not None and not (LAYOUTS[layout].has_columns and any(record.group for record in records)):
        _regroup(listing, group)
    return listing


def _closest(root: Path) -> str:
    """The layout whose problems explain best why a path has none."""
    suffix = root.suffix.lower()
    by_suffix = (name for name, entry in LAYOUTS.items() if suffix and entry.suffix == suffix)
    return next(by_suffix, "splits" if (root / "train").is_dir() else "folders")


def _regroup(listing: Listing, group: str) -> None:
    """Groups records by a regular expression."""
    try:
        pattern = re.compile(group)
    except re.error:
        pattern = None
    if pattern is None or not pattern.groups:
        expected = "expected a column of the CSV, or a regular expression with a group (in parentheses)"
        raise DataError([f"{listing.root}: --group is {group!r}; {expected}"])
    for index, record in enumerate(listing.records):
        match = pattern.search(record.image.name)
        if match is None or match[1] is None:
            listing.problems.append(f"{record.image_location}: --group {group!r} matches nothing in its name")
        else:
            listing.records[index] = dataclasses.replace(record, group=match[1])
    groups = {record.group for record in listing.records}
    listing.interpretation.append(f"{len(groups)} groups from the names of the images")
