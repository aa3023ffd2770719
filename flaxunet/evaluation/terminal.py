"""Prints the tables of a result on the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flaxunet.evaluation import text
from flaxunet.evaluation.result import Outcome, Result
from flaxunet.evaluation.text import Cell
from flaxunet.metrics import SCORES
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
    on = f"[dim]on[/dim] {escape(str(plan.dataset.root))}"
    console.print(f"[bold]{escape(result.outcome.title)}[/bold]  {on}", soft_wrap=True)
    for line in text.description(result):
        console.print(f"  [dim]{escape(line)}[/dim]", soft_wrap=True)
    for line in plan.warnings:
        console.print(f"  [yellow]warning[/yellow]  {escape(line)}", soft_wrap=True)
    console.print()
    for outcome in result.outcomes:
        if outcome is result.other:
            console.print(f"[bold]{escape(outcome.title)}[/bold]", soft_wrap=True)
            console.print()
        _print_scores(console, result, outcome)
        if outcome.objects is not None:
            console.print(_object_table(outcome))
            console.print()
    if result.other is not None:
        console.print(_comparison_table(result))
        console.print()
    note = f"means over {plan.unit_name}s with {CONFIDENCE:.0%} bootstrap intervals"
    console.print(f"[dim]{note}; pooled: over all pixels together[/dim]", soft_wrap=True)
    lowest = ", ".join(f"{case.name} {case.dice:.3f}" for case in result.cases[:NAMED_CASES])
    if lowest:
        console.print(f"[dim]lowest Dice[/dim]  {escape(lowest)}", soft_wrap=True)
        console.print()
    for title, path in files.items():
        console.print(f"[dim]{title:<9}[/dim]{escape(str(path))}", soft_wrap=True)


def _print_scores(console: Console, result: Result, outcome: Outcome) -> None:
    """Prints as many columns beside each other as fit."""
    fitting = max((console.width - FIRST) // CELL, 1)
    columns = outcome.columns
    for first in range(0, len(columns), fitting):
        console.print(_score_table(result, outcome, columns[first : first + fitting]))
        console.print()


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


def _object_table(outcome: Outcome) -> Table:
    table = _table("objects")
    table.add_column("IoU > 0.5", min_width=CELL - 2)
    for title, mean, pooled in text.object_rows(outcome):
        table.add_row(title, _aligned(mean))
        table.add_row(f"pooled {title}", f"{pooled:>6}")
    matched, _, others = text.object_counts(outcome).partition(" ")
    table.add_row("[dim]counted[/dim]", f"[dim]{matched:>6} {others}[/dim]")
    return table


def _comparison_table(result: Result) -> Table:
    table = _table("Dice")
    for name in ("first", "second", "difference"):
        table.add_column(name, no_wrap=True)
    for name in ("p", "pairs"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in text.comparison(result):
        difference = f"{row.difference.value}  [dim]{row.difference.interval}[/dim]"
        table.add_row(escape(row.column), row.first, row.second, difference, row.p, row.pairs)
    return table


def _table(first: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(first, min_width=FIRST - 2)
    return table


def _aligned(cell: Cell, digits: int = 3) -> str:
    """A cell whose decimal point is below that of a number with three digits."""
    return f"{cell.value + ' ' * (3 - digits):>6}  [dim]{cell.interval}[/dim]"
