"""What `python -m flaxunet predict` refuses before it begins, and reports while others are done."""

import json

import numpy as np
import tifffile

import flaxunet
from tests.support.levels import Levels, gray, installed, listing, predict, refused, save, table
from tests.support.networks import network, shallow


def test_one_bad_file_does_not_stop_the_others(tmp_path, images, model, capsys):
    for name in ("a", "c", "e"):
        save(images / f"{name}.png", gray())
    (images / "b.png").write_bytes((images / "a.png").read_bytes()[:60])
    save(images / "d.png", np.dstack([gray()] * 3))
    (images / "f.png").write_bytes(b"")
    tifffile.imwrite(
        images / "g.tif", np.stack([gray(), gray()]).astype(np.float32), photometric="minisblack"
    )
    predict(model, images, "--out", tmp_path / "out", "--window", 64, "--overlays", code=1)
    out, err = capsys.readouterr()
    assert "3 of 7 images" in out
    lines = err.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == [
        f"{images / name}" for name in ("b.png", "d.png", "f.png", "g.tif page 0")
    ]
    assert "3 channels; expected 1" in lines[1]
    assert "an empty file" in lines[2]
    assert "expected 0 to 1" in lines[3]
    assert listing(tmp_path / "out" / "masks") == ["a.png", "c.png", "e.png"]
    assert {row["image"] for row in table(tmp_path / "out" / "measures.csv")} == {"a.png", "c.png", "e.png"}


def test_what_cannot_be_begun_is_refused_in_one_line(tmp_path, images, model, capsys):
    save(images / "a.png", gray())
    save(images / "a.jpg", gray())
    save(images / "masks" / "b.png", gray())
    (images / "empty").mkdir()
    out = ("--out", tmp_path / "out")
    for words, line in (
        ((images / "x.png", *out), f"{images / 'x.png'}: no such file or folder"),
        ((images / "*.tif", *out), "no file matches this pattern"),
        ((images / "empty", *out), f"{images / 'empty'}: no images in this folder; expected .png"),
        ((images, *out), "a.jpg and"),
        ((images, *out), "would both be written as a; expected images of different names"),
        ((images / "masks" / "b.png", "--out", images), "would be written over the image itself"),
        ((images / "masks", "--out", images), "would be written over the image itself"),
        ((images / "a.png", "--out", images / "a.jpg"), "is a file; expected a folder"),
        ((images / "a.png", *out, "--threshold", 1), "--threshold is 1.0; expected 0 < threshold < 1"),
        (
            (images / "a.png", *out, "--axis", "up"),
            "unknown axis 'up'; expected one of axial, coronal, sagittal",
        ),
        (
            (images / "a.png", *out, "--dtype", "int8"),
            "unknown dtype 'int8'; expected one of float32, bfloat16",
        ),
        ((images / "a.png", *out, "--workers", 0), "--workers is 0; expected"),
        ((images / "a.png", *out, "--window", 100), "window is 100; expected a multiple of 32"),
        ((images / "a.png", *out, "--tta", "all"), "unknown tta 'all'; expected one of none, flips, d4"),
        ((images / "a.png", *out, "--min-size", 1, 2), "--min-size is 1 2; expected a number of pixels"),
        ((images / "a.png", *out, "--min-size", -1), "--min-size is -1; expected a number of pixels >= 0"),
    ):
        assert line in refused(capsys, model, *words)
    assert not (tmp_path / "out").exists()
    assert listing(images) == ["a.jpg", "a.png", "masks/b.png"]


def test_a_threshold_is_for_one_output(tmp_path, images, monkeypatch, capsys):
    model = installed(tmp_path / "network", monkeypatch, classes=4)
    save(images / "a.png", gray())
    line = refused(capsys, model, images, "--out", tmp_path / "out", "--threshold", "0.4")
    assert "--threshold is 0.4; expected none, because this network has 4" in line
    names = "dark, light, white"
    line = refused(capsys, model, images, "--out", tmp_path / "out", "--min-size", 1, 2)
    assert f"expected a number of pixels >= 0, or 3 numbers, for {names}" in line


def test_models_that_are_none(tmp_path, images, capsys):
    save(images / "a.png", gray())
    run, newer, nothing = (tmp_path / name for name in ("run", "newer", "nothing"))
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    nothing.mkdir()
    with shallow():
        flaxunet.save(network("unet", "shallow", in_channels=1), newer)
    content = json.loads((newer / "config.json").read_text())
    (newer / "config.json").write_text(json.dumps({**content, "format": 99}))
    for model, line in (
        (run, f"{run} is a run that has not stored its best network in model/ yet; expected"),
        (newer, "config.json is of format 99; expected 1"),
        (nothing, f"{nothing} holds no config.json; expected a folder"),
        (images / "a.png", "holds no config.json"),
        (tmp_path / "absent", "holds no config.json"),
    ):
        assert line in refused(capsys, model, images, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_too_small_is_told(tmp_path, images, model, monkeypatch, capsys):
    import jax

    save(images / "a.png", gray())

    def full(self, x):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.\nmore")

    monkeypatch.setattr(Levels, "windows", full)
    predict(model, images, "--out", tmp_path / "out", code=1)
    err = capsys.readouterr().err
    assert "a.png: out of memory: try a smaller --window or --batch" in err
    assert err.count("\n") == 1
