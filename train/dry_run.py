"""Describes a run without running it: network, batches and memory as text, augmented images as a PNG file."""

import math
from collections.abc import Callable
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
    """A part of the network: shapes (H, W, C) of its outputs, parameters, operations (NaN: not counted)."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    parameters: int
    flops: float


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
      config, dataset, mesh, program: of the run.
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
        batch = batching.blank(config.optimization.batch_size, *image)
        batch = abstract(batch, dict.fromkeys(batch, sharding.batch(mesh)))
        lowered = train_step.lower(abstract(shapes, sharding.state(mesh, shapes)), batch)
        memory = _memory(lowered.compile())
    giga = _giga(_flops(lowered))
    work = "not counted on this backend" if giga == "-" else f"{giga} GFLOP, forward and backward"
    console.print(pairs({"one step": work, **memory, "first batch": str(path)}.items()))


def stages(program: Program, image: tuple[int, int, int]) -> list[Stage]:
    """Lists the parts of the network: the encoder map by map, the decoder, the heads, the guidance.

    Args:
      program: that builds it.
      image: (H, W, C) of one image.
    """
    model, parts = program.abstract, []
    x = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    maps: Any = None
    before, flops_before = 0, 0.0
    for count in range(1, len(model.encoder.channels) + 1):
        part: Any = nnx.merge(*nnx.split(model.encoder))
        part.truncate(count)
        maps, (parameters, flops) = _measure(part, lambda encoder, x: encoder(x), x)
        shape = maps[-1].shape[1:]
        parts.append(Stage(f"encoder, map {count}", (shape,), parameters - before, flops - flops_before))
        before, flops_before = parameters, flops
    decoded, cost = _measure(model.decoder, lambda decoder, maps: decoder(maps, image[:2]), maps)
    used = decoded[: len(model.heads)]
    parts.append(Stage("decoder", tuple(x.shape[1:] for x in used), *cost))
    logits, cost = _measure(
        model.heads, lambda heads, maps: [head(x) for head, x in zip(heads, maps, strict=True)], used
    )
    parts.append(Stage("heads", tuple(x.shape[1:] for x in logits), *cost))
    if model.guidance is not None:
        presence, cost = _measure(model.guidance, lambda guidance, x: guidance(x), maps[-1])
        parts.append(Stage("guidance", (presence.shape[1:],), *cost))
    return parts


def _measure(module: Any, call: Callable[[Any, Any], Any], inputs: Any) -> tuple[Any, tuple[int, float]]:
    """The shapes of what a module's call returns, its parameters and its operations."""
    graph, state = nnx.split(module)
    lowered = jax.jit(lambda state, x: call(nnx.merge(graph, state), x)).lower(state, inputs)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), lowered.out_info)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
    return shapes, (parameters, _flops(lowered))


def _flops(lowered: Any) -> float:
    """XLA's count of operations before optimization; NaN on a backend that does not count."""
    return (lowered.cost_analysis() or {}).get("flops", math.nan)


def _table(parts: list[Stage]) -> Table:
    table = number_table("stage", "shape", "parameters", "GFLOP")
    for stage in parts:
        first, *others = (" x ".join(map(str, shape)) for shape in stage.shapes)
        table.add_row(stage.name, first, f"{stage.parameters:,}", _giga(stage.flops))
        for shape in others:
            table.add_row("", shape)
    parameters, flops = sum(stage.parameters for stage in parts), sum(stage.flops for stage in parts)
    table.add_row("together", "", f"{parameters:,}", _giga(flops), style="bold")
    return table


def _giga(flops: float) -> str:
    return "-" if math.isnan(flops) else f"{flops / 1e9:,.3f}"


def _plan(config: Config, dataset: Dataset, mesh: Mesh) -> dict[str, str]:
    steps, batch_size = config.optimization.steps, config.optimization.batch_size
    evaluations = -(-steps // config.run.eval_every)
    images = len(dataset.train)
    epoch = images / batch_size
    side = f"{config.data.size} x {config.data.size} x {dataset.channels}"
    devices = f"{mesh.size} x {mesh.devices.flat[0].device_kind}"
    splits = f"{images:,} train, {len(dataset.validation):,} validation, {len(dataset.test):,} test"
    height, width = batching.frame(dataset.validation)
    return {
        "data": f"{dataset.name}: {splits}",
        "classes": ", ".join(dataset.class_names),
        "batch": f"{batch_size} x {side}, {batch_size // mesh.size} on each of {devices}",
        "steps": f"{steps:,}; an epoch is {epoch:,.1f} steps, so {steps / epoch:,.1f} epochs",
        "evaluations": f"{evaluations:,}, of whole images as {height} x {width}",
    }


def _memory(compiled: Any) -> dict[str, str]:
    """The memory of the compiled training step on each device, as XLA planned it."""
    sizes = compiled.memory_analysis()
    if sizes is None:
        return {"memory": "not known on this backend"}
    state = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    maps = sizes.temp_size_in_bytes
    parts = f"{machine.size(state)} weights, optimizer and batch, {machine.size(maps)} maps"
    return {"memory": f"{machine.size(state + maps)} on each device: {parts} (XLA's plan of a training step)"}


def _draw(config: Config, dataset: Dataset, program: Program, path: Path) -> None:
    """Draws images of the first training batch, as they are and as several steps would augment them."""
    seed, augmentation, split = config.optimization.seed, config.augmentation, dataset.train
    crops = {"batch_size": config.optimization.batch_size, "size": config.data.size}
    options: Any = {**crops, "foreground": config.data.foreground, "seed": seed, "start": 0, "threads": 1}
    batch = next(batching.train_batches(split, **options))
    images, labels = [batch["image"][:DRAWN]], [batch["label"][:DRAWN]]
    augmented = jax.jit(program.augment)
    unchanged = augmentation.augment == "none" and not (augmentation.cutmix or augmentation.mixup)
    for step in range(1 if unchanged else DRAWS):
        key = jax.random.fold_in(jax.random.key(seed), step)
        image, (label, _) = augmented(key, batch["image"], batch["label"])
        images.append(image[:DRAWN])
        labels.append(label[0][:DRAWN])
    captions = ["as it is", *(f"augmented, {step}" for step in range(1, len(images)))]
    # Image by image, so that the two of a row can be compared.
    image, label = (np.stack(of, axis=1).reshape(-1, *of[0].shape[1:]) for of in (images, labels))
    shown = [split[index]["name"] for index in batch["index"][:DRAWN].tolist()]
    names = [f"{name}: {caption}" for name in shown for caption in captions]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figures.write_batch(image, label, names, dataset.class_names, path)
    except OSError as error:
        raise ConfigError(f"--out: cannot write {path}: {error.strerror}") from None
