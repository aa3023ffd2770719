"""Checks settings before anything is read or written, and reads those of earlier runs."""

import importlib.util
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flaxunet.data import LAYOUTS
from flaxunet.losses import parse_loss
from train.config.settings import ASKED_ONCE, CHOICES, Config, ConfigError

WHOLE_NUMBERS_FROM_1 = (
    *("classes", "size", "workers", "steps", "batch_size", "accumulate", "eval_every", "patience", "keep"),
    *("devices", "fsdp", "num_processes", "peer_timeout"),
)
POSITIVE = ("learning_rate", "clip", "encoder_lr", "cache_limit")
FRACTIONS = ("dropout", "ema", "warmup")
MAY_DIFFER = (  # when a run is resumed
    *("steps", "devices", "fsdp", "workers", "cache", "cache_dir", "cache_limit"),
    *("eval_every", "patience", "keep", "skip_nonfinite", "wandb"),
)


def check(config: Config) -> None:
    """Raises ConfigError for the first setting that is out of range, before anything is read or written."""
    values = config.to_flat()
    for name, known in {**CHOICES, "layout": (None, *LAYOUTS)}.items():
        if values[name] not in known:
            expected = ", ".join(choice for choice in known if choice is not None)
            raise ConfigError(f"unknown {name} {values[name]!r}; expected one of {expected}")
    for rules in (_ranges, _data, _optimization, _augmentation, _run, _devices):
        for name, usable, expected in rules(config):
            if not usable:
                raise ConfigError(f"{_flag(name)} is {values[name]!r}; expected {expected}")


Rules = Iterator[tuple[str, object, str]]  # settings, whether their values are usable, and what is expected


def _ranges(config: Config) -> Rules:
    values = config.to_flat()
    for name in WHOLE_NUMBERS_FROM_1:
        yield name, values[name] is None or values[name] >= 1, "a whole number >= 1"
    for name in POSITIVE:
        yield name, 0 < values[name] < math.inf, "a number > 0"
    for name in FRACTIONS:
        yield name, 0 <= values[name] < 1, f"0 <= {name} < 1"


def _data(config: Config) -> Rules:
    data = config.data
    yield "layout", data.layout is None or data.folder is not None, "together with --data"
    yield "group", data.group is None or data.folder is not None, "together with --data"
    yield "foreground", 0 <= data.foreground <= 1, "0 <= foreground <= 1"
    yield "foreground", not data.foreground or data.fit == "crop", "together with --fit crop"
    if data.fold is not None:
        fold = re.fullmatch(r"[1-9]\d*/[1-9]\d*", data.fold)
        usable = fold and data.fold_numbers[0] <= data.fold_numbers[1] > 1
        yield "fold", usable, "I/K with 1 <= I <= K and K >= 2"


def _optimization(config: Config) -> Rules:
    settings, weights = config.optimization, config.optimization.class_weights
    yield "weight_decay", 0 <= settings.weight_decay < math.inf, "a number >= 0"
    yield "seed", 0 <= settings.seed < 2**32, f"a whole number from 0 to {2**32 - 1}"
    parts = settings.batch_size % settings.accumulate == 0
    yield "accumulate", parts, f"a divisor of --batch-size {settings.batch_size}"
    yield "class_weights", not isinstance(weights, str) or weights == "balanced", "numbers, or balanced"
    frozen = settings.freeze_encoder
    yield "freeze_encoder", frozen is False or frozen >= 1, "a whole number >= 1"
    try:
        parse_loss(settings.loss)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _augmentation(config: Config) -> Rules:
    change = config.augmentation
    yield "stain", 0 <= change.stain <= 0.5, "0 <= stain <= 0.5"
    yield "cutmix", 0 <= change.cutmix <= 1, "0 <= cutmix <= 1"
    yield "mixup", 0 <= change.mixup < math.inf, "a number >= 0"
    if change.stain:
        yield "stain", change.augment != "none", "together with --augment light, medium or strong"
        yield "stain", config.data.intensity != "zscore", "together with another --intensity than zscore"


def _run(config: Config) -> Rules:
    run, network = config.run, config.network
    if network.weights is not None and network.encoder_weights is not None:
        raise ConfigError("--weights and --encoder-weights: expected only one of them")
    yield "skip_nonfinite", run.skip_nonfinite >= 0, "a whole number >= 0"
    yield "resume_step", run.resume_step is None or run.resume is not None, "together with --resume RUN"
    folder = run.name is None or (Path(run.name).name == run.name and run.name not in (".", ".."))
    yield "name", folder, "the name of a folder, without separators"
    if run.wandb is not None and not _installed("wandb"):
        raise ConfigError("--wandb: the package wandb is not installed; expected after pip install wandb")


def _devices(config: Config) -> Rules:
    devices, count = config.devices, config.devices.num_processes
    if devices.coordinator is None:
        yield "process_id", devices.process_id is None, "together with --coordinator"
        joins = count is None or devices.distributed
        yield "num_processes", joins, "together with --distributed or --coordinator"
        return
    if devices.distributed:
        raise ConfigError("--distributed and --coordinator: expected only one of them")
    host, _, port = devices.coordinator.rpartition(":")
    usable = host and port.isdecimal() and 0 < int(port) < 2**16
    yield "coordinator", usable, "HOST:PORT of process 0"
    if count is None or devices.process_id is None:
        raise ConfigError("--coordinator: expected together with --num-processes and --process-id")
    yield "process_id", 0 <= devices.process_id < count, f"0 to {count - 1}, below --num-processes"


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
