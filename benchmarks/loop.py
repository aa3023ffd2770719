"""`python -m benchmarks.loop`: what Python costs per training step, on this machine.

Each part is timed with the device idle, so that wall-clock time is the host's own: putting a batch on the
device; calling a compiled function with the whole state (same tree and shardings, donated, but one number per
leaf, so that there is next to nothing to compute); fetching the metrics of a step. Prints a table.
"""

import platform
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from train import recipe, sharding
from train.config import Config

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
    config = Config(arch=arch, encoder=encoder, batch_size=1, size=32)
    dataset: Any = SimpleNamespace(channels=3, classes=1, class_names=("background", "foreground"))
    program = recipe.make_program(config, dataset, recipe.make_spec(config, dataset))
    mesh = sharding.make_mesh(1, 1, 1)
    whole = sharding.replicated(mesh)
    batch = {
        "image": np.zeros((1, 32, 32, 3), np.float32),
        "label": np.zeros((1, 32, 32), np.int32),
        "index": np.zeros(1, np.int32),
    }
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


def main() -> None:
    """Prints one row per network."""
    table = Table(title=f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {platform.machine()}")
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
