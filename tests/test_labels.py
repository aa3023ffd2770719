"""A training target is made of a mask in one way everywhere."""

import numpy as np
import pytest

from flaxunet.labels import (
    IGNORE,
    MAX_INFERRED,
    are_ambiguous,
    class_names,
    mark_ignored,
    relabel,
    target_of,
    target_values,
)


def test_targets_on_objects_that_touch():
    objects = np.zeros((7, 14), np.int32)
    objects[:, 1:7], objects[:, 7:13] = 1, 2
    row = [0, 2, 2, 1, 1, 2, 2, 2, 2, 1, 1, 2, 2, 0]
    np.testing.assert_array_equal(relabel(objects, "3class"), [row] * 7)
    np.testing.assert_array_equal(relabel(objects, "boundary"), (np.array([row] * 7) == 2).astype(int))
    np.testing.assert_array_equal(relabel(objects, "foreground"), objects > 0)
    objects[:, 13] = IGNORE  # what is not known makes no boundary
    np.testing.assert_array_equal(relabel(objects, "3class")[0], [*row[:11], 1, 1, IGNORE])


def test_values_of_a_target_leave_out_what_is_ignored():
    mask = np.array([[0, 3, 255], [3, 7, 255]], np.int32)
    np.testing.assert_array_equal(target_values(mask, "classes", 255), [0, 3, 7])
    np.testing.assert_array_equal(target_values(mask, "foreground", 255), [0, 1])
    np.testing.assert_array_equal(target_values(mask, "classes"), [0, 3, 7, 255])
    np.testing.assert_array_equal(mark_ignored(mask, 255), [[0, 3, IGNORE], [3, 7, IGNORE]])
    assert mark_ignored(mask, None) is mask


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1], False),
        ([0, 1, 2, 7], False),
        ([0, 255], True),
        ([0, 7], True),
        (range(MAX_INFERRED), False),
        (range(MAX_INFERRED + 1), True),
    ],
)
def test_numbers_of_objects_and_one_odd_class_are_ambiguous(values, expected):
    assert are_ambiguous(list(values)) == expected


def test_class_names_are_those_of_the_target_or_of_the_dataset():
    assert class_names("3class", 3, ("background", "a", "b")) == ("background", "inside", "boundary")
    assert class_names("classes", 3, ("background", "a", "b")) == ("background", "a", "b")
    assert class_names("classes", 3) == ("background", "class 1", "class 2")
    assert target_of(["background", "boundary"]) == "boundary"
    assert target_of(("background", "a")) is target_of(None) is None
    assert class_names("classes", 2) == class_names("classes", 1) == ("background", "foreground")
