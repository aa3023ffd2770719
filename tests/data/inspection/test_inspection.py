"""The doctor tells the truth about a dataset, all of it, and suggests flags that train on it."""

import dataclasses
import json
import shlex
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from flaxunet import data as layouts
from flaxunet.__main__ import main
from flaxunet.data import inspection as doctor
from flaxunet.io.images import read_image, read_mask
from tests.support import written
from tests.support.datasets import load_dataset, pattern, write_pair, write_pairs
from train.config.settings import Data
from train.data import precheck
from train.data.dataset import DataError


def report(root, **options):
    return doctor.examine(layouts.find(root), **options)


def lines(found, error=True):
    return [str(one) for one in found.findings if one.error == error]


def inspected(capsys, root, *flags, code=0):
    """The page, and what inspect.json says."""
    out = Path(root).parent / "inspected"
    assert main(["inspect", str(root), "--out", str(out), *flags]) == code
    assert not list(out.glob("*.part"))
    return capsys.readouterr().out, json.loads((out / "inspect.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder in each layout."""
    root = tmp_path_factory.mktemp("doctor")
    return {name: written.written(name, root / name / "data") for name in written.WRITERS}


@pytest.mark.parametrize("layout", list(written.WRITERS))
def test_the_flags_that_are_suggested_train(made, layout, capsys):
    named = ["--layout", "instances"] if layout == "instances" else []
    page, content = inspected(capsys, made[layout], *named)
    assert content["usable"]
    assert content["command"] in page
    words = shlex.split(content["command"])
    assert words[:5] == ["python", "-m", "train", "--data", str(made[layout])]
    flags = dict(zip(words[5::2], words[6::2], strict=True))
    assert flags.pop("--size") == "32"
    expected = {"--target": "foreground"} if layout in ("dsb2018", "instances") else {}
    assert flags == expected | ({"--layout": layout} if named else {})
    target = flags.get("--target", "classes")
    load_dataset(made[layout], target=target, layout=flags.get("--layout"))
    with Image.open(made[layout].parent / "inspected" / "contact-sheet.png") as sheet:
        assert len(sheet.getcolors(2**20) or range(999)) > 50


def test_numbers_are_those_of_the_files(made, capsys):
    page, content = inspected(capsys, made["splits"])
    masks = [written.truth(number)[1] > 0 for number in range(written.COUNT)]
    inside = int(sum(mask.sum() for mask in masks))
    assert content["images"] == {
        "sizes": {"20 x 24": written.COUNT},
        "types": {"uint8": written.COUNT},
        "channels": {"1": written.COUNT},
    }
    assert content["masks"]["values"] == {"0": written.COUNT * 480 - inside, "1": inside}
    assert content["masks"]["labels"][1] == {
        "value": 1, "name": "foreground", "pixels": inside, "masks": written.COUNT
    }  # fmt: skip
    assert [content["splits"][name]["samples"] for name in ("train", "validation", "test")] == [8, 1, 1]
    assert f"{inside:,}" in page
    _, content = inspected(capsys, made["dsb2018"])
    assert content["masks"]["objects"] == sum(len(written.boxes(number)) for number in range(written.COUNT))


def shape(labels, size=40):
    """A mask that holds the labels in stripes."""
    return np.repeat(np.array(labels, np.uint8), -(-size // len(labels)))[:size, None].repeat(size, axis=1)


@pytest.mark.parametrize(
    ("masks", "target", "ignored"),
    [
        ([[0, 1]], "classes", None),
        ([[0, 255]], "foreground", None),
        ([[0, 7]], "foreground", None),
        ([[0, 1, 2, 3]], "classes", None),
        ([[0, 1, 255]], "classes", 255),
        ([[0, 2, 1, 255], [0, 1]], "classes", 255),
        ([list(range(40))], "foreground", None),
    ],
)
def test_what_masks_mean_is_suggested(tmp_path, masks, target, ignored):
    for number in range(8):
        write_pair(tmp_path, f"n{number}", pattern(number, 40, 40)[0], shape(masks[number % len(masks)]))
    found = report(tmp_path)
    assert (found.target, found.ignore_label) == (target, ignored)
    assert not found.errors


def test_few_objects_are_told_from_classes(tmp_path):
    for number in range(7):
        write_pair(tmp_path, f"n{number}", pattern(number, 40, 40)[0], shape(list(range(number + 2))))
    found = report(tmp_path)
    assert (found.target, sum(found.objects)) == ("foreground", sum(range(1, 8)))
    warning = "masks: each has labels 1 to n, as numbered objects have: is --target foreground meant?"
    assert lines(report(tmp_path, target="classes"), error=False)[-1] == warning


def test_gray_levels_are_no_classes(tmp_path):
    for number in range(6):
        write_pair(tmp_path, f"n{number}", pattern(number, 40, 40)[0], shape([0, 128, 255]))
    found = report(tmp_path)
    assert "masks: gray levels 0, 128, 255; expected labels 0, 1, 2, ..." in lines(found)
    assert [label.value for label in found.labels] == [0, 128, 255]
    assert not lines(found, error=False)


def test_everything_wrong_is_listed_by_file(tmp_path):
    root = write_pairs(tmp_path / "data", 12, height=40, width=40)
    write_pair(root, "lonely", pattern(20)[0], None)
    write_pair(root, "size", pattern(21, 40, 40)[0], pattern(21, 44, 40)[1])
    write_pair(root, "blurred", pattern(22, 40, 40)[0], shape([0] * 19 + [60, 120, 190] + [255] * 18))
    Image.fromarray(pattern(23, 40, 40)[1]).save(root / "masks" / "jpeg.jpg")
    Image.fromarray(pattern(23, 40, 40)[0]).save(root / "images" / "jpeg.png")
    write_pair(root, "broken", pattern(24, 40, 40)[0], pattern(24, 40, 40)[1])
    (root / "images" / "broken.png").write_bytes((root / "images" / "broken.png").read_bytes()[:300])
    holes = pattern(25, 40, 40)[0].astype(np.float32) / 255
    holes[3, 4] = np.nan
    tifffile.imwrite(root / "images" / "holes.tif", holes)
    Image.fromarray(pattern(25, 40, 40)[1]).save(root / "masks" / "holes.png")
    text = "\n".join(lines(report(root, target="classes", classes=2)))
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
    found = report(tmp_path)
    assert not found.errors
    assert [line.split("/")[-1] for line in lines(found, error=False)] == [
        "dim.tif: uses less than 6.25% of the range of uint16 (its brightest pixel has 0.4%)",
        "same.png: all pixels are equal (0.2)",
        "tiny.png: fewer than 32 pixels a side (8 x 40)",
    ]
    assert [Path(name).name for name in found.empty] == ["empty.png"]
    assert found.dtypes == {"uint8": 9, "uint16": 1}


def test_equal_warnings_are_one_line_with_their_number(tmp_path, capsys):
    for number in range(12):
        write_pair(tmp_path / "data", f"n{number:02}", *pattern(number, 20 + number % 2, 40))
    page, content = inspected(capsys, tmp_path / "data")
    assert len(content["findings"]) == 12  # the file has them all
    assert "12 warnings" in page
    (line,) = [line for line in page.splitlines() if "fewer than 32 pixels a side" in line]
    assert "n00.png" in line
    assert "and 9 more" in line


def smooth(seed):
    """An image with large structures, as all real ones have."""
    coarse = np.random.default_rng(seed).integers(40, 220, (8, 8), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC))


def test_copies_in_another_split_are_found(tmp_path):
    for split, seeds in {"train": range(6), "val": range(10, 13), "test": range(20, 24)}.items():
        for seed in seeds:
            write_pair(tmp_path / split, f"n{seed}", smooth(seed), (smooth(seed) > 130).astype(np.uint8))
    assert not report(tmp_path).findings
    images = tmp_path / "test" / "images"
    shutil.copy(tmp_path / "train" / "images" / "n3.png", images / "n20.png")
    smaller = Image.fromarray(smooth(11)).resize((48, 48), Image.Resampling.BILINEAR)
    smaller.resize((64, 64), Image.Resampling.BICUBIC).save(images / "n21.png")
    found = report(tmp_path)
    [error], [warning] = lines(found), lines(found, error=False)
    assert error.startswith(f"{images}/n20.png: is in test and in train; expected")
    assert error.endswith(f"({tmp_path}/train/images/n3.png)")
    assert warning.startswith(f"{images}/n21.png: is in test and nearly the same as an image of validation")
    assert f"({tmp_path}/val/images/n11.png, correlation " in warning


def test_masks_without_any_label_are_an_error(tmp_path):
    for number in range(6):
        write_pair(tmp_path, f"n{number}", pattern(number)[0], np.zeros((20, 24), np.uint8))
    assert lines(report(tmp_path)) == ["masks: all are empty; expected some with labels above 0"]


def test_classes_that_a_split_lacks_are_named(made):
    root = made["coco"]
    found = layouts.find(root)
    more = dataclasses.replace(found, class_names=("background", "square", "circle"))
    assert lines(doctor.examine(more), error=False)[-1] == "circle: occurs in no mask"


def test_classes_of_one_split_or_one_mask_are_named(tmp_path):
    for split, numbers in {"train": range(9), "val": range(9, 11), "test": range(11, 13)}.items():
        for number in numbers:
            labels = [0, 1, 2] if number == 4 else [0, 1]
            write_pair(tmp_path / split, f"n{number}", pattern(number, 40, 40)[0], shape(labels))
    assert lines(report(tmp_path), error=False) == [
        "class 2: occurs in no mask of validation",
        "class 2: occurs in no mask of test",
        f"{tmp_path}/train/masks/n4.png: the only mask with class 2 (480 pixels)",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: nowhere: no such file or folder"),
        (["DATA", "--layout", "voc"], "error: unknown layout 'voc'; expected one of folders"),
        (["DATA", "--target", "edges"], "error: unknown target 'edges'; expected one of classes"),
        (["DATA", "--axis", "up"], "error: unknown axis 'up'; expected one of"),
        (["DATA", "--group", "patient"], "error: DATA: --group is 'patient'; expected a column"),
        (["DATA", "--workers", "0"], "error: --workers is 0; expected an integer >= 1"),
    ],
)
def test_a_mistake_is_one_line(made, arguments, message, capsys, tmp_path):
    given = [str(made["folders"]) if word == "DATA" else word for word in arguments]
    assert main(["inspect", *given, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(message.replace("DATA", str(made["folders"])))
    assert not (tmp_path / "out").exists()


def test_a_dataset_that_cannot_be_trained_on_ends_with_1(tmp_path, capsys):
    root = write_pairs(tmp_path / "data", 6)
    (root / "masks" / "n03.png").unlink()
    page, content = inspected(capsys, root, code=1)
    assert "n03.png: no mask of this name" in page
    assert not content["usable"]


@pytest.mark.parametrize("layout", list(written.WRITERS))
def test_what_is_converted_reads_as_before(made, layout, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    named = ["--layout", "instances"] if layout == "instances" else []
    assert main(["convert", str(made[layout]), str(out), "--to", "folders", *named]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["folder"]  # nothing besides
    before, after = layouts.find(made[layout], layout=named[1] if named else None), layouts.find(out)
    assert not after.problems
    assert after.class_names == before.class_names
    assert [one.split for one in after.records] == [one.split for one in before.records]
    by_name = {one.name: one for one in after.records}
    for one in before.records:
        name = Path(one.name).name
        again = by_name[name if one.group is None else f"{one.group}__{name}"]
        for now, then in zip(again.read(), one.read(), strict=True):
            np.testing.assert_array_equal(now, then)
        with Image.open(again.mask) as mask:
            assert mask.mode == "P"
            assert mask.getpalette()[3:6] == [86, 180, 233]
    printed = capsys.readouterr().out
    if layout in ("csv", "nifti"):
        flags = shlex.split(printed.splitlines()[-1])
        group = flags[flags.index("--group") + 1]
        grouped = layouts.find(out, group=group)
        assert {one.group for one in grouped.records} == {one.group for one in before.records}


def test_channels_of_a_volume_are_converted_too(made, tmp_path):
    root = Path(shutil.copytree(made["nifti"], tmp_path / "data"))
    for path in list((root / "imagesTr").iterdir()):
        path.rename(path.with_name(path.name.replace(".nii", "_0000.nii")))
        other = path.with_name(path.name.replace(".nii", "_0001.nii"))
        shutil.copy(made["nifti"] / "imagesTr" / "v3.nii.gz", other)
    assert main(["convert", str(root), str(tmp_path / "new")]) == 0
    now, then = layouts.find(tmp_path / "new").records[1], layouts.find(root).records[1]
    assert now.read()[0].shape == (*written.SIZE, 2)
    np.testing.assert_array_equal(now.read()[0], then.read()[0])


def test_labels_beyond_a_byte_are_converted_too(tmp_path):
    for number in range(3):
        labels = np.arange(400, dtype=np.uint16).reshape(20, 20)
        write_pair(tmp_path / "a", f"n{number}", pattern(number, 20, 20)[0], labels)
    assert main(["convert", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    np.testing.assert_array_equal(read_mask(tmp_path / "b" / "masks" / "n1.png"), labels)


def test_a_conversion_that_fails_leaves_nothing(made, tmp_path, capsys):
    root = write_pairs(tmp_path / "data", 4)
    (root / "images" / "n02.png").write_bytes(b"no picture")
    out = tmp_path / "new"
    assert main(["convert", str(root), str(out)]) == 2
    assert "n02.png" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert main(["convert", str(made["folders"]), str(root)]) == 2
    assert "exists; expected a new folder" in capsys.readouterr().err
    assert main(["convert", str(made["folders"]), str(out), "--to", "coco"]) == 2
    assert "--to is 'coco'; expected folders" in capsys.readouterr().err


def test_images_that_are_converted_are_copies(made, tmp_path):
    assert main(["convert", str(made["dsb2018"]), str(tmp_path / "new")]) == 0
    one = made["dsb2018"] / "n4" / "images" / "n4.png"
    assert (tmp_path / "new" / "images" / "n4.png").read_bytes() == one.read_bytes()
    assert read_image(tmp_path / "new" / "images" / "n4.png").shape == (*written.SIZE, 1)


def test_training_examines_the_same_files_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = write_pairs(tmp_path / "data", 6, height=40, width=40)
    write_pair(root, "n05", np.full((40, 40), 51, np.uint8), pattern(5, 40, 40)[1])
    data = Data(str(root))
    first = precheck.check(data, 0)
    assert first == (f"{root}/images/n05.png: all pixels are equal (0.2)",)
    with monkeypatch.context() as patched:
        patched.setattr(doctor, "examine", None)  # not called
        assert precheck.check(data, 0) == first
    (root / "images" / "n05.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"n05.png: unrecognised format"):
        precheck.check(data, 0)
    assert precheck.check(Data(), 0) == ()


NUCLEI = Path(__file__).parents[4] / "shared" / "data" / "nuclei_mini.zip"


@pytest.mark.long
@pytest.mark.skipif(not NUCLEI.is_file(), reason="no ../shared/data/nuclei_mini.zip beside the project")
def test_real_nuclei_are_told_as_they_are(tmp_path, capsys):
    with zipfile.ZipFile(NUCLEI) as archive:
        archive.extractall(tmp_path / "nuclei")
    _, content = inspected(capsys, tmp_path / "nuclei")
    assert content["command"].endswith(" --target foreground")
    assert content["images"]["sizes"] == {"256 x 256": 48, "256 x 320": 12}
    assert content["images"]["channels"] == {"1": 48, "3": 12}
    assert content["masks"]["objects"] == 2223  # counted apart, with np.unique over the files
    assert [label["pixels"] for label in content["masks"]["labels"]] == [3656763, 472005]
    assert not content["findings"]
