"""`python -m flaxunet predict` on large TIFF files and those of slide scanners."""

import numpy as np
import pytest
import tifffile

from flaxunet.io.images import page_count, read_image, read_mask
from flaxunet.prediction import results, slides
from flaxunet.report import overlay
from tests.support.levels import (
    gray,
    installed,
    levels,
    predict,
    table,
)


@pytest.mark.parametrize("side", [None, 64])
def test_of_a_slide_scanners_file_the_slide_is_predicted(tmp_path, images, monkeypatch, side):
    model = installed(tmp_path / "network", monkeypatch, side=side)
    pixels = gray(96, 80)
    with tifffile.TiffWriter(images / "slide.tif") as writer:
        about = {"description": "Aperio Image Library v11.2.1", "metadata": None, "photometric": "minisblack"}
        writer.write(pixels, tile=(32, 32), **about)
        for picture in (pixels[::4, ::4], gray(20, 30)):  # a thumbnail and a label
            writer.write(picture, **about)
    assert page_count(images / "slide.tif") == 3
    predict(model, images, "--out", tmp_path / "out", "--window", 64)
    mask = tmp_path / "out" / "masks" / "slide.tif"
    assert page_count(mask) == 1
    assert read_mask(mask).shape == (96, 80)
    if side is None:
        np.testing.assert_array_equal(read_mask(mask), levels(pixels[..., None] / 255))
    assert [row["page"] for row in table(tmp_path / "out" / "measures.csv")] == [""]


def test_large_pictures_are_predicted_in_parts(tmp_path, images, monkeypatch, capsys):
    model = installed(tmp_path / "network", monkeypatch, classes=4)
    large = gray(300, 200)
    tifffile.imwrite(images / "slide.tif", large, tile=(64, 64))
    monkeypatch.setattr(slides, "LARGE", 10_000)
    monkeypatch.setattr(results, "OVERVIEW", 100)
    predict(model, images, "--out", tmp_path / "out", "--window", 64, "--probabilities", "--overlays")
    expected = levels(large[..., None] / 255, 4)
    shown = read_image(tmp_path / "out" / "overlays" / "slide.png")
    small = overlay.overlay_picture(large[::3, ::3, None] / np.float32(255), expected[::3, ::3])
    np.testing.assert_array_equal(np.rint(255 * shown), small)
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "masks" / "slide.tif"), expected)
    assert read_image(tmp_path / "out" / "probabilities" / "slide.tif").shape == (300, 200, 4)
    rows = table(tmp_path / "out" / "measures.csv")
    assert [int(row["pixels"]) for row in rows] == [(expected == k).sum() for k in (1, 2, 3)]
    assert {row["objects"] for row in rows} == {""}
    before = (tmp_path / "out" / "masks" / "slide.tif").stat().st_mtime_ns
    words = ("--window", 64, "--probabilities", "--overlays", "--resume")
    predict(model, images, "--out", tmp_path / "out", *words)
    assert (tmp_path / "out" / "masks" / "slide.tif").stat().st_mtime_ns == before
    predict(model, images, "--out", tmp_path / "other", "--window", 64, "--fill-holes", code=1)
    assert "slide.tif: too large for --min-size" in capsys.readouterr().err
