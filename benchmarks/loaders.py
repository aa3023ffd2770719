"""`python -m benchmarks.loaders [DIR]`: augmented images per second, ours against torch's loader, same files.

Ours: files are decoded once and kept (in memory, or in a shard on disk), threads cut crops, and the device,
here the same CPU, augments. Theirs: a DataLoader whose processes decode and augment with albumentations, and
the same with pixels decoded beforehand. As many threads and processes as there are cores. Without a folder it
makes 512 x 512 colour images. Rounds take turns; medians. CPU time is that of all processes, and says more
than images per second where other programs run beside it. Needs the extra "bench".
"""

import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from benchmarks import input as inputs
from benchmarks import torch_loader
from benchmarks.options import Parser, positive
from train.augment.geometry import augment
from train.config.settings import Data
from train.data import batches as batching
from train.data import dataset as data
from train.devices import machine

STRENGTHS = ("none", "light", "medium")
AHEAD = 8  # batches that a loader may have ready
CHANGE = jax.jit(augment, static_argnames="strength")


def ours(
    root: Path, cache: str, folder: Path, crop: int, batch: int, strength: str, workers: int
) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Batches as the training step sees them, ready on the device."""
    settings = Data(
        str(root), target="foreground", size=crop, workers=workers, cache=cache, cache_dir=str(folder)
    )
    dataset = data.load(settings, seed=0)
    stream = batching.train_batches(
        dataset.train, batch_size=batch, size=crop, seed=0, start=0, threads=workers
    )
    before = None
    for step, found in enumerate(stream):
        key = jax.random.fold_in(jax.random.key(0), step)
        now = CHANGE(key, found["image"], found["label"], strength=strength)
        jax.block_until_ready(before)  # one is always on its way, as in training
        before = now
        yield now


def seconds(stream: Iterator[Any], count: int) -> tuple[float, float]:
    """Time and CPU time for so many batches, after those that were ready from while others had their turn."""
    for _ in range(AHEAD):
        next(stream)
    began, busy = time.perf_counter(), used()
    for _ in range(count):
        next(stream)
    return time.perf_counter() - began, used() - busy


def used() -> float:
    """CPU seconds of this process and of those that it has started."""
    ticks = 0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime and stime, counted from the field after the name
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measures every strength in turn."""
    parser = Parser(prog="python -m benchmarks.loaders", description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="folder of your own, laid out as for training")
    parser.add_argument("--images", type=positive, default=48)
    parser.add_argument("--crop", type=positive, default=256)
    parser.add_argument("--batch", type=positive, default=8)
    parser.add_argument("--batches", type=positive, default=12, help="of each round")
    parser.add_argument("--rounds", type=positive, default=5)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    names = ("numpy", "grain", "jax", "torch", "albumentations", "opencv-python-headless")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    table = Table(
        title=f"{machine.processor()}, {cores} CPU cores, load {os.getloadavg()[0]:.1f}; python "
        f"{platform.python_version()}, {versions}; batches of {options.batch} x {options.crop} x "
        f"{options.crop} x 3; images/s, and CPU ms for one"
    )
    for column in ("--augment", "ours, memory", "ours, disk", "torch", "torch, decoded", "ours over torch"):
        table.add_column(column, justify="left" if column == "--augment" else "right")
    with tempfile.TemporaryDirectory() as place:
        root = options.data or Path(place) / "data"
        if options.data is None:
            inputs.write(root, "PNG RGB 8 bit", options.images)
        pairs = inputs.find(root)
        for strength in STRENGTHS:
            table.add_row(strength, *measured(root, Path(place), pairs, strength, cores, options))
    Console(width=150).print(table)


def measured(
    root: Path, place: Path, pairs: list[tuple[Path, Path]], strength: str, cores: int, options: Any
) -> list[str]:
    """A row of the table."""
    sizes = options.crop, options.batch
    makers: dict[str, Callable[[], Iterator[Any]]] = {
        mode: partial(ours, root, mode, place / "cache", *sizes, strength, cores)
        for mode in ("memory", "disk")
    }
    for name, decoded in (("torch", False), ("decoded", True)):
        makers[name] = partial(torch_loader.batches, pairs, *sizes, strength, cores, decoded=decoded)
    streams = {name: make() for name, make in makers.items()}
    for stream in streams.values():  # starts processes, compiles
        seconds(stream, 3)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in streams}
    for _ in range(options.rounds):
        for name, stream in streams.items():
            taken[name].append(seconds(stream, options.batches))
    images = options.batches * options.batch
    middle = {
        name: [statistics.median(each) / images for each in zip(*taken[name], strict=True)] for name in taken
    }
    ratios = (theirs / ours for theirs, ours in zip(middle["torch"], middle["memory"], strict=True))
    return [
        *(f"{1 / wall:.0f}, {1e3 * cpu:.1f}" for wall, cpu in middle.values()),
        ", ".join(f"{ratio:.1f}x" for ratio in ratios),
    ]


if __name__ == "__main__":
    main()
