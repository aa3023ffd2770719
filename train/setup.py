"""Builds what a run needs, and writes nothing: data, network, optimizer, loss and compiled steps."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh

import flaxunet
from flaxunet.losses import parse_loss
from flaxunet.models.segmenter import build
from flaxunet.models.spec import Spec
from flaxunet.weights.store import Stored
from flaxunet.weights.transfer import Transfer
from train import weights as initial
from train.config import checks
from train.config.settings import Config, ConfigError, Devices
from train.data import dataset as data
from train.data import precheck
from train.data.dataset import Dataset
from train.devices import mesh as sharding
from train.optimizer import make_optimizer
from train.step import Batch, Program, State
from train.storage import folder as run_folder
from train.storage.checkpoint import Checkpoints, abstract

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and std, one per channel each."""


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
    optimization = config.optimization
    mesh = sharding.make_mesh(config.devices, optimization.batch_size, optimization.accumulate)
    begun = config.run.resume is not None and run_folder.has_checkpoint(Path(config.run.resume))
    stored = None if begun else initial.find(config.network, config.data.intensity)
    warnings = () if config.run.resume else precheck.check(config.data, optimization.seed)
    dataset = data.load(config.data, optimization.seed)
    spec = make_spec(config, dataset, _normalisation(config, stored, dataset.channels))
    given = None if stored is None else (stored, initial.choose(config.network, stored, spec))
    program = make_program(config, dataset, spec)
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


def _normalisation(config: Config, stored: Stored | None, channels: int) -> Normalisation | None:
    """Mean and std of the images: as the run began, or as the given weights expect; None: ImageNet's."""
    if config.run.resume:
        model = run_folder.read(Path(config.run.resume))["model"]
        return tuple(model["mean"]), tuple(model["std"])
    return None if stored is None else stored.normalisation(channels, config.data.intensity)


def _check_step(train_step: Any, shapes: State, config: Config, channels: int) -> None:
    """Traces a step, which is not computed: what does not fit together is said before a folder is made."""
    square = (config.optimization.batch_size, config.data.size, config.data.size)
    batch = {
        "image": jax.ShapeDtypeStruct((*square, channels), jnp.float32),
        "label": jax.ShapeDtypeStruct(square, jnp.int32),
        "index": jax.ShapeDtypeStruct(square[:1], jnp.int32),
    }
    try:
        train_step.eval_shape(shapes, batch)
    except ValueError as error:
        raise ConfigError(str(error).splitlines()[0]) from error


def make_program(config: Config, dataset: Dataset, spec: Spec) -> Program:
    """The network, the optimizer and the loss that a config asks for.

    Raises: ConfigError if the class weights do not fit the classes.
    """
    weights = _class_weights(config, dataset)
    try:
        loss = parse_loss(config.optimization.loss, class_weights=weights)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return Program(
        build=lambda: _build(config, spec),
        optimizer=make_optimizer(config.optimization, config.run.eval_every),
        loss=loss,
        strength=config.augmentation.augment,
        seed=config.optimization.seed,
        ema=config.optimization.ema,
        skip_nonfinite=config.run.skip_nonfinite,
        accumulate=config.optimization.accumulate,
        held=config.optimization.frozen_steps,
        class_weights=weights,
        stain=config.augmentation.stain,
        cutmix=config.augmentation.cutmix,
        mixup=config.augmentation.mixup,
    )


def _class_weights(config: Config, dataset: Dataset) -> tuple[float, ...] | None:
    """The numbers that were given, or those that balance the pixels of the training labels.

    Balanced, class c weighs n / (K n_c), n_c being its pixels, n those of all classes, and K the number of
    classes that occur: every one of them has the same part in the sum, and the mean pixel weighs 1. A class
    that does not occur has no pixel to weigh, and 0.
    """
    weights, names = config.optimization.class_weights, dataset.class_names
    if isinstance(weights, str):
        counts = np.zeros(len(names), np.int64)
        for sample in dataset.train:
            counts += np.bincount(sample["label"][sample["label"] >= 0], minlength=len(names))
        balanced = counts.sum() / (max((counts > 0).sum(), 1) * np.maximum(counts, 1))
        weights = tuple(np.where(counts > 0, balanced, 0.0).tolist())
    if weights is not None:
        usable = all(0 <= weight < math.inf for weight in weights) and sum(weights) > 0
        if not usable or len(weights) != len(names):
            raise ConfigError(
                f"--class-weights are {weights}; expected {len(names)} numbers >= 0, "
                f"not all 0, for {', '.join(names)}, or balanced"
            )
    return weights


def make_spec(config: Config, dataset: Dataset, normalisation: Normalisation | None = None) -> Spec:
    """The network that a config asks for, for the data's channels and classes.

    Args:
      normalisation: mean and std, one per channel each; ImageNet's if left out.
    """
    mean, std = normalisation or ((), ())
    return _spec(
        config, {"in_channels": dataset.channels, "classes": dataset.classes, "mean": mean, "std": std}
    )


def _spec(config: Config, model: Mapping[str, Any]) -> Spec:
    names = ("arch", "encoder", "deep_supervision", "guidance", "upsample", "norm", "dropout", "intensity")
    settings = config.to_flat()  # checked by checks.check
    return Spec(
        **{name: settings[name] for name in names},
        in_channels=model["in_channels"],
        classes=model["classes"],
        mean=tuple(model["mean"]),
        std=tuple(model["std"]),
    )


def _build(config: Config, spec: Spec) -> flaxunet.Segmenter:
    model = build(spec, dtype=jnp.dtype(config.network.dtype), rngs=nnx.Rngs(config.optimization.seed))
    if config.optimization.freeze_encoder is True:  # a number holds it for a while only: see `Program.held`
        model.freeze_encoder()
    if config.network.remat:
        model.rematerialize()
    return model


def load_model(run_folder: str | Path) -> flaxunet.Segmenter:
    """The best network of a run, in evaluation mode. The run may still be going on.

    Args:
      run_folder: what `python -m train` made, e.g. "runs/unet3plus-resnet18".
    Returns: the segmenter, with the normalisation it was trained with.
    Raises: ConfigError if the folder holds no run or no checkpoint.
    """
    folder = Path(run_folder)
    config, stored = checks.read(folder), run_folder.read(folder)["model"]
    program = Program(
        build=lambda: _build(config, _spec(config, stored)),
        optimizer=make_optimizer(config.optimization, config.run.eval_every),
        loss=parse_loss("ce"),
        strength="none",
        seed=0,
        ema=config.optimization.ema,
    )
    with Checkpoints(folder, write=False) as checkpoints:
        best = checkpoints.best()
        if best is None:
            raise ConfigError(f"{folder} has no checkpoint")
        shapes = jax.eval_shape(program.init)
        mesh = sharding.make_mesh(Devices(count=1), 1)
        return program.model(checkpoints.restore(best, abstract(shapes, sharding.state(mesh, shapes))))
