"""`python -m flaxunet inspect | convert`: parses, runs, and turns what a user got wrong into one line."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Inspect:
    """Read a dataset, list all that is wrong with it, and say how to train on it.

    Writes inspect.json and contact-sheet.png. Exit codes: 0 the command on the page trains on what is there;
    1 training would be refused, or its score would be worth nothing; 2 an argument cannot be used.
    """

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """folder, or CSV or JSON file"""
    layout: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """as of python -m train; found if left out"""
    group: Annotated[str | None, arg(metavar="COLUMN|REGEX", help_behavior_hint="")] = None
    """as of python -m train"""
    axis: Annotated[str, arg(metavar="axial|coronal|sagittal")] = "axial"
    """of the slices that volumes are taken apart into"""
    target: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """as of python -m train; what the masks suggest if left out"""
    classes: Annotated[int | None, arg(metavar="K", help_behavior_hint="")] = None
    """as of python -m train"""
    ignore_label: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """as of python -m train"""
    seed: int = 0
    """of the cut, where splits are not given"""
    workers: int = 2
    """threads that read files"""
    out: Annotated[str, arg(metavar="DIR")] = "inspect"
    """where inspect.json and contact-sheet.png go; older ones are replaced"""


@dataclass(frozen=True)
class Convert:
    """Write a dataset of any layout as a folder with images/ and masks/, whole or not at all.

    Images are copied; slices of volumes become TIFF files of what is read. Masks become indexed PNGs with a
    palette. Exit codes: 0 done; 2 something cannot be used or read, and nothing was written.
    """

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """folder, or CSV or JSON file"""
    out: Annotated[Positional[str], arg(metavar="OUT")]
    """the folder to be made"""
    to: Annotated[str, arg(metavar="folders")] = "folders"
    """the layout of what is written"""
    layout: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """of DATA; found if left out"""
    group: Annotated[str | None, arg(metavar="COLUMN|REGEX", help_behavior_hint="")] = None
    """of the samples; it becomes the beginning of their names"""
    axis: Annotated[str, arg(metavar="axial|coronal|sagittal")] = "axial"
    """of the slices that volumes are taken apart into"""
    objects: bool = False
    """number the objects of coco and yolo instead of naming their classes"""
    workers: int = 2
    """threads that read and write"""


COMMANDS = {"inspect": Inspect, "convert": Convert}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 the data are not fit, 2 cannot be used, 130 interrupted."""
    from flaxunet.terminal import choose

    given = sys.argv[1:] if arguments is None else arguments
    options = choose(
        COMMANDS, prog="python -m flaxunet", arguments=given, told="Look at data, and convert it."
    )
    try:
        return _inspect(options) if isinstance(options, Inspect) else _convert(options)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except ValueError as error:  # DataError, and what is not known
        return _fail(error, 2)
    except OSError as error:
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}", 2)


def _inspect(options: Inspect) -> int:
    import json

    from rich.console import Console

    from flaxunet import doctor
    from flaxunet.doctor import page, sheet
    from flaxunet.layouts.fit import find_for
    from flaxunet.targets import TARGETS

    if options.target is not None and options.target not in TARGETS:
        raise ValueError(f"unknown target {options.target!r}; known are {', '.join(TARGETS)}")
    for name in ("classes", "workers"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"--{name} is {getattr(options, name)}; accepted are whole numbers >= 1")
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"--seed is {options.seed}; accepted are whole numbers from 0 to {2**32 - 1}")
    root, out = Path(options.data), Path(options.out)
    if not root.exists():
        raise ValueError(f"{root}: no such file or folder")
    console = Console(highlight=False)
    found = find_for(
        root, target=options.target, layout=options.layout, group=options.group, axis=options.axis
    )
    asked = [
        word
        for name in ("layout", "group", "target", "classes", "ignore_label", "axis", "seed")
        if getattr(options, name) != getattr(Inspect(options.data), name)
        for word in (f"--{name.replace('_', '-')}", str(getattr(options, name)))
    ]
    with console.status(f"reading {len(found.records):,} samples"):
        report = doctor.examine(
            found,
            target=options.target,
            classes=options.classes,
            ignore_label=options.ignore_label,
            seed=options.seed,
            threads=options.workers,
            asked=asked,
        )
        out.mkdir(parents=True, exist_ok=True)
        files = {"numbers": out / "inspect.json"}
        if report.facts:
            files["picture"] = out / "contact-sheet.png"
            sheet.write(report, files["picture"])
        part = out / "inspect.json.part"
        part.write_text(json.dumps(report.content(), indent=1) + "\n")
        part.replace(files["numbers"])
    page.show(console, report, files)
    return 1 if report.errors else 0


def _convert(options: Convert) -> int:
    from rich.console import Console

    from flaxunet import layouts
    from flaxunet.layouts.write import command, write_folders

    if options.to != "folders":
        raise ValueError(f"--to is {options.to!r}; accepted is folders")
    if options.workers < 1:
        raise ValueError(f"--workers is {options.workers}; accepted are whole numbers >= 1")
    found = layouts.find(
        Path(options.data),
        layout=options.layout,
        group=options.group,
        objects=options.objects,
        axis=options.axis,
    )
    console = Console(highlight=False)
    with console.status(f"writing {len(found.records):,} samples"):
        flags = write_folders(found, Path(options.out), threads=options.workers)
    console.print(f"{options.out}: {len(found.records):,} images and masks", markup=False, soft_wrap=True)
    console.print(f"train with: {command(Path(options.out), flags)}", markup=False, soft_wrap=True)
    return 0


def _fail(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
