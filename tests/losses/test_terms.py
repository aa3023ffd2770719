"""Losses against plain definitions, and what holds for each of them; finite wherever data may lead."""

import functools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from flaxunet import losses
from flaxunet.labels import IGNORE
from flaxunet.losses import LOSSES
from flaxunet.losses.parse import TAKE_CLASS_WEIGHTS
from tests.support.losses import (
    SHAPE,
    compiled,
    confident,
    random_labels,
    random_logits,
    value_and_gradient,
    value_of,
)

VALUE = 3e-6  # of our float32 sums over some hundred pixels


def edge_cases(K):
    """Pairs of logits and labels at the borders of what training may meet."""
    logits, labels = random_logits(K), random_labels(K)
    one_image = labels.copy()
    one_image[0] = IGNORE
    yield "usual", logits, labels
    yield "some ignored", logits, random_labels(K, ignored=0.3)
    yield "empty masks", logits, np.zeros_like(labels)
    yield "full masks", logits, np.ones_like(labels)
    yield "last class only", logits, np.full_like(labels, max(K, 2) - 1)
    yield "one image ignored", logits, one_image
    yield "all ignored", logits, np.full_like(labels, IGNORE)
    yield "equal logits", np.zeros_like(logits), labels
    yield "certain and right", confident(labels, K), labels
    yield "certain and wrong", -confident(labels, K), labels
    yield "certain and empty", np.full_like(logits, -1e4), np.zeros_like(labels)
    yield "infinite where ignored", np.where(one_image[..., None] == IGNORE, np.inf, logits), one_image


@pytest.mark.parametrize(
    ("K", "dtype"),
    [
        (1, jnp.bfloat16),
        (3, jnp.float32),
        pytest.param(1, jnp.float32, marks=pytest.mark.long),
        pytest.param(3, jnp.bfloat16, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("name", LOSSES)
def test_finite_everywhere(name, K, dtype):
    for case, logits, labels in edge_cases(K):
        value, gradient = compiled(LOSSES[name])(jnp.asarray(logits, dtype), jnp.asarray(labels))
        assert value.dtype == jnp.float32, case
        assert value.shape == (), case
        assert gradient.dtype == dtype, case
        assert np.isfinite(value), case
        assert value >= 0, case
        assert jnp.isfinite(gradient).all(), case
        ignored = labels == IGNORE
        assert (np.asarray(gradient, np.float32)[ignored] == 0).all(), case
        if ignored.all():
            assert value == 0, case
        if case == "usual":
            assert (np.asarray(gradient, np.float32) != 0).any(), case


@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_right_is_zero_and_wrong_is_not(name, K):
    labels = random_labels(K, ignored=0.2)
    # a mean of ones is one, but for its last bit
    assert value_of(LOSSES[name], confident(labels, K), labels) == pytest.approx(0, abs=1e-7)
    assert value_of(LOSSES[name], -confident(labels, K), labels) > 0.4


@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_do_not_count(name, K):
    labels = random_labels(K, ignored=0.3)
    logits = random_logits(K)
    other = np.where(labels[..., None] == IGNORE, random_logits(K, seed=5), logits)
    assert value_of(LOSSES[name], logits, labels) == value_of(LOSSES[name], other, labels)


@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("name", [name for name in LOSSES if name not in TAKE_CLASS_WEIGHTS])
def test_images_are_averaged(name, K):
    labels, logits = random_labels(K), random_logits(K)
    pair = value_of(LOSSES[name], logits, labels)
    twice = [value_of(LOSSES[name], logits[[i, i]], labels[[i, i]]) for i in (0, 1)]
    assert twice[0] != pytest.approx(twice[1], rel=1e-3)
    assert pair == pytest.approx(np.mean(twice), rel=1e-6)  # a float32 mean of the same two numbers
    labels[1] = IGNORE
    assert value_of(LOSSES[name], logits, labels) == pytest.approx(twice[0], rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_one_pixel_is_an_image(name):
    value, gradient = value_and_gradient(LOSSES[name], np.array([[[[0.3]]]], np.float32), np.array([[[1]]]))
    assert math.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_focal_is_finite_for_small_gamma(gamma):
    labels, loss = random_labels(3), functools.partial(losses.focal, gamma=gamma)
    for logits in (confident(labels, 3), -confident(labels, 3), random_logits(3)):
        value, gradient = value_and_gradient(loss, logits, labels)
        assert math.isfinite(value)
        assert np.isfinite(gradient).all()
    if gamma == 0:
        assert value == pytest.approx(value_of(losses.cross_entropy, logits, labels), rel=1e-6)


def set_jaccard_loss(truth, wrong):
    """1 - IoU of the prediction that errs exactly on the set `wrong`."""
    union = (truth | wrong).sum()
    return 1 - (truth & ~wrong).sum() / union if union else 0.0


def lovasz_extension(errors, truth):
    """The Lovász extension by its definition: sets grow by the largest error left."""
    wrong, before, total = np.zeros_like(truth), 0.0, 0.0
    for i in np.argsort(-errors, kind="stable"):
        wrong[i] = True
        after = set_jaccard_loss(truth, wrong)
        total += errors[i] * (after - before)
        before = after
    return total


def test_lovasz_is_the_extension_of_the_jaccard_loss():
    logits, labels = random_logits(1, (1, 8, 9)), random_labels(1, (1, 8, 9), ignored=0.2)
    keep = labels.ravel() != IGNORE
    score, truth = logits.ravel()[keep].astype(np.float64), labels.ravel()[keep] == 1
    hinge = lovasz_extension(np.maximum(0, 1 - np.where(truth, score, -score)), truth)
    assert value_of(losses.lovasz, logits, labels) == pytest.approx(hinge, rel=VALUE)


@pytest.mark.parametrize("empty", [False, True])
def test_lovasz_of_a_hard_prediction_is_one_minus_iou(empty):
    labels, predictions = random_labels(3, (1, 8, 9)), random_labels(3, (1, 8, 9), seed=7)
    if empty:
        labels[:] = 0
    ious = [1 - set_jaccard_loss(labels == c, (labels == c) ^ (predictions == c)) for c in np.unique(labels)]
    softmax = value_of(losses.lovasz, confident(predictions, 3), labels)
    assert softmax == pytest.approx(1 - np.mean(ious), rel=VALUE)
    truth, predicted = labels == 1, predictions == 1
    scores = np.where(predicted, 1.0, -1.0).astype(np.float32)[..., None]
    hinge = value_of(losses.lovasz, scores, truth.astype(np.int32))
    assert hinge == pytest.approx(
        2 * set_jaccard_loss(truth, truth ^ predicted), rel=VALUE
    )  # each error is 2


def test_lovasz_weights_keep_their_digits_in_large_images():
    shape = (1, 256, 256)
    logits, labels = random_logits(1, shape), random_labels(1, shape)
    sign = np.where(labels == 1, 1.0, -1.0).ravel()
    errors = np.maximum(0, 1 - sign * logits.ravel())
    order = np.argsort(-errors, kind="stable")
    truth = (sign[order] > 0).astype(np.float64)
    jaccard = 1 - (truth.sum() - truth.cumsum()) / (truth.sum() + (1 - truth).cumsum())
    expected = np.zeros(errors.size)
    expected[order] = np.diff(jaccard, prepend=0.0)
    expected = -sign * np.where(errors > 0, expected, 0)
    _, gradient = value_and_gradient(losses.lovasz, logits, labels)
    # equal errors share their ranks in any order, and a few of 65536 float32 numbers are equal
    close = np.isclose(gradient.ravel(), expected, rtol=1e-5, atol=0)
    assert close.mean() > 0.99


def test_unet3plus_is_focal_and_ms_ssim_and_jaccard():
    logits, labels = random_logits(3), random_labels(3)
    parts = [value_of(loss, logits, labels) for loss in (losses.focal, losses.ms_ssim, losses.jaccard)]
    assert value_of(losses.unet3plus, logits, labels) == pytest.approx(sum(parts), rel=1e-6)


def test_deep_supervision_halves_the_weight_of_each_further_head():
    labels = random_labels(3)
    heads = [random_logits(3, seed=seed) for seed in range(3)]
    apart = [value_of(losses.dice, head, labels) for head in heads]
    expected = np.dot([4 / 7, 2 / 7, 1 / 7], apart)
    assert float(losses.deep_supervision(losses.dice, heads, labels)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["ce", "dice"])
def test_deep_supervision_of_one_head_is_the_loss(name):
    logits, labels = random_logits(3), random_labels(3)
    assert losses.deep_supervision(LOSSES[name], [logits], labels) == LOSSES[name](logits, labels)


def test_deep_supervision_needs_a_head():
    with pytest.raises(ValueError, match="at least one head"):
        losses.deep_supervision(losses.dice, [], random_labels(3))


def test_presence_asks_whether_a_class_occurs():
    labels = np.zeros((3, 4, 5), np.int32)
    labels[0, 1, 2], labels[1, 0, 0], labels[1, 3, 4] = 2, 1, IGNORE
    labels[2] = IGNORE
    logits = np.array([[0.5, -1.0], [2.0, 3.0], [9.0, 9.0]], np.float32)
    occurs = np.array([[0, 1], [1, 0]])
    expected = np.log1p(np.exp(np.where(occurs, -logits[:2], logits[:2]).astype(np.float64))).mean()
    value, gradient = value_and_gradient(losses.presence, logits, labels)
    assert value == pytest.approx(expected, rel=1e-6)
    assert (gradient[2] == 0).all()
    assert (gradient[:2] != 0).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("K", [1, 2])
def test_presence_is_finite(K, dtype):
    for label in (0, 1, IGNORE):
        for logit in (-1e4, 0, 1e4):
            logits = jnp.full((2, K), logit, dtype)
            value, gradient = compiled(losses.presence)(logits, jnp.full(SHAPE, label, jnp.int32))
            assert value.dtype == jnp.float32
            assert np.isfinite(value)
            assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("name", LOSSES)
def test_shapes_and_dtypes_are_checked(name):
    with pytest.raises(ValueError, match=r"expected \(B, H, W, K\) and \(B, H, W\)"):
        LOSSES[name](random_logits(3), random_labels(3)[:, :-1])
    with pytest.raises(ValueError, match="expected integer classes"):
        LOSSES[name](random_logits(3), random_labels(3).astype(np.float32))


def test_options_out_of_range_are_refused():
    logits, labels = random_logits(3), random_labels(3)
    for weights in ((1.0, 2.0), (1.0, -1.0, 1.0), (1.0, math.nan, 1.0)):
        with pytest.raises(ValueError, match="expected 3 numbers >= 0"):
            losses.cross_entropy(logits, labels, class_weights=weights)
    with pytest.raises(ValueError, match="gamma is -1"):
        losses.focal(logits, labels, gamma=-1)
    with pytest.raises(ValueError, match="expected >= 0, >= 0 and > 0"):
        losses.dice(logits, labels, smooth=0)
    with pytest.raises(ValueError, match=r"expected \(B, K_fg\)"):
        losses.presence(logits, labels)
