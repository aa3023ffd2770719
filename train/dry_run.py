"""Describes a run without running it: network, batches and memory as text, augmented images as a PNG file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from flaxunet.report.console import number_table, pairs
from train.config.settings import Config, ConfigError
from train.data import batches as batching
from train.data.dataset import Dataset
from train.devices import machine
from train.devices import mesh as sharding
from train.show import figures
from train.step import Program, State
from train.storage.checkpoint import abstract

DRAWN, DRAWS = 4, 3  # images of the first batch, and how often each is augmented


class Stage(NamedTuple):
    """A part of the network: the shapes (H, W, C) of its outputs, its parameters and its operations."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    parameters: int
    flops: float | None


def show(
    console: Console,
    config: Config,
    dataset: Dataset,
    mesh: Mesh,
    program: Program,
    shapes: State,
    train_step: Any,
) -> None:
    """Prints the tables and draws OUT/dry-run.png; makes no run folder.

    Args:
      console: to print to.
      config: of the run.
      dataset: that it would be trained on.
      mesh: the devices.
      program: of the run.
      shapes: of its state.
      train_step: its jitted step, which is compiled once, for XLA's analysis of its memory.
    Raises: ConfigError if the picture cannot be written.
    """
    path = Path(config.run.out) / "dry-run.png"
    _draw(config, dataset, program, path)
    image = (config.data.size, config.data.size, dataset.channels)
    console.print(_table(stages(program, image)))
    console.print("[dim]shapes are height x width x channels of one training image; GFLOP of its prediction, "
                  "two per multiply-add, as XLA counts them before it optimizes[/dim]\n")  # fmt: skip
    console.print(pairs(_plan(config, dataset, mesh).items()))
    console.print()
    with console.status("compiling the training step"):
        batch = {
            "image": jax.ShapeDtypeStruct((config.optimization.batch_size, *image), jnp.float32),
            "label": jax.ShapeDtypeStruct((config.optimization.batch_size, *image[:2]), jnp.int32),
            "index": jax.ShapeDtypeStruct((config.optimization.batch_size,), jnp.int32),
        }
        batch = abstract(batch, dict.fromkeys(batch, sharding.batch(mesh)))
        lowered = train_step.lower(abstract(shapes, sharding.state(mesh, shapes)), batch)
        memory = _memory(lowered.compile())
    console.print(pairs({"one step": _work(lowered), **memory, "first batch": str(path)}.items()))


def stages(program: Program, image: tuple[int, int, int]) -> list[Stage]:
    """Lists the parts of the network: the encoder map by map, the decoder, the heads, the guidance.

    Args:
      program: that builds it.
      image: (H, W, C) of one image.
    """
    model = program.abstract
    x = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    parts, before = [], (0, 0.0)
    maps: Any = ()
    for count in range(1, len(model.encoder.channels) + 1):
        part: Any = nnx.merge(*nnx.split(model.encoder))
        part.truncate(count)
        maps, flops = _measure(part, lambda module, x: module(x), x)
        total = (_parameters(part), flops)
        parts.append(
            Stage(
                f"encoder, map {count}", (maps[-1].shape[1:],), total[0] - before[0], _minus(flops, before[1])
            )
        )
        before = total
    decoded, flops = _measure(model.decoder, lambda module, maps: module(maps, image[:2]), maps)
    used = decoded[: len(model.heads)]
    parts.append(Stage("decoder", tuple(x.shape[1:] for x in used), _parameters(model.decoder), flops))
    logits, flops = _measure(
        model.heads, lambda heads, xs: [h(x) for h, x in zip(heads, xs, strict=True)], used
    )
    parts.append(Stage("heads", tuple(x.shape[1:] for x in logits), _parameters(model.heads), flops))
    if model.guidance is not None:
        presence, flops = _measure(model.guidance, lambda module, x: module(x), maps[-1])
        parts.append(Stage("guidance", (presence.shape[1:],), _parameters(model.guidance), flops))
    return parts


def _measure(module: Any, call: Callable[[Any, Any], Any], inputs: Any) -> tuple[Any, float | None]:
    """The shapes of what a module's call returns, and its operations."""
    graph, state = nnx.split(module)
    lowered = jax.jit(lambda state, x: call(nnx.merge(graph, state), x)).lower(state, inputs)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), lowered.out_info)
    return shapes, _flops(lowered)


def _flops(lowered: Any) -> float | None:
    """XLA's count of operations before optimization; None on a backend that does not count."""
    costs = lowered.cost_analysis()
    return costs.get("flops") if isinstance(costs, dict) else None


def _minus(flops: float | None, before: float | None) -> float | None:
    return None if flops is None or before is None else flops - before


def _parameters(module: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def _table(parts: list[Stage]) -> Table:
    table = number_table("stage", "shape", "parameters", "GFLOP")
    for stage in parts:
        for place, shape in enumerate(stage.shapes):
            numbers = (f"{stage.parameters:,}", _giga(stage.flops)) if place == 0 else ("", "")
            table.add_row("" if place else stage.name, " x ".join(map(str, shape)), *numbers)
    flops = [stage.flops for stage in parts]
    total = None if None in flops else sum(flop for flop in flops if flop is not None)
    table.add_row("together", "", f"{sum(stage.parameters for stage in parts):,}", _giga(total), style="bold")
    return table


def _giga(flops: float | None) -> str:
    return "-" if flops is None else f"{flops / 1e9:,.3f}"


def _plan(config: Config, dataset: Dataset, mesh: Mesh) -> dict[str, str]:
    steps, batch_size = config.optimization.steps, config.optimization.batch_size
    evaluations = -(-steps // config.run.eval_every)
    images = len(dataset.train)
    epoch = images / batch_size
    side = f"{config.data.size} x {config.data.size} x {dataset.channels}"
    splits = f"{images:,} train, {len(dataset.validation):,} validation, {len(dataset.test):,} test"
    height, width = batching.frame(dataset.validation)
    return {
        "data": f"{dataset.name}: {splits}",
        "classes": ", ".join(dataset.class_names),
        "batch": f"{batch_size} x {side}, {batch_size // mesh.size} on each of {mesh.size} x "
        f"{mesh.devices.flat[0].device_kind}",
        "steps": f"{steps:,}; an epoch is {epoch:,.1f} steps, so {steps / epoch:,.1f} epochs",
        "evaluations": f"{evaluations:,}, of whole images as {height} x {width}",
    }


def _work(lowered: Any) -> str:
    flops = _flops(lowered)
    return "not counted on this backend" if flops is None else f"{_giga(flops)} GFLOP, forward and backward"


def _memory(compiled: Any) -> dict[str, str]:
    """The memory of the compiled training step on each device, as XLA planned it."""
    sizes = compiled.memory_analysis()
    if sizes is None:
        return {"memory": "not known on this backend"}
    state, maps = (
        sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes,
        sizes.temp_size_in_bytes,
    )
    parts = f"{machine.size(state)} weights, optimizer and batch, {machine.size(maps)} maps"
    return {"memory": f"{machine.size(state + maps)} on each device: {parts} (XLA's plan of a training step)"}


def _draw(config: Config, dataset: Dataset, program: Program, path: Path) -> None:
    """Draws images of the first training batch, as they are and as several steps would augment them."""
    batches: Iterator[dict[str, np.ndarray]] = batching.train_batches(
        dataset.train,
        batch_size=config.optimization.batch_size,
        size=config.data.size,
        seed=config.optimization.seed,
        start=0,
        threads=1,
        foreground=config.data.foreground,
    )
    batch = next(batches)
    names = [dataset.train[index]["name"] for index in batch["index"][:DRAWN].tolist()]
    drawn = [(batch["image"], batch["label"])]
    augmented = jax.jit(program.augment)
    augmentation = config.augmentation
    unchanged = augmentation.augment == "none" and not (augmentation.cutmix or augmentation.mixup)
    for step in range(1 if unchanged else DRAWS):
        key = jax.random.fold_in(jax.random.key(config.optimization.seed), step)
        image, (labels, _) = augmented(key, batch["image"], batch["label"])
        drawn.append((np.asarray(image), np.asarray(labels[0])))
    captions = ["as it is", *(f"augmented, {step}" for step in range(1, len(drawn)))]
    # Image by image, so that the two of a row can be compared.
    image, label = (
        np.stack([of[part][:DRAWN] for of in drawn], axis=1).reshape(-1, *drawn[0][part].shape[1:])
        for part in (0, 1)
    )
    names = [f"{name}: {caption}" for name in names for caption in captions]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figures.write_batch(image, label, names, dataset.class_names, path)
    except OSError as error:
        raise ConfigError(f"--out: cannot write {path}: {error.strerror}") from None
