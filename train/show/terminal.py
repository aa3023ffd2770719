"""What a run says on the terminal: a header, a progress bar, a line per evaluation, a table at the end."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich import progress as bars
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flaxunet import metrics
from train.config.settings import Config
from train.data.dataset import Dataset
from train.show.figures import class_table

if TYPE_CHECKING:
    from train.storage.times import Times

WARNED = 5  # warnings about the data that are printed


def print_header(
    console: Console,
    folder: Path,
    config: Config,
    dataset: Dataset,
    mesh: Mesh,
    *,
    parameters: int,
    start: int,
    begins: str | None,
    class_weights: tuple[float, ...] | None,
) -> None:
    """Says what is trained, on what and where, one line each; `begins` is about stored weights."""
    network, optimization, side = config.network, config.optimization, config.data.size
    device = mesh.devices.flat[0]
    devices = f"{mesh.size} x {device.device_kind}"
    if mesh.shape["fsdp"] > 1:
        devices += f", parameters over {mesh.shape['fsdp']}"
    sizes = ", ".join(
        f"{len(split)} {name}"
        for name, split in (
            ("train", dataset.train),
            ("validation", dataset.validation),
            ("test", dataset.test),
        )
    )
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()
    for key, value in (
        ("network", f"{network.arch} on {network.encoder}, {parameters / 1e6:.1f} M trainable parameters"),
        *((("weights", begins),) if begins else ()),
        ("data", f"{dataset.name}: {sizes}"),
        *(("", line) for line in dataset.about),
        ("classes", ", ".join(dataset.class_names)),
        *((("class weights", ", ".join(f"{w:.3g}" for w in class_weights)),) if class_weights else ()),
        (
            "batch",
            f"{optimization.batch_size} x {side} x {side} x {dataset.channels}, {network.dtype}"
            + (f", in {optimization.accumulate} parts" if optimization.accumulate > 1 else ""),
        ),
        *((("processes", str(jax.process_count())),) if jax.process_count() > 1 else ()),
        ("devices", devices),
        ("run", f"{folder}" + (f", from step {start}" if start else "")),
    ):
        grid.add_row(key, escape(value))
    console.print(grid)
    console.print()


class Progress:
    """The bar with loss, Dice, images/s and time left; and a line above it per evaluation."""

    def __init__(self, console: Console, steps: int, start: int, batch_size: int):
        self._console, self._batch_size = console, batch_size
        self._bar = bars.Progress(
            bars.TextColumn("{task.description:<10}"),
            bars.BarColumn(bar_width=None),
            bars.MofNCompleteColumn(),
            bars.TextColumn(
                "loss {task.fields[loss]}  Dice {task.fields[dice]}  {task.fields[rate]} images/s"
            ),
            bars.TextColumn("{task.fields[left]} left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            expand=True,
        )
        blank: dict[str, Any] = {"loss": "  -  ", "dice": "  -  ", "rate": " - ", "left": "-:--"}
        self._task = self._bar.add_task("compiling", total=steps, completed=start, **blank)
        self._steps, self._done, self._since, self._counted = steps, start, None, 0
        self._validating = 0.0

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.stop()

    def step(self, loss: float) -> None:
        """Counts a finished step with its loss."""
        now = time.perf_counter()
        self._done += 1
        if self._since is None:  # the first step is compilation, and says nothing of the rest
            self._since, self._counted = now, -1
        self._counted += 1
        fields: dict[str, Any] = {"loss": f"{loss:.3f}"}
        if self._counted:
            seconds = (now - self._since) / self._counted
            fields["rate"] = f"{self._batch_size / seconds:.1f}"
            fields["left"] = _clock(seconds * (self._steps - self._done))
        self._bar.update(self._task, completed=self._done, description="training", **fields)

    def skipped(self, what: str) -> None:
        """Prints the line of a step that was not finite and changed nothing."""
        self._console.print(f"[yellow]skipped[/yellow] {escape(what)}", soft_wrap=True)
        self._done += 1

    def note(self, what: str) -> None:
        """Says what goes on instead of training; its time does not count into the rate."""
        self._validating = time.perf_counter()
        self._bar.update(self._task, description=what)

    def rate(self) -> dict[str, float]:
        """images_per_second since the first step, validation left out; empty when only that one was taken."""
        if self._since is None or not self._counted:
            return {}
        seconds = self._validating - self._since
        return {"images_per_second": self._batch_size * self._counted / max(seconds, 1e-9)}

    def evaluated(self, row: dict[str, float]) -> None:
        """Prints the line of an evaluation."""
        if self._since is not None:
            self._since += time.perf_counter() - self._validating
        classes = [
            f"{key.removeprefix('val_dice_').replace('_', ' ')} {value:.3f}"
            for key, value in row.items()
            if key.startswith("val_dice_")
        ]
        line = (
            f"step {row['step']:>{len(str(self._steps))}}  loss {row['train_loss']:.3f}  "
            f"validation {row['val_loss']:.3f}  Dice [bold]{row['val_dice']:.3f}[/bold]"
        )
        if len(classes) > 1:
            line += f"  [dim]{escape(', '.join(classes))}[/dim]"
        self._console.print(line, soft_wrap=True)
        self._bar.update(self._task, description="training", dice=f"{row['val_dice']:.3f}")


def print_warnings(console: Console, warnings: Sequence[str]) -> None:
    """Prints the first of what is odd about the data, and how many more there are."""
    for line in warnings[:WARNED]:
        console.print(f"[yellow]warning[/yellow] {escape(line)}", soft_wrap=True)
    if len(warnings) > WARNED:
        console.print(f"[dim]... and {len(warnings) - WARNED} more: see python -m flaxunet inspect[/dim]")
    if warnings:
        console.print()


def print_early(console: Console, step: int, patience: int | None) -> None:
    """Says why training ends before its last step."""
    console.print(f"ended at step {step}: no better validation Dice in {patience} evaluations")


def print_stopped(console: Console, folder: Path, step: int) -> None:
    """Says how to go on."""
    command = f"python -m train --resume {shlex.quote(str(folder))}"
    console.print(escape(f"stopped and saved at step {step}; go on with: {command}"), soft_wrap=True)


def print_result(
    console: Console,
    folder: Path,
    class_names: tuple[str, ...],
    confusion: np.ndarray,
    best: int,
    times: "Times",
) -> None:
    """Prints the table per class on the test set, the loop's own cost, and where everything is."""
    console.print()
    console.print(f"test, with the weights of step {best} (best validation Dice)")
    pixels = confusion.sum(1)
    console.print(class_table(class_names, metrics.dice(confusion), metrics.iou(confusion), pixels))
    console.print(
        f"[dim]waited for data {times.waiting_share():.1%} of the time, "
        f"{times.host_ms():.1f} ms of host time per step[/dim]"
    )
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column()
    for what, name in (
        ("report", "report.html"),
        ("pictures", "predictions.png"),
        ("curves", "curves.png"),
        ("numbers", "metrics.jsonl"),
        ("network", "model"),
        ("checkpoints", "checkpoints"),
    ):
        grid.add_row(what, escape(str(folder / name)))
    grid.add_row("TensorBoard", escape(f"tensorboard --logdir {folder}"))
    console.print(grid)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
