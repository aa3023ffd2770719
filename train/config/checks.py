"""Settings enter, and pass, or are refused with one line that names the value and what is accepted."""

import dataclasses
import importlib.util
import json
import math
import re
from pathlib import Path
from typing import Any

from flaxunet.data import LAYOUTS
from flaxunet.losses import parse as objective
from train.config.settings import ASKED_ONCE, CHOICES, MAY_DIFFER, Config, ConfigError, fold_of


def check(config: Config) -> None:
    """Raises ConfigError for the first setting that is out of range, before anything is read or written."""
    for name, known in CHOICES.items():
        value = getattr(config, name)
        if value not in known:
            raise ConfigError(f"unknown {name} {value!r}; known are {', '.join(known)}")
    if config.layout is not None and config.layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {config.layout!r}; known are {', '.join(LAYOUTS)}")
    for name in ("layout", "group"):
        if getattr(config, name) is not None and config.data is None:
            raise ConfigError(f"{_flag(name)} is {getattr(config, name)!r}; accepted only with --data")
    at_least_one = (
        *("size", "steps", "batch_size", "accumulate", "eval_every", "keep"),
        *("fsdp", "workers", "peer_timeout"),
    )
    may_be_none = ("devices", "classes", "num_processes", "patience")
    optional = (n for n in may_be_none if getattr(config, n) is not None)
    for name in (*at_least_one, *optional):
        if getattr(config, name) < 1:
            raise ConfigError(f"{_flag(name)} is {getattr(config, name)}; accepted are whole numbers >= 1")
    for name in ("learning_rate", "clip", "encoder_lr", "cache_limit"):
        if not (math.isfinite(getattr(config, name)) and getattr(config, name) > 0):
            raise ConfigError(f"{_flag(name)} is {getattr(config, name)}; accepted are numbers > 0")
    if not (math.isfinite(config.weight_decay) and config.weight_decay >= 0):
        raise ConfigError(f"--weight-decay is {config.weight_decay}; accepted are numbers >= 0")
    if not 0 <= config.seed < 2**32:
        raise ConfigError(f"--seed is {config.seed}; accepted are whole numbers from 0 to {2**32 - 1}")
    for name in ("dropout", "ema", "warmup"):
        if not 0 <= getattr(config, name) < 1:
            raise ConfigError(f"{_flag(name)} is {getattr(config, name)}; accepted is 0 <= {name} < 1")
    if config.skip_nonfinite < 0:
        raise ConfigError(f"--skip-nonfinite is {config.skip_nonfinite}; accepted are whole numbers >= 0")
    if config.resume_step is not None and config.resume is None:
        raise ConfigError(f"--resume-step is {config.resume_step}; accepted only with --resume RUN")
    if config.weights is not None and config.encoder_weights is not None:
        raise ConfigError("--weights and --encoder-weights: accepted is one of them")
    if config.name is not None and (Path(config.name).name != config.name or config.name in (".", "..")):
        raise ConfigError(f"--name is {config.name!r}; accepted is the name of a folder, without separators")
    _check_recipe(config)
    _check_place(config)
    if config.wandb is not None and not _installed("wandb"):
        raise ConfigError("--wandb: the package wandb is not installed; accepted is after pip install wandb")
    try:
        objective.parse(config.loss)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _check_recipe(config: Config) -> None:
    """Raises ConfigError for what cannot be said of how a network is trained."""
    if config.batch_size % config.accumulate:
        raise ConfigError(
            f"--accumulate is {config.accumulate}; accepted are divisors of --batch-size {config.batch_size}"
        )
    if isinstance(config.class_weights, str) and config.class_weights != "balanced":
        raise ConfigError(f"--class-weights is {config.class_weights!r}; accepted are numbers, or balanced")
    if config.freeze_encoder is not False and config.freeze_encoder < 1:
        raise ConfigError(f"--freeze-encoder is {config.freeze_encoder}; accepted are whole numbers >= 1")
    if not 0 <= config.foreground <= 1:
        raise ConfigError(f"--foreground is {config.foreground}; accepted is 0 <= foreground <= 1")
    if config.foreground and config.fit != "crop":
        raise ConfigError(f"--foreground is {config.foreground}; accepted only with --fit crop")
    _check_augmentation(config)
    if config.fold is not None:
        whole = re.fullmatch(r"[1-9]\d*/[1-9]\d*", config.fold)
        if not whole or not fold_of(config)[0] <= fold_of(config)[1] > 1:
            raise ConfigError(f"--fold is {config.fold!r}; accepted is I/K with 1 <= I <= K and K >= 2")


def _check_augmentation(config: Config) -> None:
    """Raises ConfigError for what cannot be said of how images are changed."""
    for name, most in {"stain": 0.5, "cutmix": 1.0, "mixup": math.inf}.items():
        value = getattr(config, name)
        if not (math.isfinite(value) and 0 <= value <= most):
            upper = "numbers >= 0" if most == math.inf else f"0 <= {name} <= {most:g}"
            raise ConfigError(f"--{name} is {value}; accepted are {upper}")
    if config.stain and config.augment == "none":
        raise ConfigError(f"--stain is {config.stain}; accepted only with --augment light, medium or strong")
    if config.stain and config.intensity == "zscore":
        raise ConfigError(f"--stain is {config.stain}; accepted only with --intensity dtype or percentile")


def _check_place(config: Config) -> None:
    """Raises ConfigError for what cannot be said of the processes of a run."""
    if config.coordinator is None:
        if config.process_id is not None:
            raise ConfigError(f"--process-id is {config.process_id}; accepted only with --coordinator")
        if config.num_processes is not None and not config.distributed:
            raise ConfigError(
                f"--num-processes is {config.num_processes}; "
                "accepted only with --distributed or --coordinator"
            )
        return
    if config.distributed:
        raise ConfigError("--distributed and --coordinator: accepted is one of them")
    host, _, port = config.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(f"--coordinator is {config.coordinator!r}; accepted is HOST:PORT of process 0")
    if config.num_processes is None or config.process_id is None:
        raise ConfigError("--coordinator: accepted only with --num-processes and --process-id")
    if not 0 <= config.process_id < config.num_processes:
        raise ConfigError(
            f"--process-id is {config.process_id}; accepted are 0 to {config.num_processes - 1}"
        )


def _installed(package: str) -> bool:
    """Whether it can be imported; a folder ./wandb that earlier runs left is none."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None


def read(run: Path) -> Config:
    """The settings of a run.

    Raises: ConfigError if the folder holds no run, or one with settings that are not known here.
    """
    path = run / "config.json"
    if not path.is_file():
        raise ConfigError(f"{run} holds no run; accepted is a folder that python -m train made")
    try:
        stored: dict[str, Any] = json.loads(path.read_text())["config"]
        stored = {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
        config = Config(**stored)
        check(config)
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not the config of a run of this version: {error}") from None
    return config


def check_resumed(config: Config, stored: Config) -> None:
    """Raises ConfigError if a resumed run would no longer be the same run, naming what differs."""
    differing = [
        f"{_flag(field.name)} is {getattr(config, field.name)!r}, was {getattr(stored, field.name)!r}"
        for field in dataclasses.fields(Config)
        if field.name not in (*MAY_DIFFER, *ASKED_ONCE)
        and repr(getattr(config, field.name)) != repr(getattr(stored, field.name))  # True is no 1
    ]
    if config.schedule == "plateau" and config.eval_every != stored.eval_every:
        differing.append(f"--eval-every is {config.eval_every}, was {stored.eval_every}, under a plateau")
    if differing:
        allowed = ", ".join(map(_flag, MAY_DIFFER))
        raise ConfigError(f"cannot resume with {'; '.join(differing)}; only {allowed} may differ")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
