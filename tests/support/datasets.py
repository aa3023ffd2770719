"""Folders of small images and masks, and the data sets that training makes of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.config.settings import Data
from train.data.dataset import DataError, Dataset, load


def pattern(seed, height=20, width=24, classes=2, channels=1):
    """An image and a mask that can be computed from it: the class is the pixel's step of gray."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    mask = (image.astype(int) * classes // 256).astype(np.uint8)
    return image if channels == 1 else np.dstack([image] * channels), mask


def write_pair(folder: Path, name: str, image, mask, masks="masks") -> None:
    """Writes PNG files into images/ and masks/; None writes no file."""
    for kind, array in (("images", image), (masks, mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        if array is not None:
            Image.fromarray(array).save(folder / kind / f"{name}.png")


def write_pairs(folder: Path, count: int, **options) -> Path:
    """Writes so many pairs n00, n01, ... of patterns."""
    for number in range(count):
        write_pair(folder, f"n{number:02}", *pattern(number, **options))
    return folder


def load_dataset(folder: Path | str | None, *, seed: int = 0, **options) -> Dataset:
    """The data set of a folder, or of the brain, in memory; options are fields of `Data`."""
    return load(Data(folder and str(folder), **{"size": 32, "cache": "memory", **options}), seed)


def problems(folder: Path, **options) -> list[str]:
    """What a data set is refused for."""
    with pytest.raises(DataError) as refusal:
        load_dataset(folder, **options)
    return refusal.value.problems
