"""Tabulates the scores of the runs of a cross-validation: `python -m train.cross_validation RUN RUN ...`."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from flaxunet.cli.parse import Argument, parse
from flaxunet.report.console import number_table
from train.config import checks
from train.config import settings as configs
from train.config.settings import Config, ConfigError
from train.storage import folder as run_folder
from train.storage.log import read_rows

# Folds may differ in these settings.
OWN = ("fold", "name", "out", "devices", "fsdp", "workers", "keep", "skip_nonfinite")
OWN += ("cache", "cache_dir", "cache_limit", *configs.ASKED_ONCE)


@dataclasses.dataclass(frozen=True)
class Fold:
    """A finished run of a cross-validation.

    Attributes:
      run, config: its folder and its settings.
      numbers: I and K of --fold I/K.
      data: the names of its samples by split.
      scores: validation and test Dice of each class and their means, by the names in metrics.jsonl.
    """

    run: Path
    numbers: tuple[int, int]
    config: Config
    data: dict[str, Any]
    scores: dict[str, float]


def read(run: Path) -> Fold:
    """Reads a finished run; its validation scores are those of the best step, whose weights were tested.

    Raises: ConfigError if it is no run, has no --fold, or is not finished.
    """
    config = checks.read(run)
    if config.data.fold is None:
        raise ConfigError(f"{run} has no fold; expected a run with --fold I/K")
    rows = read_rows(run)
    test = next((row for row in rows if "test_dice" in row), None)
    validated = {row["step"]: row for row in reversed(rows) if "val_dice" in row}
    if test is None or test["best_step"] not in validated:
        raise ConfigError(f"{run} has no test scores; expected a finished run")
    row = {**validated[test["best_step"]], **test}
    names = [name for name in row if name.startswith(("val_dice", "test_dice"))]
    scores = {name: np.nan if row[name] is None else row[name] for name in names}
    return Fold(run, config.data.fold_numbers, config, run_folder.read(run)["data"], scores)


def check(folds: Sequence[Fold]) -> None:
    """Raises ConfigError that names the differences if these are not folds of the same data and settings."""
    first, *others = folds
    for fold in others:
        there, here = ({**one.config.to_flat(), **dict.fromkeys(OWN)} for one in (first, fold))
        changed = [name for name in here if here[name] != there[name]]
        differing = [f"{name} {here[name]!r}, not {there[name]!r}" for name in changed]
        if fold.numbers[1] != first.numbers[1]:
            differing.append(f"{fold.numbers[1]} folds, not {first.numbers[1]}")
        if _samples(fold) != _samples(first) or fold.data["test"] != first.data["test"]:
            differing.append("other samples")
        if differing:
            raise ConfigError(f"{fold.run} has {'; '.join(differing)}; expected the settings of {first.run}")
    runs: dict[int, Path] = {}
    for fold in folds:
        number, other = fold.config.data.fold, runs.setdefault(fold.numbers[0], fold.run)
        if other != fold.run:
            raise ConfigError(f"{fold.run} is fold {number}, and so is {other}; expected one run per fold")


def table(folds: Sequence[Fold]) -> Table:
    """Tabulates each score of every fold, in their order, with their mean and standard deviation (n - 1)."""
    folds = sorted(folds, key=lambda fold: fold.numbers)
    count = folds[0].numbers[1]
    missing = sorted(set(range(1, count + 1)) - {fold.numbers[0] for fold in folds})
    title = f"Dice, {count} folds" + (f" without {', '.join(map(str, missing))}" if missing else "")
    heads = (f"{number}/{count}" for number, _ in (fold.numbers for fold in folds))
    grid = number_table("", *heads, "mean", "std", title=title, gap=2)
    for key in folds[0].scores:
        values = np.array([fold.scores[key] for fold in folds])
        known = values[np.isfinite(values)]
        mean = known.mean() if known.size else np.nan
        spread = known.std(ddof=1) if known.size > 1 else np.nan
        split, _, name = key.partition("_dice")
        label = {"val": "validation"}.get(split, split) + (name.replace("_", " ") or " mean")
        cells = ("-" if np.isnan(value) else f"{value:.3f}" for value in (*values, mean, spread))
        grid.add_row(label, *cells, style="" if name else "bold")
    return grid


def _samples(fold: Fold) -> list[str]:
    """The samples for training and validation; none of the default data, whose folds omit others."""
    return [] if fold.config.data.folder is None else sorted(fold.data["train"] + fold.data["validation"])


@dataclasses.dataclass(frozen=True)
class Runs:
    """Mean and standard deviation of the scores of a cross-validation."""

    runs: Annotated[tuple[Path, ...], Argument("RUN", positional=True)]
    """folders of finished runs that differ in --fold only"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    runs = parse(Runs, prog="python -m train.cross_validation", arguments=arguments).runs
    try:
        folds = [read(run) for run in runs]
        check(folds)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    Console(highlight=False).print(table(folds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
