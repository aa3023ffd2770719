"""Checks settings before anything is read or written, and reads those of earlier runs."""

import importlib.util
import json
import math
import re
from pathlib import Path
from typing import Any

from flaxunet.data import LAYOUTS
from flaxunet.losses import parse_loss
from train.config.settings import (
    ASKED_ONCE,
    CHOICES,
    MAY_DIFFER,
    Augmentation,
    Config,
    ConfigError,
    Data,
    Devices,
    Network,
    Optimization,
    Run,
)

WHOLE_NUMBERS_FROM_1 = (
    *("classes", "size", "workers", "steps", "batch_size", "accumulate", "eval_every", "patience", "keep"),
    *("devices", "fsdp", "num_processes", "peer_timeout"),
)
POSITIVE = ("learning_rate", "clip", "encoder_lr", "cache_limit")
FRACTIONS = ("dropout", "ema", "warmup")


def check(config: Config) -> None:
    """Raises ConfigError for the first setting that is out of range, before anything is read or written."""
    values = config.to_flat()
    for name, known in {**CHOICES, "layout": (None, *LAYOUTS)}.items():
        if values[name] not in known:
            expected = ", ".join(choice for choice in known if choice is not None)
            raise ConfigError(f"unknown {name} {values[name]!r}; expected one of {expected}")
    for name in WHOLE_NUMBERS_FROM_1:
        if values[name] is not None and values[name] < 1:
            raise ConfigError(f"{_flag(name)} is {values[name]}; expected a whole number >= 1")
    for name in POSITIVE:
        if not 0 < values[name] < math.inf:
            raise ConfigError(f"{_flag(name)} is {values[name]}; expected a number > 0")
    for name in FRACTIONS:
        if not 0 <= values[name] < 1:
            raise ConfigError(f"{_flag(name)} is {values[name]}; expected 0 <= {name} < 1")
    _check_network(config.network)
    _check_data(config.data)
    _check_optimization(config.optimization)
    _check_augmentation(config.augmentation, config.data.intensity)
    _check_run(config.run)
    _check_devices(config.devices)


def _check_network(network: Network) -> None:
    if network.weights is not None and network.encoder_weights is not None:
        raise ConfigError("--weights and --encoder-weights: expected only one of them")


def _check_data(data: Data) -> None:
    for name in ("layout", "group"):
        if getattr(data, name) is not None and data.folder is None:
            raise ConfigError(f"{_flag(name)} is {getattr(data, name)!r}; expected together with --data")
    if not 0 <= data.foreground <= 1:
        raise ConfigError(f"--foreground is {data.foreground}; expected 0 <= foreground <= 1")
    if data.foreground and data.fit != "crop":
        raise ConfigError(f"--foreground is {data.foreground}; expected together with --fit crop")
    if data.fold is not None:
        whole = re.fullmatch(r"[1-9]\d*/[1-9]\d*", data.fold)
        if not whole or not data.fold_numbers[0] <= data.fold_numbers[1] > 1:
            raise ConfigError(f"--fold is {data.fold!r}; expected I/K with 1 <= I <= K and K >= 2")


def _check_optimization(optimization: Optimization) -> None:
    if not 0 <= optimization.weight_decay < math.inf:
        raise ConfigError(f"--weight-decay is {optimization.weight_decay}; expected a number >= 0")
    if not 0 <= optimization.seed < 2**32:
        raise ConfigError(f"--seed is {optimization.seed}; expected a whole number from 0 to {2**32 - 1}")
    if optimization.batch_size % optimization.accumulate:
        raise ConfigError(
            f"--accumulate is {optimization.accumulate}; "
            f"expected a divisor of --batch-size {optimization.batch_size}"
        )
    weights = optimization.class_weights
    if isinstance(weights, str) and weights != "balanced":
        raise ConfigError(f"--class-weights is {weights!r}; expected numbers, or balanced")
    if optimization.freeze_encoder is not False and optimization.freeze_encoder < 1:
        raise ConfigError(f"--freeze-encoder is {optimization.freeze_encoder}; expected a whole number >= 1")
    try:
        parse_loss(optimization.loss)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _check_augmentation(augmentation: Augmentation, intensity: str) -> None:
    for name, most in {"stain": 0.5, "cutmix": 1.0, "mixup": math.inf}.items():
        value = getattr(augmentation, name)
        if not (math.isfinite(value) and 0 <= value <= most):
            expected = "a number >= 0" if most == math.inf else f"0 <= {name} <= {most:g}"
            raise ConfigError(f"--{name} is {value}; expected {expected}")
    stain = augmentation.stain
    if stain and augmentation.augment == "none":
        raise ConfigError(f"--stain is {stain}; expected together with --augment light, medium or strong")
    if stain and intensity == "zscore":
        raise ConfigError(f"--stain is {stain}; expected together with another --intensity than zscore")


def _check_run(run: Run) -> None:
    if run.skip_nonfinite < 0:
        raise ConfigError(f"--skip-nonfinite is {run.skip_nonfinite}; expected a whole number >= 0")
    if run.resume_step is not None and run.resume is None:
        raise ConfigError(f"--resume-step is {run.resume_step}; expected together with --resume RUN")
    if run.name is not None and (Path(run.name).name != run.name or run.name in (".", "..")):
        raise ConfigError(f"--name is {run.name!r}; expected the name of a folder, without separators")
    if run.wandb is not None and not _installed("wandb"):
        raise ConfigError("--wandb: the package wandb is not installed; expected after pip install wandb")


def _check_devices(devices: Devices) -> None:
    if devices.coordinator is None:
        if devices.process_id is not None:
            raise ConfigError(f"--process-id is {devices.process_id}; expected together with --coordinator")
        if devices.num_processes is not None and not devices.distributed:
            raise ConfigError(
                f"--num-processes is {devices.num_processes}; "
                "expected together with --distributed or --coordinator"
            )
        return
    if devices.distributed:
        raise ConfigError("--distributed and --coordinator: expected only one of them")
    host, _, port = devices.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(f"--coordinator is {devices.coordinator!r}; expected HOST:PORT of process 0")
    if devices.num_processes is None or devices.process_id is None:
        raise ConfigError("--coordinator: expected together with --num-processes and --process-id")
    if not 0 <= devices.process_id < devices.num_processes:
        raise ConfigError(
            f"--process-id is {devices.process_id}; expected 0 to {devices.num_processes - 1}, "
            "below --num-processes"
        )


def _installed(package: str) -> bool:
    """Whether a package can be imported; a folder ./wandb that earlier runs left is no package."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def read(run: Path) -> Config:
    """Reads and checks the settings of a run.

    Raises: ConfigError if the folder holds no run, or one with settings that are not known here.
    """
    path = run / "config.json"
    if not path.is_file():
        raise ConfigError(f"{run} holds no run; expected a folder that python -m train made")
    try:
        stored: dict[str, Any] = json.loads(path.read_text())["config"]
        stored = {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
        config = Config.from_flat(**stored)
        check(config)
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is not the config of a run of this version: {error}") from None
    return config


def check_resumed(config: Config, stored: Config) -> None:
    """Raises ConfigError if a resumed run would no longer be the same run, naming what differs."""
    now, then = config.to_flat(), stored.to_flat()
    differing = [
        f"{_flag(name)} is {now[name]!r}, was {then[name]!r}"
        for name in now
        if name not in (*MAY_DIFFER, *ASKED_ONCE) and repr(now[name]) != repr(then[name])  # True is not 1
    ]
    if config.optimization.schedule == "plateau" and now["eval_every"] != then["eval_every"]:
        differing.append(f"--eval-every is {now['eval_every']}, was {then['eval_every']}, under a plateau")
    if differing:
        allowed = ", ".join(map(_flag, MAY_DIFFER))
        raise ConfigError(f"cannot resume with {'; '.join(differing)}; only {allowed} may differ")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
