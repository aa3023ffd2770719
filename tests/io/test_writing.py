"""Files of masks and overlays: whole or not there, and the colours that were asked for."""

import numpy as np
import PIL.Image
import pytest

from flaxunet.io.images import ImageError, read_image, write_mask
from flaxunet.labels import IGNORE, PALETTE
from flaxunet.report.overlay import write_overlay

LABELS = np.arange(12, dtype=np.int32).reshape(3, 4)


def refusal(write, path, *arrays):
    with pytest.raises(ImageError) as refused:
        write(path, *arrays)
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


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
    refusal(write_overlay, tmp_path / name, np.zeros((3, 4, 1)), LABELS)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_usual_palette_is_that_of_all_pictures(tmp_path):
    write_mask(tmp_path / "m.png", LABELS)
    with PIL.Image.open(tmp_path / "m.png") as picture:
        shown = np.asarray(picture.convert("RGB")).reshape(12, 3)
    np.testing.assert_array_equal(shown, [(0, 0, 0), *PALETTE[:11]])


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
