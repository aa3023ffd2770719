"""What a network is to learn of a dataset enters; K and channels leave, and a line for what does not fit."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaxunet.data.detect import find
from flaxunet.data.record import Listing
from flaxunet.labels import CLASS_NAMES

MAX_INFERRED = 32  # more classes than this have to be asked for: such labels are likelier to be instance ids
HINT = "; for instance ids, and for masks of 0 and 255, use --target foreground"


@dataclass(frozen=True)
class SampleSummary:
    """A sample's image and mask in messages, its channels, and its labels that count, all above 0 as 1
    unless the target is classes."""

    image: str
    mask: str
    channels: int
    values: np.ndarray


def find_for_target(
    root: Path, *, target: str | None, layout: str | None, group: str | None, axis: str
) -> Listing:
    """Find the samples of a dataset for a target: with numbered objects where it is made of boundaries.

    Args:
      target: see `flaxunet.labels.relabel`; None is any.
      root, layout, group, axis: see `flaxunet.data.find`.
    Returns: what was found; numbered objects that would be taken for classes are among its problems.
    """
    objects = target in ("boundary", "3class")
    found = find(root, layout=layout, group=group, objects=objects, axis=axis)
    if found.instances and target == "classes" and not found.problems:
        accepted = ", ".join(CLASS_NAMES)
        line = f"{root}: masks of the layout {found.layout} number objects; accepted are --target {accepted}"
        found = dataclasses.replace(found, problems=(line,))
    return found


def check_classes(
    seen: Sequence[SampleSummary],
    classes: int | None,
    problems: list[str],
    *,
    target: str = "classes",
    names: tuple[str, ...] | None = None,
) -> int:
    """K, and a line for each mask with labels outside of it.

    Args:
      seen: of each sample.
      classes: K; None infers it: by the target or the names, else 1 for labels within {0, 1}, else the
        largest label plus one.
      problems: lines are appended here.
      target: see `flaxunet.labels.relabel`.
      names: of the classes that the layout gives, background first; for the target "classes".
    """
    names = CLASS_NAMES.get(target, names)
    foreground = {int(label) for one in seen for label in one.values if label > 0}
    top = max(foreground, default=0)
    # Instance ids go far beyond any class, and a mask of 0 and 255 leaves out all labels between.
    suspect = names is None and (top >= MAX_INFERRED or (len(foreground) == 1 and top > 1))
    if names is not None:
        given = 1 if len(names) <= 2 else len(names)
        if classes is not None and max(classes, 2) != max(len(names), 2):
            problems.append(f"--classes is {classes}; accepted is {given}, for {', '.join(names)}")
        classes = classes or given
    elif classes is None:
        classes = 1 if top <= 1 else top + 1
        if suspect:
            mask = next(one.mask for one in seen if top in one.values)
            problems.append(
                f"{mask}: label {top}; accepted without --classes are 0..{MAX_INFERRED - 1}{HINT}"
            )
    most = (max(classes, 2) if target == "classes" else 2) - 1
    for one in seen:
        wrong = one.values[(one.values < 0) | (one.values > most)]
        if wrong.size:
            listed = ", ".join(map(str, wrong[:8])) + (", ..." if wrong.size > 8 else "")
            alone = wrong[-1] > 0 and (one.values > 0).sum() == 1
            hint = HINT if suspect or alone else ""
            problems.append(f"{one.mask}: labels {listed}; accepted are 0..{most}{hint}")
    return classes


def check_channels(seen: Sequence[SampleSummary], problems: list[str]) -> int:
    """The channels that all images can be given, and a line for each image that cannot."""
    counts = Counter(one.channels for one in seen)
    if counts.keys() <= {1, 3}:
        return max(counts, default=0)
    usual = counts.most_common(1)[0][0]
    for one in seen:
        if one.channels != usual:
            accepted = "accepted are equal channels, or gray and RGB"
            problems.append(f"{one.image}: {one.channels} channels, most images have {usual}; {accepted}")
    return usual
