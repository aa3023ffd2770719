"""Saves and restores the state of a run: the latest steps and the best. The only file that imports orbax."""

import contextlib
import json
import logging
import math
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from flaxunet.files import causes, first_line
from train.config.settings import ConfigError
from train.devices import processes as distributed
from train.storage import digest

try:
    from orbax.checkpoint import v1 as ocp
except ImportError:  # before it left "experimental"
    from orbax.checkpoint.experimental import v1 as ocp


class SaveError(RuntimeError):
    """Raised when a state cannot be saved; its message is one line."""


class Checkpoints:
    """The folder RUN/checkpoints: one folder per step, written in the background, complete or absent.

    Each state is saved with a description: the run's config, and the dtype, shape and digest of every leaf,
    protected by a checksum. Steps are ordered by their numbers, never by a clock.

    Use as a context manager: leaving it waits for the last save and raises its error, if any.

    Args:
      run: folder of the run.
      write: whether to save. Only one writer may be open: it removes what an earlier one left unfinished.
      keep: number of the latest steps to keep, besides the best one; None keeps all.
      config: of the run, as JSON; saved with each state.
    Raises: ConfigError if there is nothing to read and `write` is false.
    """

    def __init__(
        self, run: Path, *, write: bool, keep: int | None = None, config: Mapping[str, Any] | None = None
    ):
        self._folder = (run / "checkpoints").absolute()
        if not write and not self._folder.is_dir():
            raise ConfigError(f"{run} has no checkpoint")
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax reports every file
        self._config, self._writer, self._pending = config, None, None
        self._kept = _LatestAndBest(keep, {})
        for step in self.steps():
            with contextlib.suppress(ConfigError):  # a damaged step is reported when it is restored
                self._kept.dice[step] = self.about(step)["dice"]

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and jax.process_count() > 1:
            return  # a save needs all processes, and the others may not have failed
        try:
            self.finish()
        finally:
            if self._writer is not None:
                with contextlib.suppress(Exception):  # repeats the error of a failed save
                    self._writer.close()

    def save(self, step: int, state: Any, dice: float | None) -> None:
        """Starts a save in the background; the arrays may be donated as soon as this returns.

        Args:
          step: number of steps taken.
          state: tree of arrays.
          dice: validation score; a step whose score is None or not finite never becomes the best.
        Raises: SaveError if this save cannot start or the previous one failed.
        """
        self.finish()
        dice = dice if dice is not None and math.isfinite(dice) else None
        about = {"step": step, "dice": dice, "config": self._config}
        about |= {"kinds": digest.kinds(state), "digests": digest.of(state)}
        record: Any = {"about": about, "crc32": _checksum(about)}
        try:
            self._writer = self._writer or self._open()
            self._kept.dice[step] = dice
            response = self._writer.save_checkpointables_async(step, {"state": state}, custom_metadata=record)
        except Exception as error:  # orbax raises many types
            raise self._save_error(step, error) from error
        if response is None:
            raise SaveError(f"{self._folder / str(step)} could not be saved")
        self._pending = step, response

    def _open(self) -> Any:
        """Opens orbax's writer, which would fail on a damaged description: such steps are set aside."""
        self._set_aside(lambda step: step not in self._kept.dice)
        always = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
        policies: Any = {"save_decision_policy": always, "preservation_policy": self._kept}
        return ocp.training.Checkpointer(str(self._folder), cleanup_tmp_directories=True, **policies)

    def finish(self) -> None:
        """Waits for the pending save, if any; raises SaveError if it failed."""
        if self._pending is None:
            return
        (step, response), self._pending = self._pending, None
        with distributed.Together() as together:
            try:
                response.result()
            except Exception as error:
                raise self._save_error(step, error) from error
            if distributed.first() and not (self._folder / str(step)).is_dir():
                raise SaveError(f"{self._folder / str(step)} was saved, but is not there")
            together()

    def _save_error(self, step: int, error: Exception) -> SaveError:
        kept = [other for other in self.steps() if other != step]
        last = f"; step {kept[-1]} is the last one saved" if kept else ""
        return SaveError(f"{self._folder / str(step)} could not be saved: {_root_cause(error)}{last}")

    def steps(self) -> list[int]:
        """Lists the complete steps and the one that is being saved, in ascending order."""
        steps = {int(path.name) for path in self._folder.glob("*") if path.name.isdigit()}
        return sorted(steps if self._pending is None else steps | {self._pending[0]})

    def best(self) -> int | None:
        """Returns the step with the highest validation score, the later of equals; None without a step."""
        self.finish()
        return self._kept.best(self.steps())

    def about(self, step: int) -> dict[str, Any]:
        """Reads the description of a state: step, dice, config, and the kind and digest of every leaf.

        Raises: ConfigError if it is damaged or there is no such step.
        """
        if step not in self.steps():
            raise ConfigError(f"{self._folder} has no step {step}{self._others(step)}")
        with self._reading(step) as path:
            stored: Any = ocp.checkpointables_metadata(path).custom_metadata
        if not isinstance(stored, dict) or stored.get("crc32") != _checksum(stored.get("about")):
            raise self._unusable(step, "cannot be restored: its description is damaged")
        return stored["about"]

    def restore(self, step: int, abstract: Any) -> Any:
        """Restores the state of a step, bit for bit.

        Args:
          step: one of `steps`.
          abstract: tree of jax.ShapeDtypeStruct with the shardings of the arrays to be made, on any mesh.
        Returns: tree of arrays.
        Raises: ConfigError that names the step, and the array if it can, if the step cannot be read, is
          damaged or is the state of another network.
        """
        about, kinds = self.about(step), digest.kinds(abstract)
        if paths := _different_leaves(about["kinds"], kinds):
            stored, expected = (tree.get(paths[0], "nothing") for tree in (about["kinds"], kinds))
            problem = f"is of another network: {paths[0]} is {stored}; expected {expected}"
            raise self._unusable(step, problem, paths)
        with self._reading(step) as path:
            state = ocp.load_checkpointables(path, {"state": abstract})["state"]
        if paths := _different_leaves(about["digests"], digest.of(state)):
            raise self._unusable(step, f"is damaged: {paths[0]} does not have its stored digest", paths)
        return state

    def set_aside_after(self, step: int) -> None:
        """Moves later steps into RUN/set-aside, so that they can be trained and saved anew."""
        self._set_aside(lambda other: other > step)

    def _set_aside(self, chosen: Callable[[int], bool]) -> None:
        def move() -> None:
            for step in filter(chosen, self.steps()):
                target = self._folder.with_name("set-aside") / str(step)
                while target.exists():
                    target = target.with_name(target.name + "~")
                target.parent.mkdir(exist_ok=True)
                (self._folder / str(step)).rename(target)

        distributed.from_first(move)

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[str]:
        """Yields the path of a step; an error becomes one ConfigError.

        Orbax's other concurrent reads fail after the first one. They are silenced by a hook and a filter that
        stay, because these reads end when the first error has long been reported.
        """
        if getattr(sys.unraisablehook, "func", None) is not _drop_late_reads:
            sys.unraisablehook = partial(_drop_late_reads, sys.unraisablehook)
        try:
            yield str(self._folder / str(step))
        except Exception as error:  # orbax raises many types for damaged files
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            raise self._unusable(step, f"cannot be restored: {_root_cause(error)}") from error

    def _unusable(self, step: int, problem: str, paths: Sequence[str] = ()) -> ConfigError:
        more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
        return ConfigError(f"{self._folder / str(step)} {problem}{more}{self._others(step)}")

    def _others(self, step: int) -> str:
        """Lists the other steps for a message."""
        others = [str(other) for other in self.steps() if other != step]
        return f"; also kept: {', '.join(others)} (--resume-step)" if others else ""


@dataclass(frozen=True)
class _LatestAndBest:
    """Orbax's preservation policy: keeps the latest `keep` steps (None: all) and the best by `dice`."""

    keep: int | None
    dice: dict[int, float | None]

    def best(self, steps: Sequence[int]) -> int | None:
        scores = {step: self.dice.get(step) for step in steps}
        ranks = {step: (-math.inf if score is None else score, step) for step, score in scores.items()}
        return max(steps, key=ranks.__getitem__, default=None)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        steps = sorted(checkpoint.step for checkpoint in checkpoints)
        kept = {self.best(steps), *steps[-(self.keep or len(steps)) :]}
        return [checkpoint.step in kept for checkpoint in checkpoints]


def _checksum(about: Any) -> int:
    return zlib.crc32(json.dumps(about, sort_keys=True).encode())


def _different_leaves(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """The paths whose values differ; those that are only stored come last."""
    paths = sorted(stored.keys() | current.keys(), key=lambda path: (path not in current, path))
    return [path for path in paths if stored.get(path) != current.get(path)]


def _drop_late_reads(hook: Callable[[Any], None], unraisable: Any) -> None:
    """Ignores a read that failed, was cancelled or never started after another one had failed."""
    late = ("Event loop is closed", "was never awaited", "Encountered error while reading array index")
    if not any(text in str(unraisable.exc_value) for text in late):
        hook(unraisable)


def _root_cause(error: BaseException) -> str:
    """The first line of the error that an exception started with."""
    return first_line([*causes(error)][-1])


def abstract(tree: Any, shardings: Any) -> Any:
    """Describes the arrays of a tree by shape, dtype and sharding."""
    return jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), tree, shardings)
