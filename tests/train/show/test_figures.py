"""The pictures of a run show what they say they show, without a word on stderr."""

import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from flaxunet.labels import IGNORE, PALETTE
from flaxunet.report.overlay import CONFUSED, EXTRA, MISSED, OPACITY
from train.show import figures as report
from train.show.figures import write_batch, write_curves, write_predictions

NAMES = ("background", "gray matter", "white matter")
PANEL = (report.WIDTH - 2 * report.MARGIN - 3 * report.GAP) // 4
ROWS = [
    {"step": step, "train_loss": 1 / step, "val_loss": 1.1 / step, "val_dice": 1 - 0.5 / step}
    | {"val_dice_gray_matter": 1 - 0.6 / step, "val_dice_white_matter": 1 - 0.4 / step}
    for step in range(1, 60)
]


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def contains(picture, color, tolerance=2):
    return bool((np.abs(picture - np.array(color)).max(-1) <= tolerance).any())


def at(picture, column, y, x, row_height=PANEL):
    """The pixel at the relative place (y, x) of a panel of the first row."""
    top = report.MARGIN + 2 * report.LINE
    left = report.MARGIN + column * (PANEL + report.GAP)
    return picture[int(top + y * row_height), int(left + x * PANEL)]


def painted(color, base=0.0):
    return np.round(255 * (1 - OPACITY) * base + OPACITY * np.array(color)).astype(int)


def quadrants(upper_left, upper_right, lower_left, lower_right):
    return np.kron(np.array([[upper_left, upper_right], [lower_left, lower_right]]), np.ones((16, 16), int))


def test_predictions_show_every_class_and_every_error_in_its_place(tmp_path):
    truth, prediction = quadrants(1, 2, 0, 1), quadrants(1, 1, 2, 0)
    image = np.zeros((32, 32, 1), np.float32)
    write_predictions([("a", image, truth, prediction)], NAMES, tmp_path / "p.png")
    picture = pixels(tmp_path / "p.png")
    first, second, none = painted(PALETTE[0]), painted(PALETTE[1]), np.zeros(3, int)
    places = ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))
    for column, expected in (
        (0, (none, none, none, none)),
        (1, (first, second, none, first)),
        (2, (first, first, second, none)),
        (3, (np.full(3, 26), CONFUSED, EXTRA, MISSED)),
    ):
        for (y, x), color in zip(places, expected, strict=True):
            np.testing.assert_allclose(at(picture, column, y, x), color, atol=1)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8])  # of predictions, as a run keeps them
def test_ignored_pixels_are_striped_in_gray_and_are_no_errors(dtype, tmp_path):
    truth, prediction = quadrants(IGNORE, 0, 0, 0), quadrants(1, 0, 0, 0)
    write_predictions(
        [("a", np.zeros((32, 32, 3)), truth, prediction.astype(dtype))], NAMES, tmp_path / "p.png"
    )
    picture = pixels(tmp_path / "p.png")
    for column in (1, 2, 3):
        striped = np.stack([at(picture, column, 0.25, x) for x in np.linspace(0.1, 0.4, 40)])
        assert np.ptp(striped, axis=1).max() <= 1
        assert np.ptp(striped[:, 0]) > 20


def test_predictions_are_as_wide_and_high_as_said(tmp_path):
    def sample(height, width):
        return (
            "name",
            np.zeros((height, width, 1)),
            np.zeros((height, width), int),
            np.zeros((height, width), int),
        )

    heights = []
    for samples in (
        [sample(8, 8)],
        [sample(8, 8), sample(4, 8)],
        [sample(8, 8), sample(4, 8), sample(900, 9)],
    ):
        write_predictions(samples, NAMES, tmp_path / "p.png")
        height, width, _ = pixels(tmp_path / "p.png").shape
        assert width == 1200
        heights.append(height)
    line = report.LINE + report.GAP
    assert heights[1] - heights[0] == PANEL // 2 + line
    assert heights[2] - heights[1] == round(PANEL * 1.5) + line


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"step": 0, "train_loss": 1.0}],
        [{"step": 10, "train_loss": 0.5, "val_loss": None, "val_dice": float("nan")}],
        [*ROWS, {"step": 59, "best_step": 40, "test_dice": 0.9, "test_dice_gray_matter": 0.8}],
    ],
)
def test_curves_of_any_run_are_drawn_to_size(rows, tmp_path):
    write_curves(rows, tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").shape == (440, 1200, 3)


def test_curves_show_losses_and_classes_in_their_colours(tmp_path):
    write_curves(ROWS, tmp_path / "curves.png")
    picture = pixels(tmp_path / "curves.png")
    loss, dice = picture[:, :600], picture[:, 600:]
    assert contains(loss, PALETTE[0])
    assert contains(loss, PALETTE[6])
    assert contains(dice, PALETTE[0])
    assert contains(dice, PALETTE[1])


def test_a_batch_is_drawn_beside_its_labels(tmp_path):
    image, label = np.zeros((3, 32, 32, 1), np.float32), np.stack([quadrants(0, 1, 2, 0)] * 3)
    write_batch(image, label, ["a", "$b", "long" * 50], NAMES, tmp_path / "b.png")
    picture = pixels(tmp_path / "b.png")
    assert picture.shape[1] == 1200
    top = report.MARGIN + report.LINE
    for left in (0, 2 * (PANEL + report.GAP)):
        at = lambda y, x: picture[top + int(y * PANEL), report.MARGIN + left + int(x * PANEL)]  # noqa: B023, E731
        np.testing.assert_allclose(at(0.25, 0.75), 0, atol=1)
        overlaid = PANEL + report.GAP
        shift = overlaid / PANEL
        np.testing.assert_allclose(at(0.25, 0.75 + shift), painted(PALETTE[0]), atol=1)
        np.testing.assert_allclose(at(0.75, 0.25 + shift), painted(PALETTE[1]), atol=1)


def test_curves_for_the_page_are_sharp_and_light_or_dark():
    for dark in (False, True):
        with Image.open(io.BytesIO(report.curves_png(ROWS, dark=dark))) as image:
            assert image.size == (2400, 880)
            assert (np.asarray(image.convert("L"))[0, 0] < 40) == dark


def test_odd_names_and_sizes_raise_no_warning(tmp_path):
    names = ("background", "$x", *(f"a rather long name of class {number}" for number in range(24)))
    label = np.arange(26).reshape(2, 13)
    samples = [
        ("名前 $y_", np.zeros((2, 13, 3)), label, label[:, ::-1]),
        ("long" * 50, np.ones((1, 1, 1)), np.full((1, 1), IGNORE), np.zeros((1, 1), int)),
    ]
    write_predictions(samples, names, tmp_path / "p.png")
    assert pixels(tmp_path / "p.png").shape[1] == 1200


def test_no_samples_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no samples"):
        write_predictions([], NAMES, tmp_path / "p.png")


def test_no_pyplot_state_is_touched():
    code = "import sys, train.show.figures; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
