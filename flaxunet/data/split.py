"""Splits a dataset into train, validation and test: by its layout, else by a seed; no group is in two."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from flaxunet.data.record import Listing, Record

# The splits, and how folders, columns and files spell them.
SPLITS = {"train": ("train",), "validation": ("val", "validation", "valid"), "test": ("test",)}
SPLIT_NAMES = tuple(name for names in SPLITS.values() for name in names)
HELD_OUT = 0.15  # share of the records for validation, and for test, where the layout gives none

Splits = dict[str, tuple[Record, ...]]
Key = tuple[str, bool]


def parse_split(word: str) -> str | None:
    """Parses the name of a split, in any case; None if it is none."""
    return next((split for split, names in SPLITS.items() if word.strip().lower() in names), None)


def existing_folder(parent: Path, names: Sequence[str], problems: list[str]) -> Path | None:
    """Finds the folder that exists under one of several names; more than one is a problem."""
    folders = [parent / name for name in names if (parent / name).is_dir()]
    if len(folders) > 1:
        several = " and ".join(f"{one.name}/" for one in folders)
        problems.append(f"{parent}: has {several}; expected one of them")
    return folders[0] if folders else None


def split_samples(
    listing: Listing, *, seed: int, fold: tuple[int, int] = (1, 1), problems: list[str] | None = None
) -> Splits:
    """Splits the records of a dataset.

    The splits of the layout are kept. Validation or test, where the layout has none, is cut from train:
    groups in a random order, until they have 15 % of its records. A record without a group is its own.

    Args:
      listing: the dataset.
      seed: of the cut; the same seed and names (or groups) give the same splits.
      fold: (i, k): validation becomes part i of k, counted from 1, of train and validation together: groups
        in a random order are cut into k parts that differ by one group at most.
      problems: lines are appended for groups in two splits of the layout, and for too few groups.
    Returns: the records of "train", "validation" and "test", sorted by name.
    """
    problems = [] if problems is None else problems
    splits: Splits = {
        split: _sorted(record for record in listing.records if (record.split or "train") == split)
        for split in SPLITS
    }
    _check_groups(splits, problems)
    missing = [split for split in ("validation", "test") if not splits[split]]
    groups = _by_group(splits["train"])
    if 0 < len(groups) <= len(missing) and not listing.problems:
        problems.append(f"{listing.root}: {_count(groups)} to split; expected {len(missing) + 1} or more")
    splits |= _cut(splits["train"], missing, seed)
    return splits if fold == (1, 1) else splits | _fold(listing, splits, fold, seed, problems)


def _count(groups: Mapping[Key, Sequence[Record]]) -> str:
    """The number of groups; of pairs, where none has a group."""
    return f"{len(groups)} {'pairs' if all(alone for _, alone in groups) else 'groups'}"


def _by_group(records: Sequence[Record]) -> dict[Key, list[Record]]:
    """The records of each group, sorted by group; a record without one is alone under its name."""
    groups: dict[Key, list[Record]] = {}
    for record in records:
        key = (record.name, True) if record.group is None else (record.group, False)
        groups.setdefault(key, []).append(record)
    return dict(sorted(groups.items()))


def _check_groups(splits: Mapping[str, Sequence[Record]], problems: list[str]) -> None:
    """Appends a line for each group that is in several splits of the layout."""
    first: dict[str, tuple[str, Record]] = {}
    lines: dict[tuple[str, str], str] = {}
    for split, record in ((split, record) for split, records in splits.items() for record in records):
        if record.group is not None:
            other, sample = first.setdefault(record.group, (split, record))
            if other != split:
                both = f"{split} and, with {sample.image}, in {other}; expected one split for a group"
                lines.setdefault((record.group, split), f"{record.image}: group {record.group} is in {both}")
    problems += lines.values()


def _cut(records: Sequence[Record], missing: Sequence[str], seed: int) -> Splits:
    """Cuts the missing splits from the records; the rest is train."""
    groups = _by_group(records)
    keys, share = list(groups), max(1, round(HELD_OUT * len(records)))
    # The legacy generator's streams never change: a new numpy must not move test images into train.
    order = [keys[place] for place in np.random.RandomState(seed).permutation(len(keys))]
    splits: Splits = {}
    for remaining, split in zip(range(len(missing), 0, -1), missing, strict=True):
        members: list[Record] = []
        # One group at least stays for each split that is still to come.
        while order and len(members) < share and (not members or len(order) > remaining):
            members += groups[order.pop(0)]
        splits[split] = _sorted(members)
    return {**splits, "train": _sorted(record for key in order for record in groups[key])}


def _sorted(records: Iterable[Record]) -> tuple[Record, ...]:
    return tuple(sorted(records, key=lambda record: record.name))


def _fold(listing: Listing, splits: Splits, fold: tuple[int, int], seed: int, problems: list[str]) -> Splits:
    """Train and validation of a fold; each group is in one part."""
    train = {record.name: record.image_location for record in splits["train"]}
    expected = "expected different names with --fold"
    problems += [
        f"{record.image_location}: the same name as {train[record.name]}; {expected}"
        for record in splits["validation"]
        if record.name in train
    ]
    groups, (number, count) = _by_group((*splits["train"], *splits["validation"])), fold
    if len(groups) < count:
        expected = f"expected {count} or more with --fold {number}/{count}"
        problems.append(f"{listing.root}: {_count(groups)} to fold; {expected}")
    order = np.random.RandomState(seed).permutation(len(groups))
    in_fold = set(np.array_split(order, count)[number - 1].tolist())
    parts: dict[bool, list[Record]] = {True: [], False: []}
    for index, members in enumerate(groups.values()):
        parts[index in in_fold] += members
    return {"train": _sorted(parts[False]), "validation": _sorted(parts[True])}
