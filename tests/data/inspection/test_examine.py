"""Everything wrong or odd in a dataset is a finding, by file."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from flaxunet.data import find
from flaxunet.data.inspection import examine
from tests.support.datasets import pattern, write_pair, write_pairs
from tests.support.inspected import finding_lines, stripes


def test_everything_wrong_is_listed_by_file(tmp_path):
    root = write_pairs(tmp_path / "data", 12, height=40, width=40)
    write_pair(root, "lonely", pattern(20)[0], None)
    write_pair(root, "size", pattern(21, 40, 40)[0], pattern(21, 44, 40)[1])
    write_pair(root, "blurred", pattern(22, 40, 40)[0], stripes([0] * 19 + [60, 120, 190] + [255] * 18))
    Image.fromarray(pattern(23, 40, 40)[1]).save(root / "masks" / "jpeg.jpg")
    Image.fromarray(pattern(23, 40, 40)[0]).save(root / "images" / "jpeg.png")
    write_pair(root, "broken", pattern(24, 40, 40)[0], pattern(24, 40, 40)[1])
    (root / "images" / "broken.png").write_bytes((root / "images" / "broken.png").read_bytes()[:300])
    holes = pattern(25, 40, 40)[0].astype(np.float32) / 255
    holes[3, 4] = np.nan
    tifffile.imwrite(root / "images" / "holes.tif", holes)
    Image.fromarray(pattern(25, 40, 40)[1]).save(root / "masks" / "holes.png")
    text = "\n".join(finding_lines(examine(find(root), target="classes", classes=2)))
    for words in (
        "images/lonely.png: no mask of this name",
        "masks/size.png: 44 x 40 pixels; expected 40 x 40",
        "masks/blurred.png: 3 values between 0 and 255 in 7.5% of its pixels",
        "masks/blurred.png: labels 60, 120, 190, 255; expected 0..1",
        "masks/jpeg.jpg: a JPEG file, whose compression blurs labels",
        "images/broken.png: ",
        "images/holes.tif: 1 NaN or infinite pixels, first at row 3, column 4",
    ):
        assert words in text


def test_odd_images_are_warned_of(tmp_path):
    write_pairs(tmp_path, 6, height=40, width=40)
    write_pair(tmp_path, "same", np.full((40, 40), 51, np.uint8), pattern(1, 40, 40)[1])
    write_pair(tmp_path, "tiny", *pattern(2, 8, 40))
    write_pair(tmp_path, "empty", pattern(3, 40, 40)[0], np.zeros((40, 40), np.uint8))
    tifffile.imwrite(tmp_path / "images" / "dim.tif", pattern(4, 40, 40)[0].astype(np.uint16))
    Image.fromarray(pattern(4, 40, 40)[1]).save(tmp_path / "masks" / "dim.png")
    report = examine(find(tmp_path))
    assert not report.errors
    assert [line.split("/")[-1] for line in finding_lines(report, error=False)] == [
        "dim.tif: uses less than 6.25% of the range of uint16 (its brightest pixel has 0.4%)",
        "same.png: all pixels are equal (0.2)",
        "tiny.png: fewer than 32 pixels a side (8 x 40)",
    ]
    assert [Path(name).name for name in report.empty] == ["empty.png"]
    assert report.images["types"] == {"uint8": 9, "uint16": 1}


def smooth(seed):
    """An image with large structures, as all real ones have."""
    coarse = np.random.default_rng(seed).integers(40, 220, (8, 8), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC))


def test_copies_in_another_split_are_found(tmp_path):
    for split, seeds in {"train": range(6), "val": range(10, 13), "test": range(20, 24)}.items():
        for seed in seeds:
            write_pair(tmp_path / split, f"n{seed}", smooth(seed), (smooth(seed) > 130).astype(np.uint8))
    report = examine(find(tmp_path))
    assert not report.errors
    assert not report.warnings
    images = tmp_path / "test" / "images"
    shutil.copy(tmp_path / "train" / "images" / "n3.png", images / "n20.png")
    smaller = Image.fromarray(smooth(11)).resize((48, 48), Image.Resampling.BILINEAR)
    smaller.resize((64, 64), Image.Resampling.BICUBIC).save(images / "n21.png")
    report = examine(find(tmp_path))
    [error], [warning] = finding_lines(report), finding_lines(report, error=False)
    assert error.startswith(f"{images}/n20.png: is in test and in train; expected")
    assert error.endswith(f"({tmp_path}/train/images/n3.png)")
    assert warning.startswith(f"{images}/n21.png: is in test and nearly the same as an image of validation")
    assert f"({tmp_path}/val/images/n11.png, correlation " in warning


def test_masks_without_any_label_are_an_error(tmp_path):
    for number in range(6):
        write_pair(tmp_path, f"n{number}", pattern(number)[0], np.zeros((20, 24), np.uint8))
    assert finding_lines(examine(find(tmp_path))) == [
        "masks: all are empty; expected some with labels above 0"
    ]


def test_classes_that_a_split_lacks_are_named(roots):
    root = roots["coco"]
    listing = find(root)
    more = dataclasses.replace(listing, class_names=("background", "square", "circle"))
    assert finding_lines(examine(more), error=False)[-1] == "circle: occurs in no mask"


def test_classes_of_one_split_or_one_mask_are_named(tmp_path):
    for split, numbers in {"train": range(9), "val": range(9, 11), "test": range(11, 13)}.items():
        for number in numbers:
            labels = [0, 1, 2] if number == 4 else [0, 1]
            write_pair(tmp_path / split, f"n{number}", pattern(number, 40, 40)[0], stripes(labels))
    assert finding_lines(examine(find(tmp_path)), error=False) == [
        "class 2: occurs in no mask of validation",
        "class 2: occurs in no mask of test",
        f"{tmp_path}/train/masks/n4.png: the only mask with class 2 (480 pixels)",
    ]
