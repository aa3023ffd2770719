"""Prints the tables of a result on the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flaxunet.evaluation import text
from flaxunet.evaluation.result import Outcome, Result
from flaxunet.evaluation.text import Cell
from flaxunet.metrics import SCORES, Detections
from flaxunet.metrics.objects import IOU
from flaxunet.metrics.statistics import CONFIDENCE
from flaxunet.report.html import number

CELL, FIRST = 21, 16  # characters of a column of scores, and of the first column
NAMED_CASES = 3  # with the lowest Dice


def show(console: Console, result: Result, files: Mapping[str, Path]) -> None:
    """Print the tables of a result.

    Args:
      console: to print to.
      result: of an evaluation.
      files: that were written, by title.
    """
    plan = result.plan

    def line(text: str) -> None:
        console.print(text, soft_wrap=True)

    line(f"[bold]{escape(result.outcome.title)}[/bold]  [dim]on[/dim] {escape(str(plan.dataset.root))}")
    for fact in text.description(result):
        line(f"  [dim]{escape(fact)}[/dim]")
    for warning in plan.warnings:
        line(f"  [yellow]warning[/yellow]  {escape(warning)}")
    line("")
    for outcome in result.outcomes:
        if outcome is result.other:
            line(f"[bold]{escape(outcome.title)}[/bold]\n")
        fitting = max((console.width - FIRST) // CELL, 1)  # columns beside each other
        for first in range(0, len(outcome.columns), fitting):
            console.print(_score_table(result, outcome, outcome.columns[first : first + fitting]), "")
        if outcome.objects is not None:
            console.print(_object_table(outcome, outcome.objects), "")
    if result.other is not None:
        console.print(_comparison_table(result, result.other), "")
    note = f"means over {plan.unit_name}s with {CONFIDENCE:.0%} bootstrap intervals"
    line(f"[dim]{note}; pooled: over all pixels together[/dim]")
    if lowest := ", ".join(f"{case.name} {case.dice:.3f}" for case in result.cases[:NAMED_CASES]):
        line(f"[dim]lowest Dice[/dim]  {escape(lowest)}\n")
    for title, path in files.items():
        line(f"[dim]{title:<9}[/dim]{escape(str(path))}")


def _score_table(result: Result, outcome: Outcome, columns: Sequence[str]) -> Table:
    table = _table("")
    for name in columns:
        table.add_column(escape(name), no_wrap=True, min_width=CELL - 2, overflow="ellipsis")
    cells = [text.score_cells(outcome, name) for name in columns]
    for score, row in zip(SCORES, zip(*cells, strict=True), strict=True):
        table.add_row(text.score_title(score, result), *(_aligned(cell, text.digits(score)) for cell in row))
    pooled = (number(outcome.pooled[name]["dice"]) for name in columns)
    table.add_row("pooled Dice", *(f"{value:>6}" for value in pooled))
    counts = (f"{outcome.means[name]['dice'].images:>6,}" for name in columns)
    table.add_row(f"[dim]{result.plan.unit_name}s scored[/dim]", *(f"[dim]{count}[/dim]" for count in counts))
    return table


def _object_table(outcome: Outcome, objects: Detections) -> Table:
    table = _table("objects")
    table.add_column(f"IoU > {IOU}", min_width=CELL - 2)
    for title, mean, pooled in text.object_rows(outcome, objects):
        table.add_row(title, _aligned(mean))
        table.add_row(f"pooled {title}", f"{pooled:>6}")
    matched, _, others = text.object_counts(objects).partition(" ")
    table.add_row("[dim]counted[/dim]", f"[dim]{matched:>6} {others}[/dim]")
    return table


def _comparison_table(result: Result, other: Outcome) -> Table:
    table = _table("Dice")
    for name in ("first", "second", "difference", "p", "pairs"):
        table.add_column(name, justify="right" if name in ("p", "pairs") else "left", no_wrap=True)
    for column, first, second, difference, *test in text.comparison(result, other):
        difference = f"{difference.value}  [dim]{difference.interval}[/dim]"
        table.add_row(escape(column), first, second, difference, *test)
    return table


def _table(first: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(first, min_width=FIRST - 2)
    return table


def _aligned(cell: Cell, digits: int = 3) -> str:
    """A cell whose decimal point is below that of a number with three digits."""
    return f"{cell.value + ' ' * (3 - digits):>6}  [dim]{cell.interval}[/dim]"
