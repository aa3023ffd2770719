"""Regions of a TIFF file are those of the whole image."""

import io

import numpy as np
import pytest
import tifffile

from flaxunet.io import tiff
from tests.support.interrupted import random_pixels

SHAPE = (301, 203)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "jpeg"])
@pytest.mark.parametrize("kind", [{}, {"tile": (64, 32)}, {"rowsperstrip": 7}])
@pytest.mark.parametrize(
    ("shape", "dtype", "options"),
    [
        (SHAPE, "u1", {}),
        (SHAPE, ">u2", {}),
        (SHAPE, "f4", {}),
        ((*SHAPE, 3), "u1", {"photometric": "rgb"}),
        ((3, *SHAPE), "u2", {"photometric": "rgb", "planarconfig": "separate"}),
        ((*SHAPE, 4), "u1", {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    ],
)
def test_rows_and_regions_are_those_of_the_whole(shape, dtype, options, kind, compression):
    if compression == "jpeg" and (dtype != "u1" or shape[-1] == 4):
        pytest.skip("not written")
    pytest.importorskip("imagecodecs")
    file, order = io.BytesIO(), ">" if dtype[0] == ">" else "<"
    pixels = random_pixels(*shape, dtype=dtype)
    tifffile.imwrite(file, pixels, compression=compression, byteorder=order, **kind, **options)
    file.seek(0)
    whole = tiff.read_tiff(file, None, mask=False).array
    file.seek(0)
    with tiff.open_regions(file) as reader:
        assert reader is not None
        assert reader.size == SHAPE
        rows = [reader.read_rows(top, min(top + 37, 301)) for top in range(0, 301, 37)]
        assert np.array_equal(np.concatenate(rows), whole)
        assert np.array_equal(reader.read_rows(100, 200), whole[100:200])
        assert np.array_equal(reader.read_region(range(5, 99), range(60, 203)), whole[5:99, 60:203])
