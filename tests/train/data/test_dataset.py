"""Folders become data sets, or one full list of what is wrong with them."""

import hashlib
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from flaxunet import data as layouts
from flaxunet.__main__ import main
from flaxunet.data import MAX_LISTED
from flaxunet.data.layouts import brain
from flaxunet.io.images import write_mask
from flaxunet.labels import IGNORE
from tests.support.datasets import load_dataset, pattern, problems, write_pair, write_pairs
from train.__main__ import _with_default_data
from train.config.settings import Config
from train.data.dataset import DataError


def test_flat_folder_is_cut_the_same_way_every_time(tmp_path):
    write_pairs(tmp_path, 20)
    first, again, other = (
        load_dataset(tmp_path),
        load_dataset(tmp_path, workers=1),
        load_dataset(tmp_path, seed=1),
    )
    names = [[sample["name"] for sample in split] for split in (first.train, first.validation, first.test)]
    assert [len(split) for split in names] == [14, 3, 3]
    assert sorted(chain(*names)) == [f"n{number:02}" for number in range(20)]
    assert names == [[s["name"] for s in split] for split in (again.train, again.validation, again.test)]
    assert names[2] != [s["name"] for s in other.test]
    # Frozen, so that no new version of anything moves test images into train.
    assert names[2] == ["n08", "n10", "n17"]


def test_split_folders_are_kept(tmp_path):
    for split, numbers in {"train": range(10), "test": range(20, 23)}.items():
        for number in numbers:
            write_pair(tmp_path / split, f"n{number}", *pattern(number), masks="labels")
    data = load_dataset(tmp_path)
    assert [s["name"] for s in data.test] == ["n20", "n21", "n22"]
    assert len(data.validation) == 2  # 15 % of 10
    assert len({s["name"] for s in (*data.train, *data.validation)}) == 10
    write_pair(tmp_path / "validation", "n30", *pattern(30))
    data = load_dataset(tmp_path)
    assert ([s["name"] for s in data.validation], len(data.train)) == (["n30"], 10)


@pytest.mark.parametrize(
    ("made", "classes", "expected", "names"),
    [
        (2, None, 1, ("background", "foreground")),
        (2, 2, 2, ("background", "foreground")),
        (3, None, 3, ("background", "class 1", "class 2")),
        (3, 4, 4, ("background", "class 1", "class 2", "class 3")),
    ],
)
def test_classes_are_inferred_or_taken(tmp_path, made, classes, expected, names):
    data = load_dataset(write_pairs(tmp_path, 4, classes=made), classes=classes)
    assert (data.classes, data.class_names, data.channels) == (expected, names, 1)
    sample = data.train[0]
    assert (sample["image"].dtype, sample["label"].dtype) == (np.float32, np.int32)


def test_colours_are_those_of_indexed_masks(tmp_path):
    for number in range(6):
        image, mask = pattern(number, classes=3)
        write_pair(tmp_path, f"n{number}", image, None)
        (tmp_path / "masks").mkdir(exist_ok=True)
        write_mask(tmp_path / "masks" / f"n{number}.png", mask, [(250, 10, 20), (0, 90, 240)])
    assert load_dataset(tmp_path).colors == ((250, 10, 20), (0, 90, 240))
    assert load_dataset(tmp_path, target="foreground").colors is None
    write_pairs(tmp_path / "gray", 6)
    assert load_dataset(tmp_path / "gray").colors is None


def test_foreground_and_ignored_labels(tmp_path):
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4], mask[4:6], mask[6:] = 7, 200, 255
    for number in range(3):
        write_pair(tmp_path, f"n{number}", mask, mask)
    data = load_dataset(tmp_path, target="foreground", ignore_label=255)
    expected = np.repeat([0, 1, 1, IGNORE], 2)[:, None].repeat(8, axis=1)
    assert data.classes == 1
    np.testing.assert_array_equal(data.test[0]["label"], expected)


def test_labels_that_do_not_fit_are_told_how_to(tmp_path):
    write_pairs(tmp_path, 3, classes=2)
    write_pair(tmp_path, "binary", *(pattern(9)[0], pattern(9)[1] * 255))
    [line] = problems(tmp_path)
    assert "binary.png" in line
    assert "--target foreground" in line
    [line] = problems(tmp_path, classes=1)
    assert "masks/binary.png: labels 255; expected 0..1; " in line
    assert "--target foreground" in line
    write_pair(tmp_path, "binary", *pattern(9, classes=4))
    [line] = problems(tmp_path, classes=2)
    assert line.endswith("masks/binary.png: labels 2, 3; expected 0..1")
    write_pair(tmp_path, "binary", *pattern(9, classes=64))
    [line] = problems(tmp_path)
    assert "label 63; expected 0..31 without --classes" in line
    assert "--target foreground" in line
    assert load_dataset(tmp_path, classes=64).classes == 64


@pytest.mark.parametrize("target", ["classes", "foreground"])
def test_negative_labels_are_refused_unless_ignored(tmp_path, target):
    write_pairs(tmp_path, 4)
    (tmp_path / "masks" / "n01.png").unlink()
    tifffile.imwrite(tmp_path / "masks" / "n01.tif", pattern(1)[1].astype(np.int16) - 1)
    [line] = problems(tmp_path, target=target)
    assert line.endswith("masks/n01.tif: labels -1; expected 0..1")
    data = load_dataset(tmp_path, target=target, ignore_label=-1)
    assert {
        label for s in (*data.train, *data.validation, *data.test) for label in np.unique(s["label"])
    } == {-1, 0, 1}


def test_gray_meets_colour_but_not_other_channels(tmp_path):
    write_pairs(tmp_path, 4)
    write_pair(tmp_path, "rgb", *pattern(8, channels=3))
    data = load_dataset(tmp_path)
    images = [s["image"] for s in (*data.train, *data.validation, *data.test)]
    assert data.channels == 3
    assert {image.shape[-1] for image in images} == {3}
    np.testing.assert_array_equal(images[0][..., 0], images[0][..., 2])
    for name, channels in {"two": 2, "five": 5}.items():
        write_pair(tmp_path, name, None, pattern(9)[1])
        array = np.repeat(pattern(9)[0][None], channels, axis=0)
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", array, imagej=True, metadata={"axes": "CYX"})
    lines = problems(tmp_path)
    assert ["five.tif: 5 channels; expected 1" in lines[0], "two.tif: 2 channels" in lines[2]] == [True] * 2


def test_all_problems_are_listed_at_once(tmp_path):
    write_pairs(tmp_path, 4)
    write_pair(tmp_path, "lonely", pattern(1)[0], None)
    write_pair(tmp_path, "extra", None, pattern(1)[1])
    write_pair(tmp_path, "size", pattern(1)[0], pattern(1, height=21)[1])
    write_pair(tmp_path, "class", pattern(1)[0], pattern(1, classes=4)[1])
    write_pair(tmp_path, "broken", None, None)
    (tmp_path / "images" / "broken.png").write_bytes(b"nothing")
    (tmp_path / "masks" / "broken.png").write_bytes(b"")
    Image.fromarray(pattern(0)[0]).save(tmp_path / "images" / "n00.jpg")
    (tmp_path / "images" / "notes.txt").write_text("passed over")
    (tmp_path / "images" / ".hidden.png").write_text("passed over")
    found = "\n".join(problems(tmp_path, classes=2))
    for words in (
        f"{tmp_path}/images/lonely.png: no mask of this name",
        f"{tmp_path}/masks/extra.png: no image of this name",
        f"{tmp_path}/masks/size.png: 21 x 24 pixels; expected 20 x 24",
        f"{tmp_path}/masks/class.png: labels 2, 3; expected 0..1",
        f"{tmp_path}/images/broken.png: unrecognised format",
        f"{tmp_path}/masks/broken.png: an empty file",
        f"{tmp_path}/images/n00.png: the same name as n00.jpg",
    ):
        assert words in found
    assert found.count("\n") == 6


def test_a_long_list_is_shortened(tmp_path):
    write_pairs(tmp_path, MAX_LISTED + 5, classes=3)
    with pytest.raises(DataError) as refusal:
        load_dataset(tmp_path, classes=1)
    assert len(refusal.value.problems) == MAX_LISTED + 5
    lines = str(refusal.value).splitlines()
    assert len(lines) == MAX_LISTED + 1
    assert lines[-1] == "... and 5 more"


def test_folders_that_are_none(tmp_path):
    assert "no such folder; expected a folder with images/" in problems(tmp_path / "none")[0]
    assert "no images/" in problems(tmp_path)[0]
    (tmp_path / "images").mkdir()
    assert "no masks/ or labels/" in problems(tmp_path)[0]
    (tmp_path / "masks").mkdir()
    assert len(problems(tmp_path)) == 2  # no image files in either
    write_pairs(tmp_path, 2)
    assert "2 pairs to split; expected 3" in problems(tmp_path)[0]
    (tmp_path / "labels").mkdir()
    assert "has masks/ and labels/" in problems(tmp_path)[0]
    write_pairs(tmp_path / "train", 4)
    [line] = problems(tmp_path)
    assert "looks like folders (images/ with masks/) and splits (train/); expected one of them" in line


def test_resize_keeps_aspect_and_pairs(tmp_path):
    image = np.zeros((40, 80), np.uint8)
    image[:, 40:] = 255
    for number in range(3):
        write_pair(tmp_path, f"n{number}", image, image // 255)
    sample = load_dataset(tmp_path, fit="resize", size=20).train[0]
    assert sample["image"].shape == (10, 20, 1)
    assert set(np.unique(sample["label"])) == {0, 1}
    assert ((sample["image"][..., 0] > 0.5) == sample["label"]).all()
    assert load_dataset(tmp_path, fit="resize", size=100).train[0]["label"].shape == (50, 100)


def test_brain_slabs_stay_10_mm_apart():
    splits = {"train": brain.TRAIN, "validation": brain.VALIDATION, "test": brain.TEST}
    for name, slab in splits.items():
        others = [z for other in splits if other != name for z in splits[other]]
        assert min(abs(z - other) for z in slab for other in others) > 10


def test_brain_is_the_default():
    data = load_dataset(None)
    assert (data.name, data.classes, data.channels) == ("ICBM 152 average brain MRI", 3, 1)
    assert data.class_names == ("background", "gray matter", "white matter")
    for split in (data.train, data.validation, data.test):
        for sample in split:
            assert sample["image"].shape == (192, 160, 1)
            assert set(np.unique(sample["label"])) == {0, 1, 2}
            assert sample["label"][sample["image"][..., 0] == 0].max() == 0  # nothing outside of the brain
    whole = np.concatenate([s["image"].ravel() for s in data.train])
    assert (whole.min(), whole.max()) == (0, 1)
    label = data.train[30]["label"]
    means = [data.train[30]["image"][..., 0][label == k].mean() for k in (1, 2)]
    assert means[0] < means[1]  # white matter is the brighter one on T1
    foreground = load_dataset(None, target="foreground")
    assert (foreground.classes, foreground.class_names) == (1, ("background", "foreground"))


def test_brain_written_as_files_is_the_default_bit_for_bit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "brain", "slices"]) == 0
    assert "train with: python -m train --data slices" in capsys.readouterr().out
    default, written = load_dataset(None), load_dataset("slices")
    assert default.class_names == written.class_names
    for name in ("train", "validation", "test"):
        pairs = list(zip(getattr(default, name), getattr(written, name), strict=True))
        assert len(pairs) == len(brain.splits()[name])
        for ours, theirs in pairs:
            assert ours["name"] == theirs["name"]
            np.testing.assert_array_equal(ours["image"], theirs["image"])
            np.testing.assert_array_equal(ours["label"], theirs["label"])


def test_default_numbers_stay(tmp_path):
    """A digest of the default data in their order, of before they had a layout of their own."""
    digest = hashlib.sha256()
    data = load_dataset(None)
    for sample in chain(data.train, data.validation, data.test):
        for part in (sample["name"].encode(), sample["image"].tobytes(), sample["label"].tobytes()):
            digest.update(part)
    assert digest.hexdigest() == "8896f9ce8b91d55fe51f9f9d323242a2190319d74d9797084a92e564b0e8a603"


def test_brain_is_a_name_where_there_is_no_such_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = layouts.find(Path("brain"))
    assert (found.layout, len(found.records), found.problems) == ("brain", 106, [])
    image, label = found.records[0].read()
    assert (image.shape, label.shape, found.records[0].name) == ((192, 160, 1), (192, 160), "slice114")
    [line] = layouts.find(Path("brain"), axis="coronal").problems
    assert line == "brain: --axis is coronal; expected axial"
    [line] = layouts.find(Path("other"), layout="brain").problems
    assert "expected brain with --layout brain" in line
    assert _with_default_data(Config.from_flat(data="brain")) == Config()
    write_pairs(tmp_path / "brain", 4)
    assert _with_default_data(Config.from_flat(data="brain")).data.folder == "brain"
    assert layouts.find(Path("brain")).layout == "folders"
