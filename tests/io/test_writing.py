"""Masks are written whole or not at all, in the colours of their palette."""

import numpy as np
import PIL.Image
import pytest

from flaxunet.io.images import write_mask
from flaxunet.labels import PALETTE
from tests.support.refusals import refusal

LABELS = np.arange(12, dtype=np.int32).reshape(3, 4)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (LABELS - 1, "labels between -1 and 10; expected 0 to 65535"),
        (LABELS + 65530, "labels between 65530 and 65541"),
        (LABELS / 2, "float64[3, 4]; expected labels (H, W) of integers"),
        (LABELS[..., None], "int32[3, 4, 1]; expected labels (H, W) of integers"),
        (LABELS[:0], "int32[0, 4]"),
    ],
)
def test_labels_that_do_not_fit_are_not_written(tmp_path, labels, words):
    assert words in refusal(write_mask, tmp_path / "m.png", labels)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["m.jpg", "m", "none/m.png", "file/m.png"])
def test_places_that_do_not_fit_are_refused(tmp_path, name):
    (tmp_path / "file").write_bytes(b"")
    refusal(write_mask, tmp_path / name, LABELS)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_usual_palette_is_that_of_all_pictures(tmp_path):
    write_mask(tmp_path / "m.png", LABELS)
    with PIL.Image.open(tmp_path / "m.png") as picture:
        shown = np.asarray(picture.convert("RGB")).reshape(12, 3)
    np.testing.assert_array_equal(shown, [(0, 0, 0), *PALETTE[:11]])
