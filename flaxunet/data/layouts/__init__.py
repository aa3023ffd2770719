"""Dataset layouts: a file for each, and the table of all of them. A new layout is a file and a line here."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from flaxunet.data.layouts import brain, coco, csv_table, dsb2018, folders, nifti, yolo
from flaxunet.data.record import Listing, Options


class Layout(NamedTuple):
    """An entry of the table. The evidence that a path has a layout is in words; None is no evidence."""

    title: str  # what it looks like
    find: Callable[[Path, Options], Listing]
    recognize: Callable[[Path], str | None] | None  # finds evidence; without it, the layout has to be named
    suffix: str | None = None  # of the file that may stand for the dataset, if it is not always a folder
    has_columns: bool = False  # --group may be the name of a column
    has_volumes: bool = False  # samples are slices of volumes, along the axis of the options


LAYOUTS: dict[str, Layout] = {
    "folders": Layout("one set of images and masks", folders.find_single, folders.recognize_single),
    "splits": Layout("one set per split", folders.find_splits, folders.recognize_splits),
    "dsb2018": Layout("one folder per image, one mask per object", dsb2018.find, dsb2018.recognize),
    "instances": Layout("label images", folders.find_instances, None),
    "csv": Layout("a table", csv_table.find, csv_table.recognize, suffix=".csv", has_columns=True),
    "nifti": Layout("volumes", nifti.find, nifti.recognize, has_volumes=True),
    "coco": Layout("JSON with polygons and run lengths", coco.find, coco.recognize, suffix=".json"),
    "yolo": Layout("polygons as text", yolo.find, yolo.recognize),
    "brain": Layout("the default data", brain.find, brain.recognize),
}
