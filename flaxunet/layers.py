"""Convolution, normalisation and pooling of NHWC maps: every number that must agree with torch lives here."""

import math
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.typing import DTypeLike

from flaxunet.resize import Method, resize_conv

Norm = Literal["batch", "group"]
NORMS: tuple[Norm, ...] = ("batch", "group")
EPSILON = 1e-5

Initializer = Callable[..., Array]
kaiming_uniform = nnx.initializers.variance_scaling(2.0, "fan_in", "uniform")
kaiming_normal_fan_out = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
xavier_uniform = nnx.initializers.glorot_uniform()


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation over B, H and W whose running variance is unbiased, as torch's is.

    Statistics are taken in float32, in two passes: the one-pass formula loses the variance of maps with a
    large mean. Under a mesh they are those of the global batch. With the attribute `frozen`, the running
    statistics are used, and kept, in training mode too.

    Source: torch.nn.BatchNorm2d(eps=1e-5, momentum=0.1).
    """

    def __init__(self, features: int, *, dtype: DTypeLike | None = None, rngs: nnx.Rngs):
        super().__init__(features, momentum=0.9, epsilon=EPSILON, dtype=dtype, rngs=rngs)
        self.frozen = False

    def __call__(self, x: Array) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Normalises (B, H, W, C); returns the constructor's dtype, or x's."""
        wide = x.astype(jnp.float32)
        if self.use_running_average or self.frozen:
            mean, var = self.mean[...], self.var[...]
        else:
            mean = wide.mean((0, 1, 2))
            var = jnp.square(wide - _channel(mean)).mean((0, 1, 2))
            self._remember(mean, var, count=math.prod(x.shape[:3]))
        assert self.scale is not None  # the constructor makes both
        assert self.bias is not None
        scale = self.scale[...] * lax.rsqrt(var + self.epsilon)
        out = (wide - _channel(mean)) * _channel(scale) + _channel(self.bias[...])
        return out.astype(self.dtype or x.dtype)

    def _remember(self, mean: Array, var: Array, count: int) -> None:
        # One value per channel has no unbiased variance; torch refuses it, a 1x1 map must not.
        unbiased = var * (count / max(count - 1, 1))
        for running, new in ((self.mean, mean), (self.var, unbiased)):
            running[...] = self.momentum * running[...] + (1 - self.momentum) * lax.stop_gradient(new)


def _channel(x: Array) -> Array:
    return x.reshape(1, 1, 1, -1)


def make_norm(norm: Norm, features: int, *, dtype: DTypeLike | None, rngs: nnx.Rngs) -> nnx.Module:
    """Batch norm, or group norm of up to 32 groups with at least 2 channels each (Wu and He 2018).

    Raises: ValueError if the name is unknown.
    """
    if norm == "batch":
        return BatchNorm(features, dtype=dtype, rngs=rngs)
    if norm == "group":
        groups = math.gcd(32, max(features // 2, 1))
        return nnx.GroupNorm(
            features, groups, epsilon=EPSILON, use_fast_variance=False, dtype=dtype, rngs=rngs
        )
    raise ValueError(f"unknown norm {norm!r}; known are {', '.join(NORMS)}")


class ConvNorm(nnx.Module):
    """Convolution without bias, then a norm, then (by default) ReLU; pads and averages as torch does."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        relu: bool = True,
        norm: Norm = "batch",
        init: Initializer = kaiming_uniform,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        self.conv = nnx.Conv(
            cin,
            cout,
            (kernel, kernel),
            stride,
            padding=kernel // 2,
            use_bias=False,
            kernel_init=init,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = make_norm(norm, cout, dtype=dtype, rngs=rngs)
        self.relu = relu

    def __call__(self, x: Array) -> Array:
        """(B, H, W, cin) to (B, ceil(H / stride), ceil(W / stride), cout)."""
        return self._finish(self.conv(x))

    def resized(self, x: Array, size: tuple[int, int], method: Method = "bilinear") -> Array:
        """The same of x resized to `size`, for a 3x3 kernel of stride 1; the resized map is never formed."""
        kernel = self.conv.kernel[...]
        dtype = self.conv.dtype or kernel.dtype
        return self._finish(resize_conv(x.astype(dtype), kernel.astype(dtype), size, method))

    def _finish(self, x: Array) -> Array:
        x = self.norm(x)
        return nnx.relu(x) if self.relu else x


def head(cin: int, cout: int, *, rngs: nnx.Rngs) -> nnx.Conv:
    """A 3x3 convolution with bias, to logits; always float32."""
    return nnx.Conv(cin, cout, (3, 3), padding=1, kernel_init=xavier_uniform, dtype=jnp.float32, rngs=rngs)


def max_pool(x: Array, window: int, stride: int, padding: int = 0, *, ceil_mode: bool = False) -> Array:
    """Max pooling of (B, H, W, C) with torch's padding: `padding` on every side, of -inf.

    Args:
      x: (B, H, W, C), any float dtype.
      window: side of the window, in pixels.
      stride: step between windows, in pixels.
      padding: pixels of -inf on each side.
      ceil_mode: also keep windows that overlap the right and bottom border; they see only real pixels.
    Returns: (B, H', W', C) of x's dtype.
    Source: torch.nn.MaxPool2d.
    """
    high = [padding + (-(size + 2 * padding - window) % stride if ceil_mode else 0) for size in x.shape[1:3]]
    return lax.reduce_window(
        x,
        np.array(-np.inf, x.dtype),
        lax.max,
        (1, window, window, 1),
        (1, stride, stride, 1),
        ((0, 0), (padding, high[0]), (padding, high[1]), (0, 0)),
    )
