"""What the masks of a dataset hold enters; what they mean, and the flags to train with, leave."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from flaxunet.data import Listing
from flaxunet.data.classes import MAX_INFERRED
from flaxunet.data.inspection.facts import Facts

SIZE = 96  # the default of --size
RARE = 0.01  # a class with a smaller part of the pixels is missed by most random crops
LEVELS = 8  # as few values as this, all far apart, are gray levels painted for classes


def is_blurred(facts: Facts) -> bool:
    """Whether a mask of 0 and 255 was blurred, resized or saved as JPEG: it has a few pixels of other values.

    In a mask of numbered objects 255 is one of many; here it has four times the pixels of all between.
    """
    between = (facts.values > 0) & (facts.values < 255)
    full = facts.counts[facts.values == 255].sum()
    return bool(between.sum() >= 3 and facts.values.max() == 255 and full > 4 * facts.counts[between].sum())


def are_objects(facts: Sequence[Facts]) -> bool:
    """Whether each mask has the labels 1 to n, for at least five different n: classes hardly ever do."""
    above = [one.values[one.values > 0] for one in facts]
    counted_up = all(np.array_equal(values, np.arange(1, len(values) + 1)) for values in above)
    return counted_up and len({len(values) for values in above}) >= 5


def meaning(found: Listing, facts: Sequence[Facts]) -> tuple[str, int | None]:
    """The target that the masks suggest, and the label to ignore."""
    values = {int(value) for one in facts if not is_blurred(one) for value in one.values}
    values |= {value for one in facts if is_blurred(one) for value in (0, 255)}
    if found.instances:
        return "foreground", None
    if found.class_names is not None:
        count = len(found.class_names)
        beyond = {value for value in values if not 0 <= value < count}
        return "classes", beyond.pop() if beyond in ({count}, {255}, {-1}) else None
    if are_objects(facts):
        return "foreground", None
    ignored = 255 if 255 in values and max(values - {255}, default=0) < MAX_INFERRED else None
    ignored = -1 if values & {-1} and ignored is None else ignored
    rest = values - {ignored}
    if ignored == 255 and len(rest) < 2:  # 0 and 255, and nothing to ignore
        return "foreground", None
    top = max(rest, default=0)
    if (len(rest) == 2 and top > 1) or (top >= MAX_INFERRED and len(rest) > LEVELS):
        return "foreground", ignored
    return "classes", ignored


def are_gray_levels(values: Sequence[int]) -> bool:
    """Whether few values, some of them large, were painted for classes."""
    return 2 < len(values) <= LEVELS and max(values) >= MAX_INFERRED


def flags(
    found: Listing,
    facts: Sequence[Facts],
    *,
    asked: Sequence[str],
    target: str,
    ignore_label: int | None,
    shares: Sequence[float],
) -> list[str]:
    """Those of `python -m train`, besides --data.

    Args:
      found: the dataset.
      facts: about each sample.
      asked: flags that were given: they stay.
      target, ignore_label: see `meaning`.
      shares: of the pixels, for each class above 0.
    """
    chosen = list(asked)
    if found.layout == "instances" and "--layout" not in chosen:
        chosen += ["--layout", found.layout]
    if target != "classes" and "--target" not in chosen:
        chosen += ["--target", target]
    if ignore_label is not None and "--ignore-label" not in chosen:
        chosen += ["--ignore-label", str(ignore_label)]
    side = int(np.median([min(one.shape[:2]) for one in facts])) if facts else SIZE
    if (whole := -(-side // 32) * 32) < SIZE:
        chosen += ["--size", str(whole)]
    elif any(0 < share < RARE for share in shares):
        chosen += ["--foreground", "0.5"]
    return chosen


def counted(facts: Sequence[Facts]) -> Counter[int]:
    """The pixels of each value that the masks have."""
    total: Counter[int] = Counter()
    for one in facts:
        total.update(dict(zip(one.values.tolist(), one.counts.tolist(), strict=True)))
    return total
