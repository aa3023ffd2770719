"""Evaluates a state on a whole split: scores, the confusion matrix and predictions."""

from collections.abc import Callable, Collection
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from flaxunet import metrics
from train.config.settings import Config
from train.data import batches as batching
from train.data.dataset import Split
from train.devices import mesh as sharding
from train.devices import processes as distributed
from train.step import Batch, State


class Scores(NamedTuple):
    """The results of an evaluation.

    Attributes:
      row: prefix_loss (mean over images), prefix_dice, prefix_iou (mean over foreground classes, from the
        confusion matrix) and prefix_dice_<class>.
      confusion: (C, C) int64 pixels, rows truth, columns prediction.
      image_dice: (N,) Dice of every image of the split, the mean over the foreground classes that
        occur in its label or its prediction.
      predictions: labels (H, W) of the requested images, by their index in the split, in the smallest
        unsigned dtype that holds the classes.
    """

    row: dict[str, float]
    confusion: np.ndarray
    image_dice: np.ndarray
    predictions: dict[int, np.ndarray]


def evaluate(
    eval_step: Callable[[State, Batch], dict[str, Array]],
    state: State,
    split: Split,
    prefix: str,
    *,
    mesh: Mesh,
    config: Config,
    names: tuple[str, ...],
    keep: Collection[int] = (),
) -> Scores:
    """Evaluates every image of a split once, whole.

    Args:
      eval_step: compiled `Program.eval_step`.
      state: of training.
      split: images of any sizes.
      prefix: of the row's keys.
      mesh: the devices.
      config: for the batch size. A batch holds no more pixels than what training computes at once, but at
        least one image per device.
      names: of the classes, background first.
      keep: indices of the images whose predictions are returned.
    Returns: the scores.
    """
    batch_size = _batch_size(batching.frame(split), config, mesh.size)
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
        out = eval_step(state, batch)
        if pending is not None:
            add(*pending)  # one batch late, so that the device already has the next one
        rows = range(min(batch_size, len(split) - first))
        pending = (out, [(row, first + row) for row in rows if first + row in keep])
    if pending is not None:
        add(*pending)

    dice, iou = metrics.dice(confusion), metrics.iou(confusion)
    row = {
        f"{prefix}_loss": loss / images,
        f"{prefix}_dice": float(metrics.mean_foreground(dice)),
        f"{prefix}_iou": float(metrics.mean_foreground(iou)),
    }
    for name, value in zip(names[1:], dice[1:], strict=True):
        row[f"{prefix}_dice_{name.replace(' ', '_')}"] = float(value)
    return Scores(row, confusion, np.array(image_dice[: len(split)]), predictions)


def _batch_size(frame: tuple[int, int], config: Config, devices: int) -> int:
    """The number of images of a frame (H, W) that have as many pixels as training computes at once."""
    at_once = config.optimization.batch_size // config.optimization.accumulate
    fitting = at_once * config.data.size**2 // (frame[0] * frame[1]) // devices * devices
    return min(max(fitting, devices), at_once)
