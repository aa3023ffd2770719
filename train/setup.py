"""Builds what a run needs, and writes nothing: data, network, optimizer, loss and compiled steps."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

import flaxunet
from flaxunet.losses import parse_loss
from flaxunet.models.segmenter import build
from flaxunet.models.spec import Spec
from train.config import checks
from train.config.settings import Config, ConfigError, Devices
from train.data import dataset as data
from train.data import precheck
from train.data.batches import blank
from train.data.dataset import Dataset
from train.devices import mesh as sharding
from train.optimizer import make_optimizer
from train.step import EvalStep, Program, State, TrainStep
from train.storage import folder as run_folder
from train.storage.checkpoint import Checkpoints, abstract
from train.weights import InitialWeights, find_stored

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of each channel


@dataclass(frozen=True)
class Setup:
    """Everything that a run needs before its first step.

    Attributes:
      shapes, shardings: of the state: as jax.eval_shape gives it, and where each array lies on the mesh.
      init: makes the state with random weights.
      train_step, frozen_step, eval_step: compiled; `frozen_step` trains with a frozen encoder.
      initial_weights: what the network starts with besides random numbers, if anything.
      continues: whether this run goes on from a checkpoint of an earlier process.
      warnings: a line for whatever is odd about the data.
    """

    config: Config
    mesh: Mesh
    dataset: Dataset
    program: Program
    shapes: State
    shardings: State
    init: Callable[[], State]
    train_step: TrainStep
    frozen_step: TrainStep
    eval_step: EvalStep
    initial_weights: InitialWeights | None
    continues: bool
    warnings: tuple[str, ...] = ()


def prepare(config: Config) -> Setup:
    """Checks a config, reads its data and builds its network.

    Raises: ConfigError or DataError for what cannot be used.
    """
    checks.check(config)
    optimization, resume = config.optimization, config.run.resume
    mesh = sharding.make_mesh(config.devices, optimization.batch_size, optimization.accumulate)
    continues = resume is not None and run_folder.has_checkpoint(Path(resume))
    stored = None if continues else find_stored(config.network, config.data.intensity)
    warnings = () if resume else precheck.check(config.data, optimization.seed)
    dataset = data.load(config.data, optimization.seed)
    if resume:  # as the run began
        model = run_folder.read(Path(resume))["model"]
        normalisation = tuple(model["mean"]), tuple(model["std"])
    else:  # as the stored weights expect; None: ImageNet's
        normalisation = stored and stored.normalisation(dataset.channels, config.data.intensity)
    spec = make_spec(config, dataset.channels, dataset.classes, normalisation)
    initial_weights = stored and InitialWeights.choose(config.network, stored, spec)
    program = make_program(config, dataset, spec)

    make = program.init  # one function object throughout: JAX traces each once, and remembers it by identity
    shapes = jax.eval_shape(make)
    shardings, whole = sharding.state(mesh, shapes), sharding.replicated(mesh)
    train_step, frozen_step = (
        jax.jit(program.train_step(freeze_encoder=freeze), donate_argnums=0, out_shardings=(shardings, whole))
        for freeze in (False, True)
    )
    _check_step(train_step, shapes, config, dataset.channels)
    sums = dict.fromkeys(("loss", "images", "confusion"), whole)
    return Setup(
        config=config,
        mesh=mesh,
        dataset=dataset,
        program=program,
        shapes=shapes,
        shardings=shardings,
        init=jax.jit(make, out_shardings=shardings),
        train_step=train_step,
        frozen_step=frozen_step,
        eval_step=jax.jit(program.eval_step(), out_shardings={**sums, "prediction": sharding.batch(mesh)}),
        initial_weights=initial_weights,
        continues=continues,
        warnings=warnings,
    )


def _check_step(train_step: Any, shapes: State, config: Config, channels: int) -> None:
    """Traces a step without computing it, so that what does not fit is reported before a folder is made."""
    batch = blank(config.optimization.batch_size, config.data.size, config.data.size, channels)
    try:
        train_step.eval_shape(shapes, batch)
    except ValueError as error:
        raise ConfigError(str(error).splitlines()[0]) from error


def make_program(config: Config, dataset: Dataset, spec: Spec) -> Program:
    """Builds the program of a config; raises ConfigError if the class weights do not fit the classes."""
    settings = config.optimization
    weights = _class_weights(settings.class_weights, dataset)
    try:
        loss = parse_loss(settings.loss, class_weights=weights)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return Program(
        build=lambda: _build(config, spec),
        optimizer=make_optimizer(settings, config.run.eval_every),
        loss=loss,
        seed=settings.seed,
        augmentation=config.augmentation,
        ema=settings.ema,
        skip_nonfinite=config.run.skip_nonfinite,
        accumulate=settings.accumulate,
        frozen_steps=settings.frozen_steps,
        class_weights=weights,
    )


def _class_weights(weights: tuple[float, ...] | str | None, dataset: Dataset) -> tuple[float, ...] | None:
    """Checks the weights of the classes, or computes those that balance the pixels of the training labels.

    Balanced, class c weighs n / (K n_c), n_c being its pixels, n those of all classes, and K the number of
    classes that occur: each of them contributes equally to the sum, and the mean pixel weighs 1. A class
    without pixels weighs 0.
    """
    names = dataset.class_names
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


def make_spec(
    config: Config, in_channels: int, classes: int, normalisation: Normalisation | None = None
) -> Spec:
    """Describes the network of a checked config; the normalisation of images is ImageNet's if left out."""
    names = ("arch", "encoder", "deep_supervision", "guidance", "upsample", "norm", "dropout", "intensity")
    settings, (mean, std) = config.to_flat(), normalisation or ((), ())
    common = {name: settings[name] for name in names}
    return Spec(**common, in_channels=in_channels, classes=classes, mean=mean, std=std)


def _build(config: Config, spec: Spec) -> flaxunet.Segmenter:
    model = build(spec, dtype=jnp.dtype(config.network.dtype), rngs=nnx.Rngs(config.optimization.seed))
    if config.optimization.freeze_encoder is True:  # a number freezes it only for a while: `frozen_steps`
        model.freeze_encoder()
    if config.network.remat:
        model.rematerialize()
    return model


def load_model(run: str | Path) -> flaxunet.Segmenter:
    """Loads the best network of a run, in evaluation mode. The run may still be going on.

    Args:
      run: a folder that `python -m train` made, e.g. "runs/unet3plus-resnet18".
    Raises: ConfigError if the folder holds no run or no checkpoint.
    """
    folder = Path(run)
    config, model = checks.read(folder), run_folder.read(folder)["model"]
    normalisation = tuple(model["mean"]), tuple(model["std"])
    spec = make_spec(config, model["in_channels"], model["classes"], normalisation)
    program = Program(
        build=lambda: _build(config, spec),
        optimizer=make_optimizer(config.optimization, config.run.eval_every),
        loss=parse_loss("ce"),
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
