"""What was found in a dataset, as numbers and lines, and the same as JSON."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flaxunet.data import Listing
from flaxunet.data.inspection.facts import Facts


@dataclass(frozen=True)
class Finding:
    """Something wrong (an error: training would be refused or its score would be worth nothing) or odd.

    `where` names a file, a folder or a class; `what` says what is wrong and, for errors, what is accepted.
    """

    error: bool
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True)
class Label:
    """A label that is learned: its number and name, its pixels, and the masks that it occurs in."""

    value: int
    name: str
    pixels: int
    masks: int


@dataclass(frozen=True)
class Report:
    """All about a dataset.

    Attributes:
      found: the samples.
      facts: about each that could be read.
      splits: the facts of each split.
      given: the splits that the layout gave; the others are cut by the seed.
      target, ignore_label: given, or what the masks suggest.
      classes: K.
      labels: what is learned, background first.
      stored: the pixels of each value that the masks have.
      empty: the masks without any label above 0.
      findings: errors first, each in the order of files.
      flags: those that `python -m train` needs besides --data.
    """

    found: Listing
    facts: Sequence[Facts]
    splits: Mapping[str, Sequence[Facts]]
    given: tuple[str, ...]
    target: str
    ignore_label: int | None
    classes: int
    labels: Sequence[Label]
    stored: Mapping[int, int]
    empty: Sequence[str]
    findings: Sequence[Finding]
    flags: Sequence[str]

    @property
    def errors(self) -> list[Finding]:
        """What keeps from training."""
        return [finding for finding in self.findings if finding.error]

    @property
    def command(self) -> str:
        """What to train with."""
        return shlex.join(["python", "-m", "train", "--data", str(self.found.root), *self.flags])

    @property
    def sizes(self) -> Counter[str]:
        """Images of each height and width."""
        return Counter(f"{one.shape[0]} x {one.shape[1]}" for one in self.facts)

    @property
    def kinds(self) -> Counter[str]:
        """Images of each stored type."""
        return Counter(one.kind for one in self.facts)

    @property
    def channels(self) -> Counter[int]:
        """Images of each number of channels."""
        return Counter(one.shape[2] for one in self.facts)

    @property
    def objects(self) -> list[int]:
        """The number of objects in each mask; none where masks hold classes."""
        ids = self.found.instances or (self.target != "classes" and len(self.stored) > 2)
        skipped = (0, self.ignore_label)
        return (
            [sum(value not in skipped for value in one.values.tolist()) for one in self.facts] if ids else []
        )

    def content(self) -> dict[str, Any]:
        """What inspect.json says."""
        return {
            "data": str(self.found.root),
            "layout": self.found.layout,
            "taken": list(self.found.interpretation),
            "command": self.command,
            "usable": not self.errors,
            "splits": {
                split: {
                    "samples": len(facts),
                    "groups": len({one.record.group for one in facts if one.record.group is not None}),
                    "given": split in self.given,
                    "names": [one.record.name for one in facts],
                }
                for split, facts in self.splits.items()
            },
            "images": {
                "sizes": dict(self.sizes.most_common()),
                "types": dict(self.kinds.most_common()),
                "channels": {str(count): images for count, images in self.channels.most_common()},
            },
            "masks": {
                "values": {str(value): pixels for value, pixels in sorted(self.stored.items())},
                "labels": [vars(label) for label in self.labels],
                "objects": sum(self.objects),
                "empty": list(self.empty),
            },
            "findings": [
                {"level": "error" if one.error else "warning", "where": one.where, "what": one.what}
                for one in self.findings
            ],
        }
