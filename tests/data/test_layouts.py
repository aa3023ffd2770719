"""Every layout is found, read to the same pixels, and divided without a group in two splits."""

import dataclasses
import json
import pickle
import re
import shutil
from itertools import islice
from pathlib import Path

import jax
import nibabel
import numpy as np
import pytest
from PIL import Image

from flaxunet import data as layouts
from flaxunet.data.layouts import polygons
from flaxunet.labels import IGNORE, relabel
from tests.support import written
from tests.support.datasets import load_dataset
from tests.support.tiny import make_program
from train.config import checks
from train.config.settings import Config, ConfigError
from train.data.batches import train_batches
from train.data.dataset import DataError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder in each layout."""
    root = tmp_path_factory.mktemp("layouts")
    return {name: written.written(name, root / name) for name in written.WRITERS}


def copied(made, layout, tmp_path):
    return Path(shutil.copytree(made[layout], tmp_path / layout))


def found(root, **options):
    seen = layouts.find(root, **options)
    assert not seen.problems
    return seen


def problems(root, **options):
    return layouts.find(root, **options).problems


@pytest.mark.parametrize("layout", [name for name in written.WRITERS if name != "instances"])
def test_a_layout_is_found_and_says_what_it_took(made, layout):
    seen = found(made[layout])
    assert seen.layout == layout
    assert len(seen.records) == written.COUNT
    assert seen.interpretation
    assert all(str(made[layout]) in line for line in seen.interpretation)


@pytest.mark.parametrize("layout", list(written.WRITERS))
def test_what_is_read_is_what_was_written(made, layout):
    seen = found(made[layout], layout=layout)
    # Their numbers are the last letters of the names, but a slice's is that within its volume.
    key = (lambda record: record.name) if layout == "nifti" else (lambda record: record.name[-1])
    for number, record in enumerate(sorted(seen.records, key=key)):
        image, mask = record.read()
        expected, objects = written.truth(number)
        if layout == "nifti":  # scaled by the volume's own range
            pair = np.stack([written.truth(number // 2 * 2 + i)[0] for i in (0, 1)]).astype(np.float32)
            expected = (expected - pair.min()) / (pair.max() - pair.min())
        else:
            expected = expected / np.float32(255)
        np.testing.assert_allclose(image[..., 0], expected, atol=1e-6)
        assert (image.dtype, mask.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(mask, objects if seen.instances else objects > 0)


@pytest.mark.parametrize("layout", ["coco", "yolo"])
def test_annotations_number_objects_when_asked(made, layout):
    for number, record in enumerate(found(made[layout], objects=True).records):
        np.testing.assert_array_equal(record.read()[1], written.truth(number)[1])


@pytest.fixture(scope="module")
def step():
    """One compiled program for all layouts."""
    # The smallest one: neither moments nor an average have to be compiled.
    options = {"optimizer": "sgd", "schedule": "constant", "learning_rate": 0.1, "ema": 0.0}
    program = make_program(augment="none", **options)
    state = jax.tree.map(np.asarray, program.init())
    return jax.jit(program.train_step()), lambda: jax.tree.map(np.array, state)


@pytest.mark.parametrize("layout", list(written.WRITERS))
def test_a_layout_trains_twenty_steps(made, layout, step):
    train_step, first = step
    target = "foreground" if layout in ("dsb2018", "instances") else "classes"
    data = load_dataset(made[layout], target=target, layout=layout)
    assert (data.classes, data.channels) == (1, 1)
    assert data.class_names[0] == "background"
    assert {origin.split for origin in data.origins} == {"train", "validation", "test"}
    state, losses = first(), []
    for batch in islice(train_batches(data.train, batch_size=8, size=16, seed=0, start=0, threads=1), 20):
        state, out = train_step(state, batch)
        losses.append(float(out["loss"]))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("coco", ("background", "square")),
        ("yolo", ("background", "square")),
        ("nifti", ("background", "square")),
    ],
)
def test_class_names_are_those_of_the_layout(made, layout, names):
    assert found(made[layout]).class_names == names
    assert load_dataset(made[layout]).class_names == names


def test_masks_beside_their_images_are_told_apart_by_suffix(tmp_path):
    written.suffixes(tmp_path)
    seen = found(tmp_path)
    assert seen.layout == "folders"
    assert [record.mask.name for record in seen.records][:2] == ["n0_mask.png", "n1_mask.png"]
    (tmp_path / "n3_mask.png").unlink()
    shutil.copy(tmp_path / "n4_mask.png", tmp_path / "n4_gt.png")
    shutil.copy(tmp_path / "n4_mask.png", tmp_path / "other_mask.png")
    assert [line.split(": ")[1] for line in problems(tmp_path)] == [
        "the same image as n4_gt.png; expected one mask per image",
        f"no mask of this name in {tmp_path}",
        f"no image of this name in {tmp_path}",
    ]


def test_splits_may_lie_below_images_and_masks(made, tmp_path):
    for name in ("train", "val", "test"):
        for kind in ("images", "labels"):
            shutil.copytree(made["splits"] / name / kind, tmp_path / kind / name)
    assert {record.name: record.split for record in found(tmp_path).records} == {
        record.name: record.split for record in found(made["splits"]).records
    }


def test_what_looks_like_two_layouts_has_to_be_named(made, tmp_path):
    root = copied(made, "folders", tmp_path)
    written.coco(root, "annotations/all.json")
    [line] = problems(root)
    assert line == (
        f"{root}: looks like folders (images/ with masks/) and coco (annotations/all.json); "
        "expected one of them to be named with --layout"
    )
    assert found(root, layout="coco").layout == "coco"
    with pytest.raises(ValueError, match="unknown layout 'voc'; expected one of folders, splits"):
        layouts.find(root, layout="voc")


def test_numbered_objects_are_no_classes(made):
    for layout in ("dsb2018", "instances"):
        with pytest.raises(DataError, match="expected --target foreground, boundary, 3class"):
            load_dataset(made[layout], layout=layout)


def test_targets_on_objects_that_touch():
    objects = np.zeros((7, 14), np.int32)
    objects[:, 1:7], objects[:, 7:13] = 1, 2
    row = [0, 2, 2, 1, 1, 2, 2, 2, 2, 1, 1, 2, 2, 0]
    np.testing.assert_array_equal(relabel(objects, "3class"), [row] * 7)
    np.testing.assert_array_equal(relabel(objects, "boundary"), (np.array([row] * 7) == 2).astype(int))
    np.testing.assert_array_equal(relabel(objects, "foreground"), objects > 0)
    objects[:, 13] = IGNORE  # what is not known makes no boundary
    np.testing.assert_array_equal(relabel(objects, "3class")[0], [*row[:11], 1, 1, IGNORE])


@pytest.mark.parametrize("layout", ["dsb2018", "instances", "coco", "yolo"])
def test_boundaries_are_those_of_objects_in_every_layout(made, layout):
    data = load_dataset(made[layout], target="3class", layout=layout)
    assert (data.classes, data.class_names) == (3, ("background", "inside", "boundary"))
    sample = next(sample for sample in data.train if sample["name"].endswith("5"))
    np.testing.assert_array_equal(sample["label"], relabel(written.truth(5)[1].astype(np.int32), "3class"))
    assert set(np.unique(sample["label"])) == {0, 1, 2}


def groups(splits):
    return [{record.group for record in records} for records in splits.values()]


@pytest.mark.parametrize("layout", ["csv", "nifti"])
@pytest.mark.parametrize("fold", [(1, 1), (2, 3)])
def test_no_group_is_in_two_splits(made, layout, fold):
    told = []
    splits = layouts.split_samples(found(made[layout]), seed=0, fold=fold, problems=told)
    train, validation, test = groups(splits)
    assert not told
    assert len(train) + len(validation) + len(test) == written.PATIENTS == len(train | validation | test)
    assert sum(map(len, splits.values())) == written.COUNT
    assert all(splits.values())


def test_folds_hold_every_group_once_and_keep_the_test(made):
    seen = found(made["csv"])
    folds = [layouts.split_samples(seen, seed=0, fold=(number, 2)) for number in (1, 2)]
    assert folds[0]["test"] == folds[1]["test"] == layouts.split_samples(seen, seed=0)["test"]
    held = [groups(fold)[1] for fold in folds]
    assert not held[0] & held[1]
    assert len(held[0] | held[1]) == written.PATIENTS - 1
    told = []
    layouts.split_samples(seen, seed=0, fold=(1, 5), problems=told)
    assert told == [f"{seen.root}: 4 groups to fold; expected 5 or more with --fold 1/5"]


def test_a_group_is_found_in_names(made):
    seen = found(made["folders"], group=r"n(\d)")
    assert [record.group for record in seen.records] == [str(number) for number in range(10)]
    [*lines] = problems(made["folders"], group=r"n([0-7])")
    assert [line.split("/")[-1] for line in lines] == [
        f"n{number}.png: --group 'n([0-7])' matches nothing in its name" for number in (8, 9)
    ]
    for wrong in ("n.", "n(", "patient"):
        message = f"--group is {wrong!r}; expected a column of the CSV, or a regular expression"
        with pytest.raises(DataError, match=re.escape(message)):
            layouts.find(made["folders"], group=wrong)


def test_a_group_in_two_given_splits_is_named(made):
    told = []
    layouts.split_samples(found(made["splits"], group=r"n\d*([02468]|\d)"), seed=0, problems=told)
    assert not told
    layouts.split_samples(found(made["splits"], group=r"(n)\d"), seed=0, problems=told)
    assert len(told) == 2
    assert "group n is in validation and, with" in told[0]
    assert told[0].endswith("in train; expected one split for a group")


def test_a_column_of_the_table_is_the_group(tmp_path):
    written.csv(tmp_path, group="patient")
    assert {record.group for record in found(tmp_path).records} == {None}
    named = {record.group for record in found(tmp_path, group="patient").records}
    assert named == {"p0", "p1", "p2", "p3", "p4"}


def test_a_table_is_refused_line_by_line(made, tmp_path):
    root = copied(made, "csv", tmp_path)
    table = root / "samples.csv"
    rows = table.read_text().splitlines()
    head, first, second = "image;mask;split", *rows[1:3]
    mask, image, _ = first.split(",")
    other_mask, other_image, _ = second.split(",")
    lines = [
        head,
        f"{image};{mask};train",
        f"{image};{mask};test",
        "",
        "gone.png;;Val",
        f"{other_image};{other_mask};dev",
    ]
    table.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    assert [line.removeprefix(f"{table}, ") for line in problems(root)] == [
        f"line 3: image {image} again; expected one row for an image",
        "line 5: image gone.png; expected the path of a file, relative to the table",
        "line 5: mask is empty; expected the path of a file, relative to the table",
        "line 6: split dev; expected one of train, val, validation, valid, test",
    ]
    assert problems(table) == problems(root)
    shutil.copy(table, root / "more.csv")
    assert "more.csv and samples.csv; expected one CSV file" in problems(root)[0]


def test_slices_are_along_anatomical_axes(tmp_path):
    """Whatever the order in which a file keeps its voxels."""
    volume = np.zeros((3, 4, 5), np.uint8)  # to the right, the front, the top
    volume[2, 3, 4] = 100
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
        stored = nibabel.Nifti1Image(volume // (1 if folder == "imagesTr" else 100), np.eye(4))
        turned = stored.as_reoriented(nibabel.orientations.axcodes2ornt("SLP"))
        nibabel.save(turned, tmp_path / folder / "v.nii.gz")
    for axis, count, shape in (("axial", 5, (4, 3)), ("coronal", 4, (5, 3)), ("sagittal", 3, (5, 4))):
        seen = found(tmp_path, axis=axis)
        assert len(seen.records) == count
        image, mask = seen.records[-1].read()
        assert mask.shape == shape
        assert image[0, 0, 0] == mask[0, 0] == mask.sum() == 1  # right, front and top are at the upper left
        assert not seen.records[0].read()[1].any()


def test_channels_and_test_volumes_of_nnunet(made, tmp_path):
    root = copied(made, "nifti", tmp_path)
    for path in (root / "imagesTr").iterdir():
        name = path.name.removesuffix(".nii.gz")
        shutil.copy(path, path.with_name(f"{name}_0001.nii.gz"))
        path.rename(path.with_name(f"{name}_0000.nii.gz"))
    (root / "imagesTr" / "._v0_0000.nii.gz").write_bytes(b"what a Mac leaves")
    for kind in ("images", "labels"):
        (root / f"{kind}Ts").mkdir()
        for path in sorted((root / f"{kind}Tr").glob("v4*")):
            path.rename(root / f"{kind}Ts" / path.name)
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "square": 1, "ignore": 2}}))
    seen = found(root)
    assert seen.class_names == ("background", "square")
    assert [record.split for record in seen.records] == ["test"] * 2 + ["train"] * 8
    assert seen.records[0].read()[0].shape == (*written.SIZE, 2)


def test_volumes_that_do_not_fit_are_named(made, tmp_path):
    root = copied(made, "nifti", tmp_path)
    (root / "labelsTr" / "v0.nii.gz").unlink()
    (root / "imagesTr" / "v1.nii.gz").write_bytes(b"nothing")
    flat = nibabel.Nifti1Image(np.zeros((24, 20, 3), np.uint8), np.eye(4))
    nibabel.save(flat, root / "imagesTr" / "v2.nii.gz")
    moved = nibabel.load(root / "labelsTr" / "v3.nii.gz")
    affine = moved.affine.copy()
    affine[0, 3] = 9
    nibabel.save(nibabel.Nifti1Image(np.asarray(moved.dataobj), affine), root / "labelsTr" / "v3.nii.gz")
    bad = nibabel.load(root / "imagesTr" / "v4.nii.gz")
    array = np.asarray(bad.dataobj).astype(np.float32)
    array[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(array, bad.affine), root / "imagesTr" / "v4.nii.gz")
    text = "\n".join(problems(root))
    for words in (
        "imagesTr/v0.nii.gz: no v0.nii.gz in",
        "imagesTr/v1.nii.gz: ",
        "imagesTr/v2.nii.gz: 24 x 20 x 3 voxels, its labels have 24 x 20 x 2",
        "labelsTr/v3.nii.gz: another place or orientation in space than",
    ):
        assert words in text
    assert text.count("\n") == 3
    with pytest.raises(DataError, match=r"v4.nii.gz: 1 NaN or infinite voxels"):
        layouts.find(root).records[0].read()


def test_polygons_cover_the_pixels_whose_centres_are_inside():
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(30) + 0.5, np.arange(20) + 0.5)
    for count in (3, 4, 7):
        corners = rng.uniform(-4, 30, (count, 2))
        inside = np.zeros((20, 30), bool)
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            passed = (y0 <= y) != (y1 <= y)  # by a ray to the left
            inside ^= passed & (x0 + (y - y0) * (x1 - x0) / (y1 - y0) < x)
        np.testing.assert_array_equal(polygons.fill(corners, 20, 30), inside)


def test_compressed_run_lengths_are_those_of_coco():
    # pycocotools.mask.encode of a 9 x 7 mask whose rows 2..5 and columns 1..4 are set, but for (3, 2).
    mask = np.zeros((9, 7), bool)
    mask[2:6, 1:5], mask[3, 2] = True, False
    text, runs = ";45ML14200`0", [11, 4, 5, 1, 1, 2, 5, 4, 5, 4, 21]
    np.testing.assert_array_equal(polygons.decode(text, 9, 7), mask)
    np.testing.assert_array_equal(polygons.decode(runs, 9, 7), mask)
    for wrong in (text[:-1], text + "~~", runs[:-1], [-1, *runs]):
        with pytest.raises(ValueError, match="expected"):
            polygons.decode(wrong, 9, 7)


def test_annotations_that_cannot_be_used_are_named(made, tmp_path):
    root = copied(made, "coco", tmp_path)
    path = root / "annotations.json"
    content = json.loads(path.read_text())
    good = content["annotations"][0]
    content["annotations"] += [
        {**good, "id": 100, "image_id": 77},
        {**good, "id": 101, "category_id": 8},
        {**good, "id": 102, "segmentation": []},
        {**good, "id": 103, "segmentation": [[1, 2, 3, 4]]},
    ]
    content["images"].append({"id": 50, "file_name": "gone.png", "height": 1, "width": 1})
    path.write_text(json.dumps(content))
    assert [line.removeprefix(f"{path}: ") for line in problems(root)] == [
        "annotation 100 has image_id 77; expected an id of its images",
        "annotation 101 has category_id 8; expected an id of its categories",
        "annotation 102 has no segmentation; expected polygons or run lengths",
        "gone.png: no such file; expected one beside it or in images/",
    ]
    with pytest.raises(DataError, match=r"image n0.png: a polygon of 4 numbers"):
        layouts.find(root).records[0].read()
    path.write_text('{"images": 1, "annotations": 2, "categories": 3}')
    [line] = problems(root)
    assert "expected COCO's JSON" in line


def test_hostile_annotations_are_answered_with_their_image(made, tmp_path):
    root = copied(made, "coco", tmp_path)
    path = root / "annotations.json"
    content = json.loads(path.read_text())
    for shape in (
        5,
        [["a"] * 6],
        {"counts": [2**80], "size": [20, 24]},
        {"counts": [480]},
        {"counts": "~", "size": [20, 24]},
    ):
        content["annotations"][0]["segmentation"] = shape
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match=r"annotations.json image n0.png: "):
            found(root).records[0].read()
    content["images"][0]["height"] = -3
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"image n0.png: -3 x 24 pixels; expected 20 x 24"):
        found(root).records[0].read()


def test_volumes_that_lie_nowhere_or_hold_no_numbers_are_named(made, tmp_path):
    root = copied(made, "nifti", tmp_path)
    nowhere = nibabel.load(root / "labelsTr" / "v0.nii.gz")
    nowhere.header["sform_code"], nowhere.header["qform_code"] = 2, 0
    for row in ("srow_x", "srow_y", "srow_z"):
        nowhere.header[row] = 0
    nibabel.save(
        nibabel.Nifti1Image(np.asarray(nowhere.dataobj), None, nowhere.header),
        root / "labelsTr" / "v0.nii.gz",
    )
    [line] = problems(root)
    assert "labelsTr/v0.nii.gz: an affine without three axes" in line
    complex_volume = np.zeros((24, 20, 2), np.complex64)
    nibabel.save(
        nibabel.Nifti1Image(complex_volume, np.diag([-1.0, -1, 2, 1])), root / "imagesTr" / "v1.nii.gz"
    )
    record = next(one for one in layouts.find(root).records if one.group == "v1")
    with pytest.raises(DataError, match=r"v1.nii.gz: voxels of type complex64"):
        record.read()


def test_lines_that_are_no_polygons_are_named(made, tmp_path):
    root = copied(made, "yolo", tmp_path)
    (root / "labels" / "n0.txt").write_text(
        "0 .5 .5 .2 .2\n0 .1 .1 .2\nsquare 1 2\n9 0 0 1 0 1 1\n0 0 0 9 0 1 1\n"
    )
    (root / "labels" / "n1.txt").unlink()
    (root / "labels" / "lost.txt").write_text("")
    [line] = problems(root)
    assert line == f"{root}/labels/lost.txt: no image of this name in {root}/images"
    first, second = layouts.find(root).records[:2]
    with pytest.raises(DataError) as refusal:
        first.read()
    assert [line.split(";")[0].split(", ")[1] for line in refusal.value.problems] == [
        "line 1: a box",
        "line 2: 3 numbers",
        "line 3: 'square 1 2'",
        "line 4: class 9",
        "line 5: 6 numbers",
    ]
    assert not second.read()[1].any()  # an image without a text shows background


def test_two_classes_of_polygons_keep_their_numbers(made, tmp_path):
    root = copied(made, "yolo", tmp_path)
    (root / "data.yaml").write_text("names: [one, two, three]\n")
    text = root / "labels" / "n0.txt"
    text.write_text(text.read_text().replace("\n0 ", "\n2 "))
    data = load_dataset(root)
    assert (data.classes, data.class_names) == (4, ("background", "one", "two", "three"))
    assert set(np.unique(layouts.find(root).records[0].read()[1])) == {0, 1, 3}
    with pytest.raises(DataError, match="--classes is 2; expected 4, for background, one, two, three"):
        load_dataset(root, classes=2)


def test_objects_of_another_size_are_named(made, tmp_path):
    root = copied(made, "dsb2018", tmp_path)
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(root / "n0" / "masks" / "2.png")
    with pytest.raises(DataError, match=r"2.png: 5 x 6 pixels; expected 20 x 24"):
        found(root).records[0].read()
    shutil.copy(root / "n1" / "images" / "n1.png", root / "n1" / "images" / "more.png")
    assert problems(root) == (f"{root}/n1/images: 2 images; expected one",)


def test_records_travel_to_other_processes(made):
    for layout in written.WRITERS:
        record = found(made[layout], layout=layout).records[0]
        again = pickle.loads(pickle.dumps(record))
        assert dataclasses.replace(again, read=record.read) == record
        np.testing.assert_array_equal(again.read()[1], record.read()[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "d", "layout": "voc"}, "unknown layout 'voc'"),
        ({"target": "edges"}, "unknown target 'edges'"),
        ({"axis": "up"}, "unknown axis 'up'"),
        ({"layout": "csv"}, "--layout is 'csv'"),
        ({"group": "patient"}, "--group is 'patient'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        checks.check(Config.from_flat(**settings))
