"""Resizing equals torch's, and the convolution of a resized map equals the two-step way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxunet.resize import resize, resize_conv

SIZES = [
    ((4, 6), (8, 12)),
    ((4, 6), (16, 48)),
    ((5, 3), (9, 7)),
    ((7, 9), (3, 4)),
    ((1, 1), (5, 3)),
    ((3, 5), (1, 1)),
    ((6, 1), (6, 8)),
    ((33, 20), (64, 40)),
]


def pixels(size, channels=3, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *size, channels)).astype(np.float32)


METHODS = {
    "nearest": {"mode": "nearest"},
    "bilinear": {"mode": "bilinear", "align_corners": False},
    "bilinear_corners": {"mode": "bilinear", "align_corners": True},
}


@pytest.mark.parametrize(("small", "large"), SIZES)
@pytest.mark.parametrize("method", METHODS)
def test_resize_is_torchs(small, large, method):
    torch = pytest.importorskip("torch")
    x = pixels(small)
    # In float64, where torch's own positions are exact too.
    wide = torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float64))
    expected = torch.nn.functional.interpolate(wide, size=large, **METHODS[method])
    # Nearest copies; bilinear rounds twice per axis.
    tolerance = 0 if method == "nearest" else 2e-6
    np.testing.assert_allclose(
        resize(x, large, method), expected.numpy().transpose(0, 2, 3, 1), atol=tolerance
    )


@pytest.mark.parametrize("n_in", [3, 11, 49])
def test_nearest_takes_torchs_pixel_where_the_ratio_rounds(n_in):
    torch = pytest.importorskip("torch")
    line = np.arange(n_in, dtype=np.float32)
    for n_out in (5, 7, 10, 13, 41, 47, 82, 94, 107, 161, 187):
        expected = torch.nn.functional.interpolate(torch.from_numpy(line)[None, None], size=n_out)
        ours = resize(line.reshape(1, -1, 1, 1), (n_out, 1), "nearest")
        assert np.array_equal(np.ravel(ours), expected.numpy().ravel()), n_out


def exact(small, large, method, x, kernel, pull):
    """The convolution of the resized map, and its gradients, by torch in float64."""
    torch = pytest.importorskip("torch")
    x, kernel, pull = (torch.from_numpy(array).double() for array in (x, kernel, pull))
    given = [x.requires_grad_(), kernel.requires_grad_()]
    resized = torch.nn.functional.interpolate(x.permute(0, 3, 1, 2), size=large, **METHODS[method])
    out = torch.nn.functional.conv2d(resized, kernel.permute(3, 2, 0, 1), padding=1).permute(0, 2, 3, 1)
    return [each.detach().numpy() for each in (out, *torch.autograd.grad(out, given, pull))]


@pytest.mark.parametrize(("small", "large"), SIZES)
@pytest.mark.parametrize("method", METHODS)
def test_a_convolution_behind_a_resize_needs_no_resized_map(small, large, method):
    x, kernel = pixels(small, 8), pixels((3, 3), 8 * 4, seed=1)[0].reshape(3, 3, 8, 4)
    pull = pixels(large, 4, seed=2)

    @jax.jit
    def run(x, kernel):
        out, back = jax.vjp(lambda x, kernel: resize_conv(x, kernel, large, method), x, kernel)
        return out, *back(pull)

    reference = exact(small, large, method, x, kernel, pull)
    for ours, truth in zip(run(x, kernel), reference, strict=True):
        assert np.abs(ours - truth).max() <= 1e-5 * np.abs(truth).max()


@pytest.mark.parametrize("train", [False, True], ids=["forward", "gradients"])
@pytest.mark.parametrize("method", METHODS)
def test_the_cost_grows_with_the_pixels(method, train):
    """XLA's own count, from 128 to 1024 pixels a side: 64 times the pixels, 64 times the work."""

    def flops(side):
        x = jax.ShapeDtypeStruct((1, side // 4, side // 4, 32), jnp.float32)
        kernel = jax.ShapeDtypeStruct((3, 3, 32, 8), jnp.float32)
        forward = lambda x, kernel: resize_conv(x, kernel, (side, side), method)  # noqa: E731
        loss = lambda x, kernel: jnp.square(forward(x, kernel)).sum()  # noqa: E731
        program = jax.jit(jax.grad(loss, (0, 1)) if train else forward)
        return program.lower(x, kernel).compile().cost_analysis()["flops"]

    assert flops(1024) / flops(128) == pytest.approx(64, rel=0.05)


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="'cubic'; known are nearest, bilinear, bilinear_corners"):
        resize(pixels((2, 2)), (4, 4), "cubic")
