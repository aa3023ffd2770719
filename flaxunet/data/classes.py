"""Checks that the masks and images of a dataset fit a training target: its classes and its channels."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flaxunet.data.detect import find
from flaxunet.data.record import Listing
from flaxunet.labels import CLASS_NAMES, MAX_INFERRED, OBJECT_TARGETS, are_ambiguous

HINT = "; for numbers of objects, and for masks of 0 and 255, use --target foreground"


@dataclass(frozen=True)
class SampleSummary:
    """Summarizes what is checked of a sample.

    Attributes:
      image: names the image in messages.
      mask: names the mask in messages.
      channels: of the image.
      values: of the mask; see `flaxunet.labels.target_values`.
    """

    image: str
    mask: str
    channels: int
    values: np.ndarray


def find_for_target(
    root: Path, *, target: str | None, layout: str | None, group: str | None, axis: str
) -> Listing:
    """Lists the samples of a dataset, with numbered objects if its target is made of boundaries.

    Args:
      target: see `flaxunet.labels.relabel`; None is any.
      root, layout, group, axis: see `flaxunet.data.find`.
    Returns: the listing; numbered objects for the target "classes" are one of its problems.
    """
    listing = find(root, layout=layout, group=group, objects=target in OBJECT_TARGETS, axis=axis)
    if listing.instances and target == "classes" and not listing.problems:
        expected = f"expected --target {', '.join(CLASS_NAMES)}"
        line = f"{root}: masks of the layout {listing.layout} number objects; {expected}"
        listing = dataclasses.replace(listing, problems=(line,))
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
      summaries: of each sample.
      classes: K; None infers it: by the target or the names, else 1 for labels within {0, 1}, else the
        largest label plus one.
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
    for summary in summaries:
        wrong = summary.values[(summary.values < 0) | (summary.values > largest)]
        if wrong.size:
            labels = ", ".join(map(str, wrong[:8])) + (", ..." if wrong.size > 8 else "")
            alone = wrong[-1] > 0 and (summary.values > 0).sum() == 1
            hint = HINT if ambiguous or alone else ""
            problems.append(f"{summary.mask}: labels {labels}; expected 0..{largest}{hint}")
    return classes


def check_channels(summaries: Sequence[SampleSummary], problems: list[str]) -> int:
    """Finds the number of channels that all images can have; gray ones may become RGB.

    Args:
      summaries: of each sample.
      problems: a line is appended for each image of another number of channels.
    Returns: the number of channels.
    """
    counts = Counter(summary.channels for summary in summaries)
    if counts.keys() <= {1, 3}:
        return max(counts, default=0)
    usual = counts.most_common(1)[0][0]
    problems += [
        f"{summary.image}: {summary.channels} channels; expected {usual}, as most images have"
        for summary in summaries
        if summary.channels != usual
    ]
    return usual
