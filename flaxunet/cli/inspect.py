"""`python -m flaxunet inspect`: reports what a dataset holds and what is wrong with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from flaxunet.cli.parse import Argument


@dataclass(frozen=True)
class Inspect:
    """Read a dataset, list all that is wrong with it, and say how to train on it.

    Writes inspect.json and contact-sheet.png. Exit codes: 0 the suggested command trains on the data as they
    are; 1 training would be refused, or its score would be worth nothing; 2 an argument cannot be used.
    """

    data: Annotated[str, Argument("DATA", positional=True)]
    """folder, or CSV or JSON file; brain is the default data of training"""
    layout: Annotated[str | None, Argument("NAME")] = None
    """as of python -m train; detected if left out"""
    group: Annotated[str | None, Argument("COLUMN|REGEX")] = None
    """as of python -m train"""
    axis: Annotated[str, Argument("axial|coronal|sagittal")] = "axial"
    """of the slices of volumes"""
    target: Annotated[str | None, Argument("NAME")] = None
    """as of python -m train; what the masks suggest if left out"""
    classes: Annotated[int | None, Argument("K")] = None
    """as of python -m train"""
    ignore_label: Annotated[int | None, Argument("INT")] = None
    """as of python -m train"""
    seed: int = 0
    """for cutting the splits that the layout does not give"""
    workers: int = 2
    """threads that read files"""
    out: Annotated[str, Argument("DIR")] = "inspect"
    """folder for inspect.json and contact-sheet.png; older ones are replaced"""

    def run(self) -> int:
        """Inspects the data; returns 0 if they are fit for training, 1 if not."""
        from rich.console import Console

        from flaxunet.data.classes import find_for_target
        from flaxunet.data.inspection import contact_sheet, examine, terminal
        from flaxunet.data.layouts import brain
        from flaxunet.files import write_json
        from flaxunet.labels import TARGETS

        if self.target is not None and self.target not in TARGETS:
            raise ValueError(f"unknown target {self.target!r}; expected one of {', '.join(TARGETS)}")
        for name, value in (("classes", self.classes), ("workers", self.workers)):
            if value is not None and value < 1:
                raise ValueError(f"--{name} is {value}; expected an integer >= 1")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed is {self.seed}; expected an integer from 0 to {2**32 - 1}")
        root, out = Path(self.data), Path(self.out)
        if not root.exists() and not brain.recognize(root):
            raise ValueError(f"{root}: no such file or folder")
        console = Console(highlight=False)
        listing = find_for_target(root, self.target, layout=self.layout, group=self.group, axis=self.axis)
        flags, default = [], Inspect(self.data)
        for name in ("layout", "group", "target", "classes", "ignore_label", "axis", "seed"):
            if getattr(self, name) != getattr(default, name):
                flags += [f"--{name.replace('_', '-')}", str(getattr(self, name))]
        with console.status(f"reading {len(listing.records):,} samples"):
            options = {name: getattr(self, name) for name in ("target", "classes", "ignore_label", "seed")}
            report = examine(listing, **options, threads=self.workers, flags=flags)
            out.mkdir(parents=True, exist_ok=True)
            files = {"numbers": out / "inspect.json"}
            if report.facts:
                files["picture"] = out / "contact-sheet.png"
                contact_sheet.write(report, files["picture"])
            write_json(files["numbers"], report.content())
        terminal.show(console, report, files)
        return 1 if report.errors else 0
