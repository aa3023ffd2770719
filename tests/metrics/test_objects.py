"""Objects are matched as in panoptic quality, one to one and as many as possible."""

import numpy as np
import pytest

from flaxunet.metrics import Detections, match_objects
from flaxunet.prediction import postprocess

SHAPE = (23, 31)


@pytest.mark.parametrize("seed", range(4))
def test_objects_are_matched_as_in_panoptic_quality(seed):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("monai.metrics.panoptic_quality")
    rng = np.random.default_rng(seed)
    truth = postprocess.components(rng.random(SHAPE) < 0.35)
    predicted = postprocess.components(np.where(rng.random(SHAPE) < 0.95, truth > 0, rng.random(SHAPE) < 0.3))
    ours = match_objects(truth, predicted)
    pair = [torch.from_numpy(x) for x in (predicted, truth)]
    counts = theirs.compute_panoptic_quality(*pair, output_confusion_matrix=True)
    assert (ours.tp, ours.fp, ours.fn) == tuple(counts[:3].int().tolist())
    assert ours.f1 == pytest.approx(float(theirs.compute_panoptic_quality(*pair, metric_name="rq")), rel=1e-5)


def test_objects_by_hand():
    truth = np.zeros((10, 20), int)
    truth[1:5, 1:5], truth[1:5, 10:14], truth[7:9, 1:5] = 7, 3, 300
    predicted = np.zeros_like(truth)
    predicted[1:5, 1:4] = 1  # 12 of 16
    predicted[1:5, 12:18] = 2  # 8 of 32
    assert match_objects(truth, predicted) == Detections(tp=1, fp=1, fn=2)
    assert match_objects(truth, predicted, iou=0.76) == Detections(0, 2, 3)
    assert match_objects(truth, predicted, iou=0.25) == Detections(1, 1, 2)  # which is no more than that
    assert match_objects(truth, predicted, iou=0.24) == Detections(2, 0, 1)
    total = match_objects(truth, predicted) + match_objects(truth, truth)
    assert total == Detections(4, 1, 2)
    assert (total.f1, total.ap) == (8 / 11, 4 / 7)


def test_an_object_is_matched_once_and_as_many_as_can_be():
    halves = np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]])
    assert match_objects(*halves, iou=0.5) == Detections(0, 2, 1)
    assert match_objects(*halves, iou=0.4) == Detections(1, 1, 0)
    # The second predicted object fits both true ones, the first only the first.
    truth, predicted = np.array([[1, 1, 1, 2, 2, 0]]), np.array([[1, 2, 2, 2, 2, 0]])
    assert match_objects(truth, predicted, iou=0.3) == Detections(2, 0, 0)


def test_many_objects_are_matched_without_a_table_of_all_pairs():
    truth = np.arange(1, 40_001).reshape(200, 200)
    predicted = np.where(truth <= 200, 0, truth[::-1, ::-1])  # each pixel an object, and pairs beyond 2^30
    predicted[-1] = predicted.max() + 1
    assert match_objects(truth, predicted) == Detections(tp=39_600, fp=1, fn=400)


@pytest.mark.parametrize(("shape", "iou", "value"), [((3, 2), 0.5, r"\(3, 2\)"), ((2, 3), 1, "iou is 1")])
def test_shapes_and_thresholds_that_do_not_fit_are_refused(shape, iou, value):
    with pytest.raises(ValueError, match=value):
        match_objects(np.zeros((2, 3), int), np.zeros(shape, int), iou=iou)
