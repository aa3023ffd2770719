"""Formats the numbers of a result as text, for the terminal and for the page."""

import math
from typing import NamedTuple

from flaxunet.evaluation.result import Outcome, Result
from flaxunet.metrics import SCORES, Detections
from flaxunet.metrics.statistics import Difference, Mean
from flaxunet.report.html import number


class Cell(NamedTuple):
    """A number and its interval; a dash and nothing where there are none."""

    value: str
    interval: str


def cell(mean: Mean | Difference, digits: int = 3) -> Cell:
    """A mean with its interval; that of differences with signs."""
    sign, to = ("+", " to ") if isinstance(mean, Difference) else ("", "-")
    value, low, high = (f"{end:{sign}.{digits}f}" for end in (mean.mean, mean.low, mean.high))
    return Cell("-" if math.isnan(mean.mean) else value, "" if math.isnan(mean.low) else f"{low}{to}{high}")


def p_value(p: float) -> str:
    """The p of a test, with four digits."""
    if math.isnan(p):
        return "-"
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"


def digits(score: str) -> int:
    """Digits after the point of a score: two of lengths, else three."""
    return 2 if SCORES[score].is_length else 3


def score_title(score: str, result: Result) -> str:
    """A score's title with its unit."""
    return SCORES[score].title.format(unit=result.plan.length_unit, tolerance=f"{result.options.tolerance:g}")


def score_cells(outcome: Outcome, column: str) -> list[Cell]:
    """The means of a column, in the order of `SCORES`."""
    return [cell(outcome.means[column][score], digits(score)) for score in SCORES]


def object_rows(outcome: Outcome, objects: Detections) -> list[tuple[str, Cell, str]]:
    """Title, mean and pooled value of each score of objects."""
    means = outcome.object_means
    return [("F1", cell(means["f1"]), number(objects.f1)), ("AP", cell(means["ap"]), number(objects.ap))]


def object_counts(objects: Detections) -> str:
    """Counts of matched objects and of both kinds of errors."""
    return f"{objects.tp:,} matched, {objects.fp:,} extra, {objects.fn:,} missed"


def comparison(result: Result, other: Outcome) -> list[tuple[str, str, str, Cell, str, str]]:
    """Column, Dice of both sources, difference, p and number of pairs of each column."""
    rows = []
    for column, one in result.differences.items():
        first, second = (number(outcome.means[column]["dice"].mean) for outcome in (result.outcome, other))
        rows.append((column, first, second, cell(one), p_value(one.p), f"{one.groups:,}"))
    return rows


def description(result: Result) -> list[str]:
    """What was scored and how, one line each."""
    plan, split = result.plan, result.plan.split
    cut = "" if split.seed is None else f", cut by seed {split.seed}"
    run = "" if split.run is None else f", as {split.run} has it"
    count, total = len(split.records), len(plan.dataset.records)
    size, of = f"{count:,} images", f" of {total:,}"
    if plan.unit_name == "volume":
        size, of = f"{count:,} slices in {len(plan.units):,} volumes", f" of {total:,} slices"
    size += of if total != count else ""
    distances = "pixels: no spacing is known"
    if plan.length_unit == "mm":
        spacings = {unit.spacing for unit in plan.units}
        steps = " x ".join(f"{step:g}" for step in plan.units[0].spacing or ())
        distances = f"mm ({steps if len(spacings) == 1 else f'{len(spacings)} spacings'})"
    lines = [
        f"layout {plan.dataset.layout}, split {split.name}{cut}{run}: {size}",
        f"scored by {plan.unit_name}, distances in {distances}",
    ]
    if result.outcome.groups is not None:
        lines.append(f"{len(set(result.outcome.groups)):,} groups, which the intervals draw whole")
    if plan.target != "classes":
        lines.append(f"target {plan.target}")
    return lines
