"""Builds the training program of a config and a batch of zeros, for benchmarks."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from train import setup
from train.config.settings import Config
from train.step import Program


def make_program(config: Config) -> Program:
    """The program of a config, without data."""
    dataset: Any = SimpleNamespace(channels=3, classes=1, class_names=("background", "foreground"))
    return setup.make_program(config, dataset, setup.make_spec(config, dataset.channels, dataset.classes))


def blank(config: Config) -> dict[str, np.ndarray]:
    """image (B, H, W, 3) float32, label (B, H, W) int32 and index (B,) int32, all zeros."""
    square = (config.optimization.batch_size, config.data.size, config.data.size)
    return {
        "image": np.zeros((*square, 3), np.float32),
        "label": np.zeros(square, np.int32),
        "index": np.zeros(square[:1], np.int32),
    }
