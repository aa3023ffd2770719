"""A dataset enters; every file of it is read once, and all that is wrong or odd leaves as findings."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from flaxunet import labels as targets
from flaxunet.data import Listing, Record, split_samples
from flaxunet.data.classes import MAX_INFERRED, SampleSummary, check_channels, check_classes
from flaxunet.data.inspection import advice
from flaxunet.data.inspection.duplicates import CORRELATION, nearest
from flaxunet.data.inspection.facts import Facts, gather
from flaxunet.data.inspection.report import Finding, Label, Report

SMALL = 32  # pixels of a side, below which five halvings leave nothing
FAINT = 1 / 16  # of the type's range: what a 12-bit camera reaches in a 16-bit file


def examine(
    found: Listing,
    *,
    target: str | None = None,
    classes: int | None = None,
    ignore_label: int | None = None,
    seed: int = 0,
    fold: tuple[int, int] = (1, 1),
    threads: int = 2,
    asked: Sequence[str] = (),
) -> Report:
    """Read everything, and say everything.

    Args:
      found: the dataset.
      target: see `flaxunet.labels.relabel`; None takes what the masks suggest.
      classes: K; None infers it.
      ignore_label: the stored label of pixels that do not count; None, with a target of None, takes what the
        masks suggest.
      seed, fold: see `flaxunet.data.split_samples`.
      threads: that read files.
      asked: flags of `python -m train` that stand for the arguments, for the command that is suggested.
    Returns: the report.
    """
    lines: list[str] = list(found.problems)
    splits = split_samples(found, seed=seed, fold=fold, problems=lines)
    everything = gather(found, threads)
    lines += [line for one in everything for line in one.problems]
    facts = [one for one in everything if not one.problems]
    if target is None:
        target, suggested = advice.meaning(found, facts)
        ignore_label = suggested if ignore_label is None else ignore_label
    seen = [_seen(one, target, ignore_label) for one in facts]
    told: list[str] = []
    classes = check_classes(seen, classes, told, target=target, names=found.class_names)
    check_channels(seen, told)
    lines += told

    by_record = {_key(one.record): one for one in facts}
    parts = {
        split: [by_record[key] for record in records if (key := _key(record)) in by_record]
        for split, records in splits.items()
    }
    labels = _labels(seen, facts, classes, target, ignore_label, found)
    findings = [
        *(_finding(line) for line in lines),
        *_wrong(found, facts, parts, labels, target, ignore_label),
        *_duplicates(parts),
        *(_odd(facts, parts, labels, seen) if facts else ()),
    ]
    if target == "classes" and found.class_names is None and advice.are_objects(facts):
        what = "each has labels 1 to n, as numbered objects have: is --target foreground meant?"
        findings.append(Finding(False, "masks", what))
    whole = sum(label.pixels for label in labels) or 1
    flags = advice.flags(
        found,
        facts,
        asked=asked,
        target=target,
        ignore_label=ignore_label,
        shares=[label.pixels / whole for label in labels[1:]],
    )
    return Report(
        found,
        facts,
        parts,
        tuple(dict.fromkeys(record.split for record in found.records if record.split)),
        target,
        ignore_label,
        classes,
        labels,
        advice.counted(facts),
        [one.record.mask_location for one, s in zip(facts, seen, strict=True) if not (s.values > 0).any()],
        sorted(findings, key=lambda finding: not finding.error),
        flags,
    )


def _key(record: Record) -> tuple[str | None, str, str]:
    return record.split, record.name, record.image_location


def _seen(facts: Facts, target: str, ignore_label: int | None) -> SampleSummary:
    values = facts.values[facts.values != ignore_label] if ignore_label is not None else facts.values
    values = values if target == "classes" else np.unique(np.minimum(values, 1))
    return SampleSummary(facts.record.image_location, facts.record.mask_location, facts.shape[-1], values)


def _finding(line: str) -> Finding:
    where, _, what = line.partition(": ")
    return Finding(True, where, what)


def _labels(
    seen: Sequence[SampleSummary],
    facts: Sequence[Facts],
    classes: int,
    target: str,
    ignore_label: int | None,
    found: Listing,
) -> list[Label]:
    """What is learned of the masks; boundaries count as the foreground that they are cut from."""
    known = found.class_names if target == "classes" else targets.CLASS_NAMES["foreground"]
    count = max(classes, 2) if target == "classes" else 2
    named = known or ("background", "foreground")
    if len(named) != count:
        named = ("background", *(f"class {value}" for value in range(1, count)))
    stored = advice.counted(facts)
    pixels = {value: number for value, number in stored.items() if value != ignore_label}
    if target != "classes":
        above = sum(number for value, number in pixels.items() if value > 0)
        pixels = {0: pixels.get(0, 0), 1: above}
    masks = Counter(value for one in seen for value in one.values.tolist())
    return [
        Label(value, name, pixels.get(value, 0), masks[value])
        for value, name in enumerate(named)
        # Of values that are no classes, which is said elsewhere, those that occur.
        if count <= MAX_INFERRED or known or value in pixels
    ]


def _wrong(
    found: Listing,
    facts: Sequence[Facts],
    parts: Mapping[str, Sequence[Facts]],
    labels: Sequence[Label],
    target: str,
    ignore_label: int | None,
) -> Iterator[Finding]:
    """What training would not refuse, but should."""
    for one in filter(advice.is_blurred, facts):
        between = (one.values > 0) & (one.values < 255)
        share = one.counts[between].sum() / one.counts.sum()
        yield Finding(
            True,
            one.record.mask_location,
            f"{between.sum()} values between 0 and 255 in {share:.1%} of its pixels, as blurring, resizing "
            "or JPEG leave them; accepted are whole labels",
        )
    values = sorted(advice.counted(facts).keys() - {ignore_label})
    painted = target == "classes" and found.class_names is None and advice.are_gray_levels(values)
    if painted and not any(map(advice.is_blurred, facts)):
        listed = ", ".join(map(str, values))
        yield Finding(True, "masks", f"gray levels {listed}; accepted are labels 0, 1, 2, ...")
    if facts and not any(label.pixels for label in labels[1:]):
        yield Finding(True, "masks", "all are empty; accepted are some with labels above 0")
    elif parts["train"] and not any((one.values > 0).any() for one in parts["train"]):
        yield Finding(True, "train", "all masks are empty; accepted are some with labels above 0")


def _duplicates(parts: Mapping[str, Sequence[Facts]]) -> Iterator[Finding]:
    """Images that are in two splits, or nearly: for each, the one that is most like it."""
    for (split, first), (other, second) in combinations(parts.items(), 2):
        if not first or not second:
            continue
        known = {one.digest: one for one in first if one.low != one.high}
        places, correlations = nearest([one.print for one in second], [one.print for one in first])
        for two, place, correlation in zip(second, places, correlations, strict=True):
            where, same = two.record.image_location, known.get(two.digest)
            if same is not None:
                twin = f"{same.record.image_location} of {split}"
                yield Finding(True, where, f"in {other}, is {twin}; accepted is an image in one split")
            elif correlation >= CORRELATION:
                twin = f"{first[place].record.image_location} of {split}"
                yield Finding(False, where, f"in {other}, is nearly {twin} (correlation {correlation:.3f})")


def _odd(
    facts: Sequence[Facts],
    parts: Mapping[str, Sequence[Facts]],
    labels: Sequence[Label],
    seen: Sequence[SampleSummary],
) -> Iterator[Finding]:
    """What may be meant."""
    for one in facts:
        where, (height, width, _) = one.record.image_location, one.shape
        if one.low == one.high:
            yield Finding(False, where, f"every pixel is {one.low:.3g}")
        elif one.high < FAINT:
            yield Finding(False, where, f"its brightest pixel has {one.high:.1%} of the range of {one.kind}")
        if min(height, width) < SMALL:
            yield Finding(False, where, f"{height} x {width} pixels, fewer than {SMALL} a side")
    by_key = {_key(one.record): s for one, s in zip(facts, seen, strict=True)}
    held = {
        split: {value for one in members for value in by_key[_key(one.record)].values.tolist()}
        for split, members in parts.items()
    }
    for label in labels[1:]:
        if not label.pixels:
            yield Finding(False, label.name, "occurs in no mask")
            continue
        for split, values in held.items():
            if values and label.value not in values:
                yield Finding(False, label.name, f"occurs in no mask of {split}")
        if label.masks == 1 and len(facts) > 10 and len(labels) > 2:
            only = next(s.mask for s in seen if label.value in s.values)
            yield Finding(False, only, f"the only mask with {label.name} ({label.pixels} pixels)")
