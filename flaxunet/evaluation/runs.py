"""Reads what the run that stored a network says of its data, and chooses the split that is scored."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flaxunet.data import LAYOUTS, DataError, Listing, Record, split_samples
from flaxunet.data.layouts import brain
from flaxunet.data.split import SPLITS, parse_split
from flaxunet.weights import store

TRAINING_SPLITS = ("train", "validation")  # which training uses: scores on them are too high
ALL = "all"


@dataclass(frozen=True)
class Split:
    """The samples to be scored.

    Attributes:
      name: "train", "validation", "test" or "all".
      records: the samples.
      seed: that cut it; None if the layout or a run gives it.
      run: that gives it, or None.
    """

    name: str
    records: tuple[Record, ...]
    seed: int | None = None
    run: str | None = None


@dataclass(frozen=True)
class Run:
    """What the config.json of a run says of its data.

    Attributes:
      title: names its network in messages.
      data: the folder or file; None for the default data.
      flags: of training, by name.
      splits: the names of the samples of each split.
    """

    title: str
    data: Path | None
    flags: Mapping[str, Any]
    splits: Mapping[str, frozenset[str]]

    def used(self, root: Path) -> bool:
        """Whether it was trained on a dataset."""
        if brain.recognize(root):
            return self.data is None
        return self.data is not None and self.data.resolve() == root.resolve()

    def samples(self, split: str, layout: str) -> frozenset[str]:
        """Names of the samples of a split; of the layout nifti those of volumes."""
        return frozenset(_sample_name(name, layout) for name in self.splits[split])

    def records(self, dataset: Listing, *splits: str) -> list[Record]:
        """The records of its dataset that were in one of some splits."""
        samples = {split: self.samples(split, dataset.layout) for split in splits}
        without_folder = {*SPLITS} - {record.split for record in dataset.records}
        possible = {split: {split} for split in SPLITS}
        # A name identifies a sample only within its own split and those that training cuts from it.
        possible["train"] |= without_folder
        if self.flags.get("fold"):
            for split in TRAINING_SPLITS:
                possible[split] |= {*TRAINING_SPLITS}
        return [
            record
            for record in dataset.records
            if any(
                _sample_name(record.name, dataset.layout) in samples[split]
                for split in possible[record.split or "train"].intersection(splits)
            )
        ]


def run_of(folder: str | Path) -> Run | None:
    """The run that stored a network; None if no run did.

    Raises: StoreError for a run without a network so far.
    """
    path = store.network_folder(folder).absolute().parent / store.CONFIG
    try:
        content = json.loads(path.read_text())
        flags, names = dict(content["config"]), content["data"]
        data = None if flags["data"] is None else Path(flags["data"])
        splits = {split: frozenset(map(str, names[split])) for split in SPLITS}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # no config.json, or one of something else
    return Run(str(folder), data, flags, splits)


def common_flag(runs: Sequence[Run], name: str) -> Any:
    """The value that a flag of training had in all runs; None without runs.

    Raises: ValueError if it differs.
    """
    first = runs[0].flags.get(name) if runs else None
    for run in runs:
        if (value := run.flags.get(name)) != first:
            flag = f"--{name.replace('_', '-')}"
            both = f"{first!r} for {runs[0].title} and {value!r} for {run.title}"
            raise ValueError(f"{flag} was {both}; expected equal values, or {flag}")
    return first


def choose_split(
    dataset: Listing, name: str | None, seed: int | None, runs: Sequence[Run], *, networks: bool
) -> Split:
    """Take a split from the runs or the layout, or cut it as training does.

    Args:
      dataset: with all its records.
      name, seed: see `flaxunet.evaluation.DataOptions`.
      runs: on this dataset.
      networks: whether networks are scored.
    Raises: ValueError for an unknown name and for runs that differ; DataError for samples that are missing.
    """
    of_layout = {record.split for record in dataset.records if record.split is not None}
    word = name or ("test" if "test" in of_layout or networks else ALL)
    split = ALL if word == ALL else parse_split(word)
    if split is None:
        raise ValueError(f"--split is {word!r}; expected train, val, test or all")
    of_runs = split in TRAINING_SPLITS or (split == "test" and split not in of_layout)
    if runs and seed is None and of_runs:
        return Split(split, _run_records(runs, dataset, split), run=runs[0].title)
    if split == ALL or split in of_layout:
        records = tuple(record for record in dataset.records if split in (ALL, record.split))
        if not records:
            raise DataError([f"{dataset.root}: no samples"])
        return Split(split, records)
    problems: list[str] = []
    records = split_samples(dataset, seed=seed or 0, problems=problems)[split]
    if problems:
        raise DataError([f"{problems[0]}; --split all takes every sample", *problems[1:]])
    return Split(split, records, seed=seed or 0)


def _run_records(runs: Sequence[Run], dataset: Listing, split: str) -> tuple[Record, ...]:
    """The records of a split that all runs share."""
    first, *others = runs
    samples = first.samples(split, dataset.layout)
    otherwise = "--split all, or --seed for a new split"
    for other in others:
        if other.samples(split, dataset.layout) != samples:
            both = f"{first.title} and {other.title} have different samples for {split}"
            raise ValueError(f"{both}; expected equal ones, {otherwise}")
    if not samples:
        raise DataError([f"{dataset.root}: {first.title} has no samples for {split}; expected {otherwise}"])
    records = first.records(dataset, split)
    missing = samples - {_sample_name(record.name, dataset.layout) for record in records}
    if missing:
        which = f"which is for {split} in {first.title}; expected all samples of the run, {otherwise}"
        raise DataError([f"{dataset.root}: no {name}, {which}" for name in sorted(missing)])
    return tuple(records)


def _sample_name(name: str, layout: str) -> str:
    """The name of what is split as a whole: the volume of a slice, whatever its plane; else the sample."""
    return name.rpartition("/")[0] if LAYOUTS[layout].has_volumes else name
