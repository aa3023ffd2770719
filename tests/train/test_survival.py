"""Killed, stopped, starved or damaged: a run says so in a line, loses nothing that was saved, and goes on."""

import ctypes
import json
import os
import resource
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.support.squares import make_data
from tests.support.survivor import Survivor
from train.config.settings import ConfigError
from train.storage.checkpoint import Checkpoints

pytestmark = [pytest.mark.survival, pytest.mark.long]

STEPS = 12
KILLS = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "squares")


@pytest.fixture
def start(folder, tmp_path):
    """Starts a run in tmp_path/run, or goes on with it."""

    def begin(*arguments, prepare=None, run="run", data=folder):
        where = ("--data", str(data), "--out", str(tmp_path), "--name", run, "--eval-every", "2")
        if "--resume" not in arguments:
            arguments = (*where, "--steps", str(STEPS), *arguments)
        return Survivor(arguments, tmp_path / f"{run}-process", prepare)

    return begin


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """An uninterrupted run that keeps every checkpoint, and the seconds that it took."""
    out = tmp_path_factory.mktemp("whole")
    arguments = ("--data", str(folder), "--out", str(out), "--name", "run", "--eval-every", "2")
    for _ in range(2):  # the first one compiles
        shutil.rmtree(out / "run", ignore_errors=True)
        survivor = Survivor((*arguments, "--steps", str(STEPS), "--keep", "1000"), out / "process")
        assert survivor.wait() == 0, survivor.output()
    return out / "run", survivor, time.monotonic() - survivor.began


def trace(survivor):
    """Loss and sample ids of each step; a step taken again must be the same again."""
    taken = {}
    for line in survivor.steps():
        assert taken.setdefault(line["step"], line) == line
    return taken


def rows(run):
    """metrics.jsonl, without what depends on the time."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if "second" not in key} for line in lines]


def about(run, step=None):
    with Checkpoints(run, write=False) as checkpoints:
        return checkpoints.about(checkpoints.steps()[-1] if step is None else step)


def says(survivor):
    """The last line, which must be the only one that is an error."""
    lines = survivor.output().strip().splitlines()
    assert not any("Traceback" in line for line in lines), survivor.output()
    assert sum(line.startswith("error: ") for line in lines) <= 1
    return lines[-1]


def test_killed_at_thirty_moments_it_ends_as_if_it_had_not_been(whole, start, tmp_path):
    run, uninterrupted, seconds = whole
    rng, killed = np.random.default_rng(0), 0
    while killed < KILLS:
        resumable = (tmp_path / "run" / "config.json").is_file()
        arguments = ("--resume", str(tmp_path / "run")) if resumable else ()
        survivor = start(*arguments)
        survivor.kill_after(rng.uniform(0.15, 0.75) * seconds)  # one that goes on has less to do
        if survivor.process.exitcode == 0:  # it was faster: begin again
            assert trace(survivor) == trace(uninterrupted)
            shutil.rmtree(tmp_path / "run")
            continue
        assert survivor.process.exitcode == -signal.SIGKILL, survivor.output()
        killed += 1
        folders = (tmp_path / "run" / "checkpoints").glob("*")
        complete = sorted(int(path.name) for path in folders if path.name.isdigit())
        for step in complete:
            try:
                digests = about(tmp_path / "run", step)["digests"]
            except ConfigError:  # one that was being removed
                assert step != complete[-1]
            else:
                assert digests == about(run, step)["digests"]
        if not (tmp_path / "run" / "config.json").is_file():
            shutil.rmtree(tmp_path / "run", ignore_errors=True)
    survivor = start(*(("--resume", str(tmp_path / "run")) if (tmp_path / "run").exists() else ()))
    assert survivor.wait() == 0, survivor.output()  # each restore compares every bit with its digest
    assert trace(survivor) == trace(uninterrupted)
    assert rows(tmp_path / "run") == rows(run)
    assert about(tmp_path / "run", STEPS)["digests"] == about(run, STEPS)["digests"]


def stop():
    os.kill(os.getpid(), signal.SIGTERM)


def stopped_in_compilation():
    """A signal while the step is traced for its compilation; the first tracing only checks shapes."""
    from train.augment import geometry

    augment, calls = geometry.augment, []

    def traced(*arguments, **options):
        calls.append(None)
        if len(calls) == 2:
            stop()
        return augment(*arguments, **options)

    geometry.augment = traced


def stopped_in_a_step():
    from train.data import batches as batching

    batches = batching.train_batches

    def stopping(*arguments, start, **options):
        for number, batch in enumerate(batches(*arguments, start=start, **options), start + 1):
            if number == 9:
                stop()
            yield batch

    batching.train_batches = stopping


def stopped_in_evaluation():
    from train.data import batches as batching

    batches, calls = batching.eval_batches, []

    def stopping(*arguments, **options):
        calls.append(None)
        for number, batch in enumerate(batches(*arguments, **options)):
            if len(calls) == 3 and number == 0:
                stop()
                stop()  # schedulers repeat themselves
            yield batch

    batching.eval_batches = stopping


def stopped_in_a_save():
    from train.storage.checkpoint import Checkpoints

    save = Checkpoints.save

    def stopping(self, step, *arguments):
        save(self, step, *arguments)
        if step == 8:
            stop()

    Checkpoints.save = stopping


def stopped_before_the_first_step():
    from train.show import terminal as display

    header = display.print_header

    def stopping(*arguments, **options):
        header(*arguments, **options)
        stop()

    display.print_header = stopping


@pytest.mark.parametrize(
    ("prepare", "saved"),
    [
        (stopped_before_the_first_step, (0,)),
        (stopped_in_compilation, (1,)),
        (stopped_in_a_step, (5, 6, 7, 8)),
        (stopped_in_evaluation, (6,)),
        (stopped_in_a_save, (8,)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_sigterm_saves_and_exits_with_0(prepare, saved, whole, start, tmp_path):
    run, uninterrupted, _ = whole
    survivor = start(prepare=prepare)
    assert survivor.wait() == 0, survivor.output()
    step = about(tmp_path / "run")["step"]
    assert step in saved
    assert f"stopped and saved at step {step}; go on with: python -m train --resume" in survivor.output()
    survivor = start("--resume", str(tmp_path / "run"))
    assert survivor.wait() == 0, survivor.output()
    assert trace(survivor) == trace(uninterrupted)
    assert about(tmp_path / "run", STEPS)["digests"] == about(run, STEPS)["digests"]


def full_disk(at):
    """No file may grow beyond 64 KiB from this step's save on."""
    from train.storage.checkpoint import Checkpoints

    save = Checkpoints.save

    def starved(self, step, *arguments):
        if step == at:
            self.finish()
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
        save(self, step, *arguments)

    Checkpoints.save = starved


@pytest.mark.parametrize("step", [8, STEPS])
def test_a_full_disk_fails_the_run_and_keeps_the_earlier_steps(step, whole, start, tmp_path):
    run, uninterrupted, _ = whole
    survivor = start(prepare=partial(full_disk, step))
    assert survivor.wait() == 1, survivor.output()
    assert f"checkpoints/{step} could not be saved: " in says(survivor)
    assert f"step {step - 2} is the last one saved" in says(survivor)
    assert about(tmp_path / "run")["step"] == step - 2
    survivor = start("--resume", str(tmp_path / "run"))
    assert survivor.wait() == 0, survivor.output()
    assert trace(survivor) == trace(uninterrupted)
    assert about(tmp_path / "run", STEPS)["digests"] == about(run, STEPS)["digests"]


def without_root():
    """Root may write everywhere; without its capabilities it is like everyone else."""
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def test_a_directory_that_cannot_be_written_is_named(start, whole, tmp_path):
    parent = tmp_path / "locked"
    parent.mkdir()
    parent.chmod(0o555)
    survivor = start("--out", str(parent), prepare=without_root)
    assert survivor.wait() == 2
    assert says(survivor) == f"error: --out: cannot make {parent / 'run'}: Permission denied"
    assert list(parent.iterdir()) == []

    copied = shutil.copytree(whole[0], tmp_path / "copy")
    (copied / "lock").unlink()
    copied.chmod(0o555)
    before = sorted(copied.rglob("*"))
    survivor = start("--resume", str(copied), "--steps", str(STEPS + 2), prepare=without_root)
    assert survivor.wait() == 2
    assert says(survivor) == f"error: {copied / 'lock'}: Permission denied"
    assert sorted(copied.rglob("*")) == before


def test_a_damaged_checkpoint_is_named_and_an_older_one_used_when_asked(whole, start, tmp_path):
    run, uninterrupted, _ = whole
    copied = shutil.copytree(run, tmp_path / "run")
    chunk = max(
        (path for path in (copied / "checkpoints" / str(STEPS)).rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 16
    chunk.write_bytes(content)
    survivor = start("--resume", str(copied))
    assert survivor.wait() == 2
    assert f"checkpoints/{STEPS} " in says(survivor)
    assert "(--resume-step)" in says(survivor)
    assert (copied / "checkpoints" / str(STEPS)).is_dir()

    survivor = start("--resume", str(copied), "--resume-step", str(STEPS + 1))
    assert survivor.wait() == 2
    survivor = start("--resume", str(copied), "--resume-step", str(STEPS - 4))
    assert survivor.wait() == 0, survivor.output()
    expected = trace(uninterrupted)
    assert trace(survivor) == {step: expected[step] for step in range(STEPS - 3, STEPS + 1)}
    assert about(copied, STEPS)["digests"] == about(run, STEPS)["digests"]
    assert sorted(path.name for path in (copied / "set-aside").iterdir()) == [str(STEPS - 2), str(STEPS)]


def poisoned():
    """The images of the fifth and the tenth step are not numbers."""
    from train.data import batches as batching

    batches = batching.train_batches

    def poisoning(*arguments, start, **options):
        for number, batch in enumerate(batches(*arguments, start=start, **options), start + 1):
            yield {**batch, "image": batch["image"] * np.float32(np.nan)} if number in (5, 10) else batch

    batching.train_batches = poisoning


def test_a_loss_that_is_not_finite_stops_the_run_before_it_did_harm(whole, start, folder, tmp_path):
    _, uninterrupted, _ = whole
    survivor = start("--keep", "1000", prepare=poisoned)
    assert survivor.wait() == 1
    fifth = next(line for line in survivor.steps() if line["step"] == 5)
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["data"]["train"]
    names = ", ".join(stored[place] for place in fifth["index"])
    assert f"step 5: the loss is nan, the gradient's norm nan, on {names}; the state before" in says(survivor)
    assert about(tmp_path / "run")["step"] == 4

    survivor = start("--resume", str(tmp_path / "run"), "--skip-nonfinite", "1", prepare=poisoned)
    assert survivor.wait() == 1
    assert "step 10: the loss is nan" in says(survivor)
    assert about(tmp_path / "run")["step"] == 9  # not a step that is evaluated, and saved all the same

    survivor = start("--resume", str(tmp_path / "run"), "--skip-nonfinite", "2", prepare=poisoned)
    assert survivor.wait() == 0, survivor.output()
    assert rows(tmp_path / "run")[-2]["skipped_steps"] == 2
    both = [trace(survivor), trace(uninterrupted)]
    assert [both[0][step] for step in range(1, 5)] == [both[1][step] for step in range(1, 5)]
    assert [line["index"] for line in both[0].values()] == [line["index"] for line in both[1].values()]
    assert np.isfinite(float.fromhex(both[0][STEPS]["loss"]))


def resting():
    """Stays at its third step until it is ended."""
    from train.data import batches as batching

    batches = batching.train_batches

    def slow(*arguments, **options):
        for number, batch in enumerate(batches(*arguments, **options)):
            if number == 8:
                time.sleep(600)
            yield batch

    batching.train_batches = slow


def test_a_second_run_in_the_folder_is_refused_until_the_first_is_dead(start, whole, tmp_path):
    first = start(prepare=resting)
    checkpoint = tmp_path / "run" / "checkpoints" / "2"
    while not checkpoint.is_dir():
        assert first.process.is_alive(), first.output()
        time.sleep(0.05)
    second = Survivor(("--resume", str(tmp_path / "run")), tmp_path / "second")
    assert second.wait() == 2
    assert f"error: {tmp_path / 'run'} is in use by process {first.process.pid} on " in says(second)
    first.kill_after(0)
    third = start("--resume", str(tmp_path / "run"))
    assert third.wait() == 0, third.output()
    assert trace(third) == trace(whole[1])


def yesterday():
    """A clock that was set back by a day."""
    now, precise = time.time, time.time_ns
    time.time = lambda: now() - 86_400
    time.time_ns = lambda: precise() - 86_400 * 10**9


def test_a_clock_set_back_changes_nothing(whole, start, tmp_path):
    run, uninterrupted, _ = whole
    assert start(prepare=stopped_in_a_save).wait() == 0
    survivor = start("--resume", str(tmp_path / "run"), prepare=yesterday)
    assert survivor.wait() == 0, survivor.output()
    assert trace(survivor) == trace(uninterrupted)
    assert rows(tmp_path / "run") == rows(run)
    kept = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == sorted({STEPS - 2, STEPS, rows(run)[-1]["best_step"]})


def vanishing():
    """The data's folder is gone after the third step."""
    from train.data import batches as batching
    from train.data import dataset as data

    load, batches, root = data.load, batching.train_batches, []

    def loading(settings, seed):
        root.append(Path(settings.folder))
        return load(settings, seed)

    def losing(*arguments, **options):
        for number, batch in enumerate(batches(*arguments, **options)):
            if number == 3:
                shutil.rmtree(root[0])
            yield batch

    data.load, batching.train_batches = loading, losing


def test_data_that_vanishes_is_in_memory_and_is_missed_on_resuming(start, folder, whole, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "squares")
    survivor = start(prepare=vanishing, data=copied)
    assert survivor.wait() == 0, survivor.output()
    assert trace(survivor) == trace(whole[1])
    survivor = start("--resume", str(tmp_path / "run"), "--steps", str(STEPS + 2))
    assert survivor.wait() == 2
    assert str(copied) in says(survivor)
    assert about(tmp_path / "run")["step"] == STEPS
