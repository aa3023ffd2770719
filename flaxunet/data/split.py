"""Records enter; train, validation and test leave, no group in two of them, cut by a seed where not given."""

from collections.abc import Mapping, Sequence

import numpy as np

from flaxunet.data.record import SPLITS, Listing, Record

CUT = 0.15

Splits = dict[str, tuple[Record, ...]]
Key = tuple[str, bool]


def split_samples(
    found: Listing, *, seed: int, fold: tuple[int, int] = (1, 1), problems: list[str] | None = None
) -> Splits:
    """Divide the records of a dataset.

    The splits that the layout gives are kept. Validation or test, where it gives none, is cut from train:
    groups in an order that is drawn, until they have 15 % of its records. One without a group is its own.

    Args:
      found: the dataset.
      seed: of the cut; the same seed and names (or groups) give the same splits.
      fold: (i, k): validation becomes part i of k, counted from 1, of train and validation together: groups
        in an order that is drawn are cut into k parts that differ by one group at most.
      problems: a line is appended for each group in two given splits, and if there is too little to divide.
    Returns: the records of "train", "validation" and "test", sorted by name.
    """
    problems = [] if problems is None else problems
    splits: Splits = {
        split: tuple(
            sorted((r for r in found.records if (r.split or "train") == split), key=lambda r: r.name)
        )
        for split in SPLITS
    }
    _check_groups(splits, problems)
    missing = [split for split in ("validation", "test") if not splits[split]]
    keys = _by_key(splits["train"])
    if 0 < len(keys) <= len(missing) and not found.problems:
        what = "pairs" if all(alone for _, alone in keys) else "groups"
        problems.append(f"{found.root}: too few {what} to split; accepted are {len(missing) + 1} or more")
    splits |= _cut(splits["train"], missing, seed)
    return splits if fold == (1, 1) else splits | _fold(found, splits, fold, seed, problems)


def _by_key(records: Sequence[Record]) -> dict[Key, list[Record]]:
    """The records of each group, sorted by group; those without one are alone under their name."""
    groups: dict[Key, list[Record]] = {}
    for record in records:
        key = (record.name, True) if record.group is None else (record.group, False)
        groups.setdefault(key, []).append(record)
    return dict(sorted(groups.items()))


def _check_groups(splits: Mapping[str, Sequence[Record]], problems: list[str]) -> None:
    """A line for each group that is in several given splits."""
    first: dict[str, tuple[str, Record]] = {}
    named = set()
    for split, records in splits.items():
        for record in records:
            if record.group is None:
                continue
            other, sample = first.setdefault(record.group, (split, record))
            if other != split and (record.group, split) not in named:
                named.add((record.group, split))
                problems.append(
                    f"{record.image}: group {record.group} is in {split} and, with {sample.image}, "
                    f"in {other}; accepted is one split for a group"
                )


def _cut(records: Sequence[Record], missing: Sequence[str], seed: int) -> Splits:
    """Divide records among the missing splits and train."""
    groups = _by_key(records)
    keys, share = list(groups), max(1, round(CUT * len(records)))
    # The legacy generator's streams never change: a new numpy must not move test images into train.
    order = [keys[place] for place in np.random.RandomState(seed).permutation(len(keys))]
    chosen: Splits = {}
    for still, split in zip(range(len(missing), 0, -1), missing, strict=True):
        taken: list[Record] = []
        # One group at least stays for each split that is still to come.
        while order and len(taken) < share and (not taken or len(order) > still):
            taken += groups[order.pop(0)]
        chosen[split] = tuple(sorted(taken, key=lambda record: record.name))
    rest = [record for key in order for record in groups[key]]
    return {**chosen, "train": tuple(sorted(rest, key=lambda record: record.name))}


def _fold(found: Listing, splits: Splits, fold: tuple[int, int], seed: int, problems: list[str]) -> Splits:
    """Train and validation of a fold; each group is in one part."""
    train = {record.name: record for record in splits["train"]}
    problems += [
        f"{record.image_location}: the same name as {train[record.name].image_location}; "
        "accepted with --fold are different names"
        for record in splits["validation"]
        if record.name in train
    ]
    pool, (number, count) = _by_key((*splits["train"], *splits["validation"])), fold
    if len(pool) < count:
        what = "pairs" if all(alone for _, alone in pool) else "groups"
        problems.append(
            f"{found.root}: {len(pool)} {what} to fold; "
            f"accepted with --fold {number}/{count} are {count} or more"
        )
    parts = np.array_split(np.random.RandomState(seed).permutation(len(pool)), count)
    held = set(parts[number - 1].tolist())

    def those(inside: bool) -> tuple[Record, ...]:
        kept = [r for place, rs in enumerate(pool.values()) for r in rs if (place in held) == inside]
        return tuple(sorted(kept, key=lambda record: record.name))

    return {"train": those(False), "validation": those(True)}
