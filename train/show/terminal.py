"""Prints a run on the terminal: a header, a progress bar, a line for each evaluation, a table at the end."""

import shlex
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import ArrayLike
from rich import progress as bars
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from flaxunet import metrics
from flaxunet.report.console import number_table, pairs
from flaxunet.report.html import number
from train.config.settings import Config
from train.data.dataset import Dataset
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
    """Prints what is trained, on what and where.

    Args:
      console: to print to.
      folder, config, dataset, mesh: of the run.
      parameters: number of trainable parameters.
      start: steps already taken.
      begins: description of the initial weights, if they are not random.
      class_weights: those of the loss, if any.
    """
    network, optimization, side = config.network, config.optimization, config.data.size
    accumulate, fsdp, processes = optimization.accumulate, mesh.shape["fsdp"], jax.process_count()
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    sizes = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
    devices = f"{mesh.size} x {mesh.devices.flat[0].device_kind}"
    batch = f"{optimization.batch_size} x {side} x {side} x {dataset.channels}, {network.dtype}"
    lines = (
        ("network", f"{network.arch} on {network.encoder}, {parameters / 1e6:.1f} M trainable parameters"),
        ("weights", begins),
        ("data", f"{dataset.name}: {sizes}"),
        *(("", line) for line in dataset.about),
        ("classes", ", ".join(dataset.class_names)),
        ("class weights", ", ".join(f"{weight:.3g}" for weight in class_weights or ())),
        ("batch", batch + (f", in {accumulate} parts" if accumulate > 1 else "")),
        ("processes", str(processes) if processes > 1 else None),
        ("devices", devices + (f", parameters over {fsdp}" if fsdp > 1 else "")),
        ("run", f"{folder}" + (f", from step {start}" if start else "")),
    )
    console.print(pairs((name, text) for name, text in lines if text))
    console.print()


class Progress:
    """A progress bar with loss, Dice, images/s and time left, and a line above it for each evaluation.

    Use as a context manager.

    Args:
      console: to print to; the bar is shown on a terminal only.
      steps: of the run.
      start: steps already taken.
      batch_size: images per step.
    """

    def __init__(self, console: Console, steps: int, start: int, batch_size: int):
        self._console, self._batch_size = console, batch_size
        numbers = "loss {task.fields[loss]}  Dice {task.fields[dice]}  {task.fields[rate]} images/s"
        before = bars.TextColumn("{task.description:<10}"), bars.BarColumn(None), bars.MofNCompleteColumn()
        after = bars.TextColumn(numbers), bars.TextColumn("{task.fields[left]} left")
        hidden = not console.is_terminal
        self._bar = bars.Progress(
            *before, *after, console=console, transient=True, disable=hidden, expand=True
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
        """Removes the bar."""
        self._bar.stop()

    def step(self, loss: float) -> None:
        """Counts a finished step and shows its loss."""
        now = time.perf_counter()
        self._done += 1
        fields: dict[str, Any] = {"loss": f"{loss:.3f}"}
        if self._since is None:  # the first step compiles; its time says nothing of the others
            self._since = now
        else:
            self._counted += 1
            seconds = (now - self._since) / self._counted
            left = timedelta(seconds=round(seconds * (self._steps - self._done)))
            fields |= {"rate": f"{self._batch_size / seconds:.1f}", "left": str(left).removeprefix("0:")}
        self._bar.update(self._task, completed=self._done, description="training", **fields)

    def skipped(self, what: str) -> None:
        """Prints a line about a step that was skipped because its loss or gradient was not finite."""
        self._console.print(f"[yellow]skipped[/yellow] {escape(what)}", soft_wrap=True)
        self._done += 1

    def note(self, what: str) -> None:
        """Shows what is done instead of training; its time does not count for the rate."""
        self._validating = time.perf_counter()
        self._bar.update(self._task, description=what)

    def rate(self) -> dict[str, float]:
        """Returns images_per_second since the first step, without validation; empty before the second."""
        if self._since is None or not self._counted:
            return {}
        seconds = self._validating - self._since
        return {"images_per_second": self._batch_size * self._counted / max(seconds, 1e-9)}

    def evaluated(self, row: dict[str, float]) -> None:
        """Prints the line of an evaluation."""
        if self._since is not None:
            self._since += time.perf_counter() - self._validating
        line = (
            f"step {row['step']:>{len(str(self._steps))}}  loss {row['train_loss']:.3f}  "
            f"validation {row['val_loss']:.3f}  Dice [bold]{row['val_dice']:.3f}[/bold]"
        )
        classes = [key for key in row if key.startswith("val_dice_")]
        if len(classes) > 1:
            names = [key.removeprefix("val_dice_").replace("_", " ") for key in classes]
            scores = [f"{name} {row[key]:.3f}" for name, key in zip(names, classes, strict=True)]
            line += f"  [dim]{escape(', '.join(scores))}[/dim]"
        self._console.print(line, soft_wrap=True)
        self._bar.update(self._task, description="training", dice=f"{row['val_dice']:.3f}")


def print_warnings(console: Console, warnings: Sequence[str]) -> None:
    """Prints the first WARNED warnings about the data, and how many more there are."""
    for line in warnings[:WARNED]:
        console.print(f"[yellow]warning[/yellow] {escape(line)}", soft_wrap=True)
    if len(warnings) > WARNED:
        console.print(f"[dim]... and {len(warnings) - WARNED} more: see python -m flaxunet inspect[/dim]")
    if warnings:
        console.print()


def print_early(console: Console, step: int, patience: int | None) -> None:
    """Prints why training ends before its last step."""
    console.print(f"ended at step {step}: no better validation Dice in {patience} evaluations")


def print_stopped(console: Console, folder: Path, step: int) -> None:
    """Prints how to resume a run that was stopped."""
    command = f"python -m train --resume {shlex.quote(str(folder))}"
    console.print(escape(f"stopped and saved at step {step}; go on with: {command}"), soft_wrap=True)


def print_result(
    console: Console,
    folder: Path,
    class_names: tuple[str, ...],
    confusion: np.ndarray,
    best: int,
    times: Times,
) -> None:
    """Prints the test scores of each class, the cost of the training loop, and the files of the run.

    Args:
      console, folder: to print to, and of the run.
      class_names: C names, the background first.
      confusion: (C, C) pixels of the test set, rows truth, columns prediction.
      best: step of the tested weights.
      times: of the training loop.
    """
    console.print(f"\ntest, with the weights of step {best} (best validation Dice)")
    pixels = confusion.sum(1)
    console.print(class_table(class_names, metrics.dice(confusion), metrics.iou(confusion), pixels))
    waited, host = (
        f"{times.waiting_share():.1%} of the time",
        f"{times.host_ms():.1f} ms of host time per step",
    )
    console.print(f"[dim]waited for data {waited}, {host}[/dim]")
    files = {"report": "report.html", "pictures": "predictions.png", "curves": "curves.png"}
    files |= {"numbers": "metrics.jsonl", "network": "model", "checkpoints": "checkpoints"}
    lines = [(name, str(folder / file)) for name, file in files.items()]
    console.print(pairs([*lines, ("TensorBoard", f"tensorboard --logdir {folder}")]))


def class_table(class_names: Sequence[str], dice: ArrayLike, iou: ArrayLike, pixels: ArrayLike) -> Table:
    """Tabulates the scores of a set: a row for each class, and the mean over the foreground.

    Args:
      class_names: C names, the background first.
      dice, iou: (C,) scores in [0, 1]; NaN, for a class that does not occur, is shown as a dash.
      pixels: (C,) true pixels of each class.
    """
    dice, iou, pixels = np.asarray(dice), np.asarray(iou), np.asarray(pixels)
    table = number_table("class", "Dice", "IoU", "pixels")
    for index, name in enumerate(class_names):
        row = number(dice[index]), number(iou[index]), f"{int(pixels[index]):,}"
        table.add_row(Text(name), *row, style="" if index else "dim")
    means = (number(metrics.mean_foreground(values)) for values in (dice, iou))
    table.add_row("foreground mean", *means, f"{int(pixels[1:].sum()):,}", style="bold")
    return table
