"""Overlays show classes in their colours, and ignored pixels striped."""

import numpy as np
import pytest

from flaxunet.io.images import read_image
from flaxunet.labels import IGNORE
from flaxunet.report.overlay import write_overlay
from tests.support.refusals import refusal

LABELS = np.arange(12, dtype=np.int32).reshape(3, 4)


@pytest.mark.parametrize("name", ["m.jpg", "m", "none/m.png", "file/m.png"])
def test_places_that_do_not_fit_are_refused(tmp_path, name):
    (tmp_path / "file").write_bytes(b"")
    refusal(write_overlay, tmp_path / name, np.zeros((3, 4, 1)), LABELS)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_overlay_paints_classes_and_stripes_what_is_ignored(tmp_path):
    image = np.full((3, 4, 1), 0.25, np.float32)
    image[0], image[2] = 0, 1
    labels = np.zeros((3, 4), np.int32)
    labels[0, 1], labels[2, 2], labels[1, :] = 1, 2, IGNORE
    write_overlay(tmp_path / "o.png", image, labels, [(200, 0, 100)])
    shown = np.rint(255 * read_image(tmp_path / "o.png")).astype(int)
    assert shown.shape == (3, 4, 3)
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert shown[2, 0].tolist() == [255, 255, 255]
    assert shown[0, 1].tolist() == [100, 0, 50]  # half of it; a palette of one colour begins again
    np.testing.assert_allclose(shown[2, 2], [227.5, 127.5, 177.5], atol=0.5)
    assert {value for pixel in shown[1].tolist() for value in pixel} == {round(255 * 0.42), round(255 * 0.58)}


def test_an_overlay_of_other_sizes_is_refused(tmp_path):
    message = refusal(write_overlay, tmp_path / "o.png", np.zeros((3, 5, 1)), LABELS)
    assert "an image (3, 5, 1) with labels (3, 4)" in message
    assert not list(tmp_path.iterdir())
