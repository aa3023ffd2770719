"""Confusion matrix, Dice and IoU against a naive loop, and what they say about classes that are not there."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxunet import metrics
from flaxunet.labels import IGNORE


def random_pair(rng, classes, shape=(2, 9, 7)):
    labels = rng.integers(IGNORE, max(classes, 2), shape)
    predictions = rng.integers(0, max(classes, 2), shape)
    return labels, predictions


def counted(labels, predictions, classes):
    return np.asarray(
        jax.jit(metrics.confusion_matrix, static_argnums=2)(
            jnp.asarray(labels, jnp.int32), jnp.asarray(predictions, jnp.int32), classes
        )
    )


@pytest.mark.parametrize("classes", [1, 2, 3, 5])
def test_confusion_matrix_counts_as_a_loop_does(classes):
    labels, predictions = random_pair(np.random.default_rng(classes), classes)
    expected = np.zeros((max(classes, 2),) * 2, np.int64)
    for truth, predicted in zip(labels.ravel(), predictions.ravel(), strict=True):
        if truth != IGNORE:
            expected[truth, predicted] += 1
    confusion = counted(labels, predictions, classes)
    assert confusion.dtype == np.int32
    np.testing.assert_array_equal(confusion, expected)


def test_numpy_arrays_are_counted_on_the_host_like_jax_arrays_on_the_device():
    labels, predictions = random_pair(np.random.default_rng(0), 3)
    labels[0, 0, :2] = 7, -5  # neither a class nor IGNORE
    on_host = metrics.confusion_matrix(labels, predictions, 3)
    assert isinstance(on_host, np.ndarray)
    assert on_host.dtype == np.int64
    np.testing.assert_array_equal(on_host, counted(labels, predictions, 3))


def test_confusion_matrix_is_exact_where_float32_stops_counting():
    labels = jnp.zeros((1, 4097, 4097), jnp.int32)  # an odd count above 2^24 has no float32
    assert counted(labels, labels, 1)[0, 0] == 4097**2


def test_confusion_matrix_of_ignored_pixels_is_zero():
    labels = np.full((1, 4, 4), IGNORE)
    assert counted(labels, np.zeros_like(labels), 3).sum() == 0


def test_confusion_matrix_rejects_different_shapes():
    for zeros in (jnp.zeros, np.zeros):
        with pytest.raises(ValueError, match=r"\(1, 4, 4\).*\(1, 4, 5\)"):
            metrics.confusion_matrix(zeros((1, 4, 4), np.int32), zeros((1, 4, 5), np.int32), 2)


def test_dice_and_iou_match_sets_of_pixels():
    labels, predictions = random_pair(np.random.default_rng(0), 4)
    confusion = counted(labels, predictions, 4)
    keep = labels != IGNORE
    for c in range(4):
        truth, predicted = (labels == c) & keep, (predictions == c) & keep
        both, either = (truth & predicted).sum(), (truth | predicted).sum()
        # float64 of small integers: only the last bits may differ
        assert metrics.dice(confusion)[c] == pytest.approx(
            2 * both / (truth.sum() + predicted.sum()), rel=1e-14
        )
        assert metrics.iou(confusion)[c] == pytest.approx(both / either, rel=1e-14)


def test_scores_of_a_set_are_not_the_mean_of_its_batches():
    small = np.array([[90, 0], [9, 1]])  # one of ten foreground pixels is predicted
    large = np.array([[10, 0], [0, 990]])
    total = metrics.dice(small.astype(np.int64) + large)[1]
    assert total == pytest.approx(2 * 991 / (2 * 991 + 9))
    assert total != pytest.approx(np.mean([metrics.dice(x)[1] for x in (small, large)]), abs=0.1)


def test_scores_of_a_set_beyond_int32_are_exact():
    half = 2**33
    confusion = np.array([[half, 0], [half, half]], np.int64)
    np.testing.assert_allclose(metrics.dice(confusion), [2 / 3, 2 / 3], rtol=1e-15)
    np.testing.assert_allclose(metrics.iou(confusion), [0.5, 0.5], rtol=1e-15)


@pytest.mark.parametrize("score", [metrics.dice, metrics.iou])
def test_class_neither_present_nor_predicted_is_left_out(score):
    values = score(np.array([[5, 0, 0], [0, 2, 0], [0, 0, 0]]))
    assert np.isnan(values[2])
    assert metrics.mean_foreground(values) == 1.0
    missed = score(np.array([[5, 0, 0], [0, 2, 0], [3, 0, 0]]))
    assert missed[2] == 0.0
    assert metrics.mean_foreground(missed) == 0.5


@pytest.mark.parametrize("score", [metrics.dice, metrics.iou])
def test_nothing_there_and_nothing_found_is_perfect(score):
    assert metrics.mean_foreground(score(np.array([[7, 0], [0, 0]]))) == 1.0
    assert metrics.mean_foreground(score(np.array([[6, 1], [0, 0]]))) == 0.0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_predict_takes_the_most_probable_class(dtype):
    binary = metrics.predict(jnp.array([[[[-1e4], [0.0], [1e-3]]]], dtype))
    several = metrics.predict(jnp.array([[[[3.0, 1.0, 2.0], [0.0, -1.0, 5.0]]]], dtype))
    assert binary.dtype == several.dtype == jnp.int32
    np.testing.assert_array_equal(binary, [[[0, 0, 1]]])  # one half is not more than one half
    np.testing.assert_array_equal(several, [[[0, 2]]])


def test_the_matrices_of_images_add_up_to_that_of_the_batch():
    rng = np.random.default_rng(0)
    labels, predictions = (jnp.asarray(rng.integers(low, 3, (5, 40, 30))) for low in (IGNORE, 0))
    each = jax.vmap(partial(metrics.confusion_matrix, classes=3))(labels, predictions)
    assert each.shape == (5, 3, 3)
    np.testing.assert_array_equal(each.sum(0), metrics.confusion_matrix(labels, predictions, 3))
    for image in range(5):
        alone = metrics.confusion_matrix(labels[image][None], predictions[image][None], 3)
        np.testing.assert_array_equal(each[image], alone)
