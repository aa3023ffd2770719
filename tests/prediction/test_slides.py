"""Files are predicted in parts as they would be whole, in bounded memory, and go on after a kill."""

import io
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tifffile

from flaxunet import preprocessing
from flaxunet.io import images, tiff
from flaxunet.io.images import ImageError
from flaxunet.prediction import resumable as growing
from flaxunet.prediction import slides
from flaxunet.prediction.predictor import Predictor
from flaxunet.prediction.slides import predict_file
from flaxunet.prediction.tiling import Tiling
from tests.support.interrupted import stub
from tests.support.networks import network

ROOT = Path(__file__).parents[2]
SHAPE = (301, 203)


def numbers(*shape, dtype="u1", seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


@pytest.fixture
def small_tiles(monkeypatch):
    """So that small images have many of them."""
    monkeypatch.setattr(growing, "TILE", 64)


def content(path):
    """All bytes of a file or folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.is_file()}


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "jpeg"])
@pytest.mark.parametrize("kind", [{}, {"tile": (64, 32)}, {"rowsperstrip": 7}])
@pytest.mark.parametrize(
    ("shape", "dtype", "options"),
    [
        (SHAPE, "u1", {}),
        (SHAPE, ">u2", {}),
        (SHAPE, "f4", {}),
        ((*SHAPE, 3), "u1", {"photometric": "rgb"}),
        ((3, *SHAPE), "u2", {"photometric": "rgb", "planarconfig": "separate"}),
        ((*SHAPE, 4), "u1", {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    ],
)
def test_rows_of_a_tiff_are_those_of_the_whole(shape, dtype, options, kind, compression):
    if compression == "jpeg" and (dtype != "u1" or shape[-1] == 4):
        pytest.skip("not written")
    pytest.importorskip("imagecodecs")
    file, order = io.BytesIO(), ">" if dtype[0] == ">" else "<"
    pixels = numbers(*shape, dtype=dtype)
    tifffile.imwrite(file, pixels, compression=compression, byteorder=order, **kind, **options)
    file.seek(0)
    whole = tiff.read_tiff(file, None, mask=False).array
    file.seek(0)
    with tiff.open_regions(file) as parts:
        assert parts is not None
        assert parts.size == SHAPE
        rows = [parts.read_rows(top, min(top + 37, 301)) for top in range(0, 301, 37)]
        assert np.array_equal(np.concatenate(rows), whole)
        assert np.array_equal(parts.read_rows(100, 200), whole[100:200])


@pytest.mark.parametrize("below", [{"subifds": 1}, {}])
def test_of_a_pyramid_level_0_is_read(tmp_path, below):
    path, pixels = tmp_path / "pyramid.tif", numbers(*SHAPE, 3)
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, tile=(64, 64), photometric="rgb", **below)
        writer.write(pixels[::2, ::2], tile=(64, 64), photometric="rgb", subfiletype=1)
    predict_file(stub(channels=3), path, tmp_path / "out.tif")
    assert images.read_mask(tmp_path / "out.tif").shape == SHAPE


def test_several_pictures_want_a_page(tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, numbers(2, *SHAPE), photometric="minisblack")
    with pytest.raises(ImageError, match="2 images"):
        predict_file(stub(), path, tmp_path / "out.tif")
    predict_file(stub(), path, tmp_path / "out.tif", page=1)
    assert images.read_mask(tmp_path / "out.tif").shape == SHAPE


@pytest.mark.parametrize("name", ["dtype", "percentile", "zscore"])
def test_a_file_in_parts_gives_what_the_image_gives(tmp_path, small_tiles, name):
    model = network("unet", encoder="shallow", in_channels=3, classes=3)
    predict = Predictor((model,), ("background", "a", "b"), 3, name, tiling=Tiling(64, 0.25))
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, numbers(150, 97, dtype="u2"), tile=(32, 32), compression="zlib")
    expected = predict(images.read_image(path))
    for suffix in (".tif", ".zarr"):
        predict_file(predict, path, probabilities=tmp_path / f"out{suffix}")
    assert np.abs(images.read_image(tmp_path / "out.tif") - expected).max() <= 1e-6
    zarr = pytest.importorskip("zarr")
    assert np.abs(zarr.open_array(str(tmp_path / "out.zarr"))[:] - expected).max() <= 1e-6
    done = []
    predict_file(predict, path, tmp_path / "labels.tif", progress=lambda *rows: done.append(rows))
    assert np.array_equal(images.read_mask(tmp_path / "labels.tif"), predict.labels(expected))
    assert done[-1] == (150, 150)
    assert done == sorted(done)
    assert not list(tmp_path.glob(".*"))


def test_other_files_and_resized_images_are_read_whole(tmp_path):
    pixels = numbers(100, 80)
    images.write_mask(tmp_path / "image.png", pixels % 2)
    predict_file(stub(channels=3), tmp_path / "image.png", tmp_path / "out.tif")
    assert images.read_mask(tmp_path / "out.tif").shape == (100, 80)
    tifffile.imwrite(tmp_path / "image.tif", pixels)
    network_of_3 = network("unet", encoder="shallow", in_channels=3, classes=3)
    resized = Predictor((network_of_3,), ("a", "b", "c"), 3, "dtype", 64, Tiling(64))
    predict_file(resized, tmp_path / "image.tif", probabilities=tmp_path / "out.tif")
    expected = resized(images.read_image(tmp_path / "image.tif"))
    assert np.array_equal(images.read_image(tmp_path / "out.tif"), expected)


@pytest.mark.parametrize("name", ["percentile", "zscore"])
def test_intensities_of_parts_are_those_of_the_whole(name):
    rng = np.random.default_rng(0)
    for image in (
        rng.normal(3, 100, (301, 203, 2)),
        rng.integers(0, 4095, (301, 203, 3)) / 65535,
        np.full((20, 30, 1), 5.0),
        np.concatenate([np.zeros((400, 300, 1)), np.ones((1, 300, 1))]),  # both percentiles are 0
        -(rng.random((1, 1, 1))),
    ):
        image = image.astype(np.float32)
        parts = [image[top : top + 37] for top in range(0, len(image), 37)]
        scaled = preprocessing.normalizer_of_parts(lambda parts=parts: parts, name)
        assert np.abs(scaled(image) - preprocessing.normalize_intensity(image, name)).max() <= 1e-6


class Interrupted(BaseException):
    """Stops a prediction where nothing is prepared for it."""


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_an_interrupted_prediction_goes_on_to_the_same_bytes(tmp_path, small_tiles, suffix):
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    path, out, whole = tmp_path / "image.tif", tmp_path / f"out{suffix}", tmp_path / f"whole{suffix}"
    tifffile.imwrite(path, numbers(*SHAPE), tile=(64, 64), compression="zlib")
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
        growing.shutil.rmtree(out, ignore_errors=True)
        out.unlink(missing_ok=True)


def test_labels_and_probabilities_are_written_in_one_pass_though_one_got_further(tmp_path, small_tiles):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, numbers(*SHAPE), tile=(64, 64), compression="zlib")
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
    with pytest.raises(ValueError, match="nothing is to be written"):
        predict_file(stub(), path)


def test_another_job_does_not_go_on(tmp_path, small_tiles):
    path, out = tmp_path / "image.tif", tmp_path / "out.tif"
    tifffile.imwrite(path, numbers(*SHAPE), tile=(64, 64))

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
    tifffile.imwrite(tmp_path / "image.tif", numbers(40, 40))
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
    tifffile.imwrite(path, numbers(*SHAPE), tile=(64, 64))
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
        (growing.Path, "unlink", growing.RECORD),
        (growing.shutil, "rmtree", f".{out.name}.part"),
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
    tifffile.imwrite(path, numbers(1400, 130), tile=(128, 128), compression="zlib")
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
    tifffile.imwrite(path, numbers(*SHAPE))

    def progress(done, rows):
        with pytest.raises(ValueError, match=r"out\.tif is being written by another process"):
            predict_file(stub(), path, out)

    predict_file(stub(), path, out, progress=progress)
    assert images.read_mask(out).shape == SHAPE


@pytest.mark.parametrize(
    ("make", "options", "told"),
    [
        (lambda path: path.write_bytes(b"II*\0broken"), {}, r"image\.tif: damaged file"),
        (lambda path: None, {}, r"image\.tif: No such file"),
        (
            lambda path: tifffile.imwrite(path, numbers(20, 20, 3)),
            {},
            r"image\.tif: 3 channels; expected 1",
        ),
        (
            lambda path: tifffile.imwrite(path, np.float32([[0, 1], [np.nan, 0]])),
            {},
            r"image\.tif: NaN or infinite pixels, first at row 1, column 0",
        ),
        (
            lambda path: tifffile.imwrite(path, numbers(20, 20, dtype="f4")),
            {},
            r"image\.tif: pixels between 0 and 199",
        ),
        (
            lambda path: tifffile.imwrite(path, numbers(20, 20)),
            {"out": "out.png"},
            r"suffix '\.png'; accepted",
        ),
        (lambda path: tifffile.imwrite(path, numbers(20, 20)), {"out": "no/out.tif"}, r"no.*No such file"),
    ],
)
def test_what_cannot_be_used_is_named_and_leaves_nothing(tmp_path, make, options, told):
    make(tmp_path / "image.tif")
    out = tmp_path / options.pop("out", "out.tif") if options else tmp_path / "out.tif"
    with pytest.raises(ValueError, match=told):
        predict_file(stub(), tmp_path / "image.tif", out, **options)
    assert not out.exists()


@pytest.mark.long
@pytest.mark.parametrize("name", ["dtype", "zscore"])
def test_memory_is_bounded_on_an_image_of_twenty_thousand_pixels_squared(tmp_path, name):
    """400 million pixels: as float32 they would take 1.6 GB, and their probabilities as much again."""
    side, tile = 20_000, zlib.compress(numbers(512, 512).tobytes())
    path = tmp_path / "image.tif"
    tiles = (tile for _ in range(40 * 40))
    with tifffile.TiffWriter(path) as writer:
        writer.write(tiles, shape=(side, side), dtype="u1", tile=(512, 512), compression="zlib")
    code = (
        "import resource, sys; from flaxunet.prediction.slides import predict_file\n"
        "from tests.support.interrupted import stub\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "import numpy as np, tifffile; tifffile.imwrite('small.tif', np.zeros((600, 600), 'u1'))\n"
        "predict_file(stub(512), 'small.tif', 'small-out.tif'); before = peak()\n"
        f"predict_file(stub(512, '{name}'), 'image.tif', 'out.tif'); print(peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Held: 512 rows of pixels and of probabilities, a band of these, 512 rows of labels, a row of tiles.
    assert float(done.stdout) < 300, done.stdout
    with tifffile.TiffFile(tmp_path / "out.tif") as written:
        assert written.pages.first.shape == (side, side)
