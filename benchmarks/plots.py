"""`python -m benchmarks.plots FILE.json FILE.png`: what `benchmarks.speed` found, as tables and a picture."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from rich.console import Console
from rich.table import Table

from benchmarks.sides import COMPILED, EAGER, OURS

COLORS = {"unet": "#0072b2", "unetplusplus": "#d55e00", "unet3plus": "#009e73"}
NAMES = {"unet": "UNet", "unetplusplus": "UNet++", "unet3plus": "UNet 3+"}
LINES: dict[str, Any] = {OURS: ("-", "o"), COMPILED: ((0, (6, 2)), "s"), EAGER: ((0, (2, 2)), "^")}
WIDTH = 120  # a narrower terminal breaks the rows, which is better than to cut the numbers
COLUMNS = (
    "network",
    "side",
    "ms",
    "quartiles",
    "images/s",
    "peak MiB",
    "compile s",
    "GFLOP",
    "of matmul",
    "speed-up",
)


def header(results: dict[str, Any]) -> list[str]:
    """Lines on the machine, the libraries and the settings."""
    hardware, settings, matmul = results["hardware"], results["settings"], results["matmul"]
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    where = hardware["gpu"] or hardware["cpu"]
    memory = (
        "peak memory: the device's" if hardware["device"] != "cpu" else "peak memory: the whole process's"
    )
    lines = [
        f"{where}, {hardware['cores']} CPU cores, load {hardware['load']:.1f} before the start; {versions}",
        f"{settings['dtype']}{', remat' if settings['remat'] else ''}; {settings['repeats']} steps per side; "
        f"{matmul['flops_per_s'] / 1e9:.0f} GFLOP/s in matrix products of {matmul['size']}; {memory}",
    ]
    return lines + ["; ".join(settings["precision"])] * (hardware["device"] != "cpu")


def groups(results: dict[str, Any]) -> Iterator[list[list[str]]]:
    """For each case one row of cells per side, ours last."""
    best = results["matmul"]["flops_per_s"]
    for case in results["cases"]:
        rows = []
        for side, facts in case["sides"].items():
            low, high = facts["quartiles_s"]
            cells = [
                f"{1e3 * facts['median_s']:.1f}",
                f"{1e3 * low:.1f} - {1e3 * high:.1f}",
                f"{facts['images_per_s']:.3g}",
                f"{facts['peak_bytes'] / 2**20:.0f}",
                f"{facts['compile_s']:.1f}",
            ]
            flops = facts.get("flops")
            cells += [f"{flops / 1e9:.1f}", f"{flops / facts['median_s'] / best:.0%}"] if flops else ["", ""]
            rows.append(["", side, *cells, f"{1 / case['ratio']:.2f}" if flops and case["ratio"] else ""])
        rows += [["", side, "failed", *[""] * 7] for side in case["failed"]]
        rows.sort(key=lambda row: row[1] == OURS)
        rows[0][0] = f"{case['arch']} {case['encoder']}"
        if len(rows) > 1:
            rows[1][0] = f"{case['mode']} {case['batch']} x {case['size']}²"
        else:
            rows[0][0] += f", {case['mode']} {case['batch']} x {case['size']}²"
        yield rows


def show(results: dict[str, Any], *, markdown: bool) -> None:
    """Prints the results, for a terminal or in GitHub's Markdown."""
    failures = dict.fromkeys(text for case in results["cases"] for text in case["failed"].values())
    if markdown:
        print("\n".join(f"{line}  " for line in header(results)) + "\n")
        print(f"| {' | '.join(COLUMNS)} |\n|---|---|{'--:|' * (len(COLUMNS) - 2)}")
        for rows in groups(results):
            print("\n".join(f"| {' | '.join(row)} |" for row in rows))
        print("".join(f"\nFailed: {text}" for text in failures))
        return
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    for line in header(results):
        console.print(line, style="dim", markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if number < 2 else "right", no_wrap=True)
    for number, rows in enumerate(groups(results)):
        if number:
            table.add_row()
        for row in rows:
            table.add_row(*row, style="bold" if row[1] == OURS else None)
    console.print(table)
    for text in failures:
        console.print(f"\nfailed: {text}", markup=False, soft_wrap=True)


def draw(results: dict[str, Any], path: Path) -> None:
    """Images per second over size, and over batch, where several were measured; a panel for each mode."""
    cases = results["cases"]
    values = {
        name: list(dict.fromkeys(case[name] for case in cases))
        for name in ("mode", "encoder", "size", "batch")
    }
    rows = [
        (encoder, axis, other, values[other][0])
        for encoder in values["encoder"]
        for axis, other in (("size", "batch"), ("batch", "size"))
        if len(values[axis]) > 1
    ]
    shape = len(rows), len(values["mode"])
    figure, grid = plt.subplots(
        *shape, figsize=(1.8 + 4.2 * shape[1], 0.6 + 3.4 * shape[0]), layout="constrained", squeeze=False
    )
    for (encoder, axis, other, held), line in zip(rows, grid, strict=True):
        for mode, axes in zip(values["mode"], line, strict=True):
            chosen = [
                case
                for case in cases
                if (case["encoder"], case[other], case["mode"]) == (encoder, held, mode)
            ]
            _panel(axes, chosen, axis)
            axes.set_title(f"{mode}, {encoder}, {other} {held}", fontsize=10.5)
        line[0].set_ylabel("images per second")
    used = {case["arch"] for case in cases}, {side for case in cases for side in case["sides"]}
    handles = [
        Line2D([], [], color=COLORS[arch], label=NAMES[arch], lw=2.5) for arch in COLORS if arch in used[0]
    ]
    handles += [
        Line2D([], [], color="0.35", ls=style, marker=marker, ms=4.5, label=side)
        for side, (style, marker) in LINES.items()
        if side in used[1]
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False, handlelength=3.2)
    where = (
        results["hardware"]["gpu"] or f"{results['hardware']['cpu']}, {results['hardware']['cores']} cores"
    )
    figure.suptitle(f"Speed on {where}, {results['settings']['dtype']}", fontsize=11.5)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _panel(axes: Any, cases: list[dict[str, Any]], axis: str) -> None:
    for arch in COLORS:
        for side, (style, marker) in LINES.items():
            points = sorted(
                (case[axis], case["sides"][side]["images_per_s"])
                for case in cases
                if case["arch"] == arch and side in case["sides"]
            )
            if points:
                axes.plot(
                    *zip(*points, strict=True), color=COLORS[arch], ls=style, marker=marker, ms=4.5, lw=1.6
                )
    ticks = sorted({case[axis] for case in cases})
    axes.set(xscale="log", yscale="log", xlabel=f"{axis}, {'pixels' if axis == 'size' else 'images'}")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draws again what was measured before."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description=__doc__)
    parser.add_argument("results", type=Path, help="written by python -m benchmarks.speed --json")
    parser.add_argument("picture", type=Path, help="to be written")
    options = parser.parse_args()
    draw(json.loads(options.results.read_text()), options.picture)


if __name__ == "__main__":
    main()
