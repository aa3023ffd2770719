"""Masks are checked against the target that they are trained for."""

import numpy as np
import pytest

from flaxunet.labels import relabel
from tests.support import written
from tests.support.datasets import load_dataset
from train.data.dataset import DataError


def test_numbered_objects_are_no_classes(roots):
    for layout in ("dsb2018", "instances"):
        with pytest.raises(DataError, match="expected --target foreground, boundary, 3class"):
            load_dataset(roots[layout], layout=layout)


@pytest.mark.parametrize("layout", ["dsb2018", "instances", "coco", "yolo"])
def test_boundaries_are_those_of_objects_in_every_layout(roots, layout):
    data = load_dataset(roots[layout], target="3class", layout=layout)
    assert (data.classes, data.class_names) == (3, ("background", "inside", "boundary"))
    sample = next(sample for sample in data.train if sample["name"].endswith("5"))
    np.testing.assert_array_equal(sample["label"], relabel(written.truth(5)[1].astype(np.int32), "3class"))
    assert set(np.unique(sample["label"])) == {0, 1, 2}
