"""`python -m benchmarks.pretraining WEIGHTS DATA`: what a pretrained encoder brings on a small set of images.

Trains the same network from the pretrained encoder and from random numbers, several seeds each, by
`python -m train`; every fourth training image, by name, is held out for validation. Prints a table and writes
a picture of validation Dice over steps and a JSON file of all numbers.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

STARTS = {"pretrained": "#0072b2", "random": "#d55e00"}


def split(data: Path, folder: Path) -> Path:
    """Copies train/ and test/ of `data`, and moves every fourth training image and mask to val/."""
    for part in ("train", "test"):
        shutil.copytree(data / part, folder / part)
    for kind in (folder / "train").iterdir():
        held = folder / "val" / kind.name
        held.mkdir(parents=True)
        for file in sorted(kind.iterdir())[::4]:
            file.rename(held / file.name)
    return folder


def train(
    options: argparse.Namespace, data: Path, out: Path, start: str, seed: int
) -> list[dict[str, float]]:
    """The rows of metrics.jsonl of one run."""
    name = f"{start}-{seed}"
    command = [sys.executable, "-m", "train", "--arch", options.arch, "--encoder", options.encoder]
    command += ["--data", str(data), "--target", "foreground", "--steps", str(options.steps)]
    command += ["--batch-size", str(options.batch), "--eval-every", str(options.every), "--seed", str(seed)]
    command += ["--learning-rate", str(options.learning_rate), "--out", str(out), "--name", name]
    command += ["--encoder-weights", str(options.weights)] if start == "pretrained" else []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()]


def draw(runs: dict[str, list[list[dict[str, float]]]], path: Path) -> None:
    """Validation Dice over steps: a thin line per run, a thick one for their mean."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for start, color in STARTS.items():
        curves = [
            [(row["step"], row["val_dice"]) for row in rows if "val_dice" in row] for rows in runs[start]
        ]
        steps, dice = np.array(curves).transpose(2, 0, 1)
        for each in dice:
            axes.plot(steps[0], each, color=color, alpha=0.35, linewidth=1)
        axes.plot(steps[0], dice.mean(0), color=color, linewidth=2.2, label=f"{start} encoder")
    axes.set(xlabel="step", ylabel="validation Dice", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretraining", description=__doc__)
    parser.add_argument("weights", type=Path, help="folder of the pretrained encoder")
    parser.add_argument("data", type=Path, help="folder with train/ and test/ of images and instance masks")
    parser.add_argument("--arch", default="unet")
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--every", type=int, default=15, help="steps between evaluations")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--out", type=Path, default=Path("docs/explanation/pretraining.png"), help="the picture"
    )
    options = parser.parse_args()
    runs: dict[str, list[list[dict[str, float]]]] = {start: [] for start in STARTS}
    with tempfile.TemporaryDirectory() as folder:
        data = split(options.data, Path(folder) / "data")
        for seed in range(options.seeds):
            for start, found in runs.items():
                found.append(train(options, data, Path(folder), start, seed))
    draw(runs, options.out)
    options.out.with_suffix(".json").write_text(json.dumps(runs, indent=1) + "\n")

    half = options.every * max(options.steps // options.every // 2, 1)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("encoder", "seed", f"validation, step {half}", "validation, best", "test"):
        table.add_column(column, justify="left" if column == "encoder" else "right")
    for start, found in runs.items():
        for seed, rows in enumerate(found):
            scores = {row["step"]: row["val_dice"] for row in rows if "val_dice" in row}
            cells = (scores[half], max(scores.values()), rows[-1]["test_dice"])
            table.add_row(start, str(seed), *(f"{cell:.3f}" for cell in cells))
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
