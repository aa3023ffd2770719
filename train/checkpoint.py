"""Keeps the latest and the best state of a run on disk. The only file that imports orbax."""

import logging
import math
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from train.config import ConfigError

try:
    from orbax.checkpoint import v1 as ocp
except ImportError:  # before it left "experimental"
    from orbax.checkpoint.experimental import v1 as ocp


class Checkpoints:
    """The folder RUN/checkpoints: one folder per step, written in the background, whole or not there at all.

    Use as a context manager: leaving it waits for the last save and raises what went wrong with it.

    Args:
      run: the run's folder.
      write: whether to save. Only one writer may be open: it clears away what an earlier one left unfinished.
    """

    def __init__(self, run: Path, *, write: bool):
        self._folder = (run / "checkpoints").absolute()
        if not write and not self._folder.is_dir():
            raise ConfigError(f"{run} has no checkpoint")
        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax reports every file it writes
        policies, decisions = ocp.training.preservation_policies, ocp.training.save_decision_policies
        self._checkpointer = ocp.training.Checkpointer(
            str(self._folder),
            save_decision_policy=decisions.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy(
                [policies.LatestN(1), policies.BestN(get_metric_fn=_dice, n=1)]
            ),
            cleanup_tmp_directories=write,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpointer.close()

    def save(self, step: int, state: Any, dice: float) -> None:
        """Starts to save; the arrays may be donated as soon as this returns.

        Args:
          step: number of steps taken.
          state: tree of arrays.
          dice: validation score, higher is better; one that is not finite never becomes the best.
        """
        metrics: Any = {"dice": dice if math.isfinite(dice) else None}
        self._checkpointer.save_checkpointables_async(step, {"state": state}, metrics=metrics)

    def latest(self) -> int | None:
        """The newest complete step, or None."""
        found = self._checkpointer.latest
        return None if found is None else found.step

    def best(self) -> int | None:
        """The step with the highest validation score, or None."""
        self._checkpointer.wait()
        found = self._checkpointer.checkpoints
        return max(found, key=lambda entry: (_dice(entry.metrics), entry.step)).step if found else None

    def restore(self, step: int, abstract: Any) -> Any:
        """The state of a step.

        Args:
          abstract: tree of jax.ShapeDtypeStruct with the shardings that the arrays shall have.
        Raises: ConfigError if it cannot be read or is the state of another network.
        """
        hook = sys.unraisablehook
        sys.unraisablehook = partial(_drop_late_reads, hook)
        try:
            state = self._checkpointer.load_checkpointables(step, {"state": abstract})["state"]
        except Exception as error:  # orbax and what lies under it raise a dozen kinds for damage
            # Hook and filter stay: the other reads end when this has long been reported.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            reason = _first_line(_root(error))
            raise ConfigError(f"{self._folder / str(step)} cannot be restored: {reason}") from error
        sys.unraisablehook = hook
        return state


def _drop_late_reads(hook: Callable[[Any], None], unraisable: Any) -> None:
    """Says nothing of a read that ends, or never begins, after another one failed and closed their loop."""
    if not any(text in str(unraisable.exc_value) for text in ("Event loop is closed", "was never awaited")):
        hook(unraisable)


def _root(error: BaseException) -> BaseException:
    """What an exception began with."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    return error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _dice(metrics: Any) -> float:
    value = (metrics or {}).get("dice")
    return -math.inf if value is None else value


def abstract(tree: Any, shardings: Any) -> Any:
    """Shapes and dtypes of a tree, with the given shardings."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )
