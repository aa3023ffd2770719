"""Keeps the latest and the best state of a run on disk. The only file that imports orbax."""

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
    """A state that could not be saved; its message is one line."""


class Checkpoints:
    """The folder RUN/checkpoints: one folder per step, written in the background, whole or not there at all.

    With each state goes what it is (the config, and every leaf's dtype, shape and digest), itself under a
    checksum. Order is that of the step numbers; no clock decides anything.

    Use as a context manager: leaving it waits for the last save and raises what went wrong with it.

    Args:
      run: the run's folder.
      write: whether to save. Only one writer may be open: it clears away what an earlier one left unfinished.
      keep: how many of the latest stay; the best one stays besides.
      config: of the run, as JSON; kept with each state.
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
            with contextlib.suppress(ConfigError):  # a damaged one is named when it is asked for
                self._kept.dice[step] = self.about(step)["dice"]

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and jax.process_count() > 1:
            return  # a save needs all processes, and the others may know of no error
        try:
            self.finish()
        finally:
            if self._writer is not None:
                with contextlib.suppress(Exception):  # says once more why a save failed
                    self._writer.close()

    def save(self, step: int, state: Any, dice: float | None) -> None:
        """Starts to save; the arrays may be donated as soon as this returns.

        Args:
          step: number of steps taken.
          state: tree of arrays.
          dice: validation score, higher is better; one that is None or not finite never becomes the best.
        Raises: SaveError if this save cannot begin or the one before it failed.
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
        except Exception as error:  # as in restore
            raise self._unsaved(step, error) from error
        if response is None:
            raise SaveError(f"{self._folder / str(step)} could not be saved")
        self._pending = step, response

    def _open(self) -> Any:
        """Orbax's writer. It reads every description, and one that it cannot read would end the run."""

        def clear() -> str:
            for step in self.steps():
                try:
                    self.about(step)
                except ConfigError:
                    self._set_aside(step)
            return ""

        distributed.from_first(clear)
        always: Any = ocp.training.save_decision_policies.FixedIntervalPolicy(1)
        return ocp.training.Checkpointer(
            str(self._folder),
            save_decision_policy=always,
            preservation_policy=self._kept,
            cleanup_tmp_directories=True,
        )

    def finish(self) -> None:
        """Waits for the save that goes on, if any, and raises SaveError if it failed."""
        if self._pending is None:
            return
        (step, response), self._pending = self._pending, None
        with distributed.Together() as together:
            try:
                response.result()
            except Exception as error:
                raise self._unsaved(step, error) from error
            if distributed.first() and not (self._folder / str(step)).is_dir():
                raise SaveError(f"{self._folder / str(step)} was saved, but is not there")
            together()

    def _unsaved(self, step: int, error: Exception) -> SaveError:
        kept = [other for other in self.steps() if other != step]
        last = f"; step {kept[-1]} is the last one saved" if kept else ""
        return SaveError(f"{self._folder / str(step)} could not be saved: {_began(error)}{last}")

    def steps(self) -> list[int]:
        """The complete steps, ascending; one that is being saved counts."""
        found = {int(path.name) for path in self._folder.glob("*") if path.name.isdigit()}
        return sorted(found if self._pending is None else found | {self._pending[0]})

    def best(self) -> int | None:
        """The step with the highest validation score, the later one of equals, or None."""
        self.finish()
        return self._kept.best(self.steps())

    def about(self, step: int) -> dict[str, Any]:
        """What is kept with a state: step, dice, config, and every leaf's kind and digest.

        Raises: ConfigError if it is damaged or there is no such step.
        """
        if step not in self.steps():
            raise ConfigError(f"{self._folder} has no step {step}{self._others(step)}")
        try:
            with _late_reads_unheard():
                stored: Any = ocp.checkpointables_metadata(str(self._folder / str(step))).custom_metadata
        except Exception as error:  # as in restore
            raise self._unusable(step, f"cannot be restored: {_began(error)}") from error
        if not isinstance(stored, dict) or stored.get("crc32") != _checksum(stored.get("about")):
            raise self._unusable(step, "cannot be restored: its description is damaged")
        return stored["about"]

    def restore(self, step: int, abstract: Any) -> Any:
        """The state of a step, with every bit as it was saved.

        Args:
          abstract: tree of jax.ShapeDtypeStruct with the shardings that the arrays shall have, on any mesh.
        Raises: ConfigError that names the step and, where it can, the array, if it cannot be read, is damaged
          or is the state of another network.
        """
        about = self.about(step)
        wanted = {path: digest.kind(leaf) for path, leaf in digest.leaves(abstract).items()}
        self._same(step, about["kinds"], wanted, "is of another network")
        try:
            with _late_reads_unheard():
                state = ocp.load_checkpointables(str(self._folder / str(step)), {"state": abstract})["state"]
        except Exception as error:  # orbax and what lies under it raise a dozen kinds for damage
            raise self._unusable(step, f"cannot be restored: {_began(error)}") from error
        self._same(step, about["digests"], digest.of(state), "is damaged")
        return state

    def set_aside_after(self, step: int) -> None:
        """Moves the steps after this one into RUN/set-aside, so that they can be taken again."""

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

    def _same(self, step: int, stored: Mapping[str, Any], found: Mapping[str, Any], problem: str) -> None:
        """Raises ConfigError that names the first leaf that differs."""
        paths = sorted(stored.keys() | found.keys(), key=lambda path: (path not in found, path))
        differing = [path for path in paths if stored.get(path) != found.get(path)]
        if differing:
            path = differing[0]
            there, here = (tree.get(path, "nothing") for tree in (stored, found))
            more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
            raise self._unusable(step, f"{problem}: {path} is {there} there and {here} here{more}")

    def _unusable(self, step: int, why: str) -> ConfigError:
        return ConfigError(f"{self._folder / str(step)} {why}{self._others(step)}")

    def _others(self, step: int) -> str:
        """What a message says of the other steps."""
        others = [str(other) for other in self.steps() if other != step]
        return f"; also kept: {', '.join(others)} (--resume-step)" if others else ""


@dataclass(frozen=True)
class _LatestAndBest:
    """Which steps stay: the latest `keep` (None: all), and the best by `dice`."""

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


@contextlib.contextmanager
def _late_reads_unheard() -> Iterator[None]:
    """Reads many arrays at once: when one fails, nothing more is said of the others."""
    # Hook and filter stay: the other reads end when the first has long been reported.
    if getattr(sys.unraisablehook, "func", None) is not _drop_late_reads:
        sys.unraisablehook = partial(_drop_late_reads, sys.unraisablehook)
    try:
        yield
    except Exception:
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        raise


def _drop_late_reads(hook: Callable[[Any], None], unraisable: Any) -> None:
    """Says nothing of a read that ends, is cut off or never begins after another one failed."""
    told = str(unraisable.exc_value)
    late = ("Event loop is closed", "was never awaited", "Encountered error while reading array index")
    if not any(text in told for text in late):
        hook(unraisable)


def _began(error: BaseException) -> str:
    """A line of what an exception began with."""
    *_, first = causes(error)
    return first_line(first)


def abstract(tree: Any, shardings: Any) -> Any:
    """Shapes and dtypes of a tree, with the given shardings."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )
