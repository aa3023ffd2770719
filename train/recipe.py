"""From a config to the network, optimizer and loss it asks for; from a finished run back to its network."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import flaxunet
from flaxunet.losses import parse as objective
from flaxunet.models.segmenter import build
from flaxunet.models.spec import Spec
from train.config import checks
from train.config import settings as configs
from train.config.settings import Config, ConfigError
from train.data.dataset import Dataset
from train.devices import mesh as sharding
from train.optimizer import make_optimizer
from train.step import Program
from train.storage import folder as record
from train.storage.checkpoint import Checkpoints, abstract

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and std, one per channel each."""


def make_program(config: Config, dataset: Dataset, spec: Spec) -> Program:
    """The network, the optimizer and the loss that a config asks for.

    Raises: ConfigError if the class weights do not fit the classes.
    """
    weights = _class_weights(config, dataset)
    try:
        loss = objective.parse(config.loss, class_weights=weights)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return Program(
        build=lambda: _build(config, spec),
        optimizer=make_optimizer(config),
        loss=loss,
        strength=config.augment,
        seed=config.seed,
        ema=config.ema,
        skip_nonfinite=config.skip_nonfinite,
        accumulate=config.accumulate,
        held=configs.held_steps(config),
        class_weights=weights,
        stain=config.stain,
        cutmix=config.cutmix,
        mixup=config.mixup,
    )


def _class_weights(config: Config, dataset: Dataset) -> tuple[float, ...] | None:
    """The numbers that were given, or those that balance the pixels of the training labels.

    Balanced, class c weighs n / (K n_c), n_c being its pixels, n those of all classes, and K the number of
    classes that occur: every one of them has the same part in the sum, and the mean pixel weighs 1. A class
    that does not occur has no pixel to weigh, and 0.
    """
    weights, names = config.class_weights, dataset.class_names
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
                f"--class-weights are {weights}; accepted are {len(names)} numbers >= 0, "
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
    asked = {name: getattr(config, name) for name in names}  # checked by checks.check
    return Spec(
        **asked,
        in_channels=model["in_channels"],
        classes=model["classes"],
        mean=tuple(model["mean"]),
        std=tuple(model["std"]),
    )


def _build(config: Config, spec: Spec) -> flaxunet.Segmenter:
    model = build(spec, dtype=jnp.dtype(config.dtype), rngs=nnx.Rngs(config.seed))
    if config.freeze_encoder is True:  # a number holds it for a while only: see `Program.held`
        model.freeze_encoder()
    if config.remat:
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
    config, stored = checks.read(folder), record.read(folder)["model"]
    program = Program(
        build=lambda: _build(config, _spec(config, stored)),
        optimizer=make_optimizer(config),
        loss=objective.parse("ce"),
        strength="none",
        seed=0,
        ema=config.ema,
    )
    with Checkpoints(folder, write=False) as checkpoints:
        best = checkpoints.best()
        if best is None:
            raise ConfigError(f"{folder} has no checkpoint")
        shapes = jax.eval_shape(program.init)
        mesh = sharding.make_mesh(1, 1, 1)
        return program.model(checkpoints.restore(best, abstract(shapes, sharding.state(mesh, shapes))))
