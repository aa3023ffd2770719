"""`python -m benchmarks.scaling`: what several devices cost and save, on virtual CPU devices.

Weak scaling: the same images per device on 1, 2, 4, 8 devices, a process for each. Virtual devices share the
machine's cores, which one device already uses all: perfect is the same time per image, what the table shows
is overhead alone.

Memory: bytes per device of a compiled training step with parameters and optimizer state split over 1, 2, 4, 8
devices, as XLA's memory analysis gives them. Nothing is executed for that.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.job import blank, make_program
from benchmarks.options import Parser, positive

COUNTS = (1, 2, 4, 8)
MIB = 2**20


def build(config: Any) -> tuple[Any, Any, Any, Any]:
    """The program of a config, its mesh, the shapes of its state, and their shardings."""
    import jax

    from train.devices import mesh as sharding

    program = make_program(config)
    mesh = sharding.make_mesh(config.devices, config.optimization.batch_size)
    shapes = jax.eval_shape(program.init)
    return program, mesh, shapes, sharding.state(mesh, shapes)


def compiled(config: Any) -> tuple[Any, Any, Any]:
    """The compiled training step, the shapes of the state and its shardings."""
    import jax

    from train.devices import mesh as sharding
    from train.storage.checkpoint import abstract

    program, mesh, shapes, shardings = build(config)
    step = jax.jit(
        program.train_step(), donate_argnums=0, out_shardings=(shardings, sharding.replicated(mesh))
    )
    batch = jax.tree.map(
        lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding.batch(mesh)),
        blank(config),
    )
    return step.lower(abstract(shapes, shardings), batch).compile(), shapes, shardings


def on_a_device(shapes: Any, shardings: Any) -> int:
    """Bytes that one device holds of a tree."""
    import jax

    sizes = jax.tree.map(
        lambda leaf, where: int(np.prod(where.shard_shape(leaf.shape))) * leaf.dtype.itemsize,
        shapes,
        shardings,
    )
    return sum(jax.tree.leaves(sizes))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own: seconds per step with `devices` devices, or bytes of each part with `fsdp`."""
    import jax

    from train.config.settings import Config
    from train.devices import mesh as sharding

    devices = options.devices or options.fsdp
    config = Config.from_flat(
        arch=options.arch,
        encoder=options.encoder,
        size=options.size,
        batch_size=options.batch_size * devices,
        devices=devices,
        fsdp=options.fsdp or 1,
        augment="none",
    )
    if options.fsdp:
        step, shapes, shardings = compiled(config)
        found = step.memory_analysis()
        parts = {name: on_a_device(shapes[name], shardings[name]) for name in ("params", "rest", "optimizer")}
        return {**parts, "temporary": found.temp_size_in_bytes, "arguments": found.argument_size_in_bytes}
    program, mesh, _, shardings = build(config)
    state = jax.jit(program.init, out_shardings=shardings)()
    step = jax.jit(
        program.train_step(), donate_argnums=0, out_shardings=(shardings, sharding.replicated(mesh))
    )
    batch, times = sharding.put(mesh, blank(config)), []
    for _ in range(options.repeats + 2):
        began = time.perf_counter()
        state, out = step(state, batch)
        jax.block_until_ready(out)
        times.append(time.perf_counter() - began)
    return {"seconds": float(np.median(times[2:]))}


def child(options: argparse.Namespace, **more: int) -> dict[str, Any]:
    """The measurement of another process, which has as many virtual devices as it needs."""
    flags = [
        f"--{key.replace('_', '-')}={value}" for key, value in {**vars(options), **more}.items() if value
    ]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(max(more.values()))}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scaling", *flags],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def weak(options: argparse.Namespace) -> Table:
    """Time per step with the same images per device."""
    table = Table(title=f"weak scaling, {options.batch_size} x {options.size}² per device, {hardware()}")
    for column in ("devices", "images", "ms a step", "ms an image", "overhead"):
        table.add_column(column, justify="right")
    first = 0.0
    for devices in COUNTS:
        seconds, images = child(options, devices=devices)["seconds"], devices * options.batch_size
        first = first or seconds / images
        row = f"{1e3 * seconds:.0f}", f"{1e3 * seconds / images:.0f}", f"{seconds / images / first - 1:+.0%}"
        table.add_row(str(devices), str(images), *row)
    return table


def memory(options: argparse.Namespace) -> Table:
    """MiB per device with parameters and optimizer state split."""
    table = Table(title=f"MiB per device, {options.batch_size} x {options.size}² per device, {hardware()}")
    names = ("parameters", "statistics", "optimizer", "activations and other temporaries", "together")
    for column in ("--fsdp", *names):
        table.add_column(column, justify="right")
    for fsdp in COUNTS:
        found = child(options, fsdp=fsdp)
        parts = [found[name] for name in ("params", "rest", "optimizer", "temporary")]
        total = found["arguments"] + found["temporary"]
        table.add_row(str(fsdp), *(f"{size / MIB:.1f}" for size in (*parts, total)))
    return table


def hardware() -> str:
    """Cores and versions."""
    import jax

    return f"{os.cpu_count()} CPU cores ({platform.machine()}), jax {jax.__version__}"


def main() -> None:
    """Prints both tables; with --devices or --fsdp, one measurement as JSON."""
    parser = Parser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--arch", default="unet3plus")
    parser.add_argument("--encoder", default="resnet50")
    parser.add_argument("--size", type=positive, default=128, help="side of the images")
    parser.add_argument("--batch-size", type=positive, default=1, help="images per device")
    parser.add_argument("--repeats", type=positive, default=5, help="steps timed")
    for name in ("--devices", "--fsdp"):
        parser.add_argument(name, type=positive, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.devices or options.fsdp:
        print(json.dumps(measure(options)))
        return
    console = Console()
    console.print(f"{options.arch} {options.encoder}, float32")
    if (cores := os.cpu_count() or 1) < max(COUNTS):
        console.print(
            f"virtual devices share {cores} cores: the time per image shows overhead only, no speed-up"
        )
    console.print(weak(options))
    console.print(memory(options))


if __name__ == "__main__":
    main()
