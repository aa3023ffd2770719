"""Prints a report on the terminal."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flaxunet.data import LAYOUTS, MAX_LISTED
from flaxunet.data.inspection.report import Report, merge_lines
from flaxunet.report.console import pairs

ROWS = 24  # labels that are shown


def show(console: Console, report: Report, files: Mapping[str, Path]) -> None:
    """Prints a report, and the files that were written, by what they are."""
    listing = report.listing
    root, entry = f"[bold]{escape(str(listing.root))}[/bold]", LAYOUTS.get(listing.layout)
    title = f" [dim]({entry.title})[/dim]" if entry else ""
    console.print(f"{root}  [dim]layout[/dim] {listing.layout}{title}", soft_wrap=True)
    for line in listing.interpretation:
        console.print(f"  [dim]{escape(line)}[/dim]", soft_wrap=True)
    if report.facts:
        for table in (_splits(report), _pixels(report), _labels(report)):
            console.print()
            console.print(table)
    console.print()
    _findings(console, report)
    console.print()
    if report.facts:
        when = ", after mending the errors" if report.errors else ""
        console.print(f"[dim]train with{when}[/dim]\n  {escape(report.command)}\n", soft_wrap=True)
    for what, path in files.items():
        console.print(f"[dim]{what:<9}[/dim]{escape(str(path))}", soft_wrap=True)


def _grid(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for name in names:
        table.add_column(name, justify="right" if name not in ("split", "name", "") else "left")
    return table


def _splits(report: Report) -> Table:
    table = _grid("split", "samples", "groups", "empty", "")
    empty = set(report.empty)
    for split, members in report.splits.items():
        groups = {one.record.group for one in members} - {None}
        blank = sum(one.record.mask_location in empty for one in members)
        is_rest = split == "train" and not report.layout_splits
        origin = "the rest" if is_rest else "" if split in report.layout_splits else "cut by the seed"
        counts = f"{len(members):,}", f"{len(groups):,}" if groups else "-", f"{blank:,}"
        table.add_row(split, *counts, f"[dim]{origin}[/dim]")
    return table


def _pixels(report: Report) -> Table:
    names = ("size", "type", "channels")
    rows = [(name, _most_frequent(one)) for name, one in zip(names, report.images.values(), strict=True)]
    if counts := report.objects:
        rows.append(("objects", f"{sum(counts):,}, {min(counts)} to {max(counts)} in a mask"))
    if report.ignore_label is not None:
        ignored = report.stored.get(report.ignore_label, 0)
        rows.append(("ignored", f"label {report.ignore_label}, {ignored:,} pixels"))
    return pairs(rows)


def _most_frequent(counts: Counter[Any]) -> str:
    if len(counts) == 1:
        return str(*counts)
    more = [f"{len(counts) - 4} more"] if len(counts) > 4 else []
    return ", ".join([f"{key} ({number:,})" for key, number in counts.most_common(4)] + more)


def _labels(report: Report) -> Table:
    table = _grid("label", "name", "pixels", "share", "masks")
    total = sum(label.pixels for label in report.labels) or 1
    for label in report.labels[:ROWS]:
        counts = f"{label.pixels:,}", f"{label.pixels / total:.2%}", f"{label.masks:,}"
        table.add_row(str(label.value), escape(label.name), *counts)
    if len(report.labels) > ROWS:
        table.add_row("...", f"{len(report.labels) - ROWS} more")
    return table


def _findings(console: Console, report: Report) -> None:
    kinds = ("error", "red", report.errors), ("warning", "yellow", report.warnings)
    counts = ((len(findings), word) for word, _, findings in kinds if findings)
    line = " and ".join(f"{count:,} {word}{'' if count == 1 else 's'}" for count, word in counts)
    console.print(line or "[green]nothing is wrong[/green]")
    for word, color, findings in kinds:
        lines = merge_lines(findings)
        for line in lines[:MAX_LISTED]:
            console.print(f"  [{color}]{word:<9}[/{color}]{escape(line)}", soft_wrap=True)
        if len(lines) > MAX_LISTED:
            console.print(f"  [dim]... and {len(lines) - MAX_LISTED} more in inspect.json[/dim]")
