"""Two real processes of two devices each, on this machine: they train as one, and end together."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from flaxunet.files import causes
from tests.support.squares import make_data
from train.__main__ import main
from train.devices import processes as distributed

ROOT = Path(__file__).parents[3]
PATIENCE = 600  # seconds; only a hang takes so long, whatever else the machine does
SETTINGS = {
    "arch": "unet",
    "encoder": "plain",
    "steps": 4,
    "eval_every": 1,
    "batch_size": 8,
    "size": 32,
    "workers": 1,
    "augment": "none",
    "peer_timeout": PATIENCE,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("squares"), side=8)


def environment(devices):
    """Virtual devices; what was compiled is shared, also with later runs."""
    cache = ROOT / ".pytest_cache" / "jax"
    own = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": devices, "JAX_COMPILATION_CACHE_DIR": cache}
    own["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiles in a fraction of the time
    return {**os.environ, **{key: str(value) for key, value in own.items()}}


@pytest.fixture
def launch():
    """Starts processes that train together, and kills at the end what still runs."""
    started = []

    def start(processes, devices, *each, **settings):
        """`each`: further arguments, a list for every process."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = ["--coordinator", f"127.0.0.1:{free.getsockname()[1]}", "--num-processes", str(processes)]
        flags = [f"--{key.replace('_', '-')}={value}" for key, value in {**SETTINGS, **settings}.items()]
        for number in range(processes):
            more = [*place, "--process-id", str(number)] if processes > 1 else []
            command = [
                sys.executable,
                "-m",
                "tests.support.peer",
                *flags,
                *more,
                *(each[number] if each else []),
            ]
            started.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment(devices),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return started[-processes:]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ends(processes, *codes):
    """What processes print on both streams, once they have ended with these codes."""
    texts = [process.communicate(timeout=PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == list(codes), texts
    return texts


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def await_rows(run, processes, count=2):
    """Waits until a run was evaluated `count` times."""
    end = time.monotonic() + PATIENCE
    while not (run / "metrics.jsonl").exists() or len(rows(run)) < count:
        assert time.monotonic() < end
        assert all(process.poll() is None for process in processes), [p.communicate() for p in processes]
        time.sleep(0.1)


def kept(run):
    return sorted(int(path.name) for path in (run / "checkpoints").iterdir())


def assert_same(ours, theirs):
    """Losses within 1e-6, and what is counted in pixels exactly."""
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for ours_row, theirs_row in zip(ours, theirs, strict=True):
        for key, value in theirs_row.items():
            if key.endswith("_loss"):
                assert ours_row[key] == pytest.approx(value, rel=1e-6), key
            elif "dice" in key:
                assert ours_row[key] == pytest.approx(value, abs=1e-3), key  # a pixel may lie on the edge


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """One process with four devices, and where it wrote."""
    out = tmp_path_factory.mktemp("alone")
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in SETTINGS.items()]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.peer",
            *flags,
            f"--data={folder}",
            f"--out={out}",
            "--name=run",
        ],
        cwd=ROOT,
        env=environment(4),
        check=True,
        timeout=PATIENCE,
    )
    return out / "run"


@pytest.mark.survival
@pytest.mark.parametrize("fsdp", [1, 4])
def test_two_processes_train_as_one_does(fsdp, alone, folder, launch, tmp_path):
    processes = launch(2, 2, data=folder, out=tmp_path, name="run", fsdp=fsdp)
    (said, _), (silent, _) = ends(processes, 0, 0)
    assert re.search(r"processes +2\b", said)
    assert "4 x cpu" in said
    assert all(line.startswith("[Gloo]") for line in silent.splitlines())  # the runtime's own, not ours
    run = tmp_path / "run"
    assert np.ptp([row["train_loss"] for row in rows(alone)[:-1]]) > 1e-3  # else agreeing says nothing
    assert_same(rows(run), rows(alone))
    assert {path.name for path in alone.iterdir() if "tfevents" not in path.name} <= {
        path.name for path in run.iterdir()
    }
    stored = json.loads((run / "config.json").read_text())["config"]
    assert not {"coordinator", "process_id"} & set(stored)


@pytest.mark.survival
@pytest.mark.parametrize(("before", "after"), [((2, 2), (1, 2)), ((1, 4), (2, 1))], ids=["to one", "to two"])
def test_a_run_goes_on_with_another_number_of_processes(before, after, alone, folder, launch, tmp_path):
    settings = {"data": folder, "out": tmp_path, "name": "run"}
    ends(launch(*before, **settings, steps=2, fsdp=4), *[0] * before[0])
    ends(launch(*after, **settings, resume=tmp_path / "run", fsdp=after[1]), *[0] * after[0])
    for ours, theirs in zip(rows(tmp_path / "run")[2:4], rows(alone)[2:4], strict=True):
        assert ours["step"] == theirs["step"]
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)


@pytest.mark.survival
@pytest.mark.parametrize("told", [1, 0])
def test_a_notice_to_one_process_stops_all_at_the_same_step(told, folder, launch, tmp_path):
    processes = launch(2, 2, data=folder, out=tmp_path, name="run", steps=100000, eval_every=3)
    await_rows(tmp_path / "run", processes)
    processes[told].send_signal(signal.SIGTERM)
    (said, _), _ = ends(processes, 0, 0)
    last = max(kept(tmp_path / "run"))
    assert f"stopped and saved at step {last}" in said
    assert all((tmp_path / "run" / "checkpoints" / str(last)).iterdir())


@pytest.mark.survival
@pytest.mark.parametrize("killed", [1, 0])
def test_a_killed_process_ends_the_other(killed, folder, launch, tmp_path):
    processes = launch(2, 2, data=folder, out=tmp_path, name="run", steps=100000)
    await_rows(tmp_path / "run", processes)
    processes[killed].kill()
    codes = (1, -signal.SIGKILL) if killed else (-signal.SIGKILL, 1)
    (_, errors) = ends(processes, *codes)[1 - killed]
    assert "error: another process of this run has ended or cannot be reached" in errors
    assert "Traceback" not in errors


@pytest.mark.survival
@pytest.mark.parametrize("silent", [1, 0])
def test_a_silent_process_ends_the_other(silent, folder, launch, tmp_path):
    processes = launch(2, 2, data=folder, out=tmp_path, name="run", steps=100000, peer_timeout=20)
    await_rows(tmp_path / "run", processes)
    processes[silent].send_signal(signal.SIGSTOP)
    _, errors = processes[1 - silent].communicate(timeout=PATIENCE)
    assert processes[1 - silent].returncode == 1
    assert "error: another process of this run has ended or cannot be reached" in errors.splitlines()[-1]


@pytest.mark.survival
@pytest.mark.parametrize("wrong", [1, 0])
def test_what_one_process_cannot_use_ends_all(wrong, folder, launch, tmp_path):
    shutil.copytree(folder, tmp_path / "data")
    (tmp_path / "data" / "masks" / "03.png").unlink()
    each = [[f"--data={folder}"], [f"--data={folder}"]]
    each[wrong] = [f"--data={tmp_path / 'data'}"]
    texts = [errors for _, errors in ends(launch(2, 2, *each, out=tmp_path / "runs"), 2, 2)]
    assert texts[wrong].count("error: ") == 1
    assert "03" in texts[wrong]
    assert "error" not in texts[1 - wrong]
    assert not (tmp_path / "runs").exists()


@pytest.mark.survival
def test_a_taken_name_and_other_devices_are_refused_by_all(folder, launch, tmp_path):
    (tmp_path / "run").mkdir()
    for flag, message in (
        ("--name=run", "run exists"),
        ("--devices=3", "--devices is 3; expected 4"),
    ):
        processes = launch(2, 2, [flag], [flag], data=folder, out=tmp_path)
        texts = [errors for _, errors in ends(processes, 2, 2)]
        assert sum(errors.count("error: ") for errors in texts) == 1
        assert message in texts[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--process-id=0"], "--process-id is 0"),
        (["--num-processes=2"], "--num-processes is 2"),
        (["--coordinator=here"], "--coordinator is 'here'"),
        (["--coordinator=here:1"], "--coordinator: expected together with --num-processes and --process-id"),
        (
            ["--coordinator=here:1", "--num-processes=2", "--process-id=2"],
            "--process-id is 2",
        ),
        (
            ["--coordinator=here:1", "--distributed"],
            "--distributed and --coordinator: expected only one of them",
        ),
        (["--peer-timeout=0"], "--peer-timeout is 0"),
    ],
)
def test_what_is_said_wrong_of_the_processes_is_named(arguments, message, capsys):
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_without_a_cluster_there_is_none_to_join():
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "OMPI"))}
    done = subprocess.run(
        [sys.executable, "-m", "train", "--distributed"],
        cwd=ROOT,
        env={**environment, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --distributed: coordinator_address should be defined")


def test_one_process_agrees_with_itself():
    assert distributed.exchange("word") == ["word"]
    assert distributed.from_first(lambda: "name") == "name"
    with pytest.raises(KeyError), distributed.Together():
        raise KeyError("mine")


def test_causes_that_go_in_a_circle_are_told_once():
    first, second = OSError("full"), ValueError("unsaved")
    second.__cause__, first.__context__ = first, second  # as raising the first again makes them
    assert list(causes(second)) == [second, first]
    assert distributed.device_error(second) is None
    second.__cause__ = lost = jax.errors.JaxRuntimeError("gone")
    assert distributed.device_error(second) is lost
