"""Predictions of large files continue after an interruption or a kill, to the same bytes."""

import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
import tifffile

from flaxunet.io import images
from flaxunet.prediction import resumable, slides
from flaxunet.prediction.predictor import Predictor
from flaxunet.prediction.slides import predict_file
from tests.support.interrupted import random_pixels, stub
from tests.support.networks import network

ROOT = Path(__file__).parents[2]


SHAPE = (301, 203)


def content(path):
    """All bytes of a file or folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.is_file()}


class Interrupted(BaseException):
    """Stops a prediction where nothing is prepared for it."""


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_an_interrupted_prediction_goes_on_to_the_same_bytes(tmp_path, small_tiles, suffix):
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    path, out, whole = tmp_path / "image.tif", tmp_path / f"out{suffix}", tmp_path / f"whole{suffix}"
    tifffile.imwrite(path, random_pixels(*SHAPE), tile=(64, 64), compression="zlib")
    bands = []
    predict_file(stub(), path, probabilities=whole, progress=lambda *rows: bands.append(rows))
    expected = content(whole)
    count = len(bands)
    for stop in range(count):
        seen = []

        def progress(done, rows, stop=stop, seen=seen):
            seen.append(done)
            if len(seen) == stop + 1:
                raise Interrupted

        with pytest.raises(Interrupted):
            predict_file(stub(), path, probabilities=out, progress=progress)
        assert not out.exists()
        record = tmp_path / f".out{suffix}.part" / "progress.jsonl"
        with record.open("a") as file:
            file.write('{"torn')  # as a kill may leave it
        bands.clear()
        predict_file(stub(), path, probabilities=out, progress=lambda *rows: bands.append(rows))
        assert content(out) == expected
        assert len(bands) <= count - stop + 2  # those of unfinished tiles are computed again
        assert not record.parent.exists()
        resumable.shutil.rmtree(out, ignore_errors=True)
        out.unlink(missing_ok=True)


def test_labels_and_probabilities_are_written_in_one_pass_though_one_got_further(tmp_path, small_tiles):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, random_pixels(*SHAPE), tile=(64, 64), compression="zlib")
    alone, both = (
        {"labels": tmp_path / f"{name} labels.tif", "probabilities": tmp_path / f"{name}.tif"}
        for name in ("alone", "both")
    )
    for kind, out in alone.items():
        predict_file(stub(), path, **{kind: out})

    def stop(done, rows):
        if done > 200:
            raise Interrupted

    with pytest.raises(Interrupted):  # as if a kill had come between the two
        predict_file(stub(), path, labels=both["labels"], progress=stop)
    asked = []

    class Counting(type(stub())):
        def windows(self, x):
            asked.append(len(x))
            return super().windows(x)

    predict_file(Counting(**vars(stub())), path, **both)
    once = sum(asked)
    assert {kind: out.read_bytes() for kind, out in both.items()} == {
        kind: out.read_bytes() for kind, out in alone.items()
    }
    asked.clear()
    predict_file(Counting(**vars(stub())), path, probabilities=tmp_path / "again.tif")
    assert once == sum(asked)
    with pytest.raises(ValueError, match="nothing to write"):
        predict_file(stub(), path)


def test_another_job_does_not_go_on(tmp_path, small_tiles):
    path, out = tmp_path / "image.tif", tmp_path / "out.tif"
    tifffile.imwrite(path, random_pixels(*SHAPE), tile=(64, 64))

    def stop(done, rows):
        if done > 200:
            raise Interrupted

    with pytest.raises(Interrupted):
        predict_file(stub(), path, out, progress=stop)
    bands = []
    predict_file(stub(), path, out, threshold=0.25, progress=lambda *rows: bands.append(rows))
    assert bands[0][0] <= 64
    assert images.read_mask(out).shape == SHAPE


def test_a_job_knows_in_which_type_it_is_computed(tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", random_pixels(40, 40))
    jobs = []
    for dtype in (None, jnp.float32, jnp.bfloat16):
        model = network("unet", encoder="shallow", dtype=dtype)
        jobs.append(slides._job(Predictor((model,), ("a", "b"), 3, "dtype"), tmp_path / "image.tif"))
    assert jobs[0] == jobs[1] != jobs[2]


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_a_kill_while_the_parts_are_cleared_away_is_no_end(tmp_path, small_tiles, monkeypatch, suffix):
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    path, out = tmp_path / "image.tif", tmp_path / f"out{suffix}"
    tifffile.imwrite(path, random_pixels(*SHAPE), tile=(64, 64))
    predict_file(stub(), path, out)
    expected = content(out)

    def killed(usual, name):
        def call(path, *words, **options):
            if path.name == name:
                raise Interrupted
            return usual(path, *words, **options)

        return call

    # After the result is in its place, with the record and without it.
    for where, call, name in (
        (resumable.Path, "unlink", resumable.RECORD),
        (resumable.shutil, "rmtree", f".{out.name}.part"),
    ):
        for _ in range(2):
            with monkeypatch.context() as patch:
                patch.setattr(where, call, killed(getattr(where, call), name))
                with pytest.raises(Interrupted):
                    predict_file(stub(), path, out)
            assert content(out) == expected
        predict_file(stub(), path, out)
        assert content(out) == expected
        assert {entry.name for entry in tmp_path.iterdir()} == {"image.tif", out.name}


def test_a_killed_prediction_goes_on_to_the_same_bytes(tmp_path):
    path, out, whole = tmp_path / "image.tif", tmp_path / "out.tif", tmp_path / "whole.tif"
    tifffile.imwrite(path, random_pixels(1400, 130), tile=(128, 128), compression="zlib")
    killed = subprocess.run(
        [sys.executable, "-m", "tests.support.interrupted", path, out, "30"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    bands = []
    predict_file(stub(), path, probabilities=out, progress=lambda *rows: bands.append(rows))
    assert bands[0][0] > 500  # not from the top
    predict_file(stub(), path, probabilities=whole)
    assert out.read_bytes() == whole.read_bytes()


def test_two_processes_do_not_write_one_file(tmp_path, small_tiles):
    path, out = tmp_path / "image.tif", tmp_path / "out.tif"
    tifffile.imwrite(path, random_pixels(*SHAPE))

    def progress(done, rows):
        with pytest.raises(ValueError, match=r"out\.tif is being written by another process"):
            predict_file(stub(), path, out)

    predict_file(stub(), path, out, progress=progress)
    assert images.read_mask(out).shape == SHAPE
