"""Masks of single objects become one mask of numbered objects."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.support.listings import copy_of, list_dataset, problems_of
from train.data.dataset import DataError


def test_objects_of_another_size_are_named(roots, tmp_path):
    root = copy_of(roots, "dsb2018", tmp_path)
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(root / "n0" / "masks" / "2.png")
    with pytest.raises(DataError, match=r"2.png: 5 x 6 pixels; expected 20 x 24"):
        list_dataset(root).records[0].read()
    shutil.copy(root / "n1" / "images" / "n1.png", root / "n1" / "images" / "more.png")
    assert problems_of(root) == [f"{root}/n1/images: 2 images; expected one"]
