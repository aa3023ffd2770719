"""`python -m flaxunet predict`: every kind of file, whole results over their images, and what is refused."""

import csv
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
import tifffile

import flaxunet
from flaxunet import files, predicting, predictor, volumes
from flaxunet.__main__ import main
from flaxunet.images import count, read_image, read_mask
from tests.levels import NAMES, Levels, installed, levels
from tests.networks import network, shallow

RNG = np.random.default_rng(0)


@pytest.fixture
def model(tmp_path, monkeypatch):
    return installed(tmp_path / "network", monkeypatch)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def gray(height=20, width=33, top=255, dtype=np.uint8):
    """Blobs of several pixels, so that objects can be counted."""
    coarse = RNG.random((-(-height // 4), -(-width // 4)))
    return (top * np.kron(coarse, np.ones((4, 4)))[:height, :width]).astype(dtype)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(array).save(path, **options)
    return path


def predict(model, *words, code=0):
    assert main(["predict", str(model), *map(str, words)]) == code


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def refused(capsys, model, *words):
    """The one line of a command that begins nothing."""
    predict(model, *words, code=2)
    out, told = capsys.readouterr()
    assert out == ""
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    return told


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_pictures_of_every_kind_get_masks_of_their_size(tmp_path, images, model, capsys):
    save(images / "eight.png", gray())
    save(images / "sixteen.png", gray(top=65535, dtype=np.uint16))
    save(images / "sub" / "photo.jpg", gray(17, 9))
    tifffile.imwrite(images / "float.tif", gray(5, 200) / np.float32(255))
    predict(model, images, "--out", tmp_path / "out", "--probabilities", "--overlays", "--window", 64)
    names = ["eight", "float", "sixteen", "sub/photo"]
    assert listing(tmp_path / "out") == sorted(
        ["measures.csv", "prediction.json"]
        + [f"masks/{name}.png" for name in names]
        + [f"overlays/{name}.png" for name in names]
        + [f"probabilities/{name}.tif" for name in names]
    )
    for path in (path for path in images.rglob("*") if path.is_file()):
        name = path.relative_to(images).with_suffix("")
        image = read_image(path)
        found = read_mask(tmp_path / "out" / "masks" / f"{name}.png")
        np.testing.assert_array_equal(found, levels(image))
        probabilities = tifffile.imread(tmp_path / "out" / "probabilities" / f"{name}.tif")
        assert probabilities.dtype == np.float16
        np.testing.assert_allclose(probabilities, image[..., 0], atol=1e-3)
        assert read_image(tmp_path / "out" / "overlays" / f"{name}.png").shape == (*found.shape, 3)
        with PIL.Image.open(tmp_path / "out" / "masks" / f"{name}.png") as stored:
            assert stored.mode == "P"
        [row] = [
            row
            for row in table(tmp_path / "out" / "measures.csv")
            if row["image"] == str(path.relative_to(images))
        ]
        assert (row["class"], row["page"], row["mm2"], row["mm3"]) == ("dark", "", "", "")
        assert int(row["pixels"]) == found.sum()
    out, told = capsys.readouterr()
    assert re.match(
        r"4 of 4 images: 4 pictures, the first after [\d.]+ s, then [\d.]+ images/s, [\d.]+ megapixels/s\n",
        out,
    )
    assert told == ""


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_lie_over_their_images_with_and_without_exif(tmp_path, images, model, orientation):
    stored = gray(12, 20)
    exif = PIL.Image.Exif()
    exif[274] = orientation
    save(images / "a.png", stored, exif=exif)
    pages = np.stack([stored, stored[::-1]])
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(images / "b.tif", pages, extratags=tags, photometric="minisblack")
    predict(model, images, "--out", tmp_path / "out", "--probabilities", "--window", 32)
    with PIL.Image.open(tmp_path / "out" / "masks" / "a.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), stored > 127)  # Pillow heeds no orientation
        assert mask.getexif().get(274, 1) == orientation
    upright = read_image(images / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "masks" / "a.png"), levels(upright))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "masks" / "b.tif"), pages > 127)
    for page in range(2):
        expected = read_image(images / "b.tif", page=page)
        np.testing.assert_array_equal(
            read_mask(tmp_path / "out" / "masks" / "b.tif", page=page), levels(expected)
        )
        probabilities = read_image(tmp_path / "out" / "probabilities" / "b.tif", page=page)
        np.testing.assert_allclose(probabilities, expected, atol=1e-3)


def test_stacks_become_stacks(tmp_path, images, monkeypatch):
    model = installed(tmp_path / "network", monkeypatch, classes=4)
    pages = np.stack([gray(), gray(), gray()])
    tifffile.imwrite(images / "s.tif", pages, photometric="minisblack")
    predict(
        model, images / "s.tif", "--out", tmp_path / "out", "--overlays", "--probabilities", "--window", 64
    )
    mask = tmp_path / "out" / "masks" / "s.tif"
    assert count(mask) == 3
    rows = table(tmp_path / "out" / "measures.csv")
    assert [(row["page"], row["class"]) for row in rows] == [(str(p), n) for p in range(3) for n in NAMES[1:]]
    for page in range(3):
        expected = levels(pages[page][..., None] / 255, 4)
        np.testing.assert_array_equal(read_mask(mask, page=page), expected)
        assert read_image(mask, page=page).shape[-1] == 3  # it has colours
        assert [int(row["pixels"]) for row in rows if row["page"] == str(page)] == [
            (expected == label).sum() for label in range(1, 4)
        ]
        assert read_image(tmp_path / "out" / "overlays" / "s.tif", page=page).shape == (20, 33, 3)
        assert read_image(tmp_path / "out" / "probabilities" / "s.tif", page=page).shape == (20, 33, 4)


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_volumes_keep_affine_and_order(tmp_path, images, model, axis):
    voxels = np.stack([gray(9, 12) for _ in range(7)])
    voxels[0, 0, :2] = 0, 255
    affine = np.array([[0, 0, -2.0, 5], [0, -1.5, 0, 3], [0.5, 0, 0, -7], [0, 0, 0, 1]])
    for name in ("a.nii.gz", "b.nii"):
        nibabel.save(nibabel.Nifti1Image(voxels, affine), images / name)
    predict(
        model,
        images,
        "--out",
        tmp_path / "out",
        "--axis",
        axis,
        "--probabilities",
        "--overlays",
        "--window",
        32,
    )
    for name in ("a.nii.gz", "b.nii"):
        found = nibabel.load(tmp_path / "out" / "masks" / name)
        np.testing.assert_array_equal(np.asarray(found.dataobj), voxels > 127)
        np.testing.assert_array_equal(found.affine, affine)
        probabilities = nibabel.load(tmp_path / "out" / "probabilities" / name)
        np.testing.assert_allclose(np.asarray(probabilities.dataobj)[..., 0], voxels / 255, atol=1e-3)
        slices = volumes.read_volume(images / name).voxels.shape[["sagittal", "coronal", "axial"].index(axis)]
        assert count(tmp_path / "out" / "overlays" / f"{name.split('.')[0]}.tif") == slices
    rows = table(tmp_path / "out" / "measures.csv")
    assert [row["image"] for row in rows] == ["a.nii.gz", "b.nii"]
    assert float(rows[0]["mm3"]) == (voxels > 127).sum() * 1.5
    assert rows[0]["mm2"] == ""


def test_volumes_are_scaled_as_in_training(tmp_path, images, model):
    """By the volume's smallest and largest value, whatever its unit."""
    voxels = np.stack([gray(9, 12) for _ in range(7)]).astype(np.int16)
    voxels[0, 0, :2] = 0, 255
    nibabel.save(nibabel.Nifti1Image(voxels * 8 - 1000, np.eye(4)), images / "ct.nii.gz")
    predict(model, images, "--out", tmp_path / "out", "--window", 32)
    found = nibabel.load(tmp_path / "out" / "masks" / "ct.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), voxels > 127)


def test_channels_in_files_of_their_own_are_one_volume(tmp_path, images, monkeypatch, capsys):
    model = installed(tmp_path / "network", monkeypatch, channels=2)
    first, other = (np.stack([gray(9, 12) for _ in range(3)]) for _ in range(2))
    first[0, 0, :2] = 0, 255
    for name, voxels, step in (
        *(("case_0000", first, 1), ("case_0001", other, 1)),
        *(("moved_0000", first, 1), ("moved_0001", other, 2)),
    ):
        nibabel.save(nibabel.Nifti1Image(voxels, np.diag([step, 1, 1, 1])), images / f"{name}.nii.gz")
    predict(model, images, "--out", tmp_path / "out", "--window", 32, code=1)
    assert listing(tmp_path / "out" / "masks") == ["case.nii.gz"]
    found = nibabel.load(tmp_path / "out" / "masks" / "case.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), first > 127)
    assert "moved_0001.nii.gz: another size or place than" in capsys.readouterr().err
    nibabel.save(nibabel.Nifti1Image(first, np.eye(4)), images / "case.nii.gz")
    line = refused(capsys, model, images, "--out", tmp_path / "out", "--window", 32)
    assert "would both be written as case" in line


def test_dicom_pictures_and_series(tmp_path, images, model):
    pytest.importorskip("pydicom", reason="needs the medical extra")
    from tests.test_dicom import STORED, dicom

    dicom(images / "ray.dcm", PixelSpacing=[0.5, 0.25])
    dicom(images / "unnamed")
    (images / "patient").mkdir()
    for number in range(3):
        dicom(images / "patient" / f"{number}.dcm", position=(0, 0, 5 * number))
    predict(model, images, "--out", tmp_path / "out", "--window", 32)
    mask = read_mask(tmp_path / "out" / "masks" / "ray.png")
    np.testing.assert_array_equal(mask, STORED / 4095 > 0.5)
    volume = volumes.read_volume(images / "patient")
    labels = volumes.read_labels(tmp_path / "out" / "masks" / "patient.nii.gz")
    np.testing.assert_array_equal(labels.affine, volume.affine)
    np.testing.assert_array_equal(labels.voxels, volume.voxels[..., 0] > 0.5 * volume.voxels.max())
    rows = {row["image"]: row for row in table(tmp_path / "out" / "measures.csv")}
    assert rows.keys() == {"ray.dcm", "unnamed", "patient"}
    assert float(rows["ray.dcm"]["mm2"]) == mask.sum() * 0.125
    assert rows["unnamed"]["mm2"] == ""
    assert float(rows["patient"]["mm3"]) == pytest.approx(labels.voxels.sum() * 0.625, rel=1e-4)


def test_a_patients_folder_is_named_by_itself(tmp_path, model, monkeypatch):
    pytest.importorskip("pydicom", reason="needs the medical extra")
    from tests.test_dicom import dicom

    folder = tmp_path / "p1"
    folder.mkdir()
    for number in range(2):
        dicom(folder / f"{number}.dcm", position=(0, 0, number))
    monkeypatch.chdir(folder)
    predict(model, ".", "--out", tmp_path / "out", "--window", 32)
    assert listing(tmp_path / "out" / "masks") == ["p1.nii.gz"]


def test_large_pictures_are_predicted_in_parts(tmp_path, images, monkeypatch):
    model = installed(tmp_path / "network", monkeypatch, classes=4)
    large = gray(300, 200)
    tifffile.imwrite(images / "slide.tif", large, tile=(64, 64))
    monkeypatch.setattr(predicting, "LARGE", 10_000)
    predict(model, images, "--out", tmp_path / "out", "--window", 64, "--probabilities")
    expected = levels(large[..., None] / 255, 4)
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "masks" / "slide.tif"), expected)
    assert read_image(tmp_path / "out" / "probabilities" / "slide.tif").shape == (300, 200, 4)
    rows = table(tmp_path / "out" / "measures.csv")
    assert [int(row["pixels"]) for row in rows] == [(expected == k).sum() for k in (1, 2, 3)]
    assert {row["objects"] for row in rows} == {""}
    predict(model, images, "--out", tmp_path / "other", "--window", 64, "--fill-holes", code=1)


def test_folders_patterns_and_files(tmp_path, images, model, monkeypatch):
    for name in ("a.png", "b.jpg", "deep/er/c.png", ".hidden.png", ".cache/d.png"):
        save(images / name, gray())
    (images / "notes.txt").write_text("no image")
    out = images / "results"
    for _ in range(2):  # the second time, the results are there, in the folder that is looked through
        predict(model, images, "--out", out, "--window", 64)
        assert listing(out / "masks") == ["a.png", "b.png", "deep/er/c.png"]
    predict(
        model,
        images / "a.png",
        images / "deep" / "**" / "c.*",
        images / "a.png",
        "--out",
        tmp_path / "o",
        "--window",
        64,
    )
    assert listing(tmp_path / "o" / "masks") == ["a.png", "c.png"]


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
    out, told = capsys.readouterr()
    assert "3 of 7 images" in out
    lines = told.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == [
        f"{images / name}" for name in ("b.png", "d.png", "f.png", "g.tif page 0")
    ]
    assert "3 channels; accepted are 1" in lines[1]
    assert "an empty file" in lines[2]
    assert "accepted are 0 to 1" in lines[3]
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
        ((images / "*.tif", *out), "no file fits this pattern"),
        ((images / "empty", *out), f"{images / 'empty'}: no images in this folder; accepted are .png"),
        ((images, *out), "a.jpg and"),
        ((images, *out), "would both be written as a; accepted are images of different names"),
        ((images / "masks" / "b.png", "--out", images), "would be written over the image itself"),
        ((images / "masks", "--out", images), "would be written over the image itself"),
        ((images / "a.png", "--out", images / "a.jpg"), "is a file; accepted is a folder"),
        (out, "no images are given"),
        ((images / "a.png", *out, "--threshold", 1), "--threshold is 1.0; accepted is 0 < threshold < 1"),
        ((images / "a.png", *out, "--axis", "up"), "unknown axis 'up'; known are axial, coronal, sagittal"),
        ((images / "a.png", *out, "--dtype", "int8"), "unknown dtype 'int8'; known are float32, bfloat16"),
        ((images / "a.png", *out, "--workers", 0), "--workers is 0; accepted are"),
        ((images / "a.png", *out, "--window", 100), "window is 100; accepted are multiples of 32"),
        ((images / "a.png", *out, "--tta", "all"), "unknown tta 'all'; known are none, flips, d4"),
        ((images / "a.png", *out, "--min-size", 1, 2), "--min-size is 1 2; accepted is a number of pixels"),
        ((images / "a.png", *out, "--min-size", -1), "--min-size is -1; accepted is a number of pixels >= 0"),
    ):
        assert line in refused(capsys, model, *words)
    assert not (tmp_path / "out").exists()
    assert listing(images) == ["a.jpg", "a.png", "masks/b.png"]


def test_a_threshold_is_for_one_output(tmp_path, images, monkeypatch, capsys):
    model = installed(tmp_path / "network", monkeypatch, classes=4)
    save(images / "a.png", gray())
    line = refused(capsys, model, images, "--out", tmp_path / "out", "--threshold", "0.4")
    assert "--threshold is 0.4; accepted with one output, and this network has 4" in line
    names = "dark, light, white"
    line = refused(capsys, model, images, "--out", tmp_path / "out", "--min-size", 1, 2)
    assert f"accepted is a number of pixels >= 0, or 3 numbers, for {names}" in line


def test_thresholds_move_the_mask(tmp_path, images, model):
    image = save(images / "a.png", gray())
    predict(model, images, "--out", tmp_path / "out", "--threshold", "0.8", "--window", 64)
    np.testing.assert_array_equal(
        read_mask(tmp_path / "out" / "masks" / "a.png"), read_image(image)[..., 0] > 0.8
    )


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
        (run, f"{run} is a run that has not stored its best network in model/ yet; accepted is"),
        (newer, "config.json is of format 99; accepted is 1"),
        (nothing, f"{nothing} holds no config.json; accepted is a folder"),
        (images / "a.png", "holds no config.json"),
        (tmp_path / "absent", "holds no config.json"),
    ):
        assert line in refused(capsys, model, images, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_goes_on(tmp_path, images, model, monkeypatch, capsys):
    for number in range(6):
        save(images / f"{number}.png", gray())
    words = (images, "--out", tmp_path / "out", "--window", 64, "--instances")
    asked = []

    class Stopping(Levels):
        def windows(self, x):
            asked.append(1)
            if len(asked) == 4:
                raise KeyboardInterrupt
            return super().windows(x)

    load = predictor.load
    stopping = lambda *a, **o: Stopping(**vars(load(*a, **o)))  # noqa: E731
    monkeypatch.setattr(predictor, "load", stopping)
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
    asked[:] = [1] * 4  # it stops no more
    predict(model, *words, "--resume")
    assert f"{7 - len(whole)} of 6 images, {len(whole) - 1} were there" in capsys.readouterr().out
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
    before = len(asked)
    predict(model, *words, "--resume")
    assert "0 of 6 images, 6 were there" in capsys.readouterr().out
    predict(model, *words)  # without it, all is done again
    assert len(asked) == before + 6


@pytest.mark.parametrize("kind", ["picture", "stack", "table"])
def test_a_full_disk_is_one_line_and_leaves_nothing_half(tmp_path, images, model, kind, capsys):
    noise = RNG.integers(0, 256, (3, 200, 200), np.uint8)
    save(images / "a.png", gray())
    if kind == "stack":
        tifffile.imwrite(images / "b.tif", noise, photometric="minisblack")
    elif kind == "picture":
        save(images / "b.png", noise[0])
    words = (images, "--out", tmp_path / "out", "--window", 256, "--workers", 1)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    if kind == "table":
        for number in range(60):
            save(images / f"{number:04}{'n' * 60}.png", gray(4, 4))
    capsys.readouterr()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, usual[1]))
        predict(model, *words, code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    out, told = capsys.readouterr()
    assert out == ""
    assert told.count("\n") == 1
    name = {"picture": "b.png", "stack": "b.tif", "table": "measures.csv"}[kind]
    assert name in told
    assert "File too large" in told
    assert "--resume goes on" in told
    assert not [name for name in listing(tmp_path / "out") if ".part" in name]
    rows = table(tmp_path / "out" / "measures.csv")
    assert all(row["objects"] for row in rows)
    assert {Path(row["image"]).stem + ".png" for row in rows} <= set(listing(tmp_path / "out" / "masks"))
    predict(model, *words, "--resume")
    assert len(table(tmp_path / "out" / "measures.csv")) == {"picture": 2, "stack": 4, "table": 61}[kind]


def test_no_space_is_told_by_name(tmp_path, images, model, monkeypatch, capsys):
    save(images / "a.png", gray())
    usual = files.Path.write_bytes

    def full(path, data):
        if "a.png" in path.name:
            raise OSError(28, "No space left on device", str(path))
        return usual(path, data)

    monkeypatch.setattr(files.Path, "write_bytes", full)
    predict(model, images, "--out", tmp_path / "out", "--window", 64, code=1)
    assert "masks/a.png: No space left on device" in capsys.readouterr().err
    assert listing(tmp_path / "out") == ["measures.csv", "prediction.json"]


def test_a_device_that_is_too_small_is_told(tmp_path, images, model, monkeypatch, capsys):
    import jax

    save(images / "a.png", gray())

    def full(self, x):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.\nmore")

    monkeypatch.setattr(Levels, "windows", full)
    predict(model, images, "--out", tmp_path / "out", code=1)
    told = capsys.readouterr().err
    assert "a.png: there is too little memory; accepted may be a smaller --window or --batch" in told
    assert told.count("\n") == 1


def test_objects_get_numbers(tmp_path, images, monkeypatch):
    model = installed(tmp_path / "network", monkeypatch, classes=4)
    image = np.zeros((24, 40), np.uint8)
    image[2:10, 2:10], image[2:10, 20:30], image[15:20, 5:15], image[20, 38] = 100, 100, 250, 250
    save(images / "a.png", image)
    predict(
        model, images, "--out", tmp_path / "out", "--instances", "--min-size", 2, "--overlays", "--window", 64
    )
    path = tmp_path / "out" / "masks" / "a.png"
    with PIL.Image.open(path) as stored:
        assert stored.mode == "I;16"
    mask = read_mask(path)
    assert [mask[5, 5], mask[5, 25], mask[17, 10], mask[20, 38]] == [1, 2, 3, 0]
    rows = table(tmp_path / "out" / "measures.csv")
    assert [(row["class"], row["pixels"], row["objects"]) for row in rows] == [
        ("dark", "144", "2"),
        ("light", "0", "0"),
        ("white", "50", "1"),
    ]
    rows = table(tmp_path / "out" / "objects.csv")
    assert [(row["object"], row["class"], row["pixels"]) for row in rows] == [
        ("1", "dark", "64"),
        ("2", "dark", "80"),
        ("3", "white", "50"),
    ]


def test_more_objects_than_16_bits_have(tmp_path, images, model):
    image = np.zeros((600, 600), np.uint8)
    image[::2, ::2] = 255
    save(images / "a.png", image)
    predict(model, images, "--out", tmp_path / "out", "--instances", "--window", 640)
    [name] = listing(tmp_path / "out" / "masks")
    assert name == "a.tif"
    stored = tifffile.imread(tmp_path / "out" / "masks" / name)
    assert (stored.dtype, stored.max()) == (np.uint32, 90_000)
    assert len(np.unique(read_mask(tmp_path / "out" / "masks" / name))) == 90_001


def test_real_networks_alone_and_together(tmp_path, images):
    path = save(images / "a.png", gray(40, 50))
    folders = [tmp_path / "one", tmp_path / "two"]
    out = tmp_path / "out"
    with shallow():
        for seed, folder in enumerate(folders):
            model = network("unet", "shallow", in_channels=1, classes=3)
            model.heads[0].bias[...] += seed
            flaxunet.save(model, folder / "model", source={"classes": ["background", "gray", "white"]})
        predict(folders[0], "--also", folders[1], images, "--out", out, "--window", 64, "--probabilities")
        together = predictor.load(folders, window=64)(read_image(path))
    np.testing.assert_array_equal(read_mask(out / "masks" / "a.png"), together.argmax(-1))
    np.testing.assert_allclose(read_image(out / "probabilities" / "a.tif"), together, atol=1e-3)
    settings = json.loads((out / "prediction.json").read_text())
    assert len(set(settings["networks"])) == 2
    assert settings["classes"] == {"0": "background", "1": "gray", "2": "white"}


def test_help_needs_no_processing_of_images():
    code = (
        "import sys; from flaxunet.__main__ import main\n"
        "try: main(['predict', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'skimage', 'scipy', 'tifffile', 'nibabel'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert "--keep-largest" in done.stdout
