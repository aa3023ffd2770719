"""Examines a dataset: reads every file once, and reports all that is wrong or odd as findings."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from flaxunet.data import Listing, Record, split_samples
from flaxunet.data.classes import SampleSummary, check_channels, check_classes
from flaxunet.data.inspection import advice
from flaxunet.data.inspection.duplicates import CORRELATION, nearest
from flaxunet.data.inspection.facts import Facts, count_values, measure_all
from flaxunet.data.inspection.report import Finding, Label, Report
from flaxunet.labels import MAX_INFERRED, class_names, default_names, target_values

SMALL = 32  # pixels a side, below which five halvings leave nothing
FAINT = 1 / 16  # of the dtype's range, which a 12-bit camera reaches in a 16-bit file

Parts = Mapping[str, Sequence[Facts]]
Summaries = Mapping[Record, SampleSummary]


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
      listing: the dataset.
      target: see `flaxunet.labels.relabel`; None is what the masks suggest.
      classes: K; None infers it.
      ignore_label: the stored label of pixels that do not count; None, with a target of None, is what the
        masks suggest.
      seed, fold: see `flaxunet.data.split_samples`.
      threads: number of threads that read files.
      flags: those of `python -m train` for the arguments above, kept in the command that is suggested.
    Returns: the report.
    """
    problems = list(listing.problems)
    splits = split_samples(listing, seed=seed, fold=fold, problems=problems)
    everything = measure_all(listing, threads)
    problems += [line for one in everything for line in one.problems]
    facts = [one for one in everything if not one.problems]
    if target is None:
        target, suggested = advice.suggest_target(listing, facts)
        ignore_label = suggested if ignore_label is None else ignore_label
    summaries = {
        one.record: SampleSummary(
            one.record.image_location,
            one.record.mask_location,
            one.shape[-1],
            target_values(one.values, target, ignore_label),
        )
        for one in facts
    }
    checked = list(summaries.values())
    classes = check_classes(checked, classes, problems, target=target, names=listing.class_names)
    check_channels(checked, problems)

    by_record = {one.record: one for one in facts}
    parts = {
        split: [by_record[record] for record in records if record in by_record]
        for split, records in splits.items()
    }
    labels = _labels(checked, facts, classes, target, ignore_label, listing)
    findings = [
        *(Finding(True, *line.partition(": ")[::2]) for line in problems),
        *_mask_errors(listing, facts, parts, labels, target, ignore_label),
        *_duplicates(parts),
        *(_odd_images(facts) if facts else ()),
        *(_rare_labels(parts, labels, summaries) if facts else ()),
    ]
    if target == "classes" and listing.class_names is None and advice.are_objects(facts):
        what = "each has labels 1 to n, as numbered objects have: is --target foreground meant?"
        findings.append(Finding(False, "masks", what))
    total = sum(label.pixels for label in labels) or 1
    return Report(
        listing=listing,
        facts=facts,
        splits=parts,
        layout_splits=tuple(dict.fromkeys(record.split for record in listing.records if record.split)),
        target=target,
        ignore_label=ignore_label,
        classes=classes,
        labels=labels,
        stored=count_values(facts),
        empty=[summary.mask for summary in checked if not (summary.values > 0).any()],
        findings=sorted(findings, key=lambda finding: not finding.error),
        flags=advice.train_flags(
            listing,
            facts,
            flags=flags,
            target=target,
            ignore_label=ignore_label,
            shares=[label.pixels / total for label in labels[1:]],
        ),
    )


def _labels(
    summaries: Sequence[SampleSummary],
    facts: Sequence[Facts],
    classes: int,
    target: str,
    ignore_label: int | None,
    listing: Listing,
) -> list[Label]:
    """The labels of the target; boundaries count as the foreground that they are cut from."""
    kind = "classes" if target == "classes" else "foreground"
    count = max(classes, 2) if kind == "classes" else 2
    names = class_names(kind, classes, listing.class_names)
    names = names if len(names) == count else default_names(count)
    pixels: Counter[int] = Counter()
    for value, number in count_values(facts).items():
        if value != ignore_label:
            pixels[value if kind == "classes" else min(value, 1)] += number
    masks = Counter(value for summary in summaries for value in summary.values.tolist())
    return [
        Label(value, name, pixels[value], masks[value])
        for value, name in enumerate(names)
        # Of values that are no classes, which is an error anyway, those that occur.
        if count <= MAX_INFERRED or listing.class_names or value in pixels
    ]


def _mask_errors(
    listing: Listing,
    facts: Sequence[Facts],
    parts: Parts,
    labels: Sequence[Label],
    target: str,
    ignore_label: int | None,
) -> Iterator[Finding]:
    """Masks that training would not refuse, but should."""
    blurred = [one for one in facts if advice.is_blurred(one)]
    for one in blurred:
        between = (one.values > 0) & (one.values < 255)
        share = one.counts[between].sum() / one.counts.sum()
        yield Finding(
            True,
            one.record.mask_location,
            f"{between.sum()} values between 0 and 255 in {share:.1%} of its pixels, as blurring, resizing "
            "or JPEG leave them; expected integer labels",
        )
    values = sorted(count_values(facts).keys() - {ignore_label})
    if target == "classes" and listing.class_names is None and not blurred and advice.are_gray_levels(values):
        levels = ", ".join(map(str, values))
        yield Finding(True, "masks", f"gray levels {levels}; expected labels 0, 1, 2, ...")
    if facts and not any(label.pixels for label in labels[1:]):
        yield Finding(True, "masks", "all are empty; expected some with labels above 0")
    elif parts["train"] and not any((one.values > 0).any() for one in parts["train"]):
        yield Finding(True, "train", "all masks are empty; expected some with labels above 0")


def _duplicates(parts: Parts) -> Iterator[Finding]:
    """Images that are in two splits, exactly or nearly, each with the most similar one of the other split."""
    for (split, first), (other, second) in combinations(parts.items(), 2):
        if not first or not second:
            continue
        known = {one.digest: one for one in first if one.low != one.high}
        indices, correlations = nearest(
            [one.fingerprint for one in second], [one.fingerprint for one in first]
        )
        for one, index, correlation in zip(second, indices, correlations, strict=True):
            where, same = one.record.image_location, known.get(one.digest)
            if same is not None:
                what = f"is in {other} and in {split}; expected in one split"
                yield Finding(True, where, what, f" ({same.record.image_location})")
            elif correlation >= CORRELATION:
                twin = f" ({first[index].record.image_location}, correlation {correlation:.3f})"
                yield Finding(False, where, f"is in {other} and nearly the same as an image of {split}", twin)


def _odd_images(facts: Sequence[Facts]) -> Iterator[Finding]:
    """Images that may be intended: constant, dark or small ones."""
    for one in facts:
        where, (height, width, _) = one.record.image_location, one.shape
        if one.low == one.high:
            yield Finding(False, where, "all pixels are equal", f" ({one.low:.3g})")
        elif one.high < FAINT:
            what = f"uses less than {FAINT:.2%} of the range of {one.dtype}"
            yield Finding(False, where, what, f" (its brightest pixel has {one.high:.1%})")
        if min(height, width) < SMALL:
            yield Finding(False, where, f"fewer than {SMALL} pixels a side", f" ({height} x {width})")


def _rare_labels(parts: Parts, labels: Sequence[Label], summaries: Summaries) -> Iterator[Finding]:
    """Classes that occur in no mask, in no mask of a split, or in one mask only."""
    values = {
        split: {value for one in members for value in summaries[one.record].values.tolist()}
        for split, members in parts.items()
    }
    for label in labels[1:]:
        if not label.pixels:
            yield Finding(False, label.name, "occurs in no mask")
            continue
        for split, occurring in values.items():
            if occurring and label.value not in occurring:
                yield Finding(False, label.name, f"occurs in no mask of {split}")
        if label.masks == 1 and len(summaries) > 10 and len(labels) > 2:
            only = next(one.mask for one in summaries.values() if label.value in one.values)
            yield Finding(False, only, f"the only mask with {label.name} ({label.pixels} pixels)")
