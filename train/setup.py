"""A config enters; data, network and compiled steps on a mesh leave. Nothing is written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from flaxunet.weights.store import Stored
from flaxunet.weights.transfer import Transfer
from train import recipe
from train import weights as initial
from train.config import checks
from train.config import settings as configs
from train.config.settings import Config, ConfigError
from train.data import dataset as data
from train.data import precheck
from train.data.cache import Cache
from train.data.dataset import Dataset
from train.devices import mesh as sharding
from train.step import Batch, Program, State
from train.storage import folder as record


@dataclass(frozen=True)
class Setup:
    """All that a run needs before its first step.

    `shapes` is the state as jax.eval_shape gives it, `shardings` where each of its arrays lies on `mesh`, and
    `init` makes it with random numbers. The steps are jitted for both; `held_step` holds the encoder. `begun`
    is whether the run that is resumed has taken a step; else `given` is what the network begins with besides
    random numbers. `warnings` has a line for whatever is odd about the data.
    """

    mesh: Mesh
    dataset: Dataset
    program: Program
    shapes: State
    shardings: State
    init: Callable[[], State]
    train_step: Callable[[State, Batch], tuple[State, dict[str, Array]]]
    held_step: Callable[[State, Batch], tuple[State, dict[str, Array]]]
    eval_step: Callable[[State, Batch], dict[str, Array]]
    begun: bool
    given: tuple[Stored, Transfer] | None
    warnings: tuple[str, ...] = ()


def prepare(config: Config) -> Setup:
    """Checks a config, reads its data and builds its network.

    Raises: ConfigError or DataError for what cannot be used.
    """
    checks.check(config)
    mesh = sharding.make_mesh(config.devices, config.fsdp, config.batch_size, config.accumulate)
    begun = config.resume is not None and record.begun(Path(config.resume))
    stored = None if begun else initial.find(config)
    warnings = () if config.resume else precheck.check(config)
    dataset = data.load(
        config.data,
        classes=config.classes,
        target=config.target,
        ignore_label=config.ignore_label,
        size=config.size,
        fit=config.fit,
        intensity=config.intensity,
        seed=config.seed,
        workers=config.workers,
        fold=configs.fold_of(config),
        layout=config.layout,
        group=config.group,
        axis=config.axis,
        cache=_cache(config),
    )
    spec = recipe.make_spec(config, dataset, _normalisation(config, stored, dataset.channels))
    given = None if stored is None else (stored, initial.choose(config, stored, spec))
    program = recipe.make_program(config, dataset, spec)
    make = program.init  # one function object throughout: JAX traces each once, and remembers it by identity
    shapes = jax.eval_shape(make)
    shardings, whole = sharding.state(mesh, shapes), sharding.replicated(mesh)
    init = jax.jit(make, out_shardings=shardings)
    train_step, held_step = (
        jax.jit(program.train_step(held=held), donate_argnums=0, out_shardings=(shardings, whole))
        for held in (False, True)
    )
    _check_step(train_step, shapes, config, dataset.channels)
    summed = dict.fromkeys(("loss", "images", "confusion"), whole)
    eval_step = jax.jit(program.eval_step(), out_shardings={**summed, "prediction": sharding.batch(mesh)})
    return Setup(
        mesh,
        dataset,
        program,
        shapes,
        shardings,
        init,
        train_step,
        held_step,
        eval_step,
        begun,
        given,
        warnings,
    )


def _cache(config: Config) -> Cache:
    folder = None if config.cache_dir is None else Path(config.cache_dir)
    return Cache(config.cache, folder, 1e9 * config.cache_limit)


def _normalisation(config: Config, stored: Stored | None, channels: int) -> recipe.Normalisation | None:
    """Mean and std of the images: as the run began, or as the given weights expect; None: ImageNet's."""
    if config.resume:
        model = record.read(Path(config.resume))["model"]
        return tuple(model["mean"]), tuple(model["std"])
    return None if stored is None else stored.normalisation(channels, config.intensity)


def _check_step(train_step: Any, shapes: State, config: Config, channels: int) -> None:
    """Traces a step, which is not computed: what does not fit together is said before a folder is made."""
    square = (config.batch_size, config.size, config.size)
    batch = {
        "image": jax.ShapeDtypeStruct((*square, channels), jnp.float32),
        "label": jax.ShapeDtypeStruct(square, jnp.int32),
        "index": jax.ShapeDtypeStruct(square[:1], jnp.int32),
    }
    try:
        train_step.eval_shape(shapes, batch)
    except ValueError as error:
        raise ConfigError(str(error).splitlines()[0]) from error
