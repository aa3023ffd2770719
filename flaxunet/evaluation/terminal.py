"""A result enters; its tables on the terminal leave."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flaxunet.evaluation.result import Outcome, Result
from flaxunet.metrics import SCORES
from flaxunet.metrics.statistics import CONFIDENCE, Difference, Mean

LABELS = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "precision",
    "recall": "recall",
    "hd95": "HD95",
    "assd": "ASSD",
    "nsd": "NSD",
}
CELL, FIRST = 21, 16  # characters of a column of scores, and of the first one
NAMED = 3  # images with the lowest Dice


def show(console: Console, result: Result, files: Mapping[str, Path]) -> None:
    """Prints the tables.

    Args:
      console: where to.
      result: of an evaluation.
      files: what was written, by what it is.
    """
    title = (
        f"[bold]{escape(result.outcome.title)}[/bold]  [dim]on[/dim] {escape(str(result.plan.found.root))}"
    )
    console.print(title, soft_wrap=True)
    for line in about(result):
        console.print(f"  [dim]{escape(line)}[/dim]", soft_wrap=True)
    for line in result.plan.warnings:
        console.print(f"  [yellow]warning[/yellow]  {escape(line)}", soft_wrap=True)
    console.print()
    for outcome in (result.outcome, result.other):
        if outcome is None:
            continue
        if outcome is result.other:
            console.print(f"[bold]{escape(outcome.title)}[/bold]", soft_wrap=True)
            console.print()
        _scores(console, result, outcome)
        if outcome.objects is not None:
            console.print(_objects(outcome))
            console.print()
    if result.other is not None:
        console.print(_comparison(result))
        console.print()
    note = f"means over {'volumes' if result.plan.units[0].axis else 'images'}"
    note += f" with {CONFIDENCE:.0%} bootstrap intervals; pooled: over all pixels together"
    console.print(f"[dim]{note}[/dim]", soft_wrap=True)
    lowest = ", ".join(f"{case.name} {case.dice:.3f}" for case in result.cases[:NAMED])
    if lowest:
        console.print(f"[dim]lowest Dice[/dim]  {escape(lowest)}", soft_wrap=True)
        console.print()
    for what, path in files.items():
        console.print(f"[dim]{what:<9}[/dim]{escape(str(path))}", soft_wrap=True)


def about(result: Result) -> list[str]:
    """What was scored and how, a line for each."""
    plan = result.plan
    whole = len(plan.found.records)
    count = sum(len(unit.records) for unit in plan.units)
    split = f"split {plan.split}" + (f", cut by seed {plan.seed}" if plan.seed is not None else "")
    split += f", as {plan.run} has it" if plan.run is not None else ""
    what = "volumes" if plan.units[0].axis else "images"
    whole_said = f" of {whole:,} slices" if plan.units[0].axis else f" of {whole:,}"
    size = f"{count:,} slices in {len(plan.units):,} volumes" if plan.units[0].axis else f"{count:,} images"
    lines = [f"layout {plan.found.layout}, {split}: {size}{whole_said if whole != count else ''}"]
    steps = {unit.spacing for unit in plan.units}
    if plan.unit == "mm":
        one = next(iter(steps)) or ()
        said = " x ".join(f"{step:g}" for step in one) if len(steps) == 1 else f"{len(steps)} spacings"
        lines.append(f"scored by {what[:-1]}, distances in mm ({said})")
    else:
        lines.append(f"scored by {what[:-1]}, distances in pixels: no spacing is known")
    if result.outcome.groups is not None:
        lines.append(f"{len(set(result.outcome.groups)):,} groups, which the intervals draw whole")
    if plan.target != "classes":
        lines.append(f"target {plan.target}")
    return lines


def label_of(score: str, result: Result) -> str:
    """A score's name with its unit."""
    unit = result.plan.unit
    if score == "nsd":
        return f"{LABELS[score]} at {result.tolerance:g} {unit}"
    return f"{LABELS[score]}, {unit}" if score in ("hd95", "assd") else LABELS[score]


def number(value: float, score: str = "dice") -> str:
    """Three digits, or a dash; distances with two."""
    if np.isnan(value):
        return "-"
    return f"{value:.2f}" if score in ("hd95", "assd") else f"{value:.3f}"


def interval(one: Mean, score: str = "dice") -> str:
    """Its ends, or nothing."""
    return "" if np.isnan(one.low) else f"{number(one.low, score)}-{number(one.high, score)}"


def _scores(console: Console, result: Result, outcome: Outcome) -> None:
    """As many columns beside each other as fit."""
    fitting = max((console.width - FIRST) // CELL, 1)
    columns = outcome.columns
    for first in range(0, len(columns), fitting):
        console.print(_part(result, outcome, columns[first : first + fitting]))
        console.print()


def _part(result: Result, outcome: Outcome, columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", min_width=FIRST - 2)
    for name in columns:
        table.add_column(escape(name), no_wrap=True, min_width=CELL - 2, overflow="ellipsis")
    for score in SCORES:
        cells = (outcome.means[name][score] for name in columns)
        row = [f"{_aligned(one.mean, score)}  [dim]{interval(one, score)}[/dim]" for one in cells]
        table.add_row(label_of(score, result), *row)
    table.add_row("pooled Dice", *(f"{number(outcome.pooled[name]['dice']):>6}" for name in columns))
    what = "volumes" if result.plan.units[0].axis else "images"
    counts = [f"{outcome.means[name]['dice'].images:>6,}" for name in columns]
    table.add_row(f"[dim]{what} scored[/dim]", *(f"[dim]{count}[/dim]" for count in counts))
    return table


def _aligned(value: float, score: str = "dice") -> str:
    """With the points of all numbers below each other."""
    return f"{number(value, score):>5} " if score in ("hd95", "assd") else f"{number(value, score):>6}"


def _objects(outcome: Outcome) -> Table:
    found = outcome.objects
    assert found is not None
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("objects", min_width=FIRST - 2)
    table.add_column("IoU > 0.5", min_width=CELL - 2)
    for name, label, pooled in (("f1", "F1", found.f1), ("ap", "AP", found.ap)):
        one = outcome.object_means[name]
        table.add_row(label, f"{number(one.mean):>6}  [dim]{interval(one)}[/dim]")
        table.add_row(f"pooled {label}", f"{number(pooled):>6}")
    counts = f"[dim]{found.tp:>6,} matched, {found.fp:,} extra, {found.fn:,} missed[/dim]"
    table.add_row("[dim]counted[/dim]", counts)
    return table


def _comparison(result: Result) -> Table:
    assert result.other is not None
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("Dice", min_width=FIRST - 2)
    for name in ("first", "second", "difference"):
        table.add_column(name, no_wrap=True)
    for name in ("p", "pairs"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, one in result.differences.items():
        pair = [number(outcome.means[name]["dice"].mean) for outcome in (result.outcome, result.other)]
        middle, ends = signed(one)
        cell = f"{middle}  [dim]{ends}[/dim]"
        table.add_row(escape(name), *pair, cell, chance(one.p), f"{one.groups:,}")
    return table


def signed(one: Difference) -> tuple[str, str]:
    """A difference and the ends of its interval, or nothing."""
    middle = "-" if np.isnan(one.mean) else f"{one.mean:+.3f}"
    return middle, "" if np.isnan(one.low) else f"{one.low:+.3f} to {one.high:+.3f}"


def chance(p: float) -> str:
    """p with as many digits as it needs."""
    if np.isnan(p):
        return "-"
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"
