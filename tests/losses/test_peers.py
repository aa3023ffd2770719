"""Losses and their gradients equal those of torch and segmentation_models_pytorch, which run in float64."""

import functools

import numpy as np
import pytest

from flaxunet import losses
from flaxunet.labels import IGNORE
from tests.support.losses import random_labels, random_logits, value_and_gradient

pytestmark = pytest.mark.parity
# The tolerances of our float32 sums over 286 pixels.
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


def test_softmax_focal_is_the_papers():
    functional = pytest.importorskip("torch.nn.functional")

    def theirs(x, y):  # the library's FocalLoss is one sigmoid per class for several classes
        logs = functional.log_softmax(x, 1).gather(1, y[:, None])
        return (-((1 - logs.exp()) ** 1.5) * logs).mean()

    ours = functools.partial(losses.focal, gamma=1.5)
    assert_agree(ours, theirs, random_logits(3), random_labels(3))


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
