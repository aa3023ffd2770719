"""Overlays show classes in their colours, and ignored pixels striped."""

import numpy as np
import pytest

from flaxunet.io.images import read_image
from flaxunet.labels import IGNORE, PALETTE
from flaxunet.report.overlay import OPACITY, gray_or_rgb, overlay, write_overlay
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


def painted(color, base):
    return np.round(255 * (1 - OPACITY) * base + OPACITY * np.array(color)).astype(int)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_is_shown(channels):
    image = np.random.default_rng(0).random((9, 7, channels), dtype=np.float32)
    shown = gray_or_rgb(image)
    assert shown.shape == (9, 7, 3)
    source = image if channels == 3 else image[..., :1].repeat(3, axis=-1)
    assert np.corrcoef(shown.ravel(), source.ravel())[0, 1] > 0.99


def test_dim_images_are_stretched_and_constant_ones_are_not():
    ramp = np.linspace(0.01, 0.02, 100, dtype=np.float32).reshape(10, 10, 1)
    assert gray_or_rgb(ramp).min() == 0
    assert gray_or_rgb(ramp).max() == 1
    np.testing.assert_array_equal(gray_or_rgb(np.full((4, 4, 1), 0.25)), 0.25)


def test_overlay_mixes_and_leaves_the_background_alone():
    base = np.full((2, 2, 3), 0.5, np.float32)
    result = overlay(base, np.array([[0, 1], [2, len(PALETTE) + 1]]))
    np.testing.assert_array_equal(result[0, 0], 0.5)
    np.testing.assert_allclose(255 * result[0, 1], painted(PALETTE[0], 0.5), atol=0.6)
    np.testing.assert_allclose(255 * result[1, 0], painted(PALETTE[1], 0.5), atol=0.6)
    np.testing.assert_array_equal(result[1, 1], result[0, 1])
    np.testing.assert_array_equal(base, 0.5)


def test_palette_colours_differ_and_survive_red_green_blindness():
    assert len(set(PALETTE)) == len(PALETTE) == 21
    # Viénot et al. 1999: what a dichromat sees of linear RGB, in which the red and green receptors are one.
    to_cones = np.array(
        [[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]]
    )
    deuteranope = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    seen = np.linalg.inv(to_cones) @ deuteranope @ to_cones @ (np.array(PALETTE[:7]) / 255).T ** 2.2
    seen = 255 * np.clip(seen.T, 0, 1) ** (1 / 2.2)
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(7, 1)]
    assert distance.min() > 20
