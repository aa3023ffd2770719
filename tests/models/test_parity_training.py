"""Training in torch and in Flax gives the same numbers: gradients and statistics of a step, losses of twenty.

A ReLU's slope jumps at 0. Of a network's million pre-activations some lie within float32's rounding of 0, and
each one that falls on the other side can move gradients by 7e-3 of their peak, in torch's float32 as in ours.
Where digits count, both sides therefore round the corner off.
"""

import copy
import functools
from itertools import product
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from flax import nnx

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812 - torch's own name for it

import flaxunet  # noqa: E402
from flaxunet import losses  # noqa: E402
from porting import convert  # noqa: E402
from tests.support.parity import filled, numbers, reference, to_torch  # noqa: E402

pytestmark = pytest.mark.parity

ARCHS = ["unet", "unetplusplus", "unet3plus"]
CLASSES = 3
SIZE = 64
STEPS = 20
# softplus(x * SHARPNESS) / SHARPNESS: a ReLU but for |x| < 0.3, smooth on the scale of float32's rounding.
SHARPNESS = 10.0

LOGITS = 2e-5  # of the peak: rounding, once more than in eval mode, as each batch norm divides by its own std
STATISTICS = 1e-5  # of the tensor's peak; the biased variance would be off by 1e-2 in the deepest maps
GRADIENTS = 1e-4  # of the tensor's peak
ROUNDING = (
    4  # how much further than torch's float32 ours may be from float64: sums are taken in another order
)
LOSSES = 1e-3  # relative, at each of the steps


@pytest.fixture
def activation(request, monkeypatch):
    """ "relu", or "rounded" for a ReLU without a corner, in torch and in Flax."""
    if request.param == "rounded":
        monkeypatch.setattr(nnx, "relu", lambda x: nnx.softplus(SHARPNESS * x) / SHARPNESS)
        monkeypatch.setattr(F, "relu", lambda x, inplace=False: F.softplus(x, SHARPNESS, threshold=40))
    return request.param


rounded = pytest.mark.parametrize("activation", ["rounded"], indirect=True)


def batches(count, size=2):
    """Noisy images of a 4x4 board of classes, and the board: something that is learnt at once."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        squares = np.ones((1, SIZE // 4, SIZE // 4), np.int32)
        labels = np.kron(rng.integers(0, CLASSES, (size, 4, 4), np.int32), squares)
        images = labels[..., None] - 1 + rng.normal(size=(*labels.shape, 3))
        yield images.astype(np.float32), labels


def our_loss(logits, labels):
    return losses.dice(logits, labels) + losses.cross_entropy(logits, labels)


def their_loss(logits, labels):
    found, truth = logits.softmax(1)[:, 1:], F.one_hot(labels, CLASSES).permute(0, 3, 1, 2)[:, 1:]
    hits, total = (found * truth).sum((2, 3)), (found + truth).sum((2, 3))
    return (1 - (2 * hits + 2) / (total + 2)).mean() + F.cross_entropy(logits, labels)


@functools.cache
def pair(arch, name, activation, frozen=False):
    """The same network twice, in training mode, and our compiled step, traced with that activation."""
    theirs, dialect = reference(arch, name, CLASSES)
    ours = filled(
        lambda: flaxunet.create(arch, encoder=name, classes=CLASSES, rngs=nnx.Rngs(0)),
        theirs,
        dialect,
    )
    ours.train()
    ours.freeze_encoder(frozen)
    theirs.train()
    if frozen:
        theirs.encoder.eval().requires_grad_(False)

    def split(model):
        graph, params, rest = nnx.split(model, model.trainable(), ...)
        return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(rest)

    graph, params, rest = split(ours)

    @jax.jit
    def backward(params, rest, images, labels):
        def loss_of(params):
            model = nnx.merge(graph, params, rest)
            logits = model(images)
            return our_loss(logits, labels), (logits, split(model)[2])

        return jax.value_and_grad(loss_of, has_aux=True)(params)

    def export(params, rest):
        return convert.export(nnx.merge(graph, params, rest), dialect)

    return SimpleNamespace(theirs=theirs, params=params, rest=rest, backward=backward, export=export)


def their_backward(model, images, labels):
    """Leaves the gradients in the model's parameters; returns logits and loss."""
    model.zero_grad()
    logits = model(to_torch(images).to(next(model.parameters()).dtype))
    loss = their_loss(logits, torch.from_numpy(labels).long())
    loss.backward()
    return logits.detach().numpy(), loss.item()


def one_step(both):
    """Ours, torch's in float64 and in float32: logits, and by torch's keys all gradients and statistics."""
    images, labels = next(batches(1))
    (_, (logits, rest)), gradients = both.backward(both.params, both.rest, images, labels)
    # A tree of gradients has the shape of the parameters, so the keys of the one are those of the other.
    ours = {"logits": np.asarray(logits).transpose(0, 3, 1, 2), **both.export(gradients, rest)}
    return ours, *(their_step(both.theirs, dtype, images, labels) for dtype in (torch.float64, torch.float32))


def their_step(model, dtype, images, labels):
    model = copy.deepcopy(model).to(dtype)
    logits, _ = their_backward(model, images, labels)
    found = {"logits": logits, **numbers(model)}
    found |= {key: value.grad.numpy() for key, value in model.named_parameters() if value.requires_grad}
    return {key: value for key, value in found.items() if not key.endswith("num_batches_tracked")}


def tolerance(key):
    if key == "logits":
        return LOGITS
    return STATISTICS if key.endswith(("running_mean", "running_var")) else GRADIENTS


def assert_same(ours, exact, rounding, keys):
    """Names every tensor that is too far from the exact one, relative to its peak.

    Through fifty layers and batch norms of eight values per channel, float32 itself may be further off than
    the tolerance: there ours may be as far off as torch's float32 times ROUNDING.
    """

    def error(found, key):
        return np.abs(found[key] - exact[key]).max() / np.abs(exact[key]).max()

    errors = {key: (error(ours, key), max(tolerance(key), ROUNDING * error(rounding, key))) for key in keys}
    wrong = {
        key: f"{found:.1e} > {limit:.1e}" for key, (found, limit) in errors.items() if not found <= limit
    }
    assert not wrong


@rounded
@pytest.mark.parametrize(
    ("arch", "name"),
    [
        ("unet", "resnet18"),
        *(pytest.param(arch, "resnet18", marks=pytest.mark.long) for arch in ARCHS[1:]),
        *(
            pytest.param(arch, name, marks=pytest.mark.long)
            for name in ("resnet50", "resnext50_32x4d", "wide_resnet50_2")
            for arch in ARCHS
        ),
        *(
            pytest.param("unet", name, marks=pytest.mark.long)
            for name in ("resnext101_32x8d", "wide_resnet101_2")
        ),
    ],
)
def test_a_step_has_torchs_logits_gradients_and_running_statistics(arch, name, activation):
    ours, exact, rounding = one_step(pair(arch, name, activation))
    assert_same(ours, exact, rounding, exact)


@pytest.mark.long
@rounded
def test_a_frozen_encoder_stays_as_it_is_and_the_decoders_gradients_are_torchs(activation):
    both = pair("unet", "resnet18", activation, frozen=True)
    ours, exact, rounding = one_step(both)
    before = numbers(both.theirs)
    held = [key for key in exact if key.startswith("encoder.")]
    for key in held:
        np.testing.assert_array_equal(ours[key], before[key])
        np.testing.assert_array_equal(exact[key], before[key])
    assert_same(ours, exact, rounding, exact.keys() - held)


# With the usual weight decay of 1e-2, decaying not at all would stay within LOSSES: 1 shows.
OPTIMIZERS = {
    "sgd": (functools.partial(torch.optim.SGD, momentum=0.9), functools.partial(optax.sgd, momentum=0.9)),
    "adamw": (
        functools.partial(torch.optim.AdamW, weight_decay=1.0),
        functools.partial(optax.adamw, weight_decay=1.0),
    ),
}
# What a ReLU's corner changes grows from step to step, the faster the larger the steps are, and AdamW makes
# the smallest gradient, rounding and all, a whole step: usual rates stay within LOSSES without corners only.
RATES = {("rounded", "sgd"): 1e-3, ("rounded", "adamw"): 1e-3, ("relu", "sgd"): 2e-4, ("relu", "adamw"): 1e-5}


def our_losses(both, optimizer, steps):
    @jax.jit
    def update(gradients, state, params):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    params, rest, state = both.params, both.rest, optimizer.init(both.params)
    for images, labels in steps:
        (loss, (_, rest)), gradients = both.backward(params, rest, images, labels)
        params, state = update(gradients, state, params)
        yield float(loss)


def their_losses(both, make_optimizer, steps):
    model = copy.deepcopy(both.theirs)
    optimizer = make_optimizer(model.parameters())
    for images, labels in steps:
        _, loss = their_backward(model, images, labels)
        optimizer.step()
        yield loss


TRAJECTORIES = [
    pytest.param(*case, marks=pytest.mark.long) for case in product(("rounded", "relu"), ARCHS, OPTIMIZERS)
]


@pytest.mark.parametrize(("activation", "arch", "optimizer"), TRAJECTORIES, indirect=["activation"])
def test_twenty_steps_have_torchs_losses(activation, arch, optimizer):
    rate = RATES[activation, optimizer]
    theirs, ours = OPTIMIZERS[optimizer]
    # Batch statistics of more values pass less of a corner's jump on.
    both, cycle = pair(arch, "resnet18", activation), list(batches(4, 4 if activation == "relu" else 2))
    steps = [cycle[step % 4] for step in range(STEPS)]
    expected = np.array(list(their_losses(both, functools.partial(theirs, lr=rate), steps)))
    np.testing.assert_allclose(list(our_losses(both, ours(rate), steps)), expected, rtol=LOSSES)
    # Agreeing says something only if the losses fall by far more than they may differ.
    assert expected[-4:].mean() < (1 - 50 * LOSSES) * expected[:4].mean()
