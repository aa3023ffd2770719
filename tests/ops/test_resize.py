"""Resizing equals torch's, and so does the convolution of a resized map, in every way of computing it."""

import re
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxunet.ops.resize import resize, resize_conv, way

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


WAYS = [(way, method) for method in METHODS for way in ("direct", "mix")] + [("phases", "nearest")]
PAIRS = [*SIZES, ((1, 1), (2, 2)), ((5, 7), (10, 14)), ((6, 5), (6, 5))]
CASES = [
    # With skips or without by turns, so that every way meets both; the other half of them in the long run.
    pytest.param(small, large, *each, widths, marks=[pytest.mark.long] if (pair + turn + number) % 2 else [])
    for pair, (small, large) in enumerate(PAIRS)
    for turn, each in enumerate(WAYS)
    for number, widths in enumerate([(), (3, 2)])
    if each[0] != "phases" or large == (2 * small[0], 2 * small[1])
]


def pin(way):
    """Computes in this way, whatever the rule says, what is traced meanwhile."""
    return mock.patch("flaxunet.ops.resize.way", return_value=way)


def exact(large, method, x, kernel, skips, pull):
    """The convolution of concat[resized map, *skips], and all gradients, by torch in float64."""
    torch = pytest.importorskip("torch")
    x, kernel, pull, *skips = (torch.from_numpy(array).double() for array in (x, kernel, pull, *skips))
    given = [each.requires_grad_() for each in (x, kernel, *skips)]
    resized = torch.nn.functional.interpolate(x.permute(0, 3, 1, 2), size=large, **METHODS[method])
    joined = torch.cat([resized, *(skip.permute(0, 3, 1, 2) for skip in skips)], 1)
    out = torch.nn.functional.conv2d(joined, kernel.permute(3, 2, 0, 1), padding=1).permute(0, 2, 3, 1)
    return [each.detach().numpy() for each in (out, *torch.autograd.grad(out, given, pull))]


@pytest.mark.parametrize(("small", "large", "way", "method", "widths"), CASES)
def test_a_convolution_behind_a_resize_is_the_same_in_every_way(small, large, way, method, widths):
    x, pull = pixels(small, 8), pixels(large, 4, seed=1)
    skips = [pixels(large, width, seed=2 + width) for width in widths]
    kernel = pixels((3, 3), (8 + sum(widths)) * 4, seed=2)[0].reshape(3, 3, -1, 4)

    @jax.jit
    def run(x, kernel, skips):
        forward = lambda x, kernel, skips: resize_conv(x, kernel, large, method, skips)  # noqa: E731
        out, back = jax.vjp(forward, x, kernel, skips)
        return out, back(pull)

    with pin(way):
        found = jax.tree.leaves(run(x, kernel, skips))
    for ours, truth in zip(found, exact(large, method, x, kernel, skips, pull), strict=True):
        # float32 rounds sums of up to some thousand terms; a wrong weight or pixel shows from 1e-2 on.
        assert np.abs(ours - truth).max() <= 1e-5 * np.abs(truth).max()


@pytest.mark.parametrize("way", ["direct", "mix", "phases"])
def test_every_way_keeps_the_dtype(way):
    def run(x, kernel, skip):
        out, back = jax.vjp(
            lambda *given: resize_conv(*given[:2], (8, 12), "nearest", given[2:]), x, kernel, skip
        )
        return out, back(out)

    shapes = (2, 4, 6, 8), (3, 3, 11, 4), (2, 8, 12, 3)
    with pin(way):
        found = jax.eval_shape(run, *(jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("train", [False, True], ids=["forward", "gradients"])
@pytest.mark.parametrize(("way", "method"), [each for each in WAYS if each[0] != "direct"])
def test_the_cost_grows_with_the_pixels(way, method, train):
    """XLA's own count, from 128 to 1024 pixels a side: 64 times the pixels, 64 times the work."""
    ratio = 2 if way == "phases" else 4

    def flops(side):
        small, large = (1, side // ratio, side // ratio, 32), (1, side, side, 8)
        given = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (small, (3, 3, 32, 8), large))
        forward = lambda x, kernel: resize_conv(x, kernel, (side, side), method)  # noqa: E731
        gradients = lambda x, kernel, pull: jax.vjp(forward, x, kernel)[1](pull)  # noqa: E731
        program = jax.jit(gradients if train else lambda x, kernel, pull: forward(x, kernel))
        with pin(way):
            return program.lower(*given).compile().cost_analysis()["flops"]

    # XLA leaves out taps that lie in the padding: of the 2 x 64 along an axis of 64 pixels 1, on two axes.
    assert flops(1024) / flops(128) == pytest.approx(64, rel=2 / 128)


@pytest.mark.parametrize(
    ("expected", "shape", "cout", "size", "method"),
    [
        ("direct", (2, 64, 64, 512), 64, (64, 64), "bilinear"),
        ("direct", (2, 64, 64, 512), 64, (64, 64), "nearest"),
        ("mix", (2, 256, 256, 16), 1, (256, 256), "bilinear"),  # heads
        ("mix", (2, 128, 128, 320), 4, (128, 128), "bilinear"),
        ("direct", (2, 64, 64, 512), 64, (32, 32), "bilinear"),  # downscaling
        ("direct", (2, 9, 9, 512), 64, (3, 3), "nearest"),
        *(("mix", (2, side, side, 320), 64, (128, 128), "bilinear") for side in (16, 32, 64)),  # UNet 3+
        ("mix", (2, 8, 8, 512), 64, (128, 128), "bilinear"),
        ("mix", (2, 8, 8, 512), 256, (16, 16), "nearest"),
        ("phases", (2, 64, 64, 128), 64, (128, 128), "nearest"),
        ("direct", (2, 128, 128, 32), 16, (256, 256), "bilinear"),
        ("direct", (2, 64, 64, 64), 64, (127, 127), "nearest"),
    ],
)
def test_the_shapes_choose_the_way(expected, shape, cout, size, method):
    assert way(shape, cout, size, method) == expected


@pytest.mark.parametrize("way", ["mix", "phases"])
def test_the_chosen_way_is_taken(way):
    """Else the tests that pin one would prove nothing: mixing is a product, phases are convolutions."""
    with pin(way):
        text = str(
            jax.make_jaxpr(lambda x, kernel: resize_conv(x, kernel, (8, 8), "nearest"))(
                pixels((4, 4), 5), pixels((3, 3), 5 * 4)[0].reshape(3, 3, 5, 4)
            )
        )
    assert ("dot_general" in text) == (way == "mix")
    assert ("conv_general_dilated" in text) == (way == "phases")


@pytest.mark.parametrize("shape", [(1, 1, 3, 4), (3, 3), (3, 3, 4, 4)])
def test_another_kernel_is_named(shape):
    with pytest.raises(ValueError, match=re.escape(f"kernel has shape {shape}; expected (3, 3, 3, O)")):
        resize_conv(pixels((4, 4)), jnp.zeros(shape), (8, 8))


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="'cubic'; expected one of nearest, bilinear, bilinear_corners"):
        resize(pixels((2, 2)), (4, 4), "cubic")
