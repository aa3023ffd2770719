"""A result enters, report.html leaves: one file without scripts that needs no network; worst cases first."""

import importlib.metadata
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np

from flaxunet.evaluation.result import VERSIONS, Outcome, Result
from flaxunet.evaluation.terminal import about, chance, interval, label_of, number, signed
from flaxunet.metrics import SCORES
from flaxunet.metrics.statistics import CONFIDENCE
from flaxunet.report import html as markup

LISTED = 500  # images in the list; the lowest Dice first
SURFACES = {
    "border": "the foreground pixels that share a face with the background",
    "pieces": "the lines or faces that run between pixels, weighed by their length or area",
}


def render(result: Result, settings: Mapping[str, Any]) -> str:
    """The page as text.

    Args:
      result: of an evaluation.
      settings: of the command, to be listed.
    """
    plan, outcome = result.plan, result.outcome
    what = "volume" if plan.units[0].axis else "image"
    parts = [
        markup.header(
            "Evaluation",
            outcome.title,
            f"{plan.found.root} · {'; '.join(about(result))} · {datetime.now():%Y-%m-%d %H:%M}",
        ),
        _summary(result, what),
        _warnings(result),
        markup.section("Class by class", _classes(result, outcome), note=(
            f"Means over {what}s that have the class or were found to have it, with {CONFIDENCE:.0%} "
            "bootstrap intervals. Pooled Dice is counted over all pixels together."
        )),
        _objects(outcome),
        _against(result),
        markup.section("Lowest Dice", _cases(result), note=(
            f"The {what}s that went worst. The Dice of one is the mean over the foreground classes that it "
            "has or was found to have; 1 if there is none."
            + (" Shown is the slice with most errors." if what == "volume" else "")
        )) if result.cases else "",
        markup.section(f"Every {what}", _list(result, what)),
        markup.section("How it is counted", _definitions(result, what)),
        markup.section("Settings", markup.pairs({
            key.replace("_", " "): _said(value) for key, value in settings.items()
        })),
        markup.section("Versions", markup.pairs(
            {name: importlib.metadata.version(name) for name in VERSIONS}
        )),
    ]  # fmt: skip
    return markup.document(f"Evaluation of {outcome.title}", parts)


def _summary(result: Result, what: str) -> str:
    outcome = result.outcome
    last = outcome.columns[-1]
    of = outcome.means[last]
    count = len(outcome.units)
    values = [
        (number(of["dice"].mean), f"Dice, {interval(of['dice']) or 'no interval'}"),
        (number(outcome.pooled[last]["dice"]), "pooled Dice"),
        (number(of["hd95"].mean, "hd95"), label_of("hd95", result)),
        (number(of["nsd"].mean), label_of("nsd", result)),
        (f"{count:,}", what if count == 1 else f"{what}s"),
    ]
    if outcome.objects is not None:
        values.insert(2, (number(outcome.objects.f1), "pooled F1 of objects"))
    return markup.figures(values)


def _warnings(result: Result) -> str:
    lines = "".join(f"<p>{markup.escape(line)}</p>" for line in result.plan.warnings)
    return markup.section("Warnings", lines) if lines else ""


def _classes(result: Result, outcome: Outcome) -> str:
    rows = []
    for place, name in enumerate(outcome.columns, 1):
        means = outcome.means[name]
        label = markup.named(place, name) if place < len(outcome.names) else markup.escape(name)
        cells = [_mean(means[score], score) for score in SCORES]
        pooled = number(outcome.pooled[name]["dice"])
        rows.append([label, *cells, pooled, f"{means['dice'].images:,}"])
    head = ("class", *(label_of(score, result) for score in SCORES), "pooled Dice", "scored")
    return markup.table(head, rows, "scores wide", last_bold=len(outcome.columns) > 1)


def _mean(one: Any, score: str = "dice") -> str:
    ends = interval(one, score)
    return number(one.mean, score) + (f"<br>{markup.quiet(ends)}" if ends else "")


def _objects(outcome: Outcome) -> str:
    if outcome.objects is None:
        return ""
    found, means = outcome.objects, outcome.object_means
    rows = [
        [label, _mean(means[name]), number(pooled)]
        for name, label, pooled in (("f1", "F1", found.f1), ("ap", "AP", found.ap))
    ]
    note = (
        f"{found.tp:,} matched, {found.fp:,} extra, {found.fn:,} missed. An object is matched with "
        "one that overlaps it with an IoU above 0.5; AP is matched / (matched + extra + missed)."
    )
    return markup.section("Objects", markup.table(("score", "mean", "pooled"), rows, "objects"), note=note)


def _against(result: Result) -> str:
    other = result.other
    if other is None:
        return ""
    rows = []
    for place, (name, one) in enumerate(result.differences.items(), 1):
        label = markup.named(place, name) if place < len(other.names) else markup.escape(name)
        pair = [number(outcome.means[name]["dice"].mean) for outcome in (result.outcome, other)]
        middle, ends = signed(one)
        cell = middle + (f"<br>{markup.quiet(ends)}" if ends else "")
        rows.append([label, *pair, cell, chance(one.p), f"{one.groups:,}"])
    head = ("class", "Dice", "Dice of the other", "difference", "p", "pairs")
    first = markup.table(head, rows, "against", last_bold=len(other.columns) > 1)
    note = (
        f"The other is {other.title}. Above 0 the first is better. p is that of Wilcoxon's signed-rank test "
        "on pairs, not corrected for the number of classes."
    )
    return markup.section("Compared", first, note=note) + markup.section(
        "The other, class by class", _classes(result, other) + _objects(other)
    )


def _cases(result: Result) -> str:
    shown = (
        markup.case(case.name, f"Dice {number(case.dice)}", case.image, case.truth, case.prediction)
        for case in result.cases
    )
    return markup.legend(result.plan.names) + "".join(shown)


def _list(result: Result, what: str) -> str:
    units = sorted(result.outcome.units, key=lambda unit: unit.dice)
    each = np.quantile([unit.dice for unit in units], (0, 0.5, 1)).tolist()
    ends = " · ".join(f"{k} {number(v)}" for k, v in zip(("lowest", "median", "highest"), each, strict=True))
    rows = []
    for unit in units[:LISTED]:
        far = unit.table[:, list(SCORES).index("hd95")]
        furthest = float(np.nanmax(far)) if not np.isnan(far).all() else float("nan")
        objects = [number(unit.objects.f1)] if unit.objects is not None else []
        name = f"<span class=name>{markup.escape(unit.name)}</span>"
        rows.append([name, number(unit.dice), number(furthest, "hd95"), *objects, markup.bar(unit.dice)])
    head = (what, "Dice", f"largest {label_of('hd95', result)}")
    head = (*head, *(["F1 of objects"] if result.outcome.objects is not None else []), "")
    left = f" The {LISTED} lowest are listed; scores.csv has all." if len(units) > LISTED else ""
    table = markup.table(head, rows, "list")
    note = markup.quiet(f"{ends}.{left}")
    return f"<p>{note}</p><details><summary>Show the list</summary>{table}</details>"


def _definitions(result: Result, what: str) -> str:
    drawn = "groups" if result.outcome.groups is not None else f"{what}s"
    lines = (
        f"The surface of a class is {SURFACES[result.kind]}. HD95 is the larger of the two directed 95th "
        "percentiles, ASSD the mean of all distances from both surfaces, NSD the part of both that is within "
        f"{result.tolerance:g} {result.plan.unit} of the other one.",
        "Where a class is neither there nor found it has no score. Where it is only there, or only found, "
        f"Dice, IoU and NSD are 0, and HD95 and ASSD are the diagonal of the {what}.",
        f"Intervals are percentiles of {result.outcome.resamples:,} means over {drawn} drawn with "
        "replacement.",
    )
    return "".join(f"<p>{markup.escape(line)}</p>" for line in lines)


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return "-" if value is None else str(value)
