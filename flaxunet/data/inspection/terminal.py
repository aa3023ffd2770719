"""A report enters; its page on the terminal leaves."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flaxunet.data import MAX_LISTED
from flaxunet.data.inspection.report import Finding, Report

ROWS = 24  # labels that are shown


def show(console: Console, report: Report, files: Mapping[str, Path]) -> None:
    """Prints the page.

    Args:
      console: where to.
      report: of the dataset.
      files: what was written, by what it is.
    """
    found = report.found
    console.print(f"[bold]{escape(str(found.root))}[/bold]  [dim]layout[/dim] {found.layout}", soft_wrap=True)
    for line in found.interpretation:
        console.print(f"  [dim]{escape(line)}[/dim]", soft_wrap=True)
    if report.facts:
        console.print()
        console.print(_splits(report))
        console.print()
        console.print(_pixels(report))
        console.print()
        console.print(_labels(report))
    console.print()
    _findings(console, report)
    console.print()
    if report.facts:
        when = ", when the errors are mended" if report.errors else ""
        console.print(f"[dim]train with{when}[/dim]")
        console.print(f"  {escape(report.command)}", soft_wrap=True)
        console.print()
    for what, path in files.items():
        console.print(f"[dim]{what:<9}[/dim]{escape(str(path))}", soft_wrap=True)


def _grid() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")


def _splits(report: Report) -> Table:
    table = _grid()
    table.add_column("split")
    for name in ("samples", "groups", "empty"):
        table.add_column(name, justify="right")
    table.add_column("")
    empty = set(report.empty)
    for split, members in report.splits.items():
        groups = {one.record.group for one in members if one.record.group is not None}
        blank = sum(one.record.mask_location in empty for one in members)
        given = "" if split in report.given else "[dim]cut by the seed[/dim]"
        if not report.given and split == "train":
            given = "[dim]what the cut leaves[/dim]"
        table.add_row(split, f"{len(members):,}", f"{len(groups):,}" if groups else "-", f"{blank:,}", given)
    return table


def _pixels(report: Report) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("size", _most(report.sizes))
    table.add_row("type", _most(report.kinds))
    table.add_row("channels", _most(report.channels))
    if report.objects:
        counts = report.objects
        table.add_row("objects", f"{sum(counts):,}, {min(counts)} to {max(counts)} in a mask")
    if report.ignore_label is not None:
        ignored = report.stored.get(report.ignore_label, 0)
        table.add_row("ignored", f"label {report.ignore_label}, {ignored:,} pixels")
    return table


def _most(counts: Counter[str] | Counter[int]) -> str:
    """The most frequent ones with their numbers."""
    if len(counts) == 1:
        return str(next(iter(counts)))
    shown = ", ".join(f"{key} ({number:,})" for key, number in counts.most_common(4))
    return shown + (f", {len(counts) - 4} more" if len(counts) > 4 else "")


def _labels(report: Report) -> Table:
    table = _grid()
    table.add_column("label", justify="right")
    table.add_column("name")
    for name in ("pixels", "share", "masks"):
        table.add_column(name, justify="right")
    whole = sum(label.pixels for label in report.labels) or 1
    for label in report.labels[:ROWS]:
        share = f"{label.pixels / whole:.2%}"
        table.add_row(str(label.value), escape(label.name), f"{label.pixels:,}", share, f"{label.masks:,}")
    if len(report.labels) > ROWS:
        table.add_row("...", f"{len(report.labels) - ROWS} more")
    return table


def _findings(console: Console, report: Report) -> None:
    errors, warnings = report.errors, [one for one in report.findings if not one.error]
    if not report.findings:
        console.print("[green]nothing is wrong[/green]")
        return
    parts = [_count(errors, "error"), _count(warnings, "warning")]
    console.print(" and ".join(filter(None, parts)))
    for kind, color in ((errors, "red"), (warnings, "yellow")):
        for one in kind[:MAX_LISTED]:
            word = "error" if one.error else "warning"
            console.print(f"  [{color}]{word:<9}[/{color}]{escape(str(one))}", soft_wrap=True)
        if len(kind) > MAX_LISTED:
            console.print(f"  [dim]... and {len(kind) - MAX_LISTED} more in inspect.json[/dim]")


def _count(findings: list[Finding], word: str) -> str:
    return f"{len(findings):,} {word}{'' if len(findings) == 1 else 's'}" if findings else ""
