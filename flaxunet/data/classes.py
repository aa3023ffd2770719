"""Checks that the masks and images of a dataset fit a training target: its classes and its channels."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flaxunet.data.detect import find
from flaxunet.data.record import Listing
from flaxunet.labels import CLASS_NAMES, MAX_INFERRED, OBJECT_TARGETS, are_ambiguous

HINT = "; for numbers of objects, and for masks of 0 and 255, use --target foreground"


class SampleSummary(NamedTuple):
    """Summarizes what is checked of a sample."""

    image: str  # its name in messages
    mask: str  # its name in messages
    channels: int  # of the image
    values: np.ndarray  # of the mask; see `flaxunet.labels.target_values`


def find_for_target(
    root: Path, target: str | None, *, layout: str | None, group: str | None, axis: str
) -> Listing:
    """Lists the samples of a dataset, with numbered objects if its target is made of boundaries.

    Args:
      target: see `flaxunet.labels.relabel`; None is any.
      root, layout, group, axis: see `flaxunet.data.find`.
    Returns: the listing; numbered objects for the target "classes" are one of its problems.
    """
    listing = find(root, layout=layout, group=group, objects=target in OBJECT_TARGETS, axis=axis)
    if listing.instances and target == "classes" and not listing.problems:
        what = f"masks of the layout {listing.layout} number objects"
        listing.problems.append(f"{root}: {what}; expected --target {', '.join(CLASS_NAMES)}")
    return listing


def check_classes(
    summaries: Sequence[SampleSummary],
    classes: int | None,
    problems: list[str],
    *,
    target: str = "classes",
    names: tuple[str, ...] | None = None,
) -> int:
    """Infers K, and checks the labels of every mask against it.

    Args:
      classes: K; None infers it: by the target or the names, else 1 for labels 0 and 1, else the largest + 1.
      problems: a line is appended for each mask with labels outside of K.
      target: see `flaxunet.labels.relabel`.
      names: class names of the layout, background first; for the target "classes".
    Returns: K.
    """
    names = CLASS_NAMES.get(target, names)
    foreground = {int(value) for summary in summaries for value in summary.values if value > 0}
    top = max(foreground, default=0)
    ambiguous = names is None and are_ambiguous(foreground)
    if names is not None:
        expected = 1 if len(names) <= 2 else len(names)
        if classes is not None and max(classes, 2) != max(len(names), 2):
            problems.append(f"--classes is {classes}; expected {expected}, for {', '.join(names)}")
        classes = classes or expected
    elif classes is None:
        classes = 1 if top <= 1 else top + 1
        if ambiguous:
            mask = next(summary.mask for summary in summaries if top in summary.values)
            problems.append(f"{mask}: label {top}; expected 0..{MAX_INFERRED - 1} without --classes{HINT}")
    largest = (max(classes, 2) if target == "classes" else 2) - 1
    for _, mask, _, values in summaries:
        wrong = values[(values < 0) | (values > largest)]
        if wrong.size:
            some = ", ".join(map(str, wrong[:8])) + (", ..." if wrong.size > 8 else "")
            hint = HINT if ambiguous or (wrong[-1] > 0 and (values > 0).sum() == 1) else ""
            problems.append(f"{mask}: labels {some}; expected 0..{largest}{hint}")
    return classes


def check_channels(summaries: Sequence[SampleSummary], problems: list[str]) -> int:
    """Finds the number of channels that all images can have; gray ones may become RGB.

    Args:
      problems: a line is appended for each image of another number of channels.
    """
    counts = Counter(summary.channels for summary in summaries)
    if counts.keys() <= {1, 3}:
        return max(counts, default=0)
    usual = counts.most_common(1)[0][0]
    for image, _, channels, _ in summaries:
        if channels != usual:
            problems.append(f"{image}: {channels} channels; expected {usual}, as most images have")
    return usual
