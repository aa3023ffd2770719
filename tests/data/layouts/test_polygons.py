"""Polygons cover the pixels whose centres are inside; run lengths are those of COCO."""

import numpy as np
import pytest

from flaxunet.data.layouts.polygons import decode, fill


def test_polygons_cover_the_pixels_whose_centres_are_inside():
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(30) + 0.5, np.arange(20) + 0.5)
    for count in (3, 4, 7):
        corners = rng.uniform(-4, 30, (count, 2))
        inside = np.zeros((20, 30), bool)
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            passed = (y0 <= y) != (y1 <= y)  # by a ray to the left
            inside ^= passed & (x0 + (y - y0) * (x1 - x0) / (y1 - y0) < x)
        np.testing.assert_array_equal(fill(corners, 20, 30), inside)


def test_compressed_run_lengths_are_those_of_coco():
    # pycocotools.mask.encode of a 9 x 7 mask whose rows 2..5 and columns 1..4 are set, but for (3, 2).
    mask = np.zeros((9, 7), bool)
    mask[2:6, 1:5], mask[3, 2] = True, False
    text, runs = ";45ML14200`0", [11, 4, 5, 1, 1, 2, 5, 4, 5, 4, 21]
    np.testing.assert_array_equal(decode(text, 9, 7), mask)
    np.testing.assert_array_equal(decode(runs, 9, 7), mask)
    for wrong in (text[:-1], text + "~~", runs[:-1], [-1, *runs]):
        with pytest.raises(ValueError, match="expected"):
            decode(wrong, 9, 7)
