"""Annotations of COCO's JSON become masks; those that cannot be used are named."""

import json

import numpy as np
import pytest

from flaxunet.data import find
from tests.support import written
from tests.support.listings import copy_of, list_dataset, problems_of
from train.data.dataset import DataError


@pytest.mark.parametrize("layout", ["coco", "yolo"])
def test_annotations_number_objects_when_asked(roots, layout):
    for number, record in enumerate(list_dataset(roots[layout], objects=True).records):
        np.testing.assert_array_equal(record.read()[1], written.truth(number)[1])


def test_annotations_that_cannot_be_used_are_named(roots, tmp_path):
    root = copy_of(roots, "coco", tmp_path)
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
    assert [line.removeprefix(f"{path}: ") for line in problems_of(root)] == [
        "annotation 100 has image_id 77; expected an id of its images",
        "annotation 101 has category_id 8; expected an id of its categories",
        "annotation 102 has no segmentation; expected polygons or run lengths",
        "gone.png: no such file; expected one beside it or in images/",
    ]
    with pytest.raises(DataError, match=r"image n0.png: a polygon of 4 numbers"):
        find(root).records[0].read()
    path.write_text('{"images": 1, "annotations": 2, "categories": 3}')
    [line] = problems_of(root)
    assert "expected COCO's JSON" in line


def test_hostile_annotations_are_answered_with_their_image(roots, tmp_path):
    root = copy_of(roots, "coco", tmp_path)
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
            list_dataset(root).records[0].read()
    content["images"][0]["height"] = -3
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"image n0.png: -3 x 24 pixels; expected 20 x 24"):
        list_dataset(root).records[0].read()
