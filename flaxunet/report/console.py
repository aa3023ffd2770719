"""Prints on a terminal: tables, and how far a command is and how fast."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


class Throughput:
    """Images and pixels a second after the first image, which waits for the compiler.

    Attributes:
      first: seconds until the first image was done, or None.
    """

    def __init__(self):
        self._start = time.perf_counter()
        self.first: float | None = None
        self._done, self._before, self._seconds = (0, 0), (0, 0), 0.0

    def update(self, images: int, pixels: int) -> None:
        """Records how many images, and how many of their pixels, are done so far."""
        if (images, pixels) == self._done:
            return
        self._seconds, self._done = time.perf_counter() - self._start, (images, pixels)
        if self.first is None:
            self.first, self._before = self._seconds, self._done

    def __str__(self) -> str:
        """Images and megapixels a second; empty before the second image."""
        if self._done == self._before:
            return ""
        seconds = max(self._seconds - (self.first or 0), 1e-9)
        images, pixels = (now - before for now, before in zip(self._done, self._before, strict=True))
        rate = f"{images / seconds:.1f} images/s, " if images else ""  # a large image is done in parts
        return f"{rate}{pixels / seconds / 1e6:.2f} megapixels/s"


@contextmanager
def progress(console: Console, total: int, throughput: Throughput) -> Iterator[Callable[[int], None]]:
    """Shows a bar with the throughput and the time left; nothing where there is no terminal.

    Yields: a function that takes how many of the total are done, to be called after `throughput.update`.
    """
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, rate="compiling")
        yield lambda done: bar.update(task, completed=done, rate=str(throughput) or "compiling")


def number_table(first: str, *heads: str, title: str | None = None, gap: int = 3) -> Table:
    """A table without lines: a column of names, and one of right-aligned numbers for each head."""
    table = Table(title=title, box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    table.add_column(first)
    for head in heads:
        table.add_column(head, justify="right")
    return table


def pairs(values: Iterable[tuple[str, str]]) -> Table:
    """Names in a faint colour, and their values beside them."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in values:
        grid.add_row(name, escape(value))
    return grid
