"""Formats the numbers of a result as text, for the terminal and for the page."""

import math
from typing import NamedTuple

from flaxunet.evaluation.result import Outcome, Result
from flaxunet.metrics import SCORES
from flaxunet.metrics.statistics import Difference, Mean
from flaxunet.report.html import number


class Cell(NamedTuple):
    """A number and its interval; a dash and nothing where there are none."""

    value: str
    interval: str


def mean_cell(mean: Mean, digits: int = 3) -> Cell:
    """A mean with its interval."""
    interval = "" if math.isnan(mean.low) else f"{number(mean.low, digits)}-{number(mean.high, digits)}"
    return Cell(number(mean.mean, digits), interval)


def difference_cell(difference: Difference) -> Cell:
    """A mean difference with its interval, all with a sign."""
    value = "-" if math.isnan(difference.mean) else f"{difference.mean:+.3f}"
    interval = "" if math.isnan(difference.low) else f"{difference.low:+.3f} to {difference.high:+.3f}"
    return Cell(value, interval)


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
    return [mean_cell(outcome.means[column][score], digits(score)) for score in SCORES]


def object_rows(outcome: Outcome) -> list[tuple[str, Cell, str]]:
    """Title, mean and pooled value of each score of objects; none if they are not counted."""
    objects = outcome.objects
    if objects is None:
        return []
    pooled = {"f1": ("F1", objects.f1), "ap": ("AP", objects.ap)}
    return [
        (title, mean_cell(outcome.object_means[name]), number(value))
        for name, (title, value) in pooled.items()
    ]


def object_counts(outcome: Outcome) -> str:
    """Counts of matched objects and of both kinds of errors."""
    objects = outcome.objects
    return "" if objects is None else f"{objects.tp:,} matched, {objects.fp:,} extra, {objects.fn:,} missed"


class Comparison(NamedTuple):
    """The Dice of two sources in one column, as text."""

    column: str
    first: str
    second: str
    difference: Cell
    p: str
    pairs: str


def comparison(result: Result) -> list[Comparison]:
    """A row for each column; none without a second source."""
    if result.other is None:
        return []
    return [
        Comparison(
            column,
            number(result.outcome.means[column]["dice"].mean),
            number(result.other.means[column]["dice"].mean),
            difference_cell(one),
            p_value(one.p),
            f"{one.groups:,}",
        )
        for column, one in result.differences.items()
    ]


def description(result: Result) -> list[str]:
    """What was scored and how, one line each."""
    plan = result.plan
    count, total = len(plan.split.records), len(plan.dataset.records)
    split = f"split {plan.split.name}"
    if plan.split.seed is not None:
        split += f", cut by seed {plan.split.seed}"
    if plan.split.run is not None:
        split += f", as {plan.split.run} has it"
    size, of = f"{count:,} images", f" of {total:,}"
    if plan.unit_name == "volume":
        size, of = f"{count:,} slices in {len(plan.units):,} volumes", f" of {total:,} slices"
    lines = [f"layout {plan.dataset.layout}, {split}: {size}{of if total != count else ''}"]
    distances = "pixels: no spacing is known"
    if plan.length_unit == "mm":
        spacings = {unit.spacing for unit in plan.units}
        steps = " x ".join(f"{step:g}" for step in plan.units[0].spacing or ())
        distances = f"mm ({steps if len(spacings) == 1 else f'{len(spacings)} spacings'})"
    lines.append(f"scored by {plan.unit_name}, distances in {distances}")
    if result.outcome.groups is not None:
        lines.append(f"{len(set(result.outcome.groups)):,} groups, which the intervals draw whole")
    if plan.target != "classes":
        lines.append(f"target {plan.target}")
    return lines
