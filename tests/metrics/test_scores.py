"""The scores of classes equal those of other packages; empty masks have those of the table."""

from pathlib import Path

import numpy as np
import pytest

from flaxunet import metrics
from flaxunet.labels import IGNORE
from flaxunet.metrics import SCORES

RNG = np.random.default_rng(0)
SHAPE = (23, 31)
NAN = float("nan")


def label_maps():
    """Truth and prediction of three classes: alike, unlike, small, at the border, full, without a class."""
    rng = np.random.RandomState(0)  # whose numbers no version changes
    truth = rng.randint(0, 3, SHAPE)
    spot, full, missing = np.zeros(SHAPE, int), np.ones(SHAPE, int), rng.randint(0, 2, SHAPE)
    spot[0, 0], spot[5, 6] = 1, 2
    alike = np.where(rng.random_sample(SHAPE) < 0.8, truth, rng.randint(0, 3, SHAPE))
    volume = rng.randint(0, 3, (5, 7, 9))
    return {
        "alike": (truth, alike),
        "unlike": (truth, rng.randint(0, 3, SHAPE)),
        "spots": (spot, np.roll(spot, 1, 1)),
        "spot in all": (full, spot),
        "one class": (missing, np.roll(missing, 3, 1)),
        "volume": (volume, np.roll(volume, 1, 0)),
    }


MAPS = label_maps()
each = pytest.mark.parametrize(("truth", "prediction"), MAPS.values(), ids=MAPS)

# dc, jc, precision and recall of classes 1 and 2, if both have them, by medpy.metric.binary 0.5.2.
MEDPY = {
    "alike": [
        (0.854251012, 0.745583039, 0.84063745, 0.868312757),
        (0.855875831, 0.748062016, 0.873303167, 0.839130435),
    ],
    "unlike": [
        (0.352941176, 0.214285714, 0.360515021, 0.345679012),
        (0.363247863, 0.221932115, 0.357142857, 0.369565217),
    ],
    "spots": [(0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)],
    "spot in all": [(0.00280112045, 0.00140252454, 1.0, 0.00140252454)],
    "one class": [(0.527472527, 0.358208955, 0.527472527, 0.527472527)],
    "volume": [
        (0.38317757, 0.23699422, 0.38317757, 0.38317757),
        (0.364485981, 0.222857143, 0.364485981, 0.364485981),
    ],
}


def overlaps(truth, prediction):
    """(3, 4) Dice, IoU, precision and recall of three classes."""
    table = metrics.overlap_scores(metrics.confusion_matrix(truth, prediction, 3))
    return np.stack([table[name] for name in ("dice", "iou", "precision", "recall")], axis=1)


@each
def test_overlaps_are_those_of_segmentation_models(truth, prediction):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("segmentation_models_pytorch").metrics
    pair = [torch.from_numpy(x.reshape(1, -1, 1)) for x in (prediction, truth)]
    counts = theirs.get_stats(*pair, mode="multiclass", num_classes=3)
    names = ("f1_score", "iou_score", "precision", "recall")
    expected = [getattr(theirs, name)(*counts, zero_division=NAN)[0] for name in names]
    np.testing.assert_allclose(overlaps(truth, prediction), np.stack(expected, 1), rtol=1e-6)


@pytest.mark.parametrize("name", MEDPY)
def test_overlaps_are_those_of_medpy(name):
    np.testing.assert_allclose(overlaps(*MAPS[name])[1 : 1 + len(MEDPY[name])], MEDPY[name], rtol=1e-6)


@each
def test_dice_and_iou_are_those_of_monai(truth, prediction):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("monai.metrics")
    pair = [torch.from_numpy(np.stack([x == label for label in range(3)])[None]) for x in (prediction, truth)]
    ours = overlaps(truth, prediction)
    # Where the truth is empty, MONAI says NaN even of false positives.
    scored = [(truth == label).any() for label in range(3)]
    for column, name in enumerate(("compute_dice", "compute_iou")):
        np.testing.assert_allclose(ours[scored, column], getattr(theirs, name)(*pair)[0][scored], rtol=1e-6)


@pytest.mark.parametrize(
    ("true", "predicted", "expected"),
    [
        (False, False, (NAN, NAN, NAN, NAN, NAN, NAN, NAN)),
        (False, True, (0, 0, 0, NAN, 50, 50, 0)),
        (True, False, (0, 0, NAN, 0, 50, 50, 0)),
        (True, True, (1, 1, 1, 1, 0, 0, 1)),
    ],
)
def test_empty_masks_have_the_scores_of_the_table(true, predicted, expected):
    truth, prediction = np.zeros((2, 21, 31), int)
    truth[3:6, 3:6], prediction[3:6, 3:6] = true, predicted
    # 20 rows and 30 columns from the first to the last, so 40 and 30 mm.
    table = metrics.class_scores(truth, prediction, 2, spacing=(2.0, 1.0))
    np.testing.assert_equal(table, np.array([expected], float))
    counted = metrics.match_objects(truth, prediction)
    assert counted.f1 == pytest.approx(expected[0], nan_ok=True)
    assert counted.ap == pytest.approx(expected[1], nan_ok=True)


def test_ignored_pixels_count_for_nothing():
    truth = RNG.integers(0, 2, SHAPE)
    prediction = RNG.integers(0, 2, SHAPE)
    truth[:, 20:] = IGNORE
    table = metrics.class_scores(truth, prediction, 2)
    part = metrics.class_scores(truth[:, :20], prediction[:, :20], 2)
    np.testing.assert_array_equal(table[:, :4], part[:, :4])
    changed = np.where(truth == IGNORE, 1 - prediction, prediction)
    np.testing.assert_array_equal(table, metrics.class_scores(truth, changed, 2))
    assert metrics.match_objects(truth, prediction) == metrics.match_objects(truth, changed)


def test_the_docs_define_every_score():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text()
    for score in SCORES.values():
        title = score.title.partition(",")[0].partition(" at ")[0]
        assert title.lower() in page.lower()
