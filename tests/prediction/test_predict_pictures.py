"""`python -m flaxunet predict` on pictures and stacks: masks, probabilities, overlays and tables."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tifffile

import flaxunet
from flaxunet.io.images import mask_colors, page_count, read_image, read_mask
from flaxunet.prediction import slides
from flaxunet.prediction.predictor import Predictor
from flaxunet.prediction.tiling import Tiling
from flaxunet.report import overlay
from tests.support.levels import (
    NAMES,
    gray,
    installed,
    levels,
    listing,
    predict,
    save,
    table,
)
from tests.support.networks import network, shallow


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
        result = read_mask(tmp_path / "out" / "masks" / f"{name}.png")
        np.testing.assert_array_equal(result, levels(image))
        probabilities = tifffile.imread(tmp_path / "out" / "probabilities" / f"{name}.tif")
        assert probabilities.dtype == np.float16
        np.testing.assert_allclose(probabilities, image[..., 0], atol=1e-3)
        assert read_image(tmp_path / "out" / "overlays" / f"{name}.png").shape == (*result.shape, 3)
        with PIL.Image.open(tmp_path / "out" / "masks" / f"{name}.png") as stored:
            assert stored.mode == "P"
        [row] = [
            row
            for row in table(tmp_path / "out" / "measures.csv")
            if row["image"] == str(path.relative_to(images))
        ]
        assert (row["class"], row["page"], row["mm2"], row["mm3"]) == ("dark", "", "", "")
        assert int(row["pixels"]) == result.sum()
    out, err = capsys.readouterr()
    assert re.match(
        r"4 of 4 images: 4 pictures, the first after [\d.]+ s, then [\d.]+ images/s, [\d.]+ megapixels/s\n",
        out,
    )
    assert err == ""


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
    assert page_count(mask) == 3
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


def test_masks_have_the_colours_of_the_training(tmp_path, images, monkeypatch):
    colors = ((250, 10, 20), (0, 200, 30), (9, 9, 240))
    model = installed(tmp_path / "network", monkeypatch, classes=4, colors=colors)
    monkeypatch.setattr(slides, "LARGE", 10_000)
    save(images / "picture.png", gray())
    tifffile.imwrite(images / "stack.tif", np.stack([gray(), gray()]), photometric="minisblack")
    tifffile.imwrite(images / "slide.tif", gray(120, 110), tile=(32, 32))
    predict(model, images, "--out", tmp_path / "out", "--window", 128, "--overlays")
    masks = tmp_path / "out" / "masks"
    for name in ("picture.png", "stack.tif", "slide.tif"):
        with PIL.Image.open(masks / name) as stored:
            assert stored.getpalette("RGB")[:12] == [0, 0, 0, *colors[0], *colors[1], *colors[2]]
        assert mask_colors(masks / name, 4) == colors
    shown = read_image(tmp_path / "out" / "overlays" / "picture.png")
    labels = read_mask(masks / "picture.png")
    painted = overlay.overlay_picture(read_image(images / "picture.png"), labels, colors)
    np.testing.assert_array_equal(np.rint(255 * shown), painted)


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


def test_thresholds_move_the_mask(tmp_path, images, model):
    image = save(images / "a.png", gray())
    predict(model, images, "--out", tmp_path / "out", "--threshold", "0.8", "--window", 64)
    np.testing.assert_array_equal(
        read_mask(tmp_path / "out" / "masks" / "a.png"), read_image(image)[..., 0] > 0.8
    )


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
        together = Predictor.load(folders, tiling=Tiling(64))(read_image(path))
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
