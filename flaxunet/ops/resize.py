"""Linear resizing of NHWC maps as torch defines it, and a convolution of a resized map that never forms it.

A resize `R` is linear and works on each channel alone, so it commutes with mixing channels:

    conv3x3(R(x)) = sum over the 9 taps t of shift_t(R(x @ K_t))

Mixing first happens at the low resolution, and what is resized is 9 thin maps, one axis at a time.
"""

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from flaxunet.ops.conv import conv3x3, convolve

Method = Literal["nearest", "bilinear"]
METHODS: tuple[Method, ...] = ("nearest", "bilinear")  # what networks are made of
AnyMethod = Literal[Method, "bilinear_corners"]
Size = tuple[int, int]


def resize(x: Array, size: Size, method: AnyMethod = "bilinear") -> Array:
    """Resizes the two spatial axes, up or down, without antialiasing.

    Args:
      x: (B, h, w, C), any float dtype.
      size: (H, W) in pixels, each >= 1.
      method: "nearest" takes pixel floor(i * h / H); "bilinear" interpolates between pixel centres
        (align_corners=False) and repeats the border; "bilinear_corners" interpolates between pixels whose
        corner pixels stay corners (align_corners=True).
    Returns: (B, H, W, C) of x's dtype.
    Raises: ValueError if the method is unknown.
    Source: torch.nn.functional.interpolate.
    """
    return _resize_axis(_resize_axis(x, 1, size[0], method), 2, size[1], method)


def resize_conv(
    x: Array, kernel: Array, size: Size, method: AnyMethod = "bilinear", skips: Sequence[Array] = ()
) -> Array:
    """A 3x3 convolution, zero-padded by 1, of the resized map, computed from the small map.

    With skips it is the convolution of concat[resized x, *skips], which is never built either. `way` says by
    which of three ways the resized part is computed; all give the same numbers to float32 rounding.

    Args:
      x: (B, h, w, C), any float dtype.
      kernel: (3, 3, C, O), or (3, 3, C + those of the skips, O); the dtype of x.
      size, method: as in `resize`.
      skips: maps (B, H, W, ...) of x's dtype.
    Returns: (B, H, W, O) of x's dtype; the taps are summed in float32.
    Raises: ValueError if the kernel is not 3x3, has other channels, or the method is unknown.
    """
    cin = sum(each.shape[-1] for each in (x, *skips))
    if kernel.ndim != 4 or kernel.shape[:3] != (3, 3, cin):
        raise ValueError(f"kernel has shape {kernel.shape}; expected (3, 3, {cin}, O)")
    chosen = way(x.shape, kernel.shape[-1], size, method)
    if chosen == "direct":
        return conv3x3(jnp.concatenate([resize(x, size, method), *skips], -1), kernel)
    resized, rest = jnp.split(kernel, [x.shape[-1]], axis=2)
    out = _phases(x, resized) if chosen == "phases" else _mix(x, resized, size, method)
    return out + conv3x3(jnp.concatenate(skips, -1), rest) if skips else out


Way = Literal["direct", "mix", "phases"]
MIX_FROM = 96  # channels that mixing has to save, of those that the direct way reads per output pixel
THIN = 4  # output channels up to which mixing also wins where nothing is resized: the heads
TAPS_HOLD = 2**21  # numbers that the nine thin maps may have before four small convolutions are faster


def way(shape: Sequence[int], cout: int, size: Size, method: AnyMethod) -> Way:
    """How `resize_conv` computes one call, by its shapes alone: docs/explanation/performance.md.

    direct: resize, then convolve. mix: channels first, at the low resolution, then nine thin maps are
    resized and shifted. phases: an enlargement by two to the nearest pixel makes 2x2 kernels of the 3x3 one,
    one for each of the four places of an output pixel in its source pixel.

    Args:
      shape, cout: (B, h, w, C) of x, and O.
      size, method: as in `resize`.
    """
    batch, height, width, channels = shape
    if (height, width) == size:
        return "mix" if cout <= THIN else "direct"
    taps = 9 * batch * height * width * cout
    if method == "nearest" and size == (2 * height, 2 * width):
        return "phases" if taps > TAPS_HOLD else "mix"
    saved = channels * (1 - height * width / (size[0] * size[1]))
    return "mix" if saved >= MIX_FROM * min(1, taps / TAPS_HOLD) else "direct"


def _mix(x: Array, kernel: Array, size: Size, method: AnyMethod) -> Array:
    (batch, height, width, cin), cout = x.shape, kernel.shape[-1]
    # Of two dimensions: the gradients are products too then, without copies in another order.
    rows, matrix = x.reshape(-1, cin), kernel.transpose(2, 0, 1, 3).reshape(cin, 9 * cout)
    mixed = lax.dot(rows, matrix, preferred_element_type=jnp.float32)
    taps = mixed.reshape(batch, height, width, 3, 3, cout)
    columns = _resize_and_shift(taps, 2, size[1], method)  # (B, h, W, 3, O)
    return _resize_and_shift(columns, 1, size[0], method).astype(x.dtype)


def _resize_and_shift(taps: Array, axis: int, n: int, method: AnyMethod) -> Array:
    """Resizes 3 taps, on the axis before the last, along `axis`; sums them, moved by their offsets."""
    parts = (lax.index_in_dim(taps, tap, taps.ndim - 2, keepdims=False) for tap in range(3))
    first, middle, last = (_resize_axis(part, axis, n, method) for part in parts)
    # Output i reads the resized map at i - 1, i, i + 1; outside lies the convolution's zero padding.
    before = lax.slice_in_dim(_pad(first, axis, 1, 0), 0, n, axis=axis)
    after = lax.slice_in_dim(_pad(last, axis, 0, 1), 1, n + 1, axis=axis)
    return before + middle + after


def _phases(x: Array, kernel: Array) -> Array:
    """Of x enlarged by two: an even pixel sees its source and the one before, an odd one the one behind."""
    pads = (1, 0), (0, 1)
    rows = [
        jnp.stack([convolve(x, part, (pads[i], pads[j])) for j, part in enumerate(_pairs(half, 1))], 3)
        for i, half in enumerate(_pairs(kernel, 0))
    ]
    batch, height, width, _ = x.shape
    return jnp.stack(rows, 2).reshape(batch, 2 * height, 2 * width, -1)


def _pairs(kernel: Array, axis: int) -> tuple[Array, Array]:
    """The two taps that three become where two of them read the same pixel, for even and odd outputs."""
    first, middle, last = jnp.split(kernel, 3, axis)
    return lax.concatenate([first, middle + last], axis), lax.concatenate([first + middle, last], axis)


def _resize_axis(x: Array, axis: int, n_out: int, method: AnyMethod) -> Array:
    one_axis = {"nearest": _nearest, "bilinear": _bilinear, "bilinear_corners": _bilinear_corners}
    if method not in one_axis:
        raise ValueError(f"unknown resize method {method!r}; expected one of {', '.join(one_axis)}")
    return x if n_out == x.shape[axis] else one_axis[method](x, axis, n_out)


def _pad(x: Array, axis: int, low: int, high: int) -> Array:
    pads = [(low, high, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), pads)


def _nearest(x: Array, axis: int, n_out: int) -> Array:
    n_in = x.shape[axis]
    if n_out % n_in == 0:
        return jnp.repeat(x, n_out // n_in, axis=axis)
    # float32 on purpose: torch computes the index so, and rounds some exact ratios down.
    index = np.floor(np.arange(n_out, dtype=np.float32) * (np.float32(n_in) / np.float32(n_out)))
    return jnp.take(x, np.minimum(index.astype(np.int32), n_in - 1), axis=axis, mode="clip")


def _bilinear(x: Array, axis: int, n_out: int) -> Array:
    n_in = x.shape[axis]
    if n_in == 1:
        return jnp.repeat(x, n_out, axis=axis)
    if n_out % n_in == 0:
        return _bilinear_phases(x, axis, n_out // n_in)
    return _interpolate(x, axis, np.maximum((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, 0.0))


def _bilinear_corners(x: Array, axis: int, n_out: int) -> Array:
    return _interpolate(x, axis, np.arange(n_out) * ((x.shape[axis] - 1) / max(n_out - 1, 1)))


def _interpolate(x: Array, axis: int, position: np.ndarray) -> Array:
    """Between the two input pixels next to each position, in input pixels."""
    n_in = x.shape[axis]
    low = np.minimum(position.astype(np.int32), n_in - 1)
    high = np.minimum(low + 1, n_in - 1)
    weight = jnp.asarray(position - low, x.dtype).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return _lerp(jnp.take(x, low, axis=axis, mode="clip"), jnp.take(x, high, axis=axis, mode="clip"), weight)


def _bilinear_phases(x: Array, axis: int, factor: int) -> Array:
    """Whole factors: every `factor`-th output pixel has the same two weights, so slices do for gathers."""
    n = x.shape[axis]
    first, last = lax.slice_in_dim(x, 0, 1, axis=axis), lax.slice_in_dim(x, n - 1, n, axis=axis)
    padded = lax.concatenate([first, x, last], axis)
    shifted = [lax.slice_in_dim(padded, k, k + n, axis=axis) for k in range(3)]
    phases = []
    for phase in range(factor):
        position = (phase + 0.5) / factor - 0.5  # in input pixels, relative to the phase's own pixel
        below = position < 0
        low, high = shifted[:2] if below else shifted[1:]
        phases.append(_lerp(low, high, jnp.asarray(position + below, x.dtype)))
    return jnp.stack(phases, axis + 1).reshape((*x.shape[:axis], n * factor, *x.shape[axis + 1 :]))


def _lerp(low: Array, high: Array, weight: Array) -> Array:
    return low * (1 - weight) + high * weight
