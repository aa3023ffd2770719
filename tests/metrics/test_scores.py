"""Overlaps, objects and statistics equal those of other packages; the empty has the score that is told."""

import warnings

import numpy as np
import pytest

from flaxunet import metrics
from flaxunet.labels import IGNORE
from flaxunet.metrics import scores, statistics
from flaxunet.prediction import postprocess

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
    return scores.overlaps(scores.confusion_matrix(truth, prediction, 3))


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
    # Where the truth is empty, MONAI says NaN even of what was found.
    scored = [(truth == label).any() for label in range(3)]
    for column, name in enumerate(("compute_dice", "compute_iou")):
        np.testing.assert_allclose(ours[scored, column], getattr(theirs, name)(*pair)[0][scored], rtol=1e-6)


def test_overlaps_of_a_set_are_those_of_training():
    truth, prediction = RNG.integers(-1, 3, (2, 4, 9, 9))
    confusion = sum(scores.confusion_matrix(*pair, 3) for pair in zip(truth, prediction.clip(0), strict=True))
    np.testing.assert_array_equal(
        confusion, metrics.confusion_matrix(truth.astype(np.int32), prediction.clip(0).astype(np.int32), 3)
    )
    np.testing.assert_array_equal(scores.overlaps(confusion)[:, 0], metrics.dice(confusion))


@pytest.mark.parametrize(
    ("true", "found", "expected"),
    [
        (False, False, (NAN, NAN, NAN, NAN, NAN, NAN, NAN)),
        (False, True, (0, 0, 0, NAN, 50, 50, 0)),
        (True, False, (0, 0, NAN, 0, 50, 50, 0)),
        (True, True, (1, 1, 1, 1, 0, 0, 1)),
    ],
)
def test_what_is_empty_has_the_scores_that_are_told(true, found, expected):
    truth, prediction = np.zeros((2, 21, 31), int)
    truth[3:6, 3:6], prediction[3:6, 3:6] = true, found
    # 20 rows and 30 columns from the first to the last, so 40 and 30 mm.
    found = scores.score(truth, prediction, 2, spacing=(2.0, 1.0))
    np.testing.assert_equal(found, np.array([expected], float))
    counted = scores.match(truth, prediction)
    assert counted.f1 == pytest.approx(expected[0], nan_ok=True)
    assert counted.ap == pytest.approx(expected[1], nan_ok=True)


def test_ignored_pixels_count_for_nothing():
    truth = RNG.integers(0, 2, SHAPE)
    prediction = RNG.integers(0, 2, SHAPE)
    truth[:, 20:] = IGNORE
    np.testing.assert_array_equal(
        scores.score(truth, prediction, 2)[:, :4], scores.score(truth[:, :20], prediction[:, :20], 2)[:, :4]
    )
    changed = np.where(truth == IGNORE, 1 - prediction, prediction)
    np.testing.assert_array_equal(scores.score(truth, prediction, 2), scores.score(truth, changed, 2))
    assert scores.match(truth, prediction) == scores.match(truth, changed)


@pytest.mark.parametrize("seed", range(4))
def test_objects_are_matched_as_in_panoptic_quality(seed):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("monai.metrics.panoptic_quality")
    rng = np.random.default_rng(seed)
    truth = postprocess.components(rng.random(SHAPE) < 0.35)
    found = postprocess.components(np.where(rng.random(SHAPE) < 0.95, truth > 0, rng.random(SHAPE) < 0.3))
    ours = scores.match(truth, found)
    pair = [torch.from_numpy(x) for x in (found, truth)]
    counts = theirs.compute_panoptic_quality(*pair, output_confusion_matrix=True)
    assert (ours.hits, ours.extra, ours.missed) == tuple(counts[:3].int().tolist())
    assert ours.f1 == pytest.approx(float(theirs.compute_panoptic_quality(*pair, metric_name="rq")), rel=1e-5)


def test_objects_by_hand():
    truth = np.zeros((10, 20), int)
    truth[1:5, 1:5], truth[1:5, 10:14], truth[7:9, 1:5] = 7, 3, 300
    found = np.zeros_like(truth)
    found[1:5, 1:4] = 1  # 12 of 16
    found[1:5, 12:18] = 2  # 8 of 32
    assert scores.match(truth, found) == scores.Objects(hits=1, extra=1, missed=2)
    assert scores.match(truth, found, iou=0.76) == scores.Objects(0, 2, 3)
    assert scores.match(truth, found, iou=0.25) == scores.Objects(1, 1, 2)  # which is no more than that
    assert scores.match(truth, found, iou=0.24) == scores.Objects(2, 0, 1)
    total = scores.match(truth, found) + scores.match(truth, truth)
    assert total == scores.Objects(4, 1, 2)
    assert (total.f1, total.ap) == (8 / 11, 4 / 7)


def test_an_object_is_matched_once_and_as_many_as_can_be():
    halves = np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]])
    assert scores.match(*halves, iou=0.5) == scores.Objects(0, 2, 1)
    assert scores.match(*halves, iou=0.4) == scores.Objects(1, 1, 0)
    # The second found object fits both true ones, the first only the first.
    truth, found = np.array([[1, 1, 1, 2, 2, 0]]), np.array([[1, 2, 2, 2, 2, 0]])
    assert scores.match(truth, found, iou=0.3) == scores.Objects(2, 0, 0)


def test_many_objects_are_matched_without_a_table_of_all_pairs():
    truth = np.arange(1, 40_001).reshape(200, 200)
    found = np.where(truth <= 200, 0, truth[::-1, ::-1])  # each pixel an object, and pairs beyond 2^30
    found[-1] = found.max() + 1
    assert scores.match(truth, found) == scores.Objects(hits=39_600, extra=1, missed=400)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_intervals_are_those_of_scipy(scale):
    from scipy import stats

    values = 0.8 + scale * RNG.normal(size=40) / 10
    ours = statistics.means(values[:, None], resamples=20_000)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are all equal
        theirs = stats.bootstrap(
            (values,), np.mean, n_resamples=20_000, method="percentile"
        ).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    # Percentiles of drawn means differ by about a hundredth of their deviation.
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=scale * 0.002 + 1e-12)
    assert ours == statistics.means(values[:, None], resamples=20_000)[0]


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        one = statistics.means(rng.normal(size=(30, 1)), resamples=500, seed=seed)[0]
        held += one.low <= 0 <= one.high
    assert 0.88 <= held / 200 <= 0.99


def test_groups_are_drawn_whole_and_missing_scores_are_left_out():
    groups = np.repeat([f"patient {n}" for n in range(8)], 10)
    values = np.repeat(RNG.random(8), 10)[:, None]
    alone, together = statistics.means(values)[0], statistics.means(values, groups)[0]
    assert alone.mean == pytest.approx(together.mean)
    # Ten copies of an image say no more than one.
    once = statistics.means(values[::10])[0]
    assert together.high - together.low == pytest.approx(once.high - once.low)
    assert together.high - together.low > 2 * (alone.high - alone.low)
    holes = np.array([[1.0, NAN], [NAN, NAN], [3.0, NAN]])
    first, second = statistics.means(holes)
    assert (first.mean, first.images, second.images) == (2.0, 2, 0)
    assert np.isnan([second.mean, second.low, second.high]).all()
    single = statistics.means(np.array([[0.5], [0.7]]), ["a", "a"])[0]
    assert single.mean == pytest.approx(0.6)
    assert np.isnan([single.low, single.high]).all()
    assert statistics.means(np.empty((0, 1)))[0].images == 0


def test_two_networks_are_compared_as_scipy_does():
    from scipy import stats

    values, others = RNG.random((2, 25, 2))
    values[3, 0] = others[4, 0] = NAN
    first, second = statistics.differences(values, others)
    kept = ~np.isnan(values[:, 0] - others[:, 0])
    assert first.p == pytest.approx(stats.wilcoxon(values[kept, 0], others[kept, 0]).pvalue)
    assert second.p == pytest.approx(stats.wilcoxon(values[:, 1], others[:, 1]).pvalue)
    assert (first.images, first.groups, second.images) == (23, 23, 25)
    assert first.low < first.mean < first.high
    better = statistics.differences(others + 0.1, others)[1]
    assert (better.mean, better.low, better.high) == pytest.approx((0.1, 0.1, 0.1))
    assert better.p < 1e-6
    same = statistics.differences(values, values)[1]
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)
    none = statistics.differences(np.full((3, 1), NAN), others[:3, :1])[0]
    assert (none.images, none.groups) == (0, 0)
    assert np.isnan(none.p)


def test_the_test_is_on_groups():
    values, groups = np.repeat(RNG.random(6), 9)[:, None], np.repeat(list("abcdef"), 9)
    found = statistics.differences(values, np.zeros_like(values), groups)[0]
    assert (found.images, found.groups) == (54, 6)
    assert found.p == pytest.approx(2 / 2**6)  # all six are better


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="equal shapes"):
        scores.confusion_matrix(np.zeros((2, 3), int), np.zeros((3, 2), int), 2)
    with pytest.raises(ValueError, match="0 <= IoU < 1"):
        scores.match(np.zeros((2, 3), int), np.zeros((2, 3), int), iou=1)
