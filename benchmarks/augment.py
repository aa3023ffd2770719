"""`python -m benchmarks.augment`: what each random change of an image costs on the device, in a table.

Each change of `train.augment.geometry` is timed alone, as far as "strong" goes, together with the mirrors,
which are always there. Then the presets, and the mixes of two images. Medians of single calls, a batch each.
On a CPU, CPU time says more than time where other programs run beside it.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.options import Parser, positive
from train.augment import geometry as augment
from train.augment import mixing
from train.augment.ranges import RANGES, Ranges
from train.devices import machine

STRONG = RANGES["strong"] or Ranges()
CHANGES: dict[str, dict[str, Any]] = {
    "mirrors": {},
    "mirrors and quarter turns (D4)": {"quarter_turns": True},
    "affine: zoom, turn, shift": {name: getattr(STRONG, name) for name in ("scale", "degrees", "shift")},
    "elastic": {"elastic": STRONG.elastic},
    "cutout": {"cutout": STRONG.cutout},
    "stain": {"stain": 0.1},
    "hue and saturation": {"hue": STRONG.hue, "saturation": STRONG.saturation},
    "gamma": {"gamma": STRONG.gamma},
    "contrast and brightness": {"contrast": STRONG.contrast, "brightness": STRONG.brightness},
    "blur": {"blur": STRONG.blur},
    "noise": {"noise": STRONG.noise},
}
"""What is timed alone; everything else is at rest."""


def compiled(function: Callable[..., Any], *arrays: Any) -> tuple[Callable[[], Any], float]:
    """A call that waits for its result, and the CPU seconds that it took to compile."""
    began = time.process_time()
    ready = jax.jit(function).lower(*arrays).compile()
    return lambda: jax.block_until_ready(ready(*arrays)), time.process_time() - began


def calls(batch: int, size: int, channels: int) -> dict[str, tuple[Callable[[], Any], float]]:
    """Everything that is timed."""
    rng = np.random.default_rng(0)
    image = jax.device_put(rng.random((batch, size, size, channels), dtype=np.float32))
    label = jax.device_put(rng.integers(0, 3, (batch, size, size)).astype(np.int32))
    key = jax.random.key(0)
    found = {}
    for name, change in CHANGES.items():
        augment.RANGES[name] = dataclasses.replace(Ranges(), **change)
        wanted = partial(augment.augment, strength=name, stain=change.get("stain", 0.0))
        found[name] = compiled(wanted, key, image, label)
    for strength in ("light", "medium", "strong"):
        found[f"--augment {strength}"] = compiled(
            partial(augment.augment, strength=strength), key, image, label
        )
    found["cutmix"] = compiled(partial(mixing.cutmix, probability=0.5), key, image, label)
    found["mixup"] = compiled(partial(mixing.mixup, alpha=0.2), key, image, label)
    return found


def main() -> None:
    """Times all calls in turn, so that a busy machine slows each alike."""
    parser = Parser(prog="python -m benchmarks.augment", description=__doc__)
    parser.add_argument("--size", type=positive, default=256, help="side of the images")
    parser.add_argument("--batch", type=positive, default=8)
    parser.add_argument("--channels", type=positive, default=3)
    parser.add_argument("--rounds", type=positive, default=9)
    options: argparse.Namespace = parser.parse_args()
    timed = calls(options.batch, options.size, options.channels)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
    for _ in range(options.rounds):
        for name, (call, _) in timed.items():
            began, busy = time.perf_counter(), time.process_time()
            call()
            times[name].append((time.perf_counter() - began, time.process_time() - busy))
    device = jax.devices()[0]
    place = machine.processor() if device.platform == "cpu" else device.device_kind
    shape = f"{options.batch} x {options.size} x {options.size} x {options.channels}"
    table = Table(title=f"{place}; jax {jax.__version__}; {shape} float32; median of {options.rounds}")
    for column in ("change", "ms per image", "of CPU time", "more than mirrors", "CPU s to compile"):
        table.add_column(column, justify="left" if column == "change" else "right")
    middle = {
        name: [
            1e3 * statistics.median(each) / options.batch for each in zip(*(taken[1:] or taken), strict=True)
        ]
        for name, taken in times.items()
    }
    for name, (wall, cpu) in middle.items():
        more = f"{cpu - middle['mirrors'][1]:+.2f}" if name in CHANGES and name != "mirrors" else ""
        table.add_row(name, f"{wall:.2f}", f"{cpu:.2f}", more, f"{timed[name][1]:.1f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
