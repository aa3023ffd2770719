"""`python -m benchmarks.loop`: what Python costs per training step, on this machine.

Each part is timed with the device idle, so that wall-clock time is the host's own: putting a batch on the
device; calling a compiled function with the whole state (same tree and shardings, donated, but one number per
leaf, so that there is next to nothing to compute); fetching the metrics of a step. Prints a table.

`--guard` times whole steps of the default job instead, in turns with and without the guard that leaves the
state as it was where a loss or gradient is not finite.
"""

import os
import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.job import blank, make_program
from benchmarks.options import Parser, positive
from train.config.settings import Config, Devices
from train.devices import machine
from train.devices import mesh as sharding
from train.step import Program

REPEATS = 200


def median_ms(call: Callable[[], Any]) -> float:
    """Median milliseconds until a call returns, without the first ones; its result is waited for untimed."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        out = call()
        times.append(time.perf_counter() - start)
        jax.block_until_ready(out)
    return 1e3 * float(np.median(times[10:]))


def measure(arch: str, encoder: str) -> tuple[int, float, float, float]:
    """Number of arrays in the state; milliseconds of putting, calling, fetching."""
    config = Config.from_flat(arch=arch, encoder=encoder, batch_size=1, size=32)
    program, batch = make_program(config), blank(config)
    mesh = sharding.make_mesh(Devices(count=1), 1)
    whole = sharding.replicated(mesh)
    shapes = jax.eval_shape(program.init)
    state = jax.device_put(jax.tree.map(lambda leaf: np.ones((), np.float32), shapes), whole)

    @partial(jax.jit, donate_argnums=0, out_shardings=(jax.tree.map(lambda leaf: whole, shapes), whole))
    def step(state: Any, batch: Any) -> Any:
        total = batch["image"].sum()
        return jax.tree.map(lambda leaf: leaf + total, state), {"loss": total, "grad_norm": total}

    on_device = sharding.put(mesh, batch)
    out: dict[str, jax.Array] = {}

    def call() -> Any:
        nonlocal state, out
        with jax.transfer_guard("disallow"):
            state, out = step(state, on_device)
        return state

    put, crossed = median_ms(lambda: sharding.put(mesh, batch)), median_ms(call)
    return len(jax.tree.leaves(shapes)), put, crossed, median_ms(lambda: jax.device_get(call() and out))


class Unguarded(Program):
    """A program whose steps count whatever they come to."""

    def _guarded(self, state: Any, new: Any, finite: Any) -> Any:
        return {**new, "step": state["step"] + 1, "skipped": state["skipped"]}


def guard(repeats: int) -> None:
    """Prints the milliseconds of a step with and without the guard."""
    table = Table(title=title())
    for column in ("network", "guarded ms", "unguarded ms", "cost"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for arch in ("unet", "unet3plus"):
        config = Config.from_flat(arch=arch)
        program = make_program(config)
        plain = Unguarded(**{field.name: getattr(program, field.name) for field in fields(program)})
        batch = jax.device_put(blank(config))
        steps = [jax.jit(each.train_step(), donate_argnums=0) for each in (program, plain)]
        states = [jax.jit(program.init)() for _ in steps]
        times: list[list[float]] = [[], []]
        for _ in range(repeats + 2):
            for side, step in enumerate(steps):
                start = time.perf_counter()
                states[side], out = step(states[side], batch)
                jax.block_until_ready((states[side], out))
                times[side].append(time.perf_counter() - start)
        guarded, unguarded = (1e3 * float(np.median(each[2:])) for each in times)
        table.add_row(
            f"{arch} {config.network.encoder}",
            f"{guarded:.1f}",
            f"{unguarded:.1f}",
            f"{100 * (guarded / unguarded - 1):.1f} %",
        )
    Console().print(table)


def title() -> str:
    """The versions and the machine."""
    return f"jax {jax.__version__}, {machine.processor()}, {len(os.sched_getaffinity(0))} cores"


def main() -> None:
    """Prints one row per network."""
    parser = Parser(prog="python -m benchmarks.loop", description=__doc__)
    parser.add_argument(
        "--guard", action="store_true", help="time the guard against numbers that are not finite"
    )
    parser.add_argument("--repeats", type=positive, default=15, help="steps of each kind, with --guard")
    options = parser.parse_args()
    if options.guard:
        guard(options.repeats)
        return
    table = Table(title=title())
    for column in ("network", "arrays", "put ms", "call ms", "fetch ms", "together ms"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for arch, encoder in (
        ("unet", "resnet18"),
        ("unetplusplus", "resnet34"),
        ("unet3plus", "resnet18"),
        ("unet3plus", "resnet50"),
    ):
        arrays, put, crossed, both = measure(arch, encoder)
        parts = (put, crossed, max(both - crossed, 0.0), put + both)
        table.add_row(f"{arch} {encoder}", str(arrays), *(f"{part:.2f}" for part in parts))
    Console().print(table)


if __name__ == "__main__":
    main()
