"""Holds the result of an inspection, and its content as JSON."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flaxunet.data import Listing
from flaxunet.data.convert import train_command
from flaxunet.data.inspection.facts import Facts

_NAMED = 3  # files that a line about several ones names


@dataclass(frozen=True)
class Finding:
    """An error (training would be refused, or its score would be worth nothing) or a warning."""

    error: bool
    where: str  # a file, a folder or a class
    what: str  # is wrong with it and, for errors, was expected; equal for equal problems
    detail: str = ""  # what differs between equal problems, such as a number

    def __str__(self) -> str:
        return f"{self.where}: {self.what}{self.detail}"


def merge_lines(findings: Iterable[Finding]) -> list[str]:
    """Merges equal problems into one line with their number and the first files, in order of appearance."""
    groups: dict[tuple[bool, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.error, finding.what), []).append(finding)
    lines = []
    for (_, what), members in groups.items():
        names = ", ".join(one.where for one in members[:_NAMED])
        more = f"{names} and {len(members) - _NAMED:,} more: {what}"
        lines += [more] if len(members) > _NAMED else map(str, members)
    return lines


@dataclass(frozen=True)
class Label:
    """A label of the training target: its number and name, its pixels, and the masks that contain it."""

    value: int
    name: str
    pixels: int
    masks: int


@dataclass
class Report:
    """All that an inspection finds out about a dataset.

    Attributes:
      listing: the samples.
      facts: about each sample that could be read.
      splits: the facts of each split.
      target, ignore_label: those of the user, or what the masks suggest.
      empty: the masks without any label above 0.
      labels: of the target, background first.
      errors, warnings: findings that prevent training, and those that may be intended.
      flags: those that `python -m train` needs besides --data.
    """

    listing: Listing
    facts: Sequence[Facts]
    splits: Mapping[str, Sequence[Facts]]
    target: str
    ignore_label: int | None
    empty: Sequence[str]
    labels: Sequence[Label] = ()
    errors: Sequence[Finding] = ()
    warnings: Sequence[Finding] = ()
    flags: Sequence[str] = ()

    @property
    def command(self) -> str:
        """The command line that trains on the dataset."""
        return train_command(self.listing.root, self.flags)

    @cached_property
    def layout_splits(self) -> set[str | None]:
        """The splits of the layout; the others are cut by the seed."""
        return {record.split for record in self.listing.records} - {None}

    @cached_property
    def stored(self) -> Counter[int]:
        """The pixels of each value in the masks."""
        total: Counter[int] = Counter()
        for one in self.facts:
            total.update(dict(zip(one.values.tolist(), one.counts.tolist(), strict=True)))
        return total

    @cached_property
    def images(self) -> dict[str, Counter[Any]]:
        """The number of images of each size, stored dtype, and number of channels."""
        return {
            "sizes": Counter(f"{one.shape[0]} x {one.shape[1]}" for one in self.facts),
            "types": Counter(one.dtype for one in self.facts),
            "channels": Counter(one.shape[2] for one in self.facts),
        }

    @property
    def objects(self) -> list[int]:
        """The number of objects in each mask; empty where masks hold classes."""
        if not (self.listing.instances or (self.target != "classes" and len(self.stored) > 2)):
            return []
        skipped = (0, self.ignore_label)
        return [sum(value not in skipped for value in one.values.tolist()) for one in self.facts]

    def content(self) -> dict[str, Any]:
        """The content of inspect.json."""
        return {
            "data": str(self.listing.root),
            "layout": self.listing.layout,
            "taken": self.listing.interpretation,
            "command": self.command,
            "usable": not self.errors,
            "splits": {
                split: {
                    "samples": len(facts),
                    "groups": len({one.record.group for one in facts} - {None}),
                    "given": split in self.layout_splits,
                    "names": [one.record.name for one in facts],
                }
                for split, facts in self.splits.items()
            },
            "images": {kind: dict(counts.most_common()) for kind, counts in self.images.items()},
            "masks": {
                "values": dict(sorted(self.stored.items())),
                "labels": [vars(label) for label in self.labels],
                "objects": sum(self.objects),
                "empty": self.empty,
            },
            "findings": [
                {"level": level, "where": one.where, "what": one.what + one.detail}
                for level, findings in (("error", self.errors), ("warning", self.warnings))
                for one in findings
            ],
        }
