"""`python -m benchmarks.resize_conv`: convolutions of resized maps, each in every way that can compute it.

The calls of `resize_conv` are recorded while a network is traced. Each different one that resizes something
is timed as "direct" (resize, concatenate, convolve), as "mix" and, for an enlargement by two to the nearest
pixel, as "phases"; the ways take turns, so that what slows the machine down slows all of them. `--growth`
instead times one mixed call from 128 to 1024 pixels a side. FLOPs are XLA's count, which takes the body of a
loop once; gradients loop, so only forward passes have one.
"""

import argparse
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

import flaxunet
from benchmarks.options import Parser, positive
from benchmarks.sides import cores
from flaxunet.models import layers
from flaxunet.models.decoders import DECODERS
from flaxunet.models.encoders import ENCODERS
from flaxunet.ops import resize
from train.devices import machine

GROWTH = (128, 256, 512, 1024)
WIDTH = 120  # a narrower terminal breaks the rows, which is better than to cut the numbers
COLUMNS = ("network", "calls", "input", "resized to", "skips", "out", *get_args(resize.Way))


@dataclass(frozen=True)
class Site:
    """One call of `resize_conv`, in float32.

    Attributes:
      shape: of the map, (B, h, w, C).
      size: (H, W) that it is resized to.
      skips: channels of the maps that are joined to it.
      cout: channels that come out.
      method: of resizing.
    """

    shape: tuple[int, ...]
    size: tuple[int, int]
    skips: tuple[int, ...]
    cout: int
    method: resize.AnyMethod

    @property
    def ways(self) -> tuple[resize.Way, ...]:
        """Those that can compute it."""
        twice = self.size == (2 * self.shape[1], 2 * self.shape[2])
        return ("direct", "mix", "phases") if self.method == "nearest" and twice else ("direct", "mix")

    @property
    def chosen(self) -> resize.Way:
        """The one that `resize_conv` takes."""
        return resize.way(self.shape, self.cout, self.size, self.method)

    @property
    def cells(self) -> list[str]:
        """As the table shows it."""
        resized, skips = f"{_product(self.size)} {self.method}", "+".join(map(str, self.skips))
        return [_product(self.shape[1:]), resized, skips, str(self.cout)]


def _product(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


def find(arch: str, encoder: str, size: int, batch: int) -> Counter[Site]:
    """The different calls of a network that resize something, and how often it makes each."""
    found: Counter[Site] = Counter()
    original = layers.resize_conv

    def record(x: Any, kernel: Any, size: Any, method: Any = "bilinear", skips: Any = ()) -> Any:
        if x.shape[1:3] != size:
            widths = tuple(skip.shape[-1] for skip in skips)
            found[Site(x.shape, size, widths, kernel.shape[-1], method)] += 1
        return original(x, kernel, size, method, skips)

    def run() -> Any:
        model = flaxunet.create(arch, encoder=encoder, rngs=nnx.Rngs(0))
        return model(jnp.zeros((batch, size, size, 3)))

    with mock.patch.object(layers, "resize_conv", record):
        nnx.eval_shape(run)
    return found


def prepare(site: Site, way: resize.Way, *, train: bool) -> tuple[Callable[[], Any], float | None]:
    """What computes a site once, on the device; and its GFLOP, unless gradients are computed too."""
    rng = np.random.default_rng(0)

    def numbers(*shape: int, scale: float = 1.0) -> jax.Array:
        return jax.device_put(scale * rng.standard_normal(shape, np.float32))

    outer, cin = (site.shape[0], *site.size), site.shape[-1] + sum(site.skips)
    skips = [numbers(*outer, width) for width in site.skips]
    given = numbers(*site.shape), numbers(3, 3, cin, site.cout, scale=(9 * cin) ** -0.5), skips
    pull = numbers(*outer, site.cout) if train else None

    def run(x: Any, kernel: Any, skips: Any, pull: Any) -> Any:
        def forward(x: Any, kernel: Any, skips: Any) -> Any:
            return resize.resize_conv(x, kernel, site.size, site.method, skips)

        if pull is None:
            return forward(x, kernel, skips)
        out, back = jax.vjp(forward, x, kernel, skips)
        return out, back(pull)

    with mock.patch.object(resize, "way", return_value=way):
        program = jax.jit(run).lower(*given, pull).compile()
    flops = None if train else (program.cost_analysis() or {}).get("flops")
    return lambda: jax.block_until_ready(program(*given, pull)), flops and flops / 1e9


def compare(site: Site, repeats: int, *, train: bool) -> dict[str, Any]:
    """Per way the median milliseconds and the GFLOP; and how far the results lie apart, over their peak."""
    calls, gflop = {}, {}
    for way in site.ways:
        calls[way], gflop[way] = prepare(site, way, train=train)
    # Also the first, untimed, calls.
    results = {way: [np.asarray(leaf) for leaf in jax.tree.leaves(call())] for way, call in calls.items()}
    direct = results.pop("direct")
    difference = max(
        float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        for leaves in results.values()
        for ours, theirs in zip(leaves, direct, strict=True)
    )
    return {"ms": alternate(calls, repeats), "gflop": gflop, "difference": difference}


def alternate(calls: dict[Any, Callable[[], Any]], repeats: int) -> dict[Any, float]:
    """Median milliseconds of each, taken in turns."""
    times: dict[Any, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(each)) for name, each in times.items()}


def sites(options: argparse.Namespace, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One record per network and different call."""
    measured = cache(lambda site: compare(site, options.repeats, train=options.train))
    records = []
    for arch in options.arch:
        found = find(arch, options.encoder, options.size, options.batch)
        for number, (site, count) in enumerate(found.items()):
            say(f"{arch}: {number + 1} of {len(found)}")
            what = {"arch": arch, "calls": count, **asdict(site), "cells": site.cells, "chosen": site.chosen}
            records.append(what | measured(site))
    return records


def growth(options: argparse.Namespace, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One record per side of the resized map."""
    records = []
    for side in GROWTH:
        say(f"growth: {side}")
        small = (options.batch, side // 4, side // 4, 64)
        site = Site(small, (side, side), (), 16, "bilinear")
        call, gflop = prepare(site, "mix", train=options.train)
        call()
        ms = alternate({"mix": call}, options.repeats)["mix"]
        pixels = options.batch * side**2
        records.append({**asdict(site), "ms": ms, "gflop": gflop, "ns_per_pixel": 1e6 * ms / pixels})
    return records


def title(options: argparse.Namespace) -> str:
    """The machine, the versions and the settings."""
    device, name = jax.devices()[0], machine.processor()
    where = name if device.platform == "cpu" else f"{device.device_kind}, {name}"
    what = "forward and gradients" if options.train else "forward"
    network = "" if options.growth else f"{options.encoder}, {options.size} x {options.size}, "
    return (
        f"{where}, {cores()} CPU cores, load {os.getloadavg()[0]:.1f}; python {platform.python_version()}, "
        f"jax {jax.__version__}; float32, {network}batch {options.batch}, {what}, "
        f"median ms of {options.repeats}"
    )


def rows_of_sites(records: list[dict[str, Any]], bold: str) -> tuple[list[str], list[list[str]]]:
    """The table's columns and cells; `bold` marks the chosen way.

    The last column but those of XLA's count is the chosen way's time over that of the fastest: 1.00 where the
    rule is right.
    """
    counted = any(record["gflop"]["direct"] for record in records)
    rows = []
    for record in records:
        times = [record["ms"].get(way) for way in get_args(resize.Way)]
        marked = [
            "" if ms is None else bold.format(f"{ms:.2f}") if way == record["chosen"] else f"{ms:.2f}"
            for way, ms in zip(get_args(resize.Way), times, strict=True)
        ]
        lost = record["ms"][record["chosen"]] / min(record["ms"].values())
        rows.append([record["arch"], str(record["calls"]), *record["cells"], *marked, f"{lost:.2f}"])
        rows[-1].append(f"{record['difference']:.0e}")
        if counted:
            rows[-1].append("/".join(f"{flops:.2g}" for flops in record["gflop"].values() if flops))
    return [*COLUMNS, "over best", "differ", *["GFLOP"] * counted], rows


def rows_of_growth(records: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The table's columns and cells."""
    columns, rows, counted = ["input", "resized to", "out", "mix", "ns/pixel"], [], records[0]["gflop"]
    for record in records:
        small, large = _product(record["shape"][1:]), _product(record["size"])
        row = [small, large, str(record["cout"]), f"{record['ms']:.2f}", f"{record['ns_per_pixel']:.1f}"]
        if counted:
            pixels = record["shape"][0] * record["size"][0] * record["size"][1]
            row += [f"{record['gflop']:.3g}", f"{1e9 * record['gflop'] / pixels:.0f}"]
        rows.append(row)
    return columns + ["GFLOP", "FLOP/pixel"] * bool(counted), rows


def sums(records: list[dict[str, Any]]) -> list[str]:
    """One line per network: what all its calls take."""
    lines = []
    for arch in dict.fromkeys(record["arch"] for record in records):
        mine = [record for record in records if record["arch"] == arch]
        direct, chosen, best = (
            sum(record["calls"] * pick(record) for record in mine)
            for pick in (
                lambda record: record["ms"]["direct"],
                lambda record: record["ms"][record["chosen"]],
                lambda record: min(record["ms"].values()),
            )
        )
        lines.append(
            f"{arch}: {direct:.1f} ms all direct, {chosen:.1f} as chosen ({direct / chosen:.2f} times as "
            f"fast), {best:.1f} with the fastest everywhere"
        )
    return lines


def show(
    heading: str, columns: list[str], rows: list[list[str]], notes: list[str], *, markdown: bool
) -> None:
    """Prints a table, for a terminal or in GitHub's Markdown."""
    text = {"network", "input", "resized to", "skips"}
    if markdown:
        print(f"{heading}\n\n| {' | '.join(columns)} |")
        print(f"|{'|'.join('---' if column in text else '--:' for column in columns)}|")
        print("\n".join(f"| {' | '.join(row)} |" for row in rows))
        print("".join(f"\n{note}  " for note in notes))
        return
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    console.print(heading, style="dim", markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, justify="left" if column in text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for note in notes:
        console.print(note, markup=False, soft_wrap=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, checked; SystemExit with code 2 and one line on stderr if they cannot be used."""
    parser = Parser(prog="python -m benchmarks.resize_conv", description=__doc__)
    archs = tuple(DECODERS)
    parser.add_argument("--arch", choices=archs, default=list(archs), nargs="+", metavar="X")
    parser.add_argument("--encoder", choices=tuple(ENCODERS), default="resnet34", metavar="X")
    parser.add_argument("--size", type=positive, default=256, help="side of the images, pixels")
    parser.add_argument("--batch", type=positive, default=2, help="images per step")
    parser.add_argument("--train", action="store_true", help="the gradients of x, kernel and skips too")
    parser.add_argument("--growth", action="store_true", help="one mixed call at growing sizes instead")
    parser.add_argument("--repeats", type=positive, default=9, metavar="N", help="timed calls per way")
    parser.add_argument("--markdown", action="store_true", help="print GitHub's tables")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all settings and times")
    options = parser.parse_args(arguments)
    options.arch = list(dict.fromkeys(options.arch))
    if options.json and (options.json.is_dir() or not options.json.parent.is_dir()):
        parser.error(f"{options.json} is not a file in a folder that exists")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table; the chosen way is marked with a star, in Markdown in bold."""
    options = parse(arguments)
    heading = title(options)
    # A quick spinner would take its share of the cores.
    with Console(stderr=True, highlight=False).status("tracing", refresh_per_second=2) as status:
        records = (growth if options.growth else sites)(options, status.update)
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        facts = [{key: value for key, value in record.items() if key != "cells"} for record in records]
        whole = {"title": heading, "settings": settings, "records": facts}
        options.json.write_text(json.dumps(whole, indent=1) + "\n")
    if options.growth:
        show(heading, *rows_of_growth(records), [], markdown=options.markdown)
    else:
        table = rows_of_sites(records, "**{}**" if options.markdown else "{}*")
        show(heading, *table, sums(records), markdown=options.markdown)


if __name__ == "__main__":
    main()
