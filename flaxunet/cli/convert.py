"""`python -m flaxunet convert`: writes a dataset of any layout as a folder of images and masks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from flaxunet.cli.parse import Argument


@dataclass(frozen=True)
class Convert:
    """Write a dataset of any layout as a folder with images/ and masks/, whole or not at all.

    Images are copied; slices of volumes become PNGs, or TIFFs of float32 if their values need more than 8
    bits. Masks become indexed PNGs with a palette. Exit codes: 0 done; 2 something cannot be used or read,
    and nothing was written.
    """

    data: Annotated[str, Argument("DATA", positional=True)]
    """folder, or CSV or JSON file; brain is the default data of training"""
    out: Annotated[str, Argument("OUT", positional=True)]
    """the new folder"""
    to: Annotated[str, Argument("folders")] = "folders"
    """the layout of the new folder"""
    layout: Annotated[str | None, Argument("NAME")] = None
    """of DATA; detected if left out"""
    group: Annotated[str | None, Argument("COLUMN|REGEX")] = None
    """of the samples; it becomes the beginning of their names"""
    axis: Annotated[str, Argument("axial|coronal|sagittal")] = "axial"
    """of the slices of volumes"""
    objects: bool = False
    """number the objects of coco and yolo instead of naming their classes"""
    workers: int = 2
    """threads that read and write"""

    def run(self) -> int:
        """Converts the data; returns 0 when everything is written."""
        from rich.console import Console

        from flaxunet.data import find
        from flaxunet.data.convert import train_command, write_folders

        if self.to != "folders":
            raise ValueError(f"--to is {self.to!r}; expected folders")
        if self.workers < 1:
            raise ValueError(f"--workers is {self.workers}; expected an integer >= 1")
        out, console = Path(self.out), Console(highlight=False)
        options = {name: getattr(self, name) for name in ("layout", "group", "objects", "axis")}
        listing = find(Path(self.data), **options)
        with console.status(f"writing {len(listing.records):,} samples"):
            flags = write_folders(listing, out, threads=self.workers)
        console.print(f"{out}: {len(listing.records):,} images and masks", markup=False, soft_wrap=True)
        console.print(f"train with: {train_command(out, flags)}", markup=False, soft_wrap=True)
        return 0
