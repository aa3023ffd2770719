"""What each recipe of docs/how-to/train.md comes to on the default data: `python -m benchmarks.recipes`.

Every one is a run of `python -m train` in a process of its own, one after the other; the runs are kept.
"""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.options import Parser

RECIPES = {
    "default": "",
    "last-weights": "--ema 0",
    "bfloat16": "--dtype bfloat16",
    "sgd": "--optimizer sgd --learning-rate 0.1 --schedule poly --warmup 0.02",
    "plateau": "--schedule plateau --steps 200 --patience 3",
    "parts": "--batch-size 8 --accumulate 2 --norm group",
    "rare": "--class-weights balanced --foreground 0.5",
    "fine-tune": "--encoder-weights {out}/default --freeze-encoder 20 --encoder-lr 0.1",
    "deep": "--arch unetplusplus --deep-supervision",
    "guided": "--arch unet3plus --deep-supervision --guidance",
    "fold-1": "--fold 1/3",
    "fold-2": "--fold 2/3",
    "fold-3": "--fold 3/3",
}
"""Flags by the name of the run; {out} is the folder of all runs."""


def command(name: str, out: Path) -> list[str]:
    """The arguments of `python -m train` for a recipe; a UNet where it does not say."""
    flags = shlex.split(RECIPES[name].format(out=out))
    return [*([] if "--arch" in flags else ["--arch", "unet"]), *flags, "--out", str(out), "--name", name]


def train(name: str, out: Path) -> dict[str, Any]:
    """The last row of a new run, and its seconds from start to exit.

    Raises: SystemExit with its last line, if it fails.
    """
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "train", *command(name, out)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    rows = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()]
    return {**rows[-1], "seconds": time.perf_counter() - began}


def table(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """A line per recipe."""
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("run", "test Dice", "gray", "white", "steps", "best", "s"):
        grid.add_column(title, justify="left" if title == "run" else "right")
    grid.add_column("flags", overflow="fold")
    for name, row in rows.items():
        dice = [f"{value:.3f}" for key, value in row.items() if key.startswith("test_dice")]
        steps = f"{row['step']:.0f}", f"{row['best_step']:.0f}", f"{row['seconds']:.0f}"
        grid.add_row(name, *dice, *steps, RECIPES[name].format(out="RUNS") or "-")
    return grid


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains and prints."""
    parser = Parser(prog="python -m benchmarks.recipes", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"), help="folder of the runs")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=RECIPES,
        default=list(RECIPES),
        help=f"of {', '.join(RECIPES)}",
    )
    options = parser.parse_args(arguments)
    console, rows = Console(width=140), {}
    for name in options.only:
        if (options.out / name).exists():
            parser.error(f"{options.out / name} exists; expected another --out")
        rows[name] = train(name, options.out)
        console.print(f"{name}: {rows[name]['test_dice']:.3f}", highlight=False, style="dim")
    console.print(table(rows))


if __name__ == "__main__":
    main()
