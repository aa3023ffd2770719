"""A run, from a config to a trained network: all side effects, in order, readable top to bottom."""

import contextlib
import json
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from flaxunet import store
from flaxunet.store import Stored
from train import config as configs
from train import data, display, dry_run, initial, machine, page, recipe, record, sharding
from train.checkpoint import Checkpoints, abstract
from train.config import Config, ConfigError
from train.evaluation import evaluate
from train.step import Program, State
from train.watch import Tracker, Watch


class TrainingError(RuntimeError):
    """Training cannot go on; its message is one line."""


@dataclass
class Times:
    """Where the loop's time goes, in seconds per step: the whole, waiting for data, and the host's own work.

    The host's is CPU time of this thread, in Python and in the runtime that starts the step for it.
    """

    whole: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)

    def waiting_share(self) -> float:
        """Fraction of the time in training steps spent waiting for a batch; the first step compiles."""
        return sum(self.waiting[1:]) / max(sum(self.whole[1:]), 1e-9)

    def host_ms(self) -> float:
        """Median over the steps, in milliseconds, without the first."""
        return 1e3 * float(np.median(self.host[1:] or self.host or [0.0]))


@dataclass(frozen=True)
class Result:
    """What a run leaves: its folder, the last row of metrics.jsonl (None if stopped), and its times."""

    run: Path
    test: dict[str, float] | None
    times: Times


def run(config: Config, console: Console | None = None) -> Result:
    """Trains, evaluates and writes everything into the run's folder.

    Args:
      config: checked here; with `resume`, the rest of it must be the stored run's (see `config.read`).
      console: where to report; nothing is printed without one.
    Returns: where the results are.
    Raises: ConfigError or DataError before anything is written; TrainingError if the loss is not finite.
    """
    console = console or Console(quiet=True)
    configs.check(config)
    started = time.perf_counter()
    mesh = sharding.make_mesh(config.devices, config.fsdp, config.batch_size)
    stored = initial.find(config)
    dataset = data.load(
        config.data,
        classes=config.classes,
        target=config.target,
        ignore_label=config.ignore_label,
        size=config.size,
        fit=config.fit,
        seed=config.seed,
        workers=config.workers,
    )
    spec = recipe.make_spec(config, dataset, _normalisation(config, stored, dataset.channels))
    taken = None if stored is None else initial.choose(config, stored, spec)
    begins = None if stored is None or taken is None else initial.about(stored, taken)
    program = recipe.make_program(config, dataset, spec)
    shapes = jax.eval_shape(program.init)
    _check_step(program, shapes, config, dataset.channels)

    shardings, whole = sharding.state(mesh, shapes), sharding.replicated(mesh)
    train_step = jax.jit(program.train_step(), donate_argnums=0, out_shardings=(shardings, whole))
    eval_step = jax.jit(
        program.eval_step(),
        out_shardings={
            **dict.fromkeys(("loss", "images", "confusion"), whole),
            "prediction": sharding.batch(mesh),
        },
    )
    score = partial(evaluate, eval_step, mesh=mesh, config=config, names=dataset.class_names)

    if config.dry_run:
        dry_run.show(console, config, dataset, mesh, program, shapes, train_step)
        return Result(Path(config.out), None, Times())

    content = record.content(config, dataset, program, begins)
    if config.resume:
        folder = Path(config.resume)
        record.check_same(folder, content)
    else:
        folder = record.make_folder(config)
    with contextlib.ExitStack() as stack:
        tracker = stack.enter_context(Tracker(config, folder, content))
        checkpoints = stack.enter_context(Checkpoints(folder, write=True))
        stop = stack.enter_context(_stop_signal())
        state, start = _start(config, checkpoints, program, mesh, shapes)
        state = state if taken is None else initial.put(state, taken)
        record.write(folder / "config.json", json.dumps(content, indent=1) + "\n")
        log = stack.enter_context(record.Log(folder, start))
        display.print_header(
            console,
            folder,
            config,
            dataset,
            mesh,
            parameters=_count(state["params"]),
            start=start,
            begins=None if stored is None or taken is None else initial.describe(stored, taken),
        )

        watch = Watch(folder, config, dataset, log, tracker)
        batches = sharding.prefetch(
            mesh,
            data.train_batches(
                dataset.train,
                batch_size=config.batch_size,
                size=config.size,
                seed=config.seed,
                start=start,
                threads=config.workers,
            ),
        )
        progress = stack.enter_context(display.Progress(console, config.steps, start, config.batch_size))
        step, times, unread, read = start, Times(), deque(), []
        for step in range(start + 1, config.steps + 1):
            began, busy = time.perf_counter(), time.thread_time()
            batch = next(batches)
            times.waiting.append(time.perf_counter() - began)
            with jax.transfer_guard("disallow"):  # an implicit copy would wait for the device
                state, out = train_step(state, batch)
            unread.append((step, out))
            regular = step % config.eval_every == 0 or step == config.steps
            last = step == config.steps or stop.requested
            # One step late, so that the device already has the next one while this waits.
            while len(unread) > (0 if regular or last else 1):
                read.append(_finite(*unread.popleft()))
                progress.step(read[-1]["loss"])
            times.host.append(time.thread_time() - busy)
            times.whole.append(time.perf_counter() - began)
            if regular or last:
                progress.note("validating")
                means = {f"train_{key}": float(np.mean([out[key] for out in read])) for key in read[0]}
                found = score(state, dataset.validation, "val", keep=watch.shown)
                row = {"step": step, **means, **found.row, **progress.rate()}
                read.clear()
                # A stop may come at any step: what it saves is the latest, but no candidate for the best,
                # which an uninterrupted run would not have had.
                checkpoints.save(step, state, row["val_dice"] if regular else float("nan"))
                log.add(row)
                watch.evaluated(row, found.predictions)
                progress.evaluated(row)
            if last:
                break
        progress.close()
        if step < config.steps:
            display.print_stopped(console, folder, step)
            return Result(folder, None, times)

        best = checkpoints.best()
        if best is None:
            raise TrainingError(f"{folder} has no checkpoint to test")
        state = checkpoints.restore(best, abstract(shapes, shardings))
        test = score(state, dataset.test, "test", keep=range(len(dataset.test)))
        row = {"step": config.steps, "best_step": best, **test.row}
        store.save(program.model(state), folder / "model", source=record.source(folder, row), replace=True)
        log.add(row)
        watch.tested(row, test.predictions)

    ran = machine.ran(mesh.devices.flat, time.perf_counter() - started)
    page.write(folder, content, dataset, log.rows, test, ran)
    display.print_result(console, folder, dataset.class_names, test.confusion, best, times)
    return Result(folder, row, times)


def _normalisation(config: Config, stored: Stored | None, channels: int) -> recipe.Normalisation | None:
    """Mean and std of the images: as the run began, or as the given weights expect; None: ImageNet's."""
    if config.resume:
        model = record.read(Path(config.resume))["model"]
        return tuple(model["mean"]), tuple(model["std"])
    return None if stored is None else stored.normalisation(channels)


def _check_step(program: Program, shapes: State, config: Config, channels: int) -> None:
    """Traces a step without computing it: what does not fit together is said before a folder is made."""
    square = (config.batch_size, config.size, config.size)
    batch = {
        "image": jax.ShapeDtypeStruct((*square, channels), jnp.float32),
        "label": jax.ShapeDtypeStruct(square, jnp.int32),
        "index": jax.ShapeDtypeStruct(square[:1], jnp.int32),
    }
    try:
        jax.eval_shape(program.train_step(), shapes, batch)
    except ValueError as error:
        raise ConfigError(str(error).splitlines()[0]) from error


def _start(
    config: Config, checkpoints: Checkpoints, program: Program, mesh: Mesh, shapes: State
) -> tuple[State, int]:
    """The state to begin with and the number of steps it has taken."""
    shardings = sharding.state(mesh, shapes)
    if not config.resume:
        return jax.jit(program.init, out_shardings=shardings)(), 0
    start = checkpoints.latest()
    if start is None:
        raise ConfigError(f"{config.resume} has no checkpoint; accepted is a run that was evaluated once")
    if start > config.steps:
        raise ConfigError(f"--steps is {config.steps}; the run is at step {start}, accepted are more")
    return checkpoints.restore(start, abstract(shapes, shardings)), start


def _finite(step: int, out: dict[str, jax.Array]) -> dict[str, float]:
    found = {key: float(value) for key, value in jax.device_get(out).items()}
    if not np.isfinite(found["loss"]):
        raise TrainingError(
            f"the loss is {found['loss']} at step {step}; try a lower --learning-rate or --clip"
        )
    return found


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@dataclass
class _Stop:
    requested: bool = False


@contextlib.contextmanager
def _stop_signal() -> Iterator[_Stop]:
    """Turns Ctrl-C and SIGTERM into a wish that the loop reads between steps; a second one interrupts."""
    stop = _Stop()

    def request(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python delivers signals to the main thread only
        return
    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
