"""3x3 convolutions of stride 1 with 4/9 of the multiplications: Winograd's F(2x2, 3x3), for CPUs.

Four output pixels, a 2x2 tile, come from 4x4 input pixels. Transformed first, along rows and columns, sixteen
products of one number each give what 36 gave: over all tiles these are sixteen matrix products, channels in
times channels out. The transforms only add and subtract, so float32 rounds the result about as much as a
direct sum. The gradients of the map and of the kernel are sixteen products each as well.

Source: Lavin and Gray 2016, Fast algorithms for convolutional neural networks.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

WIDE = 24  # half the harmonic mean of channels in and out from which fewer products outweigh the transforms
PIXELS = 512  # of the batch, from which they outweigh the transform of the kernel
WORK = 2**24  # pixels times channels in times channels out from which they outweigh the time of compiling

_TAPS = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
# From nine taps to the sixteen of the products, by column and row: G g G^T.
KERNEL = np.einsum("ik,jl->jikl", _TAPS, _TAPS).reshape(16, 9)


def pays(shape: Sequence[int], cout: int) -> bool:
    """Whether these products are faster than a direct convolution on a CPU: docs/explanation/performance.md.

    Args:
      shape, cout: of the map, (B, H, W, C), and the channels that come out.
    """
    batch, height, width, cin = shape
    pixels = batch * height * width
    return cin * cout >= WIDE * (cin + cout) and pixels >= PIXELS and pixels * cin * cout >= WORK


def convolve(x: Array, kernel: Array) -> Array:
    """3x3 convolution of stride 1, zero-padded by 1.

    Args:
      x: (B, H, W, C) float32.
      kernel: (3, 3, C, O) float32.
    Returns: (B, H, W, O) float32.
    """
    (batch, height, width, cin), cout = x.shape, kernel.shape[-1]
    taps = _small_dot(KERNEL, kernel.reshape(9, cin * cout)).reshape(4, 4, cin, cout)
    columns = [
        _join(lax.dot_general(part.reshape(4, -1, cin), tap, (((2,), (1,)), ((0,), (0,)))))
        for part, tap in zip(_tiles(x), taps, strict=True)
    ]
    down, across = -(-height // 2), -(-width // 2)
    rows = [
        jnp.stack(_join([column[row].reshape(batch, down, across, cout) for column in columns]), 3)
        for row in range(2)
    ]
    return jnp.stack(rows, 2).reshape(batch, 2 * down, 2 * across, cout)[:, :height, :width]


def kernel_gradient(x: Array, pull: Array) -> Array:
    """The kernel's gradient (3, 3, C, O), from x (B, H, W, C) and the gradient of the result (B, H, W, O)."""
    (_, height, width, cin), cout = x.shape, pull.shape[-1]
    pull = jnp.pad(pull, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    pulls = _split(jnp.stack(_split(pull, 1)), 3)
    sums = [
        lax.dot_general(part.reshape(4, -1, cin), pull.reshape(4, -1, cout), (((1,), (1,)), ((0,), (0,))))
        for part, pull in zip(_tiles(x), pulls, strict=True)
    ]
    return _small_dot(KERNEL.T, jnp.stack(sums).reshape(16, cin * cout)).reshape(3, 3, cin, cout)


def _tiles(x: Array) -> list[Array]:
    """The transformed maps (4, B, H / 2, W / 2, C), rows of the tile first, for each of its four columns."""
    _, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)))
    return _overlapping(jnp.stack(_overlapping(padded, 1)), 3)


def _overlapping(x: Array, axis: int) -> list[Array]:
    """Four pixels at every second one, combined: B^T d."""
    count = x.shape[axis] // 2 - 1
    a, b, c, d = (lax.slice_in_dim(x, start, start + 2 * count - 1, 2, axis) for start in range(4))
    return [a - c, b + c, c - b, b - d]


def _join(products: Sequence[Array] | Array) -> list[Array]:
    """Four products as two output pixels: A^T m."""
    a, b, c, d = products
    return [a + b + c, b - c - d]


def _split(pull: Array, axis: int) -> list[Array]:
    """The gradients of two output pixels as those of four products: the transpose of `_join`."""
    even, odd = (lax.slice_in_dim(pull, start, None, 2, axis) for start in range(2))
    return [even, even + odd, even - odd, -odd]


def _small_dot(matrix: np.ndarray, rows: Array) -> Array:
    return lax.dot(jnp.asarray(matrix), rows, precision=lax.Precision.HIGHEST)
