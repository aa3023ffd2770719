"""Losses against torch, segmentation_models_pytorch and plain definitions; finite wherever data may lead."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxunet import losses
from flaxunet.labels import IGNORE
from flaxunet.losses import parse as objective
from flaxunet.losses import ssim
from flaxunet.losses.parse import LOSSES

SHAPE = (2, 13, 11)


def random_logits(K, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(0, 2, (*shape, K)).astype(np.float32)


def random_labels(K, shape=SHAPE, seed=1, ignored=0.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, max(K, 2), shape)
    labels[rng.random(shape) < ignored] = IGNORE
    return labels.astype(np.int32)


@functools.cache
def compiled(loss):
    return jax.jit(jax.value_and_grad(loss))


def value_and_gradient(loss, logits, labels):
    value, gradient = compiled(loss)(jnp.asarray(logits), jnp.asarray(labels))
    return float(value), np.asarray(gradient)


def value_of(loss, logits, labels):
    return value_and_gradient(loss, logits, labels)[0]


def confident(labels, K):
    """Logits of 1e4 for the labelled class and -1e4 for the others."""
    classes = np.arange(K) if K > 1 else np.array([1])
    return np.where(labels[..., None] == classes, 1e4, -1e4).astype(np.float32)


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
@pytest.mark.parametrize("name", [name for name in LOSSES if name not in objective.TAKE_CLASS_WEIGHTS])
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


# -- against torch, whose side runs in float64: the tolerances are those of our float32 sums over 286 pixels
VALUE, GRADIENT = 3e-6, 2e-5


def to_torch(logits, labels):
    torch = pytest.importorskip("torch")
    x = torch.tensor(np.moveaxis(logits, -1, 1), dtype=torch.float64, requires_grad=True)
    return x, torch.tensor(labels, dtype=torch.int64)


def assert_agree(loss, theirs, logits, labels):
    """Our value and gradient against those of `theirs(logits (B, K, H, W) float64, labels)`."""
    x, y = to_torch(logits, labels)
    expected = theirs(x, y)
    expected.backward()
    value, gradient = value_and_gradient(loss, logits, labels)
    assert value == pytest.approx(expected.item(), rel=VALUE)
    slope = np.moveaxis(x.grad.numpy(), 1, -1)
    np.testing.assert_allclose(gradient, slope, rtol=0, atol=GRADIENT * np.abs(slope).max())


@pytest.mark.parity
@pytest.mark.parametrize("weights", [None, (0.2, 1.0, 3.0)])
def test_cross_entropy_is_torchs(weights):
    functional = pytest.importorskip("torch.nn.functional")
    torch = pytest.importorskip("torch")
    theirs = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    assert_agree(
        functools.partial(losses.cross_entropy, class_weights=weights),
        lambda x, y: functional.cross_entropy(x, y, weight=theirs, ignore_index=IGNORE),
        random_logits(3),
        random_labels(3, ignored=0.2),
    )


@pytest.mark.parity
@pytest.mark.parametrize("weights", [None, (0.5, 2.0)])
def test_binary_cross_entropy_is_torchs(weights):
    functional = pytest.importorskip("torch.nn.functional")
    background, foreground = weights or (1, 1)

    def theirs(x, y):
        counted = y != IGNORE
        x, y = x[:, 0][counted], y[counted].double()
        weight = background * (1 - y) + foreground * y
        total = functional.binary_cross_entropy_with_logits(x, y, weight=weight, reduction="sum")
        return total / weight.sum()

    assert_agree(
        functools.partial(losses.cross_entropy, class_weights=weights),
        theirs,
        random_logits(1),
        random_labels(1, ignored=0.2),
    )


@pytest.mark.parity
@pytest.mark.parametrize("ignored", [0.0, 0.3])
@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize(
    ("ours", "name", "options"),
    [
        (losses.dice, "DiceLoss", {"smooth": 2.0}),
        (losses.jaccard, "JaccardLoss", {"smooth": 0.5}),
        (losses.tversky, "TverskyLoss", {"alpha": 0.3, "beta": 0.7, "smooth": 1.0}),
    ],
)
def test_overlap_losses_are_smps_on_one_image(ours, name, options, K, ignored):
    smp = pytest.importorskip("segmentation_models_pytorch")
    chosen = {"mode": "binary"} if K == 1 else {"mode": "multiclass", "classes": [1, 2]}
    theirs = getattr(smp.losses, name)(**chosen, **options, ignore_index=IGNORE)  # it sums over the batch
    shape = (1, 13, 11)
    labels = random_labels(K, shape, ignored=ignored)
    assert_agree(functools.partial(ours, **options), theirs, random_logits(K, shape), labels)


@pytest.mark.parity
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_binary_focal_is_smps(alpha):
    smp = pytest.importorskip("segmentation_models_pytorch")
    labels = random_labels(1, ignored=0.2)
    weights = None if alpha is None else (1 - alpha, alpha)
    # its mean divides by the pixels, ours by their weights
    mean_weight = 1 if alpha is None else np.where(labels == 1, alpha, 1 - alpha)[labels != IGNORE].mean()
    theirs = smp.losses.FocalLoss("binary", alpha=alpha, gamma=2.0, ignore_index=IGNORE)
    assert_agree(
        functools.partial(losses.focal, class_weights=weights),
        lambda x, y: theirs(x, y) / mean_weight,
        random_logits(1),
        labels,
    )


@pytest.mark.parity
def test_softmax_focal_is_the_papers():
    functional = pytest.importorskip("torch.nn.functional")

    def theirs(x, y):  # the library's FocalLoss is one sigmoid per class for several classes
        logs = functional.log_softmax(x, 1).gather(1, y[:, None])
        return (-((1 - logs.exp()) ** 1.5) * logs).mean()

    ours = functools.partial(losses.focal, gamma=1.5)
    assert_agree(ours, theirs, random_logits(3), random_labels(3))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_focal_is_finite_for_small_gamma(gamma):
    labels, loss = random_labels(3), functools.partial(losses.focal, gamma=gamma)
    for logits in (confident(labels, 3), -confident(labels, 3), random_logits(3)):
        value, gradient = value_and_gradient(loss, logits, labels)
        assert math.isfinite(value)
        assert np.isfinite(gradient).all()
    if gamma == 0:
        assert value == pytest.approx(value_of(losses.cross_entropy, logits, labels), rel=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("K", [1, 3])
def test_lovasz_is_smps(K, per_image):
    smp = pytest.importorskip("segmentation_models_pytorch")
    mode = "binary" if K == 1 else "multiclass"
    theirs = smp.losses.LovaszLoss(mode, per_image=per_image, ignore_index=IGNORE)
    labels = random_labels(K, ignored=0.2)
    labels[1][labels[1] == max(K, 2) - 1] = 0  # a class that one image lacks
    logits = random_logits(K)
    # its weights are float32 and refuse to meet float64 errors
    assert_agree(
        functools.partial(losses.lovasz, per_image=per_image),
        lambda x, y: theirs(x.float(), y),
        logits,
        labels,
    )


# -- against definitions


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
    truth, found = labels == 1, predictions == 1
    scores = np.where(found, 1.0, -1.0).astype(np.float32)[..., None]
    hinge = value_of(losses.lovasz, scores, truth.astype(np.int32))
    assert hinge == pytest.approx(2 * set_jaccard_loss(truth, truth ^ found), rel=VALUE)  # each error is 2


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


def ms_ssim_reference(x, y, counted):
    """MS-SSIM of one map pair in float64, pixel by pixel."""
    height, width = x.shape
    scales = next(m for m in (5, 4, 3, 2, 1) if m == 1 or -(-min(height, width) // 2 ** (m - 1)) >= 11)
    exponents = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:scales])
    exponents /= exponents.sum()
    result = 1.0
    for scale in range(scales):
        if scale:
            x, y, counted = halved(x, y, counted)
        terms = []
        for i, j in zip(*np.nonzero(counted), strict=True):
            rows, columns = np.nonzero(counted)
            near = (abs(rows - i) <= 5) & (abs(columns - j) <= 5)
            rows, columns = rows[near], columns[near]
            weight = np.exp(-((rows - i) ** 2 + (columns - j) ** 2) / (2 * 1.5**2))
            weight /= weight.sum()
            a, b = x[rows, columns], y[rows, columns]
            mean_a, mean_b = weight @ a, weight @ b
            variance_a, variance_b = weight @ (a - mean_a) ** 2, weight @ (b - mean_b) ** 2
            covariance = weight @ ((a - mean_a) * (b - mean_b))
            term = (2 * covariance + 0.03**2) / (variance_a + variance_b + 0.03**2)
            if scale == scales - 1:
                term *= (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
            terms.append(term)
        result *= max(np.mean(terms), 1e-6) ** exponents[scale]
    return result


def halved(x, y, counted):
    height, width = (-(-side // 2) for side in x.shape)
    a, b, kept = np.zeros((height, width)), np.zeros((height, width)), np.zeros((height, width), bool)
    for i in range(height):
        for j in range(width):
            block = np.s_[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            if counted[block].any():
                kept[i, j] = True
                a[i, j], b[i, j] = x[block][counted[block]].mean(), y[block][counted[block]].mean()
    return a, b, kept


@pytest.mark.parametrize("ignored", [0.0, 0.4])
@pytest.mark.parametrize("size", [(1, 1), (3, 17), (24, 21), (42, 47)])
def test_ms_ssim_matches_float64_pixel_by_pixel(size, ignored):
    shape = (1, *size)
    smooth = np.add.outer(np.arange(size[0]), np.arange(size[1]))[None]
    labels = np.where(smooth % 17 < 8, 1, 0) if min(size) > 1 else np.ones(shape, int)
    labels = np.where(np.random.default_rng(3).random(shape) < ignored, IGNORE, labels)
    labels[0, 0, 0] = 1
    logits = random_logits(1, shape) + 2 * (labels[..., None] == 1) - 1
    counted = labels[0] != IGNORE
    probabilities = 1 / (1 + np.exp(-logits[0, ..., 0].astype(np.float64)))
    expected = ms_ssim_reference(probabilities, (labels[0] == 1).astype(np.float64), counted)
    # variances are differences of float32 squares: some 1e-8 against a constant of 9e-4
    assert 1 - value_of(losses.ms_ssim, logits.astype(np.float32), labels) == pytest.approx(
        expected, rel=1e-4
    )


def test_ms_ssim_uses_as_many_scales_as_the_window_fits():
    assert [ssim.scales(side, 500) for side in (1, 20, 21, 41, 81, 160, 161, 1000)] == [
        1,
        1,
        2,
        3,
        4,
        4,
        5,
        5,
    ]


def test_unet3plus_is_focal_and_ms_ssim_and_jaccard():
    logits, labels = random_logits(3), random_labels(3)
    parts = [value_of(loss, logits, labels) for loss in (losses.focal, losses.ms_ssim, losses.jaccard)]
    assert value_of(losses.unet3plus, logits, labels) == pytest.approx(sum(parts), rel=1e-6)


# -- combining


def test_parse_adds_and_weighs():
    logits, labels = random_logits(3), random_labels(3)
    dice, entropy = (value_of(loss, logits, labels) for loss in (losses.dice, losses.cross_entropy))
    for spec, expected in {
        "dice": dice,
        "dice+ce": dice + entropy,
        " 0.5*dice + ce ": 0.5 * dice + entropy,
    }.items():
        assert value_of(objective.parse(spec), logits, labels) == pytest.approx(expected, rel=1e-6)


def test_parse_hands_class_weights_to_the_pixelwise_terms():
    logits, labels, weights = random_logits(3), random_labels(3), (0.1, 1, 4)
    expected = losses.dice(logits, labels) + losses.cross_entropy(logits, labels, class_weights=weights)
    parsed = value_of(objective.parse("dice+ce", class_weights=weights), logits, labels)
    assert parsed == pytest.approx(float(expected), rel=1e-6)
    with pytest.raises(ValueError, match="no term of 'dice' takes class weights"):
        objective.parse("dice", class_weights=weights)


@pytest.mark.parametrize("spec", ["bce", "dice+", "", "dice ce", "2*", "Dice"])
def test_parse_lists_the_known_names(spec):
    with pytest.raises(
        ValueError, match=r"known: ce, dice, focal, jaccard, lovasz, ms_ssim, tversky, unet3plus"
    ):
        objective.parse(spec)


@pytest.mark.parametrize("spec", ["x*dice", "*dice", "0*dice", "-1*dice", "nan*dice", "inf*ce", "2*2*ce"])
def test_parse_rejects_factors_that_are_no_positive_number(spec):
    with pytest.raises(ValueError, match="expected a number > 0"):
        objective.parse(spec)


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
