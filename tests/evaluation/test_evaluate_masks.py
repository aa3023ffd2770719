"""What `evaluate` finds in a folder of masks: of names that are no UTF-8, and of slides."""

import os

import numpy as np
import tifffile

from flaxunet import metrics
from tests.support.evaluated import classes, evaluate, refused
from tests.support.large_tiffs import arrays, lower_limits, write_tiffs


def test_names_that_are_no_utf8_keep_their_bytes(tmp_path, capsys):
    data, found, _, _ = classes(tmp_path)
    for folder in (data / "images", data / "masks", found):
        (folder / "n5.png").rename(folder / os.fsdecode(b"Gr\xf6sse.png"))
    found = found.rename(tmp_path / os.fsdecode(b"gesch\xe4tzt"))
    content, _ = evaluate(tmp_path, "--predictions", found, data)
    assert content["models"][0]["model"] == str(found)
    out = tmp_path / "evaluated"
    assert b"/gesch\xe4tzt,Gr\xf6sse," in (out / "scores.csv").read_bytes()
    assert "Gr?sse" in (out / "report.html").read_text("utf-8")
    assert r"lowest Dice  Gr\udcf6sse" in capsys.readouterr().out


def test_patches_of_a_slide_are_cut_from_its_one_mask(tmp_path, monkeypatch, capsys):
    lower_limits(monkeypatch)
    _, mask = write_tiffs(tmp_path / "data", "a", *arrays())
    truth = tifffile.imread(mask)
    prediction = np.where(np.random.default_rng(1).random(truth.shape) < 0.2, 0, truth).astype(np.uint8)
    words = "--predictions", tmp_path / "found", tmp_path / "data"
    (tmp_path / "found").mkdir()
    (line,) = refused(tmp_path, capsys, *words)
    assert "none of its masks is called a, as " in line
    tifffile.imwrite(tmp_path / "found" / "a.tif", prediction[:-1])
    (line,) = refused(tmp_path, capsys, *words)
    assert line.endswith("a.tif: 149 x 200 pixels; expected 150 x 200, the size of its image")
    tifffile.imwrite(tmp_path / "found" / "a.tif", prediction, tile=(32, 32), compression="zlib")
    content, rows = evaluate(tmp_path, *words)
    assert len({row["name"] for row in rows}) == 3 * 4
    expected = metrics.confusion_matrix(truth, prediction, 3)
    assert content["models"][0]["confusion"] == expected.tolist()
