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
        digests = digest.of(state)
        kinds = {path: digest.kind(leaf) for path, leaf in digest.leaves(state).items()}
        about: Any = {"step": step, "dice": dice, "config": self._config, "kinds": kinds, "digests": digests}
        self._kept.dice[step] = dice
        try:
            self._writer = self._writer or self._open()
            response = self._writer.save_checkpointables_async(
                step, {"state": state}, custom_metadata={"about": about, "crc32": _checksum(about)}
            )
        except Exception as error:  # orbax raises many types
            raise self._save_error(step, error) from error
        if response is None:
            raise SaveError(f"{self._folder / str(step)} could not be saved")
        self._pending = step, response

    def _open(self) -> Any:
        """Opens orbax's writer, which would fail on a damaged description: such steps are set aside."""

        def set_damaged_aside() -> str:
            for step in self.steps():
                try:
                    self.about(step)
                except ConfigError:
                    self._set_aside(step)
            return ""

        distributed.from_first(set_damaged_aside)
        always: Any = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
        return ocp.training.Checkpointer(
            str(self._folder),
            save_decision_policy=always,
            preservation_policy=self._kept,
            cleanup_tmp_directories=True,
        )

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
        try:
            with _one_error_per_read():
                stored: Any = ocp.checkpointables_metadata(str(self._folder / str(step))).custom_metadata
        except Exception as error:  # orbax raises many types for damaged files
            raise self._unusable(step, f"cannot be restored: {_root_cause(error)}") from error
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
        about = self.about(step)
        kinds = {path: digest.kind(leaf) for path, leaf in digest.leaves(abstract).items()}
        if different := _different_leaves(about["kinds"], kinds):
            path = different[0]
            stored, expected = (tree.get(path, "nothing") for tree in (about["kinds"], kinds))
            problem = f"is of another network: {path} is {stored}; expected {expected}"
            raise self._unusable(step, problem + _and_more(different))
        try:
            with _one_error_per_read():
                state = ocp.load_checkpointables(str(self._folder / str(step)), {"state": abstract})["state"]
        except Exception as error:  # orbax raises many types for damaged files
            raise self._unusable(step, f"cannot be restored: {_root_cause(error)}") from error
        if different := _different_leaves(about["digests"], digest.of(state)):
            problem = f"is damaged: {different[0]} does not have its stored digest"
            raise self._unusable(step, problem + _and_more(different))
        return state

    def set_aside_after(self, step: int) -> None:
        """Moves later steps into RUN/set-aside, so that they can be trained and saved anew."""

        def move() -> str:
            for later in [other for other in self.steps() if other > step]:
                self._set_aside(later)
            return ""

        distributed.from_first(move)

    def _set_aside(self, step: int) -> None:
        target = self._folder.with_name("set-aside") / str(step)
        while target.exists():
            target = target.with_name(target.name + "~")
        target.parent.mkdir(exist_ok=True)
        (self._folder / str(step)).rename(target)

    def _unusable(self, step: int, problem: str) -> ConfigError:
        return ConfigError(f"{self._folder / str(step)} {problem}{self._others(step)}")

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
        def rank(step: int) -> tuple[float, int]:
            dice = self.dice.get(step)
            return (-math.inf if dice is None else dice), step

        return max(steps, key=rank, default=None)

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


def _and_more(paths: Sequence[str]) -> str:
    return f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""


@contextlib.contextmanager
def _one_error_per_read() -> Iterator[None]:
    """Silences the errors of orbax's other concurrent reads once one of them has failed.

    Hook and filter stay after that, because these reads end when the first error has long been reported.
    """
    if getattr(sys.unraisablehook, "func", None) is not _drop_late_reads:
        sys.unraisablehook = partial(_drop_late_reads, sys.unraisablehook)
    try:
        yield
    except Exception:
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        raise


def _drop_late_reads(hook: Callable[[Any], None], unraisable: Any) -> None:
    """Ignores a read that failed, was cancelled or never started after another one had failed."""
    message = str(unraisable.exc_value)
    late = ("Event loop is closed", "was never awaited", "Encountered error while reading array index")
    if not any(text in message for text in late):
        hook(unraisable)


def _root_cause(error: BaseException) -> str:
    """The first line of the error that an exception started with."""
    *_, first = causes(error)
    return first_line(first)


def abstract(tree: Any, shardings: Any) -> Any:
    """Describes the arrays of a tree by shape, dtype and sharding."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )
