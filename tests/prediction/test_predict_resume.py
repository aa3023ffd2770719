"""`python -m flaxunet predict` after an interruption, on a full disk, and with changed images."""

import resource
from pathlib import Path

import numpy as np
import pytest
import tifffile

from flaxunet import files
from flaxunet.io.images import read_mask
from flaxunet.prediction import slides
from flaxunet.prediction.predictor import Predictor
from tests.support.levels import RNG, Levels, gray, installed, listing, predict, refused, save, table


def test_an_interrupted_run_goes_on(tmp_path, images, model, monkeypatch, capsys):
    for number in range(6):
        save(images / f"{number}.png", gray())
    words = (images, "--out", tmp_path / "out", "--window", 64, "--instances")
    batches = []

    class Stopping(Levels):
        def windows(self, x):
            batches.append(1)
            if len(batches) == 4:
                raise KeyboardInterrupt
            return super().windows(x)

    load = Predictor.load
    stopping = lambda *a, **o: Stopping(**vars(load(*a, **o)))  # noqa: E731
    monkeypatch.setattr(Predictor, "load", stopping)
    predict(model, *words, code=130)
    assert capsys.readouterr().err == "error: interrupted\n"
    out = tmp_path / "out"
    rows = (out / "measures.csv").read_text()
    whole = {row["image"] for row in table(out / "measures.csv")}
    assert 1 <= len(whole) <= 3
    assert {f"{Path(name).stem}.png" for name in whole} <= set(listing(out / "masks"))
    assert not [name for name in listing(out) if name.endswith(".part")]
    # A kill while a row is written leaves half of it.
    (out / "measures.csv").write_text(rows + "5.png,,da")
    (out / "masks" / "0.png").unlink()
    stamps = {name: (out / "masks" / name).stat().st_mtime_ns for name in listing(out / "masks")}
    assert "threshold was None, is 0.3" in refused(capsys, model, *words, "--resume", "--threshold", "0.3")
    batches[:] = [1] * 4  # it stops no more
    predict(model, *words, "--resume")
    there = f", {len(whole) - 1} were there" if len(whole) > 1 else ""
    assert f"{7 - len(whole)} of 6 images{there}: " in capsys.readouterr().out
    assert all(
        (out / "masks" / f"{Path(name).stem}.png").stat().st_mtime_ns == stamps[f"{Path(name).stem}.png"]
        for name in whole - {"0.png"}
    )
    assert sorted(row["image"] for row in table(out / "measures.csv")) == [f"{n}.png" for n in range(6)]
    predict(model, images, "--out", tmp_path / "fresh", "--window", 64, "--instances")
    for name in listing(tmp_path / "fresh" / "masks"):
        assert (out / "masks" / name).read_bytes() == (tmp_path / "fresh" / "masks" / name).read_bytes()
    for name in ("measures.csv", "objects.csv"):
        assert sorted((out / name).read_text().split()) == sorted(
            (tmp_path / "fresh" / name).read_text().split()
        )
    before = len(batches)
    predict(model, *words, "--resume")
    assert "0 of 6 images, 6 were there" in capsys.readouterr().out
    predict(model, *words)  # without it, all is done again
    assert len(batches) == before + 6


def test_another_image_of_the_same_name_is_done_again(tmp_path, images, model, capsys):
    """Which also has a name that is no UTF-8, as old archives have them."""
    old = "Gr\udcf6sse.png"
    for name in ("same.png", "changed.png", old):
        save(images / name, gray())
    other, changed = gray(), gray()
    save(tmp_path / "b" / "same.png", other)
    words = ("--out", tmp_path / "out", "--window", 64, "--resume")
    predict(model, images, *words)
    save(images / "changed.png", changed)
    predict(model, images, *words)
    assert "1 of 3 images, 2 were there" in capsys.readouterr().out
    assert {row["image"] for row in table(tmp_path / "out" / "measures.csv")} == {*listing(images)}
    predict(model, tmp_path / "b", *words)
    assert "1 of 1 images: " in capsys.readouterr().out
    masks = tmp_path / "out" / "masks"
    np.testing.assert_array_equal(read_mask(masks / "same.png"), other > 127)
    np.testing.assert_array_equal(read_mask(masks / "changed.png"), changed > 127)
    predict(model, images, *words)  # what was overwritten meanwhile is done again, the others are not
    assert "1 of 3 images, 2 were there" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["picture", "stack", "table", "slide"])
def test_a_full_disk_is_one_line_and_leaves_nothing_half(tmp_path, images, model, kind, capsys, monkeypatch):
    noise = RNG.integers(0, 256, (3, 200, 200), np.uint8)
    save(images / "a.png", gray())
    if kind == "stack":
        tifffile.imwrite(images / "b.tif", noise, photometric="minisblack")
    elif kind == "picture":
        save(images / "b.png", noise[0])
    elif kind == "slide":
        tifffile.imwrite(images / "b.tif", noise[0], tile=(64, 64), photometric="minisblack")
        monkeypatch.setattr(slides, "LARGE", 10_000)
    words = (images, "--out", tmp_path / "out", "--window", 256, "--workers", 1)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    if kind == "table":
        model = installed(tmp_path / "of four", monkeypatch, classes=4)
        for number in range(60):
            save(images / f"{number:04}{'n' * 60}.png", gray(4, 4))
    capsys.readouterr()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000 if kind == "table" else 2000, usual[1]))
        predict(model, *words, code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    name = {"picture": "b.png", "stack": "b.tif", "table": "measures.csv", "slide": "b.tif"}[kind]
    assert name in err
    assert "File too large" in err
    assert "--resume goes on" in err
    # A large picture goes on from what lies in its .part.
    assert kind == "slide" or not [name for name in listing(tmp_path / "out") if ".part" in name]
    rows = table(tmp_path / "out" / "measures.csv")
    assert all(row["objects"] for row in rows)
    assert {Path(row["image"]).stem + ".png" for row in rows} <= set(listing(tmp_path / "out" / "masks"))
    predict(model, *words, "--resume")
    assert (
        len(table(tmp_path / "out" / "measures.csv"))
        == {"picture": 2, "stack": 4, "table": 183, "slide": 2}[kind]
    )


def test_no_space_is_told_by_name(tmp_path, images, model, monkeypatch, capsys):
    save(images / "a.png", gray())
    usual = files.Path.write_bytes

    def full(path, data):
        if "a.png" in path.name:
            raise OSError(28, "No space left on device", str(path))
        return usual(path, data)

    monkeypatch.setattr(files.Path, "write_bytes", full)
    predict(model, images, "--out", tmp_path / "out", "--window", 64, code=1)
    err = capsys.readouterr().err
    assert "masks/a.png: " in err
    assert "No space left on device" in err
    assert listing(tmp_path / "out") == ["measures.csv", "prediction.json"]
