"""`python -m benchmarks.input [DIR]`: how fast images reach the devices' door, from files and from memory.

Without a folder it makes its own: 512 x 512 images that look like blobs in noise, with masks as PNG, in each
format that is read. Reads every pair as `python -m train` does, then takes random crops and whole batches of
them from memory. Each with one thread and with as many as there are cores. Prints a table.
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.options import Parser, positive
from flaxunet import data as layouts
from flaxunet.data.record import read_pair
from train.data import batches as batching
from train.data import dataset as data
from train.devices import machine

SIDE, CROP, BATCH = 512, 256, 8
BYTES = 16  # of a pixel in memory: three channels of float32, and its label


def picture(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A colour image (SIDE, SIDE, 3) in [0, 1] and its mask: bright blobs, and noise that packs badly."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    centres, radii = rng.random((12, 2)), rng.uniform(0.03, 0.12, 12)
    mask = np.zeros((SIDE, SIDE), bool)
    for (row, column), radius in zip(centres, radii, strict=True):
        mask |= (y - row) ** 2 + (x - column) ** 2 < radius**2
    image = 0.3 + 0.4 * mask[..., None] + rng.normal(0, 0.03, (SIDE, SIDE, 3))
    return np.clip(image, 0, 1), mask.astype(np.uint8)


def pillow(path: Path, array: np.ndarray) -> None:
    """Writes with Pillow, whose settings are the usual ones."""
    Image.fromarray(array).save(path)


FORMATS: dict[str, tuple[str, int, bool, Callable[[Path, np.ndarray], object]]] = {
    "PNG gray 8 bit": (".png", 8, False, pillow),
    "PNG gray 16 bit": (".png", 16, False, pillow),
    "PNG RGB 8 bit": (".png", 8, True, pillow),
    "JPEG gray": (".jpg", 8, False, pillow),
    "JPEG RGB": (".jpg", 8, True, pillow),
    "TIFF gray 8 bit": (".tif", 8, False, tifffile.imwrite),
    "TIFF gray 16 bit": (".tif", 16, False, tifffile.imwrite),
    "TIFF gray 16 bit, deflate": (
        ".tif",
        16,
        False,
        lambda path, array: tifffile.imwrite(path, array, compression="zlib"),
    ),
    "TIFF RGB 8 bit": (".tif", 8, True, tifffile.imwrite),
}
"""Suffix, bits and colour of each format, and what writes it."""


def write(root: Path, name: str, count: int) -> None:
    """Images of one format and their masks."""
    suffix, bits, colour, save = FORMATS[name]
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(count):
        image, mask = picture(np.random.default_rng(number))
        stored = (image * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
        save(root / "images" / f"{number:03}{suffix}", stored if colour else stored[..., 0])
        pillow(root / "masks" / f"{number:03}.png", mask)


def rate(images: int, seconds: float, call: Callable[[], object]) -> float:
    """Images per second of a call that handles so many, repeated for a while; the first one is not timed."""
    call()
    began, rounds = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        call()
        rounds += 1
    return rounds * images / (time.perf_counter() - began)


def find(root: Path) -> list[tuple[Path, Path]]:
    """Image and mask of every pair. Ends with a line if there are none."""
    found = layouts.find(root)
    if found.problems or not found.records:
        print(f"error: {(found.problems or (f'{root}: no pairs',))[0]}", file=sys.stderr)
        raise SystemExit(2)
    return [(record.image, record.mask) for record in found.records]


def reading(pairs: list[tuple[Path, Path]], threads: int, seconds: float) -> float:
    """Images per second, each with its mask, from the page cache."""
    with ThreadPoolExecutor(threads) as pool:
        return rate(len(pairs), seconds, lambda: list(pool.map(lambda pair: read_pair(*pair), pairs)))


def samples() -> data.Split:
    """Colour images of three classes in memory."""
    split: list[data.Sample] = []
    for number in range(8):
        image, mask = picture(np.random.default_rng(number))
        label = mask.astype(np.int32) * (1 + (np.arange(SIDE) % 2)[None].astype(np.int32))
        split.append({"image": image.astype(np.float32), "label": label, "name": str(number)})
    return split


def cropping(split: data.Split, threads: int, foreground: float, seconds: float) -> float:
    """Images per second of whole batches, as training takes them."""
    stream = batching.train_batches(
        split, batch_size=BATCH, size=CROP, seed=0, start=0, threads=threads, foreground=foreground
    )
    # More batches than are prepared ahead.
    return rate(32 * BATCH, seconds, lambda: [next(stream) for _ in range(32)])


def title(cores: int) -> str:
    """The machine and the versions."""
    name = machine.processor()
    versions = ", ".join(
        f"{package} {version(package)}" for package in ("pillow", "tifffile", "grain", "numpy")
    )
    return (
        f"{name}, {cores} CPU cores, load {os.getloadavg()[0]:.1f}; python {platform.python_version()}, "
        f"{versions}; {SIDE} x {SIDE} images"
    )


def main() -> None:
    """Measures everything."""
    parser = Parser(prog="python -m benchmarks.input", description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="folder of your own, laid out as for training")
    parser.add_argument("--images", type=positive, default=16, help="images of each format")
    parser.add_argument("--seconds", type=positive, default=2, help="time of each measurement")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    table = Table(title=title(cores))
    for column in ("what", "MB each", "images/s, 1 thread", f"{cores} threads", "per core"):
        table.add_column(column, justify="left" if column == "what" else "right")

    def add(what: str, megabytes: float, measure: Callable[[int], float]) -> None:
        one, together = measure(1), measure(cores)
        speeds = (f"{value:.0f}" for value in (one, together, together / cores))
        table.add_row(what, f"{megabytes:.2f}", *speeds)

    with tempfile.TemporaryDirectory() as place:
        roots = {name: Path(place) / name for name in FORMATS}
        if options.data is not None:
            roots = {str(options.data): options.data}
        for name, root in roots.items():
            if options.data is None:
                write(root, name, options.images)
            pairs = find(root)
            size = sum(path.stat().st_size for pair in pairs for path in pair) / len(pairs) / 1e6
            add(f"read {name}", size, lambda threads, pairs=pairs: reading(pairs, threads, options.seconds))
    split = samples()
    for what, call in (
        ("random crops", lambda threads: cropping(split, threads, 0.0, options.seconds)),
        (
            "crops, half of them on the foreground",
            lambda threads: cropping(split, threads, 0.5, options.seconds),
        ),
    ):
        add(f"{what}, {BATCH} x {CROP} x {CROP}", BYTES * CROP**2 / 1e6, call)
    Console().print(table)


if __name__ == "__main__":
    main()
