"""Examines a dataset: reads every file once, and reports all that is wrong or odd as findings."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from flaxunet.data import Listing, Record, split_samples
from flaxunet.data.classes import SampleSummary, check_channels, check_classes
from flaxunet.data.inspection import advice
from flaxunet.data.inspection.facts import CORRELATION, measure_all, nearest
from flaxunet.data.inspection.report import Finding, Label, Report
from flaxunet.labels import MAX_INFERRED, class_names, default_names, target_values

SMALL = 32  # pixels a side, below which five halvings leave nothing
FAINT = 1 / 16  # of the dtype's range, which a 12-bit camera reaches in a 16-bit file

Values = Mapping[Record, np.ndarray]  # of masks, as the target has them


def examine(
    listing: Listing,
    *,
    target: str | None = None,
    classes: int | None = None,
    ignore_label: int | None = None,
    seed: int = 0,
    fold: tuple[int, int] = (1, 1),
    threads: int = 2,
    flags: Sequence[str] = (),
) -> Report:
    """Reads a whole dataset and reports all that is wrong with it.

    Args:
      target: see `flaxunet.labels.relabel`; None is what the masks suggest.
      classes: K; None infers it.
      ignore_label: stored label of pixels that do not count; None, without a target, is what masks suggest.
      seed, fold: see `flaxunet.data.split_samples`.
      threads: number that read files.
      flags: those of `python -m train` for the arguments above, kept in the command that is suggested.
    """
    problems = list(listing.problems)
    splits = split_samples(listing, seed=seed, fold=fold, problems=problems)
    facts, unreadable = measure_all(listing, threads)
    problems += unreadable
    if target is None:
        target, suggested = advice.suggest_target(listing, facts)
        ignore_label = suggested if ignore_label is None else ignore_label
    values = {one.record: target_values(one.values, target, ignore_label) for one in facts}
    summaries = []
    for one in facts:
        image, mask = one.record.image_location, one.record.mask_location
        summaries.append(SampleSummary(image, mask, one.shape[-1], values[one.record]))
    classes = check_classes(summaries, classes, problems, target=target, names=listing.class_names)
    check_channels(summaries, problems)

    by_record = {one.record: one for one in facts}
    parts = {split: [by_record[one] for one in part if one in by_record] for split, part in splits.items()}
    empty = [one.mask for one in summaries if not (one.values > 0).any()]
    report = Report(listing, facts, parts, target, ignore_label, empty)
    report.labels = _labels(report, classes, values)
    findings = [Finding(True, *line.partition(": ")[::2]) for line in problems]
    findings += [*_mask_errors(report), *_duplicates(report), *_odd_images(report)]
    findings += _rare_labels(report, values)
    if target == "classes" and listing.class_names is None and advice.are_objects(facts):
        what = "each has labels 1 to n, as numbered objects have: is --target foreground meant?"
        findings.append(Finding(False, "masks", what))
    report.errors = [one for one in findings if one.error]
    report.warnings = [one for one in findings if not one.error]
    report.flags = advice.train_flags(report, flags)
    return report


def _labels(report: Report, classes: int, values: Values) -> list[Label]:
    """The labels of the target; boundaries count as the foreground that they are cut from."""
    kind, of_layout = "classes" if report.target == "classes" else "foreground", report.listing.class_names
    count = max(classes, 2) if kind == "classes" else 2
    names = class_names(kind, classes, of_layout)
    names = names if len(names) == count else default_names(count)
    pixels: Counter[int] = Counter()
    for value, number in report.stored.items():
        if value != report.ignore_label:
            pixels[value if kind == "classes" else min(value, 1)] += number
    masks = Counter(value for labels in values.values() for value in labels.tolist())
    return [
        Label(value, name, pixels[value], masks[value])
        for value, name in enumerate(names)
        # Of values that are no classes, which is an error anyway, those that occur.
        if count <= MAX_INFERRED or of_layout or value in pixels
    ]


def _mask_errors(report: Report) -> Iterator[Finding]:
    """Masks that training would not refuse, but should."""
    blurred = [one for one in report.facts if advice.is_blurred(one)]
    for one in blurred:
        between = (one.values > 0) & (one.values < 255)
        share = one.counts[between].sum() / one.counts.sum()
        what = f"{between.sum()} values between 0 and 255 in {share:.1%} of its pixels, as blurring, resizing"
        yield Finding(True, one.record.mask_location, f"{what} or JPEG leave them; expected integer labels")
    values = sorted(report.stored.keys() - {report.ignore_label})
    named = report.target != "classes" or report.listing.class_names is not None
    if not named and not blurred and advice.are_gray_levels(values):
        yield Finding(True, "masks", f"gray levels {str(values)[1:-1]}; expected labels 0, 1, 2, ...")
    train = report.splits["train"]
    if report.facts and not any(label.pixels for label in report.labels[1:]):
        yield Finding(True, "masks", "all are empty; expected some with labels above 0")
    elif train and not any((one.values > 0).any() for one in train):
        yield Finding(True, "train", "all masks are empty; expected some with labels above 0")


def _duplicates(report: Report) -> Iterator[Finding]:
    """Images that are in two splits, exactly or nearly, each with the most similar one of the other split."""
    for (split, first), (other, second) in combinations(report.splits.items(), 2):
        known = {one.digest: one for one in first if one.low != one.high}
        pairs = zip(second, *nearest(second, first), strict=True) if first and second else ()
        for one, index, correlation in pairs:
            where, same = one.record.image_location, known.get(one.digest)
            if same is not None:
                what = f"is in {other} and in {split}; expected in one split"
                yield Finding(True, where, what, f" ({same.record.image_location})")
            elif correlation >= CORRELATION:
                twin = f" ({first[index].record.image_location}, correlation {correlation:.3f})"
                yield Finding(False, where, f"is in {other} and nearly the same as an image of {split}", twin)


def _odd_images(report: Report) -> Iterator[Finding]:
    """Images that may be intended: constant, dark or small ones."""
    for one in report.facts:
        where, (height, width, _) = one.record.image_location, one.shape
        if one.low == one.high:
            yield Finding(False, where, "all pixels are equal", f" ({one.low:.3g})")
        elif one.high < FAINT:
            what = f"uses less than {FAINT:.2%} of the range of {one.dtype}"
            yield Finding(False, where, what, f" (its brightest pixel has {one.high:.1%})")
        if min(height, width) < SMALL:
            yield Finding(False, where, f"fewer than {SMALL} pixels a side", f" ({height} x {width})")


def _rare_labels(report: Report, values: Values) -> Iterator[Finding]:
    """Classes that occur in no mask, in no mask of a split, or in one mask only."""
    occurring = {
        split: {value for one in members for value in values[one.record].tolist()}
        for split, members in report.splits.items()
    }
    for label in report.labels[1:] if report.facts else ():
        if not label.pixels:
            yield Finding(False, label.name, "occurs in no mask")
            continue
        for split, labels in occurring.items():
            if labels and label.value not in labels:
                yield Finding(False, label.name, f"occurs in no mask of {split}")
        if label.masks == 1 and len(values) > 10 and len(report.labels) > 2:
            only = next(record.mask_location for record, labels in values.items() if label.value in labels)
            yield Finding(False, only, f"the only mask with {label.name} ({label.pixels} pixels)")
