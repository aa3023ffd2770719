"""Evaluates a state on a whole split: scores, the confusion matrix and predictions."""

from collections.abc import Collection
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from flaxunet import metrics
from train.config.settings import Config
from train.data import batches as batching
from train.devices import mesh as sharding
from train.devices import processes as distributed
from train.setup import Setup
from train.step import State


class Scores(NamedTuple):
    """The results of an evaluation.

    Attributes:
      row: prefix_loss (mean over images), prefix_dice, prefix_iou (mean over foreground classes, from the
        confusion matrix) and prefix_dice_<class>.
      confusion: (C, C) int64 pixels, rows truth, columns prediction.
      image_dice: (N,) Dice of every image: the mean over its foreground classes, true or predicted.
      predictions: labels (H, W) of the requested images by their index, in the smallest unsigned dtype.
    """

    row: dict[str, float]
    confusion: np.ndarray
    image_dice: np.ndarray
    predictions: dict[int, np.ndarray]


def evaluate(setup: Setup, state: State, prefix: str, keep: Collection[int]) -> Scores:
    """Evaluates every image of a split once, whole, in batches of about as many pixels as those of training.

    Args:
      setup: of the run.
      state: of training.
      prefix: of the row's keys: "val" evaluates the validation split, "test" the test split.
      keep: indices of the images whose predictions are returned.
    """
    split = setup.dataset.validation if prefix == "val" else setup.dataset.test
    mesh, names = setup.mesh, setup.dataset.class_names
    batch_size = _batch_size(batching.frame(split), setup.config, mesh.size)
    dtype = np.min_scalar_type(len(names) - 1)
    loss, images, confusion = 0.0, 0, np.zeros((len(names),) * 2, np.int64)
    image_dice: list[float] = []
    predictions: dict[int, np.ndarray] = {}

    def add(out: dict[str, Array], kept: list[tuple[int, int]]) -> None:
        nonlocal loss, images, confusion
        prediction = distributed.gather(out["prediction"]) if kept else None
        batch = jax.device_get({**out, "prediction": prediction})
        loss, images = loss + float(batch["loss"]), images + int(batch["images"])
        confusion = confusion + batch["confusion"].sum(0, dtype=np.int64)
        image_dice.extend(metrics.mean_foreground(metrics.dice(one)) for one in batch["confusion"])
        for row, index in kept:
            height, width = split[index]["label"].shape
            predictions[index] = batch["prediction"][row, :height, :width].astype(dtype)

    pending = None
    batches = sharding.prefetch(mesh, batching.eval_batches(split, batch_size=batch_size), whole=True)
    for first, batch in zip(range(0, len(split), batch_size), batches, strict=True):
        out = setup.eval_step(state, batch)
        if pending is not None:
            add(*pending)  # one batch late, so that the device already has the next one
        rows = range(min(batch_size, len(split) - first))
        pending = (out, [(row, first + row) for row in rows if first + row in keep])
    if pending is not None:
        add(*pending)

    dice, iou = metrics.dice(confusion), metrics.iou(confusion)
    means = {"dice": float(metrics.mean_foreground(dice)), "iou": float(metrics.mean_foreground(iou))}
    row = {f"{prefix}_{name}": value for name, value in {"loss": loss / images, **means}.items()}
    for name, value in zip(names[1:], dice[1:], strict=True):
        row[f"{prefix}_dice_{name.replace(' ', '_')}"] = float(value)
    return Scores(row, confusion, np.array(image_dice[: len(split)]), predictions)


def _batch_size(frame: tuple[int, int], config: Config, devices: int) -> int:
    """The number of images of a frame (H, W) that have as many pixels as training computes at once."""
    at_once = config.optimization.batch_size // config.optimization.accumulate
    fitting = at_once * config.data.size**2 // (frame[0] * frame[1]) // devices * devices
    return min(max(fitting, devices), at_once)
