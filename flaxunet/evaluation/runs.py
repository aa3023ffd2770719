"""A stored network enters; the run that it is from leaves, with the data that it was trained on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flaxunet.data import DataError, Listing, Record
from flaxunet.data.layouts import brain
from flaxunet.data.record import SPLITS
from flaxunet.weights import store

SEEN = ("train", "validation")
"""The splits that a network has seen."""


@dataclass(frozen=True)
class Run:
    """What a run's config.json says of its data.

    Attributes:
      title: what its network is called in messages.
      data: the folder or file; None for the default data.
      flags: of training, by name.
      splits: the names of the samples of each split.
    """

    title: str
    data: Path | None
    flags: Mapping[str, Any]
    splits: Mapping[str, frozenset[str]]

    def is_of(self, root: Path) -> bool:
        """Whether it was trained on a dataset."""
        if brain.recognize(root):
            return self.data is None
        return self.data is not None and self.data.resolve() == root.resolve()

    def samples(self, split: str, layout: str) -> frozenset[str]:
        """What was in a split: names of samples; of the layout nifti those of volumes."""
        return frozenset(_sample(name, layout) for name in self.splits[split])

    def records(self, found: Listing, *splits: str) -> list[Record]:
        """The records of its dataset that were in one of some splits."""
        wanted = {split: self.samples(split, found.layout) for split in splits}
        cut = {*SPLITS} - {record.split for record in found.records}
        kept = []
        for record in found.records:
            # A name tells a sample only among those of its own split, and of those that are cut from it.
            own = record.split or "train"
            places = {own, *(cut if own == "train" else ())}
            if self.flags.get("fold") and own in SEEN:
                places |= {*SEEN}
            name = _sample(record.name, found.layout)
            if any(name in wanted[split] for split in places.intersection(splits)):
                kept.append(record)
        return kept


def run_of(folder: str | Path) -> Run | None:
    """The run that stored a network; None if it is from elsewhere. StoreError for a run that has none yet."""
    path = store.network_folder(folder).absolute().parent / store.CONFIG
    try:
        content = json.loads(path.read_text())
        flags, names = dict(content["config"]), content["data"]
        data = None if flags["data"] is None else Path(flags["data"])
        splits = {split: frozenset(map(str, names[split])) for split in SPLITS}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # another file of this name, or none
    return Run(str(folder), data, flags, splits)


def flag(runs: Sequence[Run], name: str) -> Any:
    """The value that a flag of training had for all runs; None without runs.

    Raises: ValueError if they differ.
    """
    values = [run.flags.get(name) for run in runs]
    for run, value in zip(runs, values, strict=True):
        if value != values[0]:
            said = f"--{name.replace('_', '-')}"
            both = f"{values[0]!r} for {runs[0].title} and {value!r} for {run.title}"
            raise ValueError(f"{said} was {both}; accepted are runs with equal ones, or {said}")
    return values[0] if values else None


def held(runs: Sequence[Run], found: Listing, split: str) -> tuple[Record, ...]:
    """The records of a split that all runs have.

    Raises: ValueError if the runs have others; DataError that lists what of it is no longer there.
    """
    first, *others = runs
    wanted = first.samples(split, found.layout)
    otherwise = "--split all, or --seed, which cuts anew"
    for other in others:
        if other.samples(split, found.layout) != wanted:
            both = f"{first.title} and {other.title} have other samples for {split}"
            raise ValueError(f"{both}; accepted are runs with equal ones, {otherwise}")
    records = first.records(found, split)
    if not wanted:
        raise DataError([f"{found.root}: {first.title} has no samples for {split}; accepted is {otherwise}"])
    missing = wanted - {_sample(record.name, found.layout) for record in records}
    if missing:
        what = f"which is for {split} in {first.title}; accepted are all samples of the run, {otherwise}"
        raise DataError([f"{found.root}: no {name}, {what}" for name in sorted(missing)])
    return tuple(records)


def _sample(name: str, layout: str) -> str:
    """What is in a split as a whole: a volume, along whatever axis it has slices; else a sample by itself."""
    return name.rpartition("/")[0] if layout == "nifti" else name
