"""`python -m benchmarks.tiling`: how fast our windows predict a large image, next to MONAI's.

The same random network, window, overlap and batch on all sides, Gaussian weights, float32; MONAI's
sliding_window_inference runs the network in torch, in both of torch's layouts. Each side has a process of its
own and works while the others wait; they take turns. The networks' results on one window must agree; those of
the whole image differ a little near seams, because the weights there differ. Speed-up is the median of the
faster of MONAI's sides over ours.

With --choices, ours alone: windows, overlaps and augmentations, what they cost, and how far the probabilities
are from those of the whole image in one window.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.options import Parser, positive
from benchmarks.sides import cores
from benchmarks.speed import PAUSE, Child, SideError
from benchmarks.tiling_sides import FIRST, LAST, OURS, SIDES, Case
from flaxunet.models.decoders import DECODERS
from flaxunet.models.encoders import ENCODERS
from train.devices import machine

TOLERANCE = 1e-4  # of the networks' probabilities on one window
PROGRAM = "benchmarks.tiling_sides"
CHOICES = (  # parts of the side that a window has, overlap, augmentation
    (1, 0.0, "none"),
    (2, 0.0, "none"),
    (2, 0.25, "none"),
    (2, 0.5, "none"),
    (4, 0.0, "none"),
    (4, 0.25, "none"),
    (4, 0.5, "none"),
    (2, 0.25, "flips"),
    (2, 0.25, "d4"),
)


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """Wall and processor seconds of all sides; SideError if they do not compute the same network."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        children, found, windows = {}, {}, {}
        for side in SIDES:
            children[side] = stack.enter_context(Child(side, folder, PROGRAM))
            weights, first = str(folder / "weights.safetensors"), str(folder / f"{side}.npy")
            found[side] = children[side].ask("start", case=asdict(case), weights=weights, first=first)
            windows[side] = np.array(found[side].pop("window"))
        worst = max(float(np.abs(windows[side] - windows[OURS]).max()) for side in SIDES)
        if not worst <= TOLERANCE:
            raise SideError(
                f"{case.arch}: one window differs by {worst:.1e}; expected at most {TOLERANCE:.0e}"
            )
        whole = {side: np.load(folder / f"{side}.npy") for side in SIDES}
        times: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
        for _ in range(repeats):
            for side, child in children.items():
                time.sleep(PAUSE)
                before = processor_seconds(child.process.pid)
                answer = child.ask("step")
                spent = processor_seconds(child.process.pid) - before
                times[side].append((answer["seconds"], spent))
                found[side]["peak_bytes"] = answer["peak_bytes"]
    for side, each in times.items():
        seconds, spent = zip(*each, strict=True)
        median = float(np.median(seconds))
        found[side] |= {
            "median_s": median,
            "processor_s": float(np.median(spent)),
            "megapixels_per_s": case.size**2 / 1e6 / median,
            "seconds": seconds,
        }
    theirs = [found[side] for side in (FIRST, LAST)]
    return asdict(case) | {
        "sides": found,
        "window_difference": worst,
        "differences": [float(np.abs(whole[FIRST] - whole[OURS]).mean()), float(whole[OURS].std())],
        "ratio": min(side["median_s"] for side in theirs) / found[OURS]["median_s"],
        "processor_ratio": min(side["processor_s"] for side in theirs) / found[OURS]["processor_s"],
    }


def processor_seconds(pid: int) -> float:
    """What a process has had of the cores so far; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def table(cases: Sequence[dict[str, Any]]) -> Table:
    """A row for each side of each case."""
    out = Table(box=None)
    for name in ("network", "side"):
        out.add_column(name)
    for name in ("s", "processor s", "MP/s", "peak MiB", "compile s", "speed-up", "by processor time"):
        out.add_column(name, justify="right")
    for case in cases:
        labels = [f"{case['arch']} {case['encoder']}", f"window {case['window']}", f"batch {case['batch']}"]
        for label, (side, facts) in zip(labels, case["sides"].items(), strict=True):
            ratios = [f"{case[name]:.2f}" if side == OURS else "" for name in ("ratio", "processor_ratio")]
            seconds = f"{facts['median_s']:.2f}", f"{facts['processor_s']:.2f}"
            peak, compiled = f"{facts['peak_bytes'] / 2**20:.0f}", f"{facts['compile_s']:.1f}"
            speed = f"{facts['megapixels_per_s']:.3f}"
            out.add_row(label, side, *seconds, speed, peak, compiled, *ratios)
    return out


def choices(folder: Path, size: int, repeats: int) -> Table:
    """Ours alone, with each of `CHOICES`, next to the whole image in one window."""
    from dataclasses import replace

    from flaxunet.prediction.predictor import Predictor
    from flaxunet.prediction.tiling import Tiling

    given = Predictor.load([folder])
    picture = mosaic(size)
    out = Table(box=None)
    names = ("s", "processor s", "of the whole", "mean difference", "largest", "labels changed")
    for name in ("window", "overlap", "tta", *names):
        out.add_column(name, justify="right")
    whole, labels, first = np.empty(0), np.empty(0), 0.0
    for parts, overlap, tta in CHOICES:
        chosen = replace(given, tiling=Tiling(size // parts, overlap, batch=1, tta=tta))
        found, seconds = chosen(picture), []
        for _ in range(repeats):
            started, before = time.perf_counter(), time.process_time()
            chosen(picture)
            seconds.append((time.perf_counter() - started, time.process_time() - before))
        wall, spent = np.median(seconds, 0)
        if not whole.size:
            whole, labels, first = found, chosen.labels(found), spent
        apart, changed = np.abs(found - whole), (chosen.labels(found) != labels).mean()
        times = f"{wall:.1f}", f"{spent:.1f}", f"{spent / first:.2f}"
        numbers = f"{apart.mean():.1e}", f"{apart.max():.2f}", f"{changed:.2%}"
        out.add_row(str(size // parts), f"{overlap:g}", tta, *times, *numbers)
    return out


def mosaic(size: int) -> np.ndarray:
    """(H, W, 1): slices of the default data, side by side."""
    from flaxunet.data.layouts import brain

    slices = brain.read()[0][30:140]
    height, width = slices.shape[1:3]
    down, across = -(-size // height), -(-size // width)
    rows = [
        np.concatenate([slices[(row * across + column) * 3 % len(slices)] for column in range(across)], 1)
        for row in range(down)
    ]
    return np.concatenate(rows)[:size, :size]


def header() -> str:
    """The machine and the libraries."""
    names = ("jax", "jaxlib", "flax", "torch", "monai", "segmentation-models-pytorch")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    load = os.getloadavg()[0]
    return (
        f"{machine.processor()}, {cores()} CPU cores, load {load:.1f} before the start; "
        f"python {platform.python_version()}, {versions}"
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, checked; SystemExit with code 2 and one line on stderr if they cannot be used."""
    parser = Parser(prog="python -m benchmarks.tiling", description=__doc__)
    several: dict[str, Any] = {"nargs": "+", "metavar": "X"}
    encoders = tuple(name for name, entry in ENCODERS.items() if entry.torch)
    parser.add_argument("--arch", choices=tuple(DECODERS), default=["unet"], **several)
    parser.add_argument("--encoder", choices=encoders, default="resnet34")
    parser.add_argument("--size", type=positive, default=1024, help="side of the image, pixels")
    parser.add_argument("--window", type=positive, default=[256], help="multiples of 32", **several)
    parser.add_argument("--overlap", type=float, default=0.25, help="as a fraction of the window")
    parser.add_argument("--batch", type=positive, default=[1], help="windows at once", **several)
    parser.add_argument("--repeats", type=positive, default=3, metavar="N", help="timed images per side")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all settings and times")
    told = "ours alone, with the network of a run of the default job, on slices of the default data"
    parser.add_argument("--choices", type=Path, metavar="RUN", help=told)
    options = parser.parse_args(arguments)
    for name in ("torch", "segmentation_models_pytorch", "monai"):
        if importlib.util.find_spec(name) is None:
            parser.error(f'{name} is not installed: pip install "flaxunet[bench]"')
    for window in options.window:
        if window % 32 or window > options.size:
            parser.error(f"--window {window}; expected a multiple of 32 up to --size {options.size}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 a side failed, 2 something cannot be used, 130 interrupted."""
    options = parse(arguments)
    console = Console(highlight=False, width=120)
    console.print(header())
    cases: list[dict[str, Any]] = []
    code = 0
    try:
        if options.choices:
            console.print(f"{options.size}², float32, median of {options.repeats}")
            console.print(choices(options.choices, options.size, options.repeats))
            return 0
        product = itertools.product(options.arch, options.window, options.batch)
        for arch, window, batch in product:
            case = Case(arch, options.encoder, options.size, window, options.overlap, batch)
            cases.append(measure(case, options.repeats))
            if options.json:
                options.json.write_text(json.dumps(cases, indent=1) + "\n")
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        code = 130
    except (SideError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    if cases:
        console.print(
            f"{options.size}², overlap {options.overlap:g}, Gaussian, float32; median of {options.repeats}"
        )
        console.print(table(cases))
        for case in cases:
            mean, spread = case["differences"]
            console.print(
                f"{case['arch']}, window {case['window']}: one window differs by "
                f"{case['window_difference']:.0e}, the whole by {mean:.0e} in the mean (deviation over the "
                f"image {spread:.0e})"
            )
    return code


if __name__ == "__main__":
    sys.exit(main())
