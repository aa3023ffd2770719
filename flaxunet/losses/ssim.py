"""Computes the multi-scale structural similarity of two stacks of maps (Wang, Simoncelli and Bovik 2003)."""

import math

import jax
import jax.numpy as jnp
from jax import Array, lax

WINDOW = 11
SIGMA = 1.5
EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # finest scale first
LUMINANCE, CONTRAST = 0.01**2, 0.03**2  # C1 and C2 of the paper for values in [0, 1]
FLOOR = 1e-6  # of a mean that may be negative, where a fractional power has no value and its slope no bound


def scales(height: int, width: int) -> int:
    """Number of scales, 1 to 5: as many as leave the coarsest map no smaller than the Gaussian window."""
    side, count = min(height, width), 1
    while count < len(EXPONENTS) and (side + 1) // 2 >= WINDOW:
        side, count = (side + 1) // 2, count + 1
    return count


def multiscale_similarity(x: Array, y: Array, counted: Array) -> Array:
    """Multi-scale structural similarity of each image and channel.

    The Gaussian window and the halving between scales average over counted pixels alone, with weights
    renormalised. The image border is treated the same way, so every H, W >= 1 works; the paper instead drops
    the pixels whose window leaves the image. A small image has fewer scales, their exponents renormalised.

    Args:
      x, y: (B, H, W, C) values in [0, 1], float32.
      counted: (B, H, W) bool, the pixels that count.
    Returns: (B, C) float32 in (0, 1]; 1 where x and y agree; a constant without counted pixels.
    Source: Wang et al. 2003, Multiscale structural similarity, with its window, constants and exponents.
    """
    count = scales(*x.shape[1:3])
    exponents = [value / sum(EXPONENTS[:count]) for value in EXPONENTS[:count]]
    mask = counted[..., None].astype(jnp.float32)
    logarithm = jnp.zeros((x.shape[0], x.shape[3]), jnp.float32)
    for scale, exponent in enumerate(exponents):
        if scale > 0:
            x, y, mask = _halve(x, y, mask)
        luminance, contrast = _similarity(x, y, mask)
        # Luminance enters once, at the coarsest scale.
        similarity = luminance * contrast if scale == count - 1 else contrast
        mean = (similarity * mask).sum((1, 2)) / jnp.maximum(mask.sum((1, 2)), 1.0)
        logarithm += exponent * jnp.log(jnp.maximum(mean, FLOOR))
    return jnp.exp(logarithm)


def _similarity(x: Array, y: Array, mask: Array) -> tuple[Array, Array]:
    """The luminance map and the contrast-structure map of one scale.

    (2ab + c) / (a² + b² + c) is written 1 - (a - b)² / (a² + b² + c), and the covariance likewise: exactly 1
    for equal maps, where products of rounded means would leave 1e-4.
    """
    x, y = x * mask, y * mask
    difference = x - y
    # A counted pixel's own weight is 0.07, so the bound touches only windows whose centre does not count.
    weight = jnp.maximum(_blur(mask), 0.01)
    maps = _blur(jnp.concatenate([x, y, x * x + y * y, difference * difference], axis=-1)) / weight
    mean_x, mean_y, squares, distance = jnp.split(maps, 4, axis=-1)
    means, gap = mean_x * mean_x + mean_y * mean_y, (mean_x - mean_y) ** 2
    return 1 - gap / (means + LUMINANCE), 1 - (distance - gap) / (squares - means + CONTRAST)


def _blur(x: Array) -> Array:
    """Gaussian window, zeros outside.

    Shifted sums stay in float32 on every device, where a convolution may round its inputs: the variance is a
    difference of nearly equal numbers. On a CPU they are also several times faster than a thin convolution.
    """
    reach = WINDOW // 2
    gaussian = [math.exp(-((offset / SIGMA) ** 2) / 2) for offset in range(-reach, reach + 1)]
    for axis in (1, 2):
        padded = jnp.pad(x, [(reach, reach) if axis == other else (0, 0) for other in range(4)])
        shifted = [lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis) for i in range(WINDOW)]
        terms = [weight / sum(gaussian) * part for weight, part in zip(gaussian, shifted, strict=True)]
        x = jax.tree.reduce(jnp.add, terms)
    return x


def _halve(x: Array, y: Array, mask: Array) -> tuple[Array, Array, Array]:
    """2x2 means over counted pixels; an odd side gets a last row or column that does not count."""
    counts = _block_sums(mask)
    x, y = (_block_sums(part * mask) / jnp.maximum(counts, 1.0) for part in (x, y))
    return x, y, (counts > 0).astype(jnp.float32)


def _block_sums(x: Array) -> Array:
    """Sums of 2x2 blocks."""
    B, H, W, C = x.shape
    x = jnp.pad(x, ((0, 0), (0, H % 2), (0, W % 2), (0, 0)))
    return x.reshape(B, (H + 1) // 2, 2, (W + 1) // 2, 2, C).sum((2, 4))
