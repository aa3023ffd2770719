"""Convolutions as XLA does them, but 1x1 ones as products, and 3x3 ones in ways that suit a CPU.

Wide 3x3 convolutions, and their gradients, are Winograd's (`flaxunet.ops.winograd`). For others XLA writes
the gradient of a kernel as a convolution whose window is the whole image, slow on a CPU. The same sums are
matrix products, one per row of taps, taken over a few rows at a time so that the operands stay in the cache:
docs/explanation/performance.md.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from flaxunet.ops import winograd

ROWS_HOLD = 2**18  # numbers that the operands of one group of products may have: 1 MB in float32


def convolve(x: Array, kernel: Array, padding: Sequence[tuple[int, int]] = ((1, 1), (1, 1))) -> Array:
    """Convolution of stride 1, (B, H, W, C) with (kh, kw, C, O); XLA's own, gradients too."""
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def conv1x1(x: Array, kernel: Array, stride: int = 1) -> Array:
    """1x1 convolution: a matrix product, whose gradients are matrix products too.

    Args:
      x: (B, H, W, C), any float dtype.
      kernel: (1, 1, C, O), the dtype of x.
      stride: step between the pixels that are kept, from the first on.
    Returns: (B, ceil(H / stride), ceil(W / stride), O) of x's dtype.
    """
    if stride > 1:
        x = x[:, ::stride, ::stride]
    return lax.dot(x.reshape(-1, x.shape[-1]), kernel[0, 0]).reshape(*x.shape[:3], kernel.shape[-1])


@jax.custom_vjp
def conv3x3(x: Array, kernel: Array) -> Array:
    """3x3 convolution of stride 1, zero-padded by 1.

    Args:
      x: (B, H, W, C), any float dtype.
      kernel: (3, 3, C, O), the dtype of x.
    Returns: (B, H, W, O) of x's dtype. Reverse-mode gradients only.
    """
    if x.dtype != jnp.float32 or not winograd.pays(x.shape, kernel.shape[-1]):
        return convolve(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=winograd.convolve, default=convolve)


def _backward(saved: tuple[Array, Array], pull: Array) -> tuple[Array, Array]:
    def usual(x: Array, kernel: Array, pull: Array) -> tuple[Array, Array]:
        return jax.vjp(convolve, x, kernel)[1](pull)

    if saved[0].dtype != jnp.float32:
        return usual(*saved, pull)
    return lax.platform_dependent(*saved, pull, cpu=_by_products, default=usual)


conv3x3.defvjp(lambda x, kernel: (conv3x3(x, kernel), (x, kernel)), _backward)


def _by_products(x: Array, kernel: Array, pull: Array) -> tuple[Array, Array]:
    """The gradients of x and of the kernel."""
    batch, height, width, cin = x.shape
    if winograd.pays(pull.shape, cin):
        dx = winograd.convolve(pull, kernel[::-1, ::-1].swapaxes(2, 3))
    elif batch * height * width > cin:
        (dx,) = jax.linear_transpose(lambda x: convolve(x, kernel), x)(pull)
    else:  # a kernel larger than the map: not worth the transposed copy that a convolution would make
        dx = _small_map(kernel, pull)
    wide = winograd.pays(x.shape, pull.shape[-1])
    return dx, (winograd.kernel_gradient if wide else _kernel)(x, pull)


def _small_map(kernel: Array, pull: Array) -> Array:
    _, height, width, _ = pull.shape
    padded = jnp.pad(pull, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [
        jnp.einsum("bhwo,co->bhwc", padded[:, 2 - i : 2 - i + height, 2 - j : 2 - j + width], kernel[i, j])
        for i in range(3)
        for j in range(3)
    ]
    return sum(taps[1:], taps[0])


def _kernel(x: Array, pull: Array) -> Array:
    """The kernel's gradient (3, 3, C, O)."""
    (batch, height, width, cin), cout = x.shape, pull.shape[-1]
    rows = max(1, min(height, ROWS_HOLD // (batch * width * (cin + cout))))
    groups = -(-height // rows)
    x = jnp.pad(x, ((0, 0), (1, 1 + groups * rows - height), (1, 1), (0, 0)))
    pull = jnp.pad(pull, ((0, 0), (0, groups * rows - height), (0, 0), (0, 0)))

    def add(group: Array | int, sums: Array) -> Array:
        inputs = lax.dynamic_slice_in_dim(x, group * rows, rows + 2, 1)
        pulls = lax.dynamic_slice_in_dim(pull, group * rows, rows, 1).reshape(-1, cout)
        beside = jnp.concatenate([inputs[:, :, j : j + width] for j in range(3)], -1)
        # Reshaped here: einsum would have both operands copied to another order first.
        parts = (beside[:, i : i + rows].reshape(-1, 3 * cin) for i in range(3))
        return sums + jnp.stack([lax.dot_general(part, pulls, (((0,), (0,)), ((), ()))) for part in parts])

    zeros = jnp.zeros((3, 3 * cin, cout), x.dtype)
    sums = lax.fori_loop(0, groups, add, zeros) if groups > 1 else add(0, zeros)
    return sums.reshape(3, 3, cin, cout)
