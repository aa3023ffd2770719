"""Runs a training from a config to a trained network. `run` tells it in order, with all side effects."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from flaxunet.files import write_whole
from flaxunet.weights import store
from flaxunet.weights.store import StoreError
from train import dry_run
from train.config.settings import Config, ConfigError
from train.data import batches as batching
from train.devices import machine
from train.devices import mesh as sharding
from train.devices import processes as distributed
from train.evaluation import Scores, evaluate
from train.setup import Setup, prepare
from train.show import page
from train.show import terminal as display
from train.show.live import LivePictures, WandbRun, examples
from train.step import State
from train.storage import folder as run_folder
from train.storage import lock, signals
from train.storage.checkpoint import Checkpoints, abstract
from train.storage.log import Log, evaluations_without_gain
from train.storage.times import Times


class TrainingError(RuntimeError):
    """An error that ends training; its message is one line."""


@dataclass(frozen=True)
class Result:
    """The folder of a run, the last row of its metrics.jsonl (None if it was stopped), and its times."""

    run: Path
    test: dict[str, float] | None
    times: Times


# Takes the number of a step, and its loss, grad_norm and index (places in the train split).
Listener = Callable[[int, dict[str, Any]], None]


def run(
    config: Config,
    console: Console | None = None,
    listener: Listener = lambda *_: None,
    ready: Callable[[], None] = lambda: None,
) -> Result:
    """Trains, evaluates and writes everything into the run's folder.

    Args:
      config: checked here; with `resume`, the rest of it must be the stored run's (see `checks.read`).
      console: where to report; nothing is printed without one.
      listener, ready: called for each step when its numbers are there, and before the first computation.
    Raises: ConfigError or DataError before anything is written; TrainingError if the loss is not finite;
      SaveError if a checkpoint could not be written.
    """
    console, began = console or Console(quiet=True), time.perf_counter()
    setup = prepare(config)
    dataset, program, mesh = setup.dataset, setup.program, setup.mesh
    if config.run.dry_run:
        display.print_warnings(console, setup.warnings)
        dry_run.show(console, config, dataset, mesh, program, setup.shapes, setup.train_step)
        return Result(Path(config.run.out), None, Times())

    initial = setup.initial_weights
    content = run_folder.content(config, dataset, program, initial and initial.record())
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(signals.on_signal())
        ready()
        folder, wandb_run = _open_folder(setup, content, stack)
        stored = Checkpoints(folder, write=True, keep=config.run.keep, config=content["config"])
        checkpoints = stack.enter_context(stored)
        state, start = _first_state(setup, checkpoints)
        if distributed.first():  # once more, because a resumed run may have other settings
            run_folder.write_config(folder, content)
        log = stack.enter_context(Log(folder, start, writes=distributed.first()))
        display.print_header(
            console,
            folder,
            config,
            dataset,
            mesh,
            parameters=sum(leaf.size for leaf in jax.tree.leaves(state["params"])),
            start=start,
            begins=initial and str(initial),
            class_weights=program.class_weights,
        )
        display.print_warnings(console, setup.warnings)
        pictures = None if wandb_run is None else LivePictures(folder, config, dataset, log, wandb_run)
        steps, batch_size = config.optimization.steps, config.optimization.batch_size
        progress = stack.enter_context(display.Progress(console, steps, start, batch_size))
        times = Times()
        training = _Training(setup, folder, checkpoints, log, pictures, progress, listener, times)
        state, step, stopped = training.run(state, start, stop)
        progress.close()
        if stopped:
            if step not in checkpoints.steps():
                # The latest, but no candidate for the best, which an uninterrupted run would not have had.
                checkpoints.save(step, state, None)
            stack.close()  # waits for the save, before anything is said of it
            display.print_stopped(console, folder, step)
            return Result(folder, None, times)

        if step < steps:
            display.print_early(console, step, config.run.patience)
        test, row = _test(setup, folder, checkpoints, step)
        log.add(row)
        if pictures is not None:
            pictures.tested(row, test.predictions)

    if distributed.first():
        resources = machine.ran(mesh.devices.flat, time.perf_counter() - began)
        report = page.render(folder.resolve().name, content, dataset, log.rows, test, resources)
        write_whole(folder / "report.html", report.encode())
        display.print_result(console, folder, dataset.class_names, test.confusion, row["best_step"], times)
    return Result(folder, row, times)


def _open_folder(
    setup: Setup, content: dict[str, Any], stack: contextlib.ExitStack
) -> tuple[Path, WandbRun | None]:
    """Makes or reopens the run's folder and locks it, in the first process, which alone has a `WandbRun`."""
    config, resume, wandb_run = setup.config, setup.config.run.resume, None

    def open_folder() -> str:
        nonlocal wandb_run
        folder = Path(resume) if resume else run_folder.make_folder(config)
        stack.enter_context(lock.hold(folder))
        if resume:
            run_folder.check_same(folder, content)
        else:  # at once: from here on a killed run can be resumed
            run_folder.write_config(folder, content)
            run_folder.write_split(folder, setup.dataset)
        wandb_run = stack.enter_context(WandbRun(config, folder, content))
        return str(folder)

    return Path(distributed.from_first(open_folder)), wandb_run


def _first_state(setup: Setup, checkpoints: Checkpoints) -> tuple[State, int]:
    """Makes or restores the state that training starts from; returns it and the number of its steps."""
    step, steps = setup.config.run.resume_step, setup.config.optimization.steps
    if not setup.continues and step is None:
        state = setup.init()
        return (state if setup.initial_weights is None else setup.initial_weights.put_into(state)), 0
    start = max(checkpoints.steps(), default=0) if step is None else step
    if start > steps:
        raise ConfigError(f"--steps is {steps}, but the run is at step {start}; expected at least that many")
    state = checkpoints.restore(start, abstract(setup.shapes, setup.shardings))
    checkpoints.set_aside_after(start)
    return state, start


@dataclass
class _Training:
    """Takes the training steps of a run, with an evaluation and a checkpoint every --eval-every steps."""

    setup: Setup
    folder: Path
    checkpoints: Checkpoints
    log: Log
    pictures: LivePictures | None
    progress: display.Progress
    listener: Listener
    times: Times
    unread: deque[tuple[int, dict[str, jax.Array]]] = field(default_factory=deque)
    finite: list[tuple[float, float]] = field(default_factory=list)  # loss, gradient since an evaluation

    def run(self, state: State, start: int, stop: signals.Stop) -> tuple[State, int, bool]:
        """Trains to the last step, the end of --patience or a signal; returns last whether by a signal."""
        setup, times = self.setup, self.times
        steps, eval_every = setup.config.optimization.steps, setup.config.run.eval_every
        batches = self._batches(start)
        agreed = distributed.Agreement(setup.mesh)
        step, early = start, self._out_of_patience()
        while not agreed(stop.requested) and step < steps and not early:
            step += 1
            began, busy = time.perf_counter(), time.thread_time()
            batch = next(batches)
            times.waiting.append(time.perf_counter() - began)
            train_step = setup.frozen_step if step <= setup.program.frozen_steps else setup.train_step
            with jax.transfer_guard("disallow"):  # an implicit copy would wait for the device
                state, out = train_step(state, batch)
            self.unread.append((step, out))
            evaluates = step % eval_every == 0 or step == steps
            # One step late, so that the device already has the next one while this waits.
            self._read(0 if evaluates else 1, state)
            times.host.append(time.thread_time() - busy)
            times.whole.append(time.perf_counter() - began)
            if evaluates:
                self._evaluate(state, step)
                early = self._out_of_patience()
        self._read(0, state)
        return state, step, agreed.reached

    def _batches(self, start: int) -> Iterator[dict[str, jax.Array]]:
        """Prefetches this process's share of the batches that follow the first `start` ones."""
        data, optimization = self.setup.config.data, self.setup.config.optimization
        batches = batching.train_batches(
            self.setup.dataset.train,
            batch_size=optimization.batch_size,
            size=data.size,
            seed=optimization.seed,
            start=start,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            threads=data.workers,
            foreground=data.foreground,
        )
        return sharding.prefetch(self.setup.mesh, batches)

    def _read(self, leave: int, state: State) -> None:
        """Reads the numbers of all steps but the last `leave`, for which the device may still work.

        Raises: TrainingError if more of them are not finite than --skip-nonfinite allows.
        """
        while len(self.unread) > leave:
            step, out = self.unread.popleft()
            numbers = jax.device_get(out)
            self.listener(step, numbers)
            loss, norm = float(numbers["loss"]), float(numbers["grad_norm"])
            if np.isfinite(loss) and np.isfinite(norm):
                self.finite.append((loss, norm))
                self.progress.step(loss)
                continue
            names = [self.setup.dataset.train[place]["name"] for place in numbers["index"]]
            what = f"step {step}: the loss is {loss}, the gradient's norm {norm}, on {', '.join(names)}"
            if numbers["skipped"] > self.setup.config.run.skip_nonfinite:
                raise self._save_and_fail(what, state)
            self.progress.skipped(what)

    def _save_and_fail(self, what: str, state: State) -> TrainingError:
        """Saves the state, which is still that before the step that was not finite, and says how to go on."""
        step = int(state["step"])
        if step not in self.checkpoints.steps():
            # The step that stopped the run was counted, and will be met again.
            self.checkpoints.save(step, {**state, "skipped": state["skipped"] - 1}, None)
        self.checkpoints.finish()
        return TrainingError(
            f"{what}; the state before it is kept as step {step}: go on with --resume {self.folder} and a "
            "higher --skip-nonfinite, or begin again with a lower --learning-rate or --clip"
        )

    def _evaluate(self, state: State, step: int) -> None:
        """Evaluates on the validation split, and writes a row of metrics.jsonl and a checkpoint."""
        self.progress.note("validating")
        scores = evaluate(self.setup, state, "val", examples(self.setup.dataset.validation))
        losses, norms = zip(*(self.finite or [(np.nan, np.nan)]), strict=True)
        means = {"train_loss": float(np.mean(losses)), "train_grad_norm": float(np.mean(norms))}
        row = {
            "step": step,
            **means,
            **scores.row,
            **self.progress.rate(),
            "skipped_steps": int(jax.device_get(state["skipped"])),
        }
        self.finite.clear()
        self.log.add(row)  # first: a checkpoint without its row would be a row lost
        self.checkpoints.save(step, state, row["val_dice"])
        if self.pictures is not None:
            self.pictures.evaluated(row, scores.predictions)
        self.progress.evaluated(row)

    def _out_of_patience(self) -> bool:
        """Whether --patience is at its end, by the rows of process 0, which a resumed run has too."""
        if self.setup.config.run.patience is None:
            return False
        waited = distributed.from_first(lambda: str(evaluations_without_gain(self.log.rows)))
        return int(waited) >= self.setup.config.run.patience


def _test(setup: Setup, folder: Path, checkpoints: Checkpoints, step: int) -> tuple[Scores, dict[str, Any]]:
    """Evaluates the best checkpoint on the test split, stores its network as RUN/model, and makes the row."""
    best = checkpoints.best()
    if best is None:
        raise TrainingError(f"{folder} has no checkpoint to test")
    state = checkpoints.restore(best, abstract(setup.shapes, setup.shardings))
    scores = evaluate(setup, state, "test", range(len(setup.dataset.test)))
    row = {"step": step, "best_step": best, **scores.row}
    arrays = state.get("ema", state)
    model = setup.program.model(distributed.gather({name: arrays[name] for name in ("params", "rest")}))
    try:
        if distributed.first():
            store.save(model, folder / "model", source=run_folder.model_source(folder, row), replace=True)
    except StoreError as error:
        raise TrainingError(str(error)) from None
    return scores, row
