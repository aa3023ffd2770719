"""Polygons as text become masks; lines that are no polygons are named."""

import numpy as np
import pytest

from flaxunet.data import find
from tests.support.datasets import load_dataset
from tests.support.listings import copy_of, problems_of
from train.data.dataset import DataError


def test_lines_that_are_no_polygons_are_named(roots, tmp_path):
    root = copy_of(roots, "yolo", tmp_path)
    (root / "labels" / "n0.txt").write_text(
        "0 .5 .5 .2 .2\n0 .1 .1 .2\nsquare 1 2\n9 0 0 1 0 1 1\n0 0 0 9 0 1 1\n"
    )
    (root / "labels" / "n1.txt").unlink()
    (root / "labels" / "lost.txt").write_text("")
    [line] = problems_of(root)
    assert line == f"{root}/labels/lost.txt: no image of this name in {root}/images"
    first, second = find(root).records[:2]
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


def test_two_classes_of_polygons_keep_their_numbers(roots, tmp_path):
    root = copy_of(roots, "yolo", tmp_path)
    (root / "data.yaml").write_text("names: [one, two, three]\n")
    text = root / "labels" / "n0.txt"
    text.write_text(text.read_text().replace("\n0 ", "\n2 "))
    data = load_dataset(root)
    assert (data.classes, data.class_names) == (4, ("background", "one", "two", "three"))
    assert set(np.unique(find(root).records[0].read()[1])) == {0, 1, 3}
    with pytest.raises(DataError, match="--classes is 2; expected 4, for background, one, two, three"):
        load_dataset(root, classes=2)
