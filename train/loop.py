"""A run, from a config to a trained network: all side effects, in order, readable top to bottom."""

import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from flaxunet.weights import store
from flaxunet.weights.store import StoreError
from train import dry_run
from train import weights as initial
from train.config.settings import Config, ConfigError
from train.data import batches as batching
from train.devices import machine
from train.devices import mesh as sharding
from train.devices import processes as distributed
from train.evaluation import evaluate
from train.setup import Setup, prepare
from train.show import page
from train.show import terminal as display
from train.show.watch import Tracker, Watch, spread
from train.step import State
from train.storage import folder as run_folder
from train.storage import lock
from train.storage import signals as stops
from train.storage.checkpoint import Checkpoints, abstract
from train.storage.log import Log, evaluations_without_gain
from train.storage.times import Times


class TrainingError(RuntimeError):
    """Training cannot go on; its message is one line."""


@dataclass(frozen=True)
class Result:
    """What a run leaves: its folder, the last row of metrics.jsonl (None if stopped), and its times."""

    run: Path
    test: dict[str, float] | None
    times: Times


Listener = Callable[[int, dict[str, Any]], None]
"""Is told of each step, in order: its number; loss, grad_norm and index (places in the train split)."""


def run(
    config: Config,
    console: Console | None = None,
    listener: Listener | None = None,
    ready: Callable[[], None] = lambda: None,
) -> Result:
    """Trains, evaluates and writes everything into the run's folder.

    Args:
      config: checked here; with `resume`, the rest of it must be the stored run's (see `checks.read`).
      console: where to report; nothing is printed without one.
      listener: told of each step when its numbers have arrived.
      ready: called when all that was given is found usable, before the first computation.
    Returns: where the results are.
    Raises: ConfigError or DataError before anything is written; TrainingError if the loss is not finite;
      SaveError if a checkpoint could not be written.
    """
    console = console or Console(quiet=True)
    started = time.perf_counter()
    setup = prepare(config)
    dataset, program, mesh = setup.dataset, setup.program, setup.mesh
    score = partial(evaluate, setup.eval_step, mesh=mesh, config=config, names=dataset.class_names)
    if config.run.dry_run:
        display.print_warnings(console, setup.warnings)
        dry_run.show(console, config, dataset, mesh, program, setup.shapes, setup.train_step)
        return Result(Path(config.run.out), None, Times())

    content = run_folder.content(config, dataset, program, setup.given and initial.about(*setup.given))
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stops.on_signal())
        tracker: Tracker | None = None  # in the first process only

        def take_folder() -> str:
            nonlocal tracker
            folder = Path(config.run.resume) if config.run.resume else run_folder.make_folder(config)
            stack.enter_context(lock.hold(folder))
            if config.run.resume:
                run_folder.check_same(folder, content)
            else:  # at once: from here on a killed run can be resumed
                run_folder.write_config(folder, content)
                run_folder.write_split(folder, dataset)
            tracker = stack.enter_context(Tracker(config, folder, content))
            return str(folder)

        ready()
        folder = Path(distributed.from_first(take_folder))
        checkpoints = stack.enter_context(
            Checkpoints(folder, write=True, keep=config.run.keep, config=content["config"])
        )
        state, start = _start(config, checkpoints, setup)
        if distributed.first():
            run_folder.write_config(folder, content)
        log = stack.enter_context(Log(folder, start, writes=distributed.first()))
        display.print_header(
            console,
            folder,
            config,
            dataset,
            mesh,
            parameters=_count(state["params"]),
            start=start,
            begins=setup.given and initial.describe(*setup.given),
            class_weights=program.class_weights,
        )
        display.print_warnings(console, setup.warnings)

        shown = spread(dataset.validation)
        pictures = None if tracker is None else Watch(folder, config, dataset, log, tracker)
        batches = sharding.prefetch(
            mesh,
            batching.train_batches(
                dataset.train,
                batch_size=config.optimization.batch_size,
                size=config.data.size,
                seed=config.optimization.seed,
                start=start,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
                threads=config.data.workers,
                foreground=config.data.foreground,
            ),
        )
        progress = stack.enter_context(
            display.Progress(console, config.optimization.steps, start, config.optimization.batch_size)
        )
        agreed = distributed.Agreement(mesh)
        step, times, unread, read = start, Times(), deque(), []

        def take_in(leave: int) -> None:
            """Reads the numbers of all steps but the last `leave`, for which the device may still work."""
            while len(unread) > leave:
                number, out = unread.popleft()
                found = jax.device_get(out)
                if listener is not None:
                    listener(number, found)
                loss, norm = float(found["loss"]), float(found["grad_norm"])
                if np.isfinite(loss) and np.isfinite(norm):
                    read.append({"loss": loss, "grad_norm": norm})
                    progress.step(loss)
                    continue
                names = [dataset.train[place]["name"] for place in found["index"]]
                what = f"step {number}: the loss is {loss}, the gradient's norm {norm}, on {', '.join(names)}"
                if found["skipped"] > config.run.skip_nonfinite:
                    raise _give_up(what, state, checkpoints, folder)
                progress.skipped(what)

        early = _hopeless(config, log)
        while not agreed(stop.requested) and step < config.optimization.steps and not early:
            step += 1
            began, busy = time.perf_counter(), time.thread_time()
            batch = next(batches)
            times.waiting.append(time.perf_counter() - began)
            with jax.transfer_guard("disallow"):  # an implicit copy would wait for the device
                state, out = (setup.held_step if step <= program.held else setup.train_step)(state, batch)
            unread.append((step, out))
            regular = step % config.run.eval_every == 0 or step == config.optimization.steps
            # One step late, so that the device already has the next one while this waits.
            take_in(0 if regular else 1)
            times.host.append(time.thread_time() - busy)
            times.whole.append(time.perf_counter() - began)
            if regular:
                progress.note("validating")
                found = score(state, dataset.validation, "val", keep=shown)
                row = {
                    "step": step,
                    **_means(read),
                    **found.row,
                    **progress.rate(),
                    "skipped_steps": int(jax.device_get(state["skipped"])),
                }
                read.clear()
                log.add(row)  # first: a checkpoint without its row would be a row lost
                checkpoints.save(step, state, row["val_dice"])
                if pictures is not None:
                    pictures.evaluated(row, found.predictions)
                progress.evaluated(row)
                early = _hopeless(config, log)
        take_in(0)
        progress.close()
        if agreed.reached:
            if step not in checkpoints.steps():
                # The latest, but no candidate for the best, which an uninterrupted run would not have had.
                checkpoints.save(step, state, None)
            stack.close()  # waits for the save, before anything is said of it
            display.print_stopped(console, folder, step)
            return Result(folder, None, times)

        if early and step < config.optimization.steps:
            display.print_early(console, step, config.run.patience)
        best = checkpoints.best()
        if best is None:
            raise TrainingError(f"{folder} has no checkpoint to test")
        state = checkpoints.restore(best, abstract(setup.shapes, setup.shardings))
        test = score(state, dataset.test, "test", keep=range(len(dataset.test)))
        row = {"step": step, "best_step": best, **test.row}
        kept = state.get("ema", state)
        model = program.model(distributed.gather({name: kept[name] for name in ("params", "rest")}))
        try:
            if distributed.first():
                store.save(model, folder / "model", source=run_folder.model_source(folder, row), replace=True)
        except StoreError as error:
            raise TrainingError(str(error)) from None
        log.add(row)
        if pictures is not None:
            pictures.tested(row, test.predictions)

    if not distributed.first():
        return Result(folder, row, times)
    ran = machine.ran(mesh.devices.flat, time.perf_counter() - started)
    page.write(folder, content, dataset, log.rows, test, ran)
    display.print_result(console, folder, dataset.class_names, test.confusion, best, times)
    return Result(folder, row, times)


def _start(config: Config, checkpoints: Checkpoints, setup: Setup) -> tuple[State, int]:
    """The state to begin with and the number of steps it has taken."""
    if not setup.begun and config.run.resume_step is None:
        state = setup.init()
        return (state if setup.given is None else initial.put(state, setup.given[1])), 0
    start = max(checkpoints.steps(), default=0) if config.run.resume_step is None else config.run.resume_step
    if start > config.optimization.steps:
        raise ConfigError(
            f"--steps is {config.optimization.steps}; expected at least {start}, where the run is"
        )
    state = checkpoints.restore(start, abstract(setup.shapes, setup.shardings))
    checkpoints.set_aside_after(start)
    return state, start


def _hopeless(config: Config, log: Log) -> bool:
    """Whether --patience is at its end, by the rows of process 0, which a resumed run has too."""
    if config.run.patience is None:
        return False
    waited = distributed.from_first(lambda: str(evaluations_without_gain(log.rows)))
    return int(waited) >= config.run.patience


def _give_up(what: str, state: State, checkpoints: Checkpoints, folder: Path) -> TrainingError:
    """Saves the state, which is still that before the step that was not finite, and says how to go on."""
    step = int(state["step"])
    if step not in checkpoints.steps():
        # The step that stopped the run was counted, and will be met again.
        checkpoints.save(step, {**state, "skipped": state["skipped"] - 1}, None)
    checkpoints.finish()
    return TrainingError(
        f"{what}; the state before it is kept as step {step}: go on with --resume {folder} and a higher "
        "--skip-nonfinite, or begin again with a lower --learning-rate or --clip"
    )


def _means(read: list[dict[str, float]]) -> dict[str, float]:
    """The means of the finite steps since the last evaluation."""
    names = ("loss", "grad_norm")
    return {f"train_{name}": float(np.mean([out[name] for out in read] or [np.nan])) for name in names}


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
