"""Networks or masks and a dataset enter; what is to be scored leaves, or all that is wrong with it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flaxunet import data as layouts
from flaxunet import labels as targets
from flaxunet.data import DataError, Listing, Record
from flaxunet.data.classes import check_classes
from flaxunet.data.layouts import brain
from flaxunet.data.record import parse_split
from flaxunet.evaluation.check import Looked, look
from flaxunet.evaluation.predictions import Source
from flaxunet.evaluation.runs import SEEN, Run, flag, held
from flaxunet.evaluation.units import Unit, gather
from flaxunet.io import planes

ALL = "all"
CLASSES, FOREGROUND, NUMBERS = "classes", "foreground", "numbers"
"""What the labels of a source are: classes of the target; all above 0 foreground; or numbers of objects."""


@dataclass(frozen=True)
class Plan:
    """What is to be scored, all of which can be read and fits.

    Attributes:
      found: the dataset.
      split: "train", "validation", "test" or "all".
      seed: that has cut the split; None if it is that of the layout or of a run.
      run: whose split it is; None if it is that of the layout or of a seed.
      group: see `prepare`.
      units: of the split.
      sources: that predict; the second one is compared with.
      names: of the classes, background first.
      target: what is made of the masks; see `flaxunet.labels.relabel`.
      objects: whether objects are counted.
      kinds: of each source, what its labels are: `CLASSES`, `FOREGROUND` or `NUMBERS`.
      unit: "mm", or "px" where the spacing is not known.
      ignore_label: see `prepare`.
      warnings: a line for each thing that may keep the scores from meaning what they seem to.
    """

    found: Listing
    split: str
    seed: int | None
    run: str | None
    group: str | None
    units: tuple[Unit, ...]
    sources: tuple[Source, ...]
    names: tuple[str, ...]
    target: str
    objects: bool
    kinds: tuple[str, ...]
    unit: str
    ignore_label: int | None
    warnings: tuple[str, ...]

    @property
    def flags(self) -> dict[str, Any]:
        """Those of training by which the data were read."""
        return {
            "layout": self.found.layout,
            "group": self.group,
            "target": self.target,
            "ignore_label": self.ignore_label,
        }

    def counted(self, mask: np.ndarray) -> np.ndarray:
        """The mask of a record, with IGNORE where pixels do not count."""
        return targets.mark_ignored(mask, self.ignore_label)


def prepare(
    sources: Sequence[Source],
    root: Path,
    *,
    layout: str | None = None,
    group: str | None = None,
    axis: str | None = None,
    split: str | None = None,
    seed: int | None = None,
    target: str | None = None,
    ignore_label: int | None = None,
    objects: bool = False,
    slices: bool = False,
    spacing: Sequence[float] | None = None,
    threads: int = 2,
) -> Plan:
    """Find the data, and read all of it once to see whether it fits.

    Of networks that runs on the same data have stored, layout, group, target and ignore_label are those of
    the runs where they are None, and without a seed so are train and validation, and test if the layout gives
    none.

    Args:
      sources: one, or two to be compared; the runs are those of the first one that has any.
      root, layout, group: see `flaxunet.data.find`.
      axis: of the slices of volumes; None is that which the sources were trained on, or axial.
      split: "train", "val", "test" or "all". None is the test split if the layout gives one; else of networks
        that which training cuts, and of masks all.
      seed: of the cut; None is 0 where there is no run.
      target: None is told by the names of the classes, if masks number objects.
      ignore_label: the stored label of pixels that shall not count.
      objects: number the objects of coco and yolo, as other layouts do by themselves, and count them.
      slices: score each slice of a volume by itself.
      spacing: see `flaxunet.evaluation.units.gather`.
      threads: that read files.
    Returns: what is to be scored.
    Raises: DataError that lists every file that cannot be read, or does not fit; ValueError for arguments,
      and for runs that differ in what is to be theirs.
    """
    if target is not None and target not in targets.TARGETS:
        raise ValueError(f"unknown target {target!r}; known are {', '.join(targets.TARGETS)}")
    if not root.exists() and not brain.recognize(root):
        raise ValueError(f"{root}: no such file or folder")
    runs = next((mine for source in sources if (mine := _runs(source, root))), [])
    layout, group = layout or flag(runs, "layout"), group or flag(runs, "group")
    ignore_label = flag(runs, "ignore_label") if ignore_label is None else ignore_label
    if target is None and flag(runs, "target") != "classes":
        target = flag(runs, "target")
    names = _common(sources)
    trained = next((source.axis for source in sources if source.axis is not None), None)
    axis = axis or trained or planes.DEFAULT_AXIS
    told = target or next((t for t, known in targets.CLASS_NAMES.items() if known == names), None)
    numbered_too = objects or told in targets.OBJECT_TARGETS
    found = layouts.find(root, layout=layout, group=group, objects=numbered_too, axis=axis)
    if found.problems:
        raise DataError(found.problems)
    target = target or (_target_of(found, names, sources) if found.instances else "classes")
    made = targets.CLASS_NAMES.get(target)
    if made is not None and names is not None and len(names) != len(made):
        told = (
            f"--target {target} has the classes {', '.join(made)}, {sources[0].title} has {', '.join(names)}"
        )
        raise ValueError(f"{told}; accepted are equal numbers")
    objects = found.instances and target != "classes"
    for source in sources:
        replace(source.steps, instances=objects).check(made or source.names or ())
    which, records, cut, run = _split(found, split, seed, runs, networks=any(s.networks for s in sources))
    volumes = found.layout == "nifti" and not slices
    units = gather(records, volumes=volumes, axis=axis, grouped=group is not None, spacing=spacing)
    looked = look(units, sources, target=target, ignore_label=ignore_label, threads=threads)
    problems = list(looked.problems)
    given = names or made or (found.class_names if len(found.class_names or ()) > 1 else None)
    k = check_classes(looked.seen, len(given) if given else None, problems, target=target)
    if problems:
        raise DataError(problems)
    for source in sources:
        source.expect(looked.sizes)
    if given is None:
        given = targets.default_names(k)
    known = units[0].spacing is not None
    return Plan(
        found=found,
        split=which,
        seed=cut,
        run=run,
        group=group,
        units=tuple(units),
        sources=tuple(sources),
        names=given,
        target=target,
        objects=objects,
        kinds=tuple(_kind(source, looked, number, target) for number, source in enumerate(sources)),
        unit="mm" if known else "px",
        ignore_label=ignore_label,
        warnings=tuple(_warnings(found, given, target, sources, records, axis)),
    )


def _common(sources: Sequence[Source]) -> tuple[str, ...] | None:
    """The names of the classes that all have that have any."""
    named = [source for source in sources if source.names is not None]
    for other in named[1:]:
        if other.names != named[0].names:
            both = [f"{one.title} has {', '.join(one.names or ())}" for one in (named[0], other)]
            raise ValueError(f"{both[0]}, {both[1]}; accepted are networks of the same classes")
    return named[0].names if named else None


def _target_of(found: Listing, names: tuple[str, ...] | None, sources: Sequence[Source]) -> str:
    """What was made of numbered objects, by the names of the classes that are predicted."""
    for target, made in targets.CLASS_NAMES.items():
        if names == made:
            return target
    if names is None or len(names) == 2:
        return "foreground"
    accepted = " or ".join(f"({', '.join(made)})" for made in targets.CLASS_NAMES.values())
    line = f"masks of the layout {found.layout} number objects, {sources[0].title} has {', '.join(names)}"
    raise ValueError(f"{found.root}: {line}; accepted are classes {accepted}")


def _runs(source: Source, root: Path) -> list[Run]:
    """Those of its runs that were trained on the data."""
    return [run for run in source.runs if run.is_of(root)]


def _kind(source: Source, looked: Looked, number: int, target: str) -> str:
    """What the labels of a source are: all that its masks have tells, where they may number objects."""
    classes = set(range(1, len(targets.CLASS_NAMES.get(target, ()))))
    if source.networks or target == "classes" or looked.labels[number] == classes:
        return CLASSES
    return NUMBERS if looked.several[number] else FOREGROUND


def _split(
    found: Listing, asked: str | None, seed: int | None, runs: Sequence[Run], *, networks: bool
) -> tuple[str, tuple[Record, ...], int | None, str | None]:
    """The split, its records, the seed that has cut it, and the run that it was taken from."""
    given = {record.split for record in found.records if record.split is not None}
    if asked is None:
        asked = "test" if "test" in given or networks else ALL
    which = ALL if asked == ALL else parse_split(asked)
    if which is None:
        raise ValueError(f"--split is {asked!r}; accepted are train, val, test and all")
    if runs and seed is None and (which in SEEN or (which == "test" and "test" not in given)):
        return which, held(runs, found, which), None, runs[0].title
    if which == ALL or which in given:
        records = tuple(record for record in found.records if which in (ALL, record.split))
        if not records:
            raise DataError([f"{found.root}: no samples"])
        return which, records, None, None
    problems: list[str] = []
    seed = seed or 0
    records = layouts.split_samples(found, seed=seed, problems=problems)[which]
    if problems:
        raise DataError([f"{problems[0]}; --split all takes every sample", *problems[1:]])
    return which, records, seed, None


def _warnings(
    found: Listing,
    names: tuple[str, ...],
    target: str,
    sources: Sequence[Source],
    records: Sequence[Record],
    axis: str,
) -> list[str]:
    lines = []
    if found.layout == "nifti":
        lines += [
            f"slices are {axis}; those that {source.title} was trained on were {source.axis}"
            for source in sources
            if source.axis not in (None, axis)
        ]
    theirs = found.class_names
    if target == "classes" and theirs is not None and theirs != names:
        lines.append(
            f"classes are called {', '.join(theirs)} in the data and {', '.join(names)} in the network"
        )
    for source in sources:
        runs = _runs(source, found.root)
        seen = {(one.split, one.name) for run in runs for one in run.records(found, *SEEN)}
        count = sum((record.split, record.name) in seen for record in records)
        if count:
            what = f"{count:,} of {len(records):,} samples"
            lines.append(f"{what} were for training or validation of {source.title}; its scores are too high")
    return lines
