"""Writes a result as report.html: one file without scripts that needs no network, the worst cases first."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import numpy as np

from flaxunet.evaluation import text
from flaxunet.evaluation.result import Outcome, Result, versions
from flaxunet.evaluation.text import Cell
from flaxunet.metrics import SCORES
from flaxunet.metrics.objects import IOU
from flaxunet.metrics.statistics import CONFIDENCE, RESAMPLES
from flaxunet.metrics.surface import SURFACES
from flaxunet.report import html


def render(result: Result, settings: Mapping[str, Any]) -> str:
    """Render the page.

    Args:
      result: of an evaluation.
      settings: of the command, to be listed.
    Returns: HTML.
    """
    outcome, unit = result.outcome, result.plan.unit_name
    facts = "; ".join(text.description(result))
    worst_slice = " Shown is the slice with most errors." if unit == "volume" else ""
    note = f"{result.plan.dataset.root} · {facts} · {datetime.now():%Y-%m-%d %H:%M}"
    warnings = _paragraphs(result.plan.warnings)
    parts = [
        html.header("Evaluation", outcome.title, note),
        _summary(result),
        html.section("Warnings", warnings) if warnings else "",
        html.section("Class by class", _classes(result, outcome), note=(
            f"Means over {unit}s in which the class is present or predicted, with {CONFIDENCE:.0%} "
            "bootstrap intervals. Pooled Dice is counted over all pixels together."
        )),
        _objects(outcome),
        _comparison(result),
        html.section("Lowest Dice", _cases(result), note=(
            f"The {unit}s with the lowest Dice, the mean over the foreground classes that are present or "
            f"predicted; 1 if there is none.{worst_slice}"
        )) if result.cases else "",
        html.section(f"Every {unit}", _list(result)),
        html.section("How it is counted", _definitions(result)),
        html.section("Settings", html.pairs(settings)),
        html.section("Versions", html.pairs(versions())),
    ]  # fmt: skip
    return html.document(f"Evaluation of {outcome.title}", parts)


def _summary(result: Result) -> str:
    outcome, unit = result.outcome, result.plan.unit_name
    column, count = outcome.columns[-1], len(outcome.units)
    cells = dict(zip(SCORES, text.score_cells(outcome, column), strict=True))
    values = [
        (cells["dice"].value, f"Dice, {cells['dice'].interval or 'no interval'}"),
        (html.number(outcome.pooled[column]["dice"]), "pooled Dice"),
        *((cells[score].value, text.score_title(score, result)) for score in ("hd95", "nsd")),
        (f"{count:,}", unit if count == 1 else f"{unit}s"),
    ]
    if outcome.objects is not None:
        values.insert(2, (html.number(outcome.objects.f1), "pooled F1 of objects"))
    return html.figures(values)


def _paragraphs(lines: Iterable[str]) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _classes(result: Result, outcome: Outcome) -> str:
    rows = []
    for index, name in enumerate(outcome.columns, 1):
        cells = map(_cell, text.score_cells(outcome, name))
        pooled = html.number(outcome.pooled[name]["dice"])
        count = f"{outcome.means[name]['dice'].images:,}"
        rows.append([_class_label(outcome, index, name), *cells, pooled, count])
    head = ("class", *(text.score_title(score, result) for score in SCORES), "pooled Dice", "scored")
    return html.table(head, rows, "scores wide", last_bold=len(outcome.columns) > 1)


def _class_label(outcome: Outcome, index: int, name: str) -> str:
    """The name of a column, with its colour if it is a class."""
    return html.named(index, name) if index < len(outcome.class_names) else html.escape(name)


def _cell(cell: Cell) -> str:
    return cell.value + (f"<br>{html.quiet(cell.interval)}" if cell.interval else "")


def _objects(outcome: Outcome) -> str:
    if outcome.objects is None:
        return ""
    rows = [
        (title, _cell(mean), pooled) for title, mean, pooled in text.object_rows(outcome, outcome.objects)
    ]
    note = (
        f"{text.object_counts(outcome.objects)}. An object is matched with one that overlaps it with an IoU "
        f"above {IOU}; AP is matched / (matched + extra + missed)."
    )
    return html.section("Objects", html.table(("score", "mean", "pooled"), rows, "objects"), note=note)


def _comparison(result: Result) -> str:
    other = result.other
    if other is None:
        return ""
    rows = [
        (_class_label(other, index, column), first, second, _cell(difference), *test)
        for index, (column, first, second, difference, *test) in enumerate(text.comparison(result, other), 1)
    ]
    head = ("class", "Dice", "Dice of the other", "difference", "p", "pairs")
    note = (
        f"The other is {other.title}. Above 0 the first is better. p is that of Wilcoxon's signed-rank test "
        "on pairs, not corrected for the number of classes."
    )
    table = html.table(head, rows, "against", last_bold=len(rows) > 1)
    of_other = _classes(result, other) + _objects(other)
    return html.section("Compared", table, note=note) + html.section("The other, class by class", of_other)


def _cases(result: Result) -> str:
    cases = (
        html.case(case.name, f"Dice {html.number(case.dice)}", case.image, case.truth, case.prediction)
        for case in result.cases
    )
    return html.legend(result.plan.class_names) + "".join(cases)


def _list(result: Result) -> str:
    head = [result.plan.unit_name, "Dice", f"largest {text.score_title('hd95', result)}"]
    if result.outcome.objects is not None:
        head.append("F1 of objects")
    units, rows = sorted(result.outcome.units, key=lambda unit: unit.dice), []
    for unit in units:
        largest = float(np.fmax.reduce(unit.table[:, list(SCORES).index("hd95")]))
        objects = [html.number(unit.objects.f1)] if unit.objects is not None else []
        distance = html.number(largest, text.digits("hd95"))
        rows.append([html.case_name(unit.name), html.number(unit.dice), distance, *objects])
    return html.ranked(head, rows, np.array([unit.dice for unit in units]), "; scores.csv has all")


def _definitions(result: Result) -> str:
    unit = result.plan.unit_name
    drawn = "groups" if result.outcome.groups is not None else f"{unit}s"
    filled = {"tolerance": f"{result.options.tolerance:g}", "unit": result.plan.length_unit}
    formulas = "; ".join(
        f"{score.title.partition(',')[0]} is {score.definition}".format(**filled) for score in SCORES.values()
    )
    return _paragraphs((
        f"{formulas}.",
        f"The surface of a class is {SURFACES[result.options.surface]}.",
        "A class that is neither present nor predicted has no score. If it is only present, or only "
        f"predicted, Dice, IoU and NSD are 0, and HD95 and ASSD are the diagonal of the {unit}.",
        f"Intervals are percentiles of {RESAMPLES:,} means over {drawn} drawn with replacement.",
    ))  # fmt: skip
