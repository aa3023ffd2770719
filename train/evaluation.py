"""A state and a split enter; scores, the confusion matrix and chosen predictions of the whole split leave."""

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
    """What an evaluation finds.

    Attributes:
      row: prefix_loss (mean over images), prefix_dice, prefix_iou (mean over foreground classes, from the
        confusion matrix) and prefix_dice_<class>.
      confusion: (C, C) int64 pixels, rows truth, columns prediction.
      each: (N,) Dice of every image of the split, mean over the foreground classes that it has or was found
        to have.
      predictions: the labels (H, W) of the images asked for, by their index in the split, in the smallest
        unsigned dtype that holds the classes.
    """

    row: dict[str, float]
    confusion: np.ndarray
    each: np.ndarray
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
    """Runs over a split once.

    Args:
      eval_step: compiled `Program.eval_step`.
      state: of training.
      split: whole images of any sizes.
      prefix: of the row's keys.
      mesh: the devices.
      config: for the batch size. An evaluation batch holds no more pixels than what training takes at once,
        but at least one image per device.
      names: of the classes, background first.
      keep: indices of the images whose predictions are wanted.
    Returns: the scores.
    """
    height, width = batching.frame(split)
    at_once = config.optimization.batch_size // config.optimization.accumulate
    fitting = at_once * config.data.size**2 // (height * width) // mesh.size * mesh.size
    batch_size = min(max(fitting, mesh.size), at_once)
    loss, images, confusion, kept = 0.0, 0, np.zeros((len(names),) * 2, np.int64), {}
    each: list[float] = []
    small = np.min_scalar_type(len(names) - 1)

    def add(out: dict[str, Array], wanted: list[tuple[int, int]]) -> None:
        nonlocal loss, images, confusion
        prediction = distributed.gather(out["prediction"]) if wanted else None
        found = jax.device_get({**out, "prediction": prediction})
        loss, images = loss + float(found["loss"]), images + int(found["images"])
        confusion = confusion + found["confusion"].sum(0, dtype=np.int64)
        each.extend(metrics.mean_foreground(metrics.dice(one)) for one in found["confusion"])
        for row, index in wanted:
            rows, columns = split[index]["label"].shape
            kept[index] = found["prediction"][row, :rows, :columns].astype(small)

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
    return Scores(row, confusion, np.array(each[: len(split)]), kept)
