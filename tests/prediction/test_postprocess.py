"""Specks, holes, the largest, and objects that touch: of each class by itself, in pictures and volumes."""

import numpy as np
import pytest

from flaxunet import labels as targets
from flaxunet.prediction.postprocess import OBJECT, Steps, fill_holes, number, process, split_touching
from tests.support.discs import PLACES, discs, numbered_discs

TWO, FOUR = ("background", "cell"), ("background", "a", "b", "c")


def drawn(text):
    return np.array([[int(c) for c in line.split()[0]] for line in text.split()], np.int32)


def agreement(result, truth):
    """The smallest IoU of a true object with the predicted one that covers it most."""
    scores = []
    for value in range(1, truth.max() + 1):
        mine = truth == value
        best = np.bincount(result[mine]).argmax()
        scores.append((mine & (result == best)).sum() / (mine | (result == best)).sum() if best else 0.0)
    return min(scores)


def test_small_objects_go_class_by_class():
    labels = drawn("1100020 1000002 0003000 0000000 1000333")
    expected = drawn("1100020 1000002 0000000 0000000 0000333")
    np.testing.assert_array_equal(process(labels, Steps((2,)), FOUR).labels, expected)  # corners join
    expected = drawn("1100000 1000000 0003000 0000000 1000333")
    np.testing.assert_array_equal(process(labels, Steps((1, 3, 0)), FOUR).labels, expected)
    np.testing.assert_array_equal(process(labels, Steps((0,)), FOUR).labels, labels)


def test_the_largest_object_of_each_class_stays():
    labels = drawn("1100020 1000002 0003000 0000000 1000333")
    expected = drawn("1100020 1000002 0000000 0000000 0000333")
    np.testing.assert_array_equal(process(labels, Steps(keep_largest=True), FOUR).labels, expected)
    nothing = np.zeros((3, 4), np.int32)
    everything = Steps((1,), True, True, True)
    for steps in (everything, Steps(instances=True), Steps(keep_largest=True)):
        result = process(nothing, steps, FOUR)
        assert not result.labels.any()
        assert result.sizes(4) == [(0, 0)] * 3


def test_holes_become_the_class_that_encloses_them():
    labels = drawn("1111100 1010122 1111120 0000022 3330000 3023300 3333000")
    expected = drawn("1111100 1111122 1111120 0000022 3330000 3023300 3333000")
    np.testing.assert_array_equal(process(labels, Steps(fill_holes=True), FOUR).labels, expected)
    # Sides join background: a hole that has only a corner to the outside is one.
    np.testing.assert_array_equal(fill_holes(drawn("0110 1010 1110")), drawn("0110 1110 1110"))
    # What reaches the edge is no hole, and what two classes enclose is neither's.
    for kept in ("1110 1010 1010", "1122 1002 1122"):
        np.testing.assert_array_equal(fill_holes(drawn(kept)), drawn(kept))


def test_small_objects_go_before_holes_are_filled():
    labels = drawn("11111 10001 10201 10001 11111")
    both = process(labels, Steps((2,), fill_holes=True), FOUR).labels
    assert (both == 1).all()


def test_volumes_are_connected_across_slices():
    labels = np.zeros((5, 5, 5), np.int32)
    labels[1:4, 1:4, 1:4] = 1
    labels[2, 2, 2] = 0
    labels[0, 0, 0] = 1  # joined at a corner
    labels[4, 0, 4] = 2
    result = process(labels, Steps((2,), fill_holes=True), FOUR)
    assert result.labels[2, 2, 2] == 1
    assert result.labels[4, 0, 4] == 0
    assert result.sizes(3) == [(28, 1), (0, 0)]
    open_below = labels.copy()
    open_below[2, 2, :2] = 0
    assert process(open_below, Steps(fill_holes=True), FOUR).labels[2, 2, 2] == 0


def test_objects_that_touch_are_parted_and_thick_ones_are_not():
    places = ((20, 18, 14), (20, 42, 14), (60, 30, 10), (60, 47, 12))
    truth = numbered_discs((80, 70), *places)
    result = process(truth > 0, Steps(instances=True), TWO)
    assert result.object_classes.tolist() == [0, 1, 1, 1, 1]
    assert agreement(result.labels, truth) > 0.95
    ellipse = discs((60, 60), *((30, x, 9) for x in range(15, 46)))
    assert process(ellipse, Steps(instances=True), TWO).labels.max() == 1


def test_thin_objects_and_full_pictures_are_objects_too():
    labels = drawn("11111 00000 10101 00000 11000")
    assert process(labels, Steps(instances=True), TWO).labels.max() == 5
    assert (process(np.ones((4, 4)), Steps(instances=True), TWO).labels == 1).all()
    assert split_touching(np.ones((1, 1), bool)).tolist() == [[1]]


def test_instances_are_numbered_class_by_class_without_gaps():
    labels = np.zeros((12, 40), np.int32)
    labels[2:8, 2:8], labels[2:8, 20:26], labels[10, 39] = 2, 2, 2
    labels[2:8, 30:36] = 1
    result = process(labels, Steps((4,), instances=True), FOUR)
    assert np.unique(result.labels).tolist() == [0, 1, 2, 3]
    assert result.object_classes.tolist() == [0, 1, 2, 2]
    assert result.labels[4, 32] == 1
    assert result.sizes(4) == [(36, 1), (72, 2), (0, 0)]


def test_two_classes_that_touch_are_two_objects():
    labels = drawn("111222 111222 111222")
    result = process(labels, Steps(instances=True), FOUR)
    np.testing.assert_array_equal(result.labels, labels)


def test_volumes_are_parted_by_millimetres():
    rows, columns, depth = np.indices((14, 30, 7))
    ball = lambda x: ((rows - 7) ** 2 + (columns - x) ** 2 + (2 * (depth - 3)) ** 2) <= 36  # noqa: E731
    result = process(ball(8) | ball(19), Steps(instances=True), TWO, (1.0, 1.0, 2.0))
    assert result.labels.max() == 2
    assert result.labels[7, 8, 3] != result.labels[7, 19, 3]


@pytest.mark.parametrize("target", ["3class", "boundary"])
def test_boundaries_make_the_objects_that_they_were_made_of(target):
    """What `targets.relabel` makes of numbered objects that touch comes back as these objects."""
    places = PLACES if target == "3class" else PLACES[:5]
    truth = numbered_discs((90, 90), *places)
    labels = targets.relabel(truth, target)
    result = process(labels, Steps(instances=True), targets.CLASS_NAMES[target])
    assert result.labels.max() == len(places)
    assert agreement(result.labels, truth) > 0.97
    assert result.object_classes.tolist() == [0] + [1] * len(places)
    assert Steps(instances=True).classes(targets.CLASS_NAMES[target]) == ("background", OBJECT)
    assert result.sizes(2) == [((result.labels > 0).sum(), len(places))]
    # Steps are about the objects, not about the classes.
    small = process(labels, Steps((500,), instances=True), targets.CLASS_NAMES[target])
    assert small.labels.max() == 2
    largest = process(labels, Steps(keep_largest=True, instances=True), targets.CLASS_NAMES[target])
    assert largest.labels.max() == 1
    without = process(labels, Steps(), targets.CLASS_NAMES[target])
    np.testing.assert_array_equal(without.labels, labels)


def test_a_hole_in_an_inside_is_filled():
    truth = numbered_discs((40, 40), (20, 20, 15))
    labels = targets.relabel(truth, "3class")
    labels[19:22, 19:22] = 0
    result = process(labels, Steps(fill_holes=True, instances=True), targets.CLASS_NAMES["3class"])
    np.testing.assert_array_equal(result.labels, truth)


def test_numbers_of_all_classes():
    numbers, classes = number(drawn("1012 0000 2222"))
    np.testing.assert_array_equal(numbers, drawn("1023 0000 4444"))
    assert classes.tolist() == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("sizes", [(1, 2), (-1,), (1, 2, 3, 4)])
def test_sizes_that_fit_no_classes_are_refused(sizes):
    with pytest.raises(ValueError, match=r"--min-size is .*; expected .* >= 0, or 3 numbers"):
        Steps(sizes).check(FOUR)
    Steps((1,)).check(FOUR)
    Steps((1, 2, 3)).check(FOUR)
    Steps((5,), instances=True).check(targets.CLASS_NAMES["3class"])
    with pytest.raises(ValueError, match=r"expected a number of pixels >= 0$"):
        Steps((5, 6), instances=True).check(targets.CLASS_NAMES["3class"])
