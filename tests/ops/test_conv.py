"""Convolutions and pooling equal torch's, and so do their gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxunet.models.layers import max_pool
from flaxunet.ops import conv as convolve
from flaxunet.ops import winograd
from flaxunet.ops.conv import conv1x1, conv3x3

PEAK = 1e-5  # float32 rounds sums of up to some ten thousand terms; a wrong tap or row shows from 1e-2 on

# (B, H, W, C), O
SHAPES = [
    ((2, 8, 8, 6), 4),
    ((2, 7, 9, 3), 5),
    ((1, 1, 1, 3), 4),
    ((5, 1, 1, 3), 4),
    ((3, 1, 13, 4), 2),
    ((3, 13, 1, 4), 2),
    ((9, 2, 2, 7), 3),
    ((1, 3, 5, 64), 8),
    ((2, 2, 3, 12), 5),  # as many pixels as channels
    ((2, 2, 3, 11), 5),
]
IN_GROUPS = [
    ((2, 64, 64, 32), 32),
    ((2, 70, 64, 32), 32),
    ((1, 33, 250, 64), 8),
    ((16, 3, 257, 32), 32),  # one row is more than a group may hold
]


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def both(function, x, kernel, pull):
    @jax.jit
    def run(x, kernel, pull):
        out, back = jax.vjp(function, x, kernel)
        return out, *back(pull)

    return run(x, kernel, pull)


def exact(x, kernel, pull, **options):
    """The convolution and the gradients of x and of the kernel, by torch in float64."""
    torch = pytest.importorskip("torch")
    x, kernel, pull = (torch.from_numpy(array).double() for array in (x, kernel, pull))
    given = [x.requires_grad_(), kernel.requires_grad_()]
    out = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), **options)
    out = out.permute(0, 2, 3, 1)
    return [each.detach().numpy() for each in (out, *torch.autograd.grad(out, given, pull))]


def assert_close(ours, truth, tolerance=PEAK):
    for found, expected in zip(ours, truth, strict=True):
        assert found.shape == expected.shape
        assert np.abs(np.asarray(found, np.float64) - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize(("shape", "cout"), [*SHAPES, *IN_GROUPS])
def test_conv3x3_and_its_gradients_are_torchs(shape, cout):
    x, kernel, pull = (
        numbers(*shape),
        numbers(3, 3, shape[-1], cout, seed=1),
        numbers(*shape[:3], cout, seed=2),
    )
    assert_close(both(conv3x3, x, kernel, pull), exact(x, kernel, pull, padding=1))


WINOGRAD = [
    ((2, 62, 62, 48), 48),
    ((1, 67, 85, 96), 40),  # odd sides: a last row and column of which half a tile is dropped
    ((3, 1, 2000, 48), 64),
    ((2, 3000, 1, 64), 48),
    ((6000, 1, 1, 64), 48),
    ((1, 20, 27, 320), 104),
]


@pytest.mark.parametrize(
    ("shape", "cout"),
    [*WINOGRAD[:2], *(pytest.param(*case, marks=pytest.mark.long) for case in WINOGRAD[2:])],
)
def test_wide_convolutions_are_winograds_and_torchs(shape, cout):
    assert winograd.pays(shape, cout)
    x, kernel, pull = (
        numbers(*shape),
        numbers(3, 3, shape[-1], cout, seed=1),
        numbers(*shape[:3], cout, seed=2),
    )
    truth = exact(x, kernel, pull, padding=1)
    assert_close(both(conv3x3, x, kernel, pull), truth)
    assert_close([winograd.convolve(x, kernel), winograd.kernel_gradient(x, pull)], [truth[0], truth[2]])


@pytest.mark.parametrize(("shape", "cout"), [((2, 5, 7, 3), 2), ((1, 1, 1, 3), 4), ((1, 2, 2, 1), 1)])
def test_winograd_is_right_where_it_does_not_pay(shape, cout):
    x, kernel, pull = numbers(*shape), numbers(3, 3, shape[-1], cout, seed=1), numbers(*shape[:3], cout)
    truth = exact(x, kernel, pull, padding=1)
    assert not winograd.pays(shape, cout)
    assert_close([winograd.convolve(x, kernel), winograd.kernel_gradient(x, pull)], [truth[0], truth[2]])


def test_wide_convolutions_take_less_than_half_the_multiplications():
    given = numbers(1, 64, 64, 256), numbers(3, 3, 256, 256)

    def count(function):
        return jax.jit(function).lower(*given).compile().cost_analysis()["flops"]

    # 4/9 of the products, and the transforms.
    assert count(conv3x3) < 0.5 * count(convolve.convolve)


@pytest.mark.parametrize("rows", range(1, 8))
def test_the_kernels_gradient_is_the_same_from_groups_of_any_rows(rows, monkeypatch):
    x, pull = numbers(2, 7, 5, 3), numbers(2, 7, 5, 4, seed=1)
    monkeypatch.setattr(convolve, "ROWS_HOLD", rows * 2 * 5 * (3 + 4))
    _, _, truth = exact(x, numbers(3, 3, 3, 4), pull, padding=1)
    assert_close([convolve._kernel(x, pull)], [truth])


@pytest.mark.parametrize(("shape", "cout"), IN_GROUPS)
def test_large_maps_are_taken_in_groups(shape, cout):
    program = jax.make_jaxpr(convolve._kernel)(numbers(*shape), numbers(*shape[:3], cout))
    assert {"while", "scan"} & {equation.primitive.name for equation in program.eqns}


def test_conv3x3_in_bfloat16_has_gradients_in_bfloat16():
    x, kernel, pull = (
        jnp.asarray(each, jnp.bfloat16)
        for each in (numbers(2, 9, 7, 16), numbers(3, 3, 16, 8, seed=1), numbers(2, 9, 7, 8, seed=2))
    )
    ours = both(conv3x3, x, kernel, pull)
    assert {each.dtype for each in ours} == {jnp.dtype(jnp.bfloat16)}
    wide = (np.asarray(each, np.float32) for each in (x, kernel, pull))
    # Of the result alone 8 bits are kept: half a unit in the last place; the sums are in float32.
    assert_close(ours, exact(*wide, padding=1), tolerance=2**-8)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(2, 7, 9, 5), (3, 1, 1, 4), (1, 1, 6, 3), (2, 8, 5, 64)])
def test_conv1x1_and_its_gradients_are_torchs(shape, stride):
    size = [-(-side // stride) for side in shape[1:3]]
    x, kernel, pull = (
        numbers(*shape),
        numbers(1, 1, shape[-1], 6, seed=1),
        numbers(shape[0], *size, 6, seed=2),
    )
    ours = both(lambda x, kernel: conv1x1(x, kernel, stride), x, kernel, pull)
    assert_close(ours, exact(x, kernel, pull, stride=stride))


POOLS = [
    ((8, 8), (2, 2, 0), False),
    ((9, 7), (2, 2, 0), False),
    ((9, 7), (2, 2, 0), True),
    ((9, 7), (3, 2, 1), False),  # the stem's
    ((8, 6), (3, 2, 1), True),
    ((1, 1), (3, 2, 1), False),
    ((1, 5), (2, 2, 0), True),
    ((3, 19), (8, 8, 0), True),  # UNet 3+'s
    ((9, 7), (3, 1, 1), False),
    ((9, 7), (5, 3, 2), False),
]


@partial(jax.jit, static_argnums=(2, 3))
def pool_and_pull(x, pull, how, ceil_mode):
    out, back = jax.vjp(lambda x: max_pool(x, *how, ceil_mode=ceil_mode), x)
    return out, *back(pull)


def assert_pools_as_torch(x, how, ceil_mode):
    """Values and gradients, bit for bit: the pulls are whole numbers, whose sums have no rounding."""
    torch = pytest.importorskip("torch")
    theirs = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    values = torch.nn.functional.max_pool2d(theirs, *how, ceil_mode=ceil_mode)
    pull = np.random.default_rng(3).integers(1, 9, values.shape).astype(np.float32)
    (gradient,) = torch.autograd.grad(values, theirs, torch.from_numpy(pull))
    ours = pool_and_pull(x, pull.transpose(0, 2, 3, 1), how, ceil_mode)
    for found, truth in zip(ours, (values, gradient), strict=True):
        np.testing.assert_array_equal(found, truth.detach().numpy().transpose(0, 2, 3, 1))


KINDS = {
    "distinct": lambda x: x,
    "ties": lambda x: np.maximum(
        np.round(x), 0
    ),  # as behind a ReLU: mostly zeros, the first has the gradient
    "negative": lambda x: -5 - np.abs(x),  # below a padding of zeros
    "equal": np.zeros_like,
    "nan": lambda x: np.where(np.abs(x) > 1.5, np.float32(np.nan), np.round(x)),
}


@pytest.mark.parametrize(("size", "how", "ceil_mode"), POOLS)
@pytest.mark.parametrize("kind", KINDS)
def test_max_pool_and_its_gradient_are_torchs(size, how, ceil_mode, kind):
    assert_pools_as_torch(KINDS[kind](numbers(2, *size, 3)), how, ceil_mode)


@pytest.mark.parametrize(("size", "how"), [((5, 5), (2, 2, 1)), ((3, 3), (1, 3, 0))])
def test_ceil_mode_drops_windows_that_start_behind_the_map(size, how):
    assert_pools_as_torch(numbers(2, *size, 3), how, ceil_mode=True)


def test_max_pool_keeps_bfloat16():
    x = jnp.asarray(numbers(2, 7, 5, 3), jnp.bfloat16)
    out, back = jax.vjp(lambda x: max_pool(x, 3, 2, 1), x)
    assert out.dtype == back(out)[0].dtype == jnp.bfloat16
