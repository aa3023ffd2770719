"""Suggests what the masks of a dataset mean, and the flags to train with."""

from collections.abc import Sequence

import numpy as np

from flaxunet.data import LAYOUTS, Listing
from flaxunet.data.inspection.facts import Facts
from flaxunet.data.inspection.report import Report
from flaxunet.labels import MAX_INFERRED, are_ambiguous

SIZE = 96  # the default of --size
RARE = 0.01  # random crops mostly miss a class with a smaller share of the pixels
GRAY_LEVELS = 8  # at most so many values, some of them large, are gray levels painted for classes


def is_blurred(facts: Facts) -> bool:
    """Checks whether a mask of 0 and 255 was blurred, resized or saved as JPEG: few pixels have other values.

    In a mask of numbered objects 255 is one of many; here it has four times the pixels of all between.
    """
    between = (facts.values > 0) & (facts.values < 255)
    full = facts.counts[facts.values == 255].sum()
    return bool(between.sum() >= 3 and facts.values.max() == 255 and full > 4 * facts.counts[between].sum())


def are_objects(facts: Sequence[Facts]) -> bool:
    """Checks whether masks have the labels 1 to n, for five or more different n: classes hardly ever do."""
    foreground = [one.values[one.values > 0].tolist() for one in facts]
    consecutive = all(values == list(range(1, len(values) + 1)) for values in foreground)
    return consecutive and len(set(map(len, foreground))) >= 5


def are_gray_levels(values: Sequence[int]) -> bool:
    """Checks whether values of masks are few, and some of them large, as those of painted gray levels."""
    return 2 < len(values) <= GRAY_LEVELS and max(values) >= MAX_INFERRED


def suggest_target(listing: Listing, facts: Sequence[Facts]) -> tuple[str, int | None]:
    """Suggests a target, and the label to ignore or None, by the values of the masks."""
    values = {int(value) for one in facts for value in ((0, 255) if is_blurred(one) else one.values)}
    if listing.instances:
        return "foreground", None
    if listing.class_names is not None:
        count = len(listing.class_names)
        beyond = {value for value in values if not 0 <= value < count}
        return "classes", beyond.pop() if beyond in ({count}, {255}, {-1}) else None
    if are_objects(facts):
        return "foreground", None
    outlier = 255 in values and max(values - {255}, default=0) < MAX_INFERRED
    ignored = 255 if outlier else -1 if -1 in values else None
    rest = values - {ignored}
    if ignored == 255 and len(rest) < 2:  # 0 and 255, and nothing to ignore
        return "foreground", None
    if are_ambiguous(rest) and not are_gray_levels(list(rest)):
        return "foreground", ignored
    return "classes", ignored


def train_flags(report: Report, flags: Sequence[str]) -> list[str]:
    """Chooses the flags of `python -m train`, besides --data; those that the user has set stay."""
    layout, target = report.listing.layout, report.target
    entry = LAYOUTS.get(layout)  # none if the files look like several layouts
    side = int(np.median([min(one.shape[:2]) for one in report.facts])) if report.facts else SIZE
    size = -(-side // 32) * 32
    total = sum(label.pixels for label in report.labels) or 1
    rare = any(0 < label.pixels / total < RARE for label in report.labels[1:])
    suggested = {
        "--layout": layout if entry and entry.recognize is None else None,
        "--target": None if target == "classes" else target,
        "--ignore-label": report.ignore_label,
        "--size": size if size < SIZE else None,
        "--foreground": 0.5 if rare and size >= SIZE else None,
    }
    new = {flag: str(value) for flag, value in suggested.items() if value is not None and flag not in flags}
    return [*flags, *(word for pair in new.items() for word in pair)]
