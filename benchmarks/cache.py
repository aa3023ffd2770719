"""`python -m benchmarks.cache`: formats that could hold decoded images, by size and random crops a second.

Colour images of 8 bits with their labels are written as the raw arrays of `train.data.shard`, as an npz file
each, and as records of one ArrayRecord file, with and without compression. Then random crops are read, from
the page cache, with one thread and with as many as there are cores. Prints a table.
"""

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from array_record.python import array_record_module
from rich.console import Console
from rich.table import Table

from benchmarks.options import Parser, positive
from train.data import shard
from train.data.samples import Arrays, Prepared, Window
from train.devices import machine

Read = Callable[[int, Window], tuple[np.ndarray, np.ndarray]]
Sample = tuple[np.ndarray, np.ndarray]


def pictures(count: int, side: int) -> list[Sample]:
    """Smooth colours with a little noise, and blobs as labels: packs about as well as microscopy does."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    made = []
    for _ in range(count):
        a, b, c = rng.uniform(5, 30, 3)
        wave = np.sin(a * x + b * y) * np.cos(c * x)
        image = 128 + 60 * wave[..., None] + rng.normal(0, 4, (side, side, 3))
        made.append((image.clip(0, 255).astype(np.uint8), (wave > 0.3).astype(np.int8)))
    return made


def mapped(folder: Path, made: list[Sample]) -> Read:
    """The shards of training."""
    pairs = [SimpleNamespace(image_location=str(place), name=str(place)) for place in range(len(made))]
    writer = shard.Writer(folder)
    for pair, (image, label) in zip(pairs, made, strict=True):
        classes = np.unique(label)
        writer.add(Prepared(pair, image.shape, classes, classes, Arrays(image, label)))
    writer.finish()
    writer.close()
    found = shard.read(folder, pairs) or []
    return lambda place, window: found[place].source.read(window)


def archives(folder: Path, made: list[Sample], save: Callable[..., None]) -> Read:
    """An npz file for each."""
    for place, (image, label) in enumerate(made):
        save(folder / f"{place}.npz", image=image, label=label)

    def read(place: int, window: Window) -> Sample:
        with np.load(folder / f"{place}.npz") as found:
            return Arrays(found["image"], found["label"]).read(window)

    return read


def records(folder: Path, made: list[Sample], options: str) -> Read:
    """One ArrayRecord file."""
    path, side = str(folder / "data.array_record"), made[0][1].shape[0]
    writer = array_record_module.ArrayRecordWriter(path, f"group_size:1,{options}")
    for image, label in made:
        writer.write(image.tobytes() + label.tobytes())
    writer.close()
    reader, pixels = array_record_module.ArrayRecordReader(path), side * side

    def read(place: int, window: Window) -> Sample:
        (found,) = reader.read([place])
        values = np.frombuffer(found, np.uint8)
        image, label = values[: 3 * pixels].reshape(side, side, 3), values[3 * pixels :].view(np.int8)
        return Arrays(image, label.reshape(side, side)).read(window)

    return read


FORMATS: dict[str, Callable[[Path, list[Sample]], Read]] = {
    "raw arrays, mapped": mapped,
    "npz": lambda folder, made: archives(folder, made, np.savez),
    "npz, deflate": lambda folder, made: archives(folder, made, np.savez_compressed),
    "ArrayRecord": lambda folder, made: records(folder, made, "uncompressed"),
    "ArrayRecord, zstd": lambda folder, made: records(folder, made, "zstd:3"),
}


def crops(read: Read, count: int, side: int, crop: int, threads: int, seconds: float) -> float:
    """Random crops a second."""
    rng = np.random.default_rng(1)
    places = rng.integers(0, [[count], [side - crop], [side - crop]], (3, 4096)).T.tolist()

    def one(place: list[int]) -> None:
        index, top, left = place
        read(index, np.s_[top : top + crop, left : left + crop])

    done, began = 0, time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        while time.perf_counter() - began < seconds:
            chosen = [places[(done + k) % len(places)] for k in range(2 * threads)]
            done += len(list(pool.map(one, chosen)))
    return done / (time.perf_counter() - began)


def main() -> None:
    """Measures every format."""
    parser = Parser(prog="python -m benchmarks.cache", description=__doc__)
    parser.add_argument("--images", type=positive, default=24)
    parser.add_argument("--side", type=positive, default=1024)
    parser.add_argument("--crop", type=positive, default=256)
    parser.add_argument("--seconds", type=positive, default=2)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    made = pictures(options.images, options.side)
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "array-record"))
    table = Table(
        title=f"{machine.processor()}, {cores} CPU cores, load {os.getloadavg()[0]:.1f}; {versions}; crops "
        f"of {options.crop} x {options.crop} from {options.side} x {options.side} x 3"
    )
    for column in ("format", "MB", "written, MB/s", "crops/s, 1 thread", f"{cores} threads"):
        table.add_column(column, justify="left" if column == "format" else "right")
    raw = sum(array.nbytes for pair in made for array in pair) / 1e6
    for name, write in FORMATS.items():
        with tempfile.TemporaryDirectory() as place:
            began = time.perf_counter()
            read = write(Path(place), made)
            speed = raw / (time.perf_counter() - began)
            size = sum(path.stat().st_size for path in Path(place).iterdir()) / 1e6
            rates = [
                crops(read, len(made), options.side, options.crop, threads, options.seconds)
                for threads in (1, cores)
            ]
        table.add_row(name, f"{size:.0f}", f"{speed:.0f}", *(f"{rate:.0f}" for rate in rates))
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
