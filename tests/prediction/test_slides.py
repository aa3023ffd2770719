"""Files are predicted in parts as they would be whole, in bounded memory."""

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from flaxunet.io import images
from flaxunet.io.images import ImageError
from flaxunet.prediction.predictor import Predictor
from flaxunet.prediction.slides import predict_file
from flaxunet.prediction.tiling import Tiling
from tests.support.interrupted import random_pixels, stub
from tests.support.networks import network

ROOT = Path(__file__).parents[2]


SHAPE = (301, 203)


@pytest.mark.parametrize("below", [{"subifds": 1}, {}])
def test_of_a_pyramid_level_0_is_read(tmp_path, below):
    path, pixels = tmp_path / "pyramid.tif", random_pixels(*SHAPE, 3)
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, tile=(64, 64), photometric="rgb", **below)
        writer.write(pixels[::2, ::2], tile=(64, 64), photometric="rgb", subfiletype=1)
    predict_file(stub(channels=3), path, tmp_path / "out.tif")
    assert images.read_mask(tmp_path / "out.tif").shape == SHAPE


def test_several_pictures_want_a_page(tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, random_pixels(2, *SHAPE), photometric="minisblack")
    with pytest.raises(ImageError, match="2 images"):
        predict_file(stub(), path, tmp_path / "out.tif")
    predict_file(stub(), path, tmp_path / "out.tif", page=1)
    assert images.read_mask(tmp_path / "out.tif").shape == SHAPE


@pytest.mark.parametrize("name", ["dtype", "percentile", "zscore"])
def test_a_file_in_parts_gives_what_the_image_gives(tmp_path, small_tiles, name):
    model = network("unet", encoder="shallow", in_channels=3, classes=3)
    predict = Predictor((model,), ("background", "a", "b"), 3, name, tiling=Tiling(64, 0.25))
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, random_pixels(150, 97, dtype="u2"), tile=(32, 32), compression="zlib")
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
    pixels = random_pixels(100, 80)
    images.write_mask(tmp_path / "image.png", pixels % 2)
    predict_file(stub(channels=3), tmp_path / "image.png", tmp_path / "out.tif")
    assert images.read_mask(tmp_path / "out.tif").shape == (100, 80)
    tifffile.imwrite(tmp_path / "image.tif", pixels)
    network_of_3 = network("unet", encoder="shallow", in_channels=3, classes=3)
    resized = Predictor((network_of_3,), ("a", "b", "c"), 3, "dtype", 64, Tiling(64))
    predict_file(resized, tmp_path / "image.tif", probabilities=tmp_path / "out.tif")
    expected = resized(images.read_image(tmp_path / "image.tif"))
    assert np.array_equal(images.read_image(tmp_path / "out.tif"), expected)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda path: path.write_bytes(b"II*\0broken"), {}, r"image\.tif: damaged file"),
        (lambda path: None, {}, r"image\.tif: No such file"),
        (
            lambda path: tifffile.imwrite(path, random_pixels(20, 20, 3)),
            {},
            r"image\.tif: 3 channels; expected 1",
        ),
        (
            lambda path: tifffile.imwrite(path, np.float32([[0, 1], [np.nan, 0]])),
            {},
            r"image\.tif: NaN or infinite pixels, first at row 1, column 0",
        ),
        (
            lambda path: tifffile.imwrite(path, random_pixels(20, 20, dtype="f4")),
            {},
            r"image\.tif: pixels between 0 and 199",
        ),
        (
            lambda path: tifffile.imwrite(path, random_pixels(20, 20)),
            {"out": "out.png"},
            r"suffix '\.png'; expected",
        ),
        (
            lambda path: tifffile.imwrite(path, random_pixels(20, 20)),
            {"out": "no/out.tif"},
            r"no.*No such file",
        ),
    ],
)
def test_what_cannot_be_used_is_named_and_leaves_nothing(tmp_path, make, options, message):
    make(tmp_path / "image.tif")
    out = tmp_path / options.pop("out", "out.tif") if options else tmp_path / "out.tif"
    with pytest.raises(ValueError, match=message):
        predict_file(stub(), tmp_path / "image.tif", out, **options)
    assert not out.exists()


@pytest.mark.long
@pytest.mark.parametrize("name", ["dtype", "zscore"])
def test_memory_is_bounded_on_an_image_of_twenty_thousand_pixels_squared(tmp_path, name):
    """400 million pixels: as float32 they would take 1.6 GB, and their probabilities as much again."""
    side, tile = 20_000, zlib.compress(random_pixels(512, 512).tobytes())
    path = tmp_path / "image.tif"
    tiles = (tile for _ in range(40 * 40))
    with tifffile.TiffWriter(path) as writer:
        writer.write(tiles, shape=(side, side), dtype="u1", tile=(512, 512), compression="zlib")
    code = (
        "import resource, sys; from flaxunet.prediction.slides import predict_file\n"
        "from tests.support.interrupted import random_pixels, stub\n"
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
