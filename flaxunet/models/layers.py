"""Convolution, normalisation and pooling of NHWC maps: every number that must agree with torch lives here."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.typing import DTypeLike

from flaxunet.models.operations import Operations, T
from flaxunet.ops.conv import conv1x1, conv3x3
from flaxunet.ops.resize import Method, Size, resize_conv

Norm = Literal["batch", "group"]
NORMS: tuple[Norm, ...] = ("batch", "group")
EPSILON = 1e-5
MIX_FROM = 4  # enlargement from which `trace_resized` mixes channels before a bilinear resize


def _scaled(scale: float, mode: str, draw: Callable[..., Array]) -> Callable[..., Array]:
    """`jax.nn.initializers.variance_scaling` of HWIO kernels: the same draws, number by number.

    Drawn in a row and then shaped: XLA:CPU compiles random numbers of four axes several times as long; see
    docs/explanation/decisions/networks.md.
    """

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32, **_: object) -> Array:
        fan_in, fan_out = (math.prod(shape[:-2]) * channels for channels in shape[-2:])
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
        return draw(key, math.prod(shape), jnp.array(scale / fan, dtype)).reshape(shape)

    return init


def _normal(key: Array, count: int, variance: Array) -> Array:
    return jax.random.normal(key, (count,), variance.dtype) * jnp.sqrt(variance)


def _uniform(key: Array, count: int, variance: Array) -> Array:
    return jax.random.uniform(key, (count,), variance.dtype, -1) * jnp.sqrt(3 * variance)


kaiming_uniform = _scaled(2.0, "fan_in", _uniform)
kaiming_normal_fan_out = _scaled(2.0, "fan_out", _normal)
xavier_uniform = _scaled(1.0, "fan_avg", _uniform)


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
            # One value per channel has no unbiased variance; torch refuses it, a 1x1 map must not.
            count = math.prod(x.shape[:3])
            for running, new in ((self.mean, mean), (self.var, var * (count / max(count - 1, 1)))):
                running[...] = self.momentum * running[...] + (1 - self.momentum) * lax.stop_gradient(new)
        assert self.scale is not None  # the constructor makes both
        assert self.bias is not None
        scale = self.scale[...] * lax.rsqrt(var + self.epsilon)
        out = (wide - _channel(mean)) * _channel(scale) + _channel(self.bias[...])
        return out.astype(self.dtype or x.dtype)


def _channel(x: Array) -> Array:
    return x.reshape(1, 1, 1, -1)


class Shift(nnx.Module):
    """Adds one number per channel: what is left of a batch norm that `flaxunet.fold` folded."""

    def __init__(self, bias: Array):
        self.bias = nnx.Param(bias)

    def __call__(self, x: Array) -> Array:
        """(B, H, W, C) plus (C,), in x's dtype."""
        return x + _channel(self.bias[...].astype(x.dtype))


class ConvNorm(nnx.Module):
    """Convolution without bias, then a norm, then (by default) ReLU; pads and averages as torch does.

    The norm is batch norm, or group norm of up to 32 groups with at least 2 channels each (Wu and He 2018).

    Raises: ValueError if the norm's name is unknown.
    """

    norm: nnx.Module
    remat = False

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        relu: bool = True,
        norm: Norm = "batch",
        init: Callable[..., Array] = kaiming_uniform,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ):
        options = {"feature_group_count": groups, "use_bias": False, "kernel_init": init, "dtype": dtype}
        self.conv = nnx.Conv(cin, cout, (kernel, kernel), stride, padding=kernel // 2, **options, rngs=rngs)
        if norm not in NORMS:
            raise ValueError(f"unknown norm {norm!r}; expected one of {', '.join(NORMS)}")
        if norm == "batch":
            self.norm = BatchNorm(cout, dtype=dtype, rngs=rngs)
        else:
            options = {"epsilon": EPSILON, "use_fast_variance": False, "dtype": dtype}
            self.norm = nnx.GroupNorm(cout, math.gcd(32, max(cout // 2, 1)), **options, rngs=rngs)
        self.stride, self.groups, self.relu = stride, groups, relu

    def __call__(self, x: Array) -> Array:
        """(B, H, W, cin) to (B, ceil(H / stride), ceil(W / stride), cout)."""
        if self.groups == 1 and self.conv.kernel_size == (1, 1):
            return self._finish(conv1x1(*self._cast(x), stride=self.stride))
        if self.groups == 1 and self.conv.kernel_size == (3, 3) and self.stride == 1:
            return self._finish(conv3x3(*self._cast(x)))
        return self._finish(self.conv(x))

    def resized(self, x: Array, size: Size, method: Method, skips: Sequence[Array] = ()) -> Array:
        """The same of concat[x resized to `size`, *skips], for 3x3 kernels of stride 1; neither is formed."""
        x, *skips, kernel = self._cast(x, *skips)
        return self._finish(resize_conv(x, kernel, size, method, skips))

    def trace(self, ops: Operations[T], x: T) -> T:
        """`__call__` of a folded layer, written in the operations of an export format."""
        kernel, bias = array(self.conv.kernel), self._folded_bias()
        return self._trace_finish(ops, ops.conv(x, kernel, bias, self.stride, self.groups))

    def trace_resized(
        self, ops: Operations[T], x: T, like: T, ratio: int, method: Method, skips: Sequence[T] = ()
    ) -> T:
        """`resized` of a folded layer, to the size of `like`, written in the operations of an export format.

        Far enlargements mix channels before the resize instead of behind it; see `flaxunet.ops.resize`.
        """
        kernel, bias = array(self.conv.kernel), self._folded_bias()
        if skips or ratio < MIX_FROM:
            x = ops.resize(x, like, method)
            return self._trace_finish(ops, ops.conv(ops.concat([x, *skips]) if skips else x, kernel, bias))
        cin, cout = kernel.shape[2:]
        # Of the nine taps those of one row of the kernel lie together, within them those of one column.
        taps = kernel.transpose(2, 1, 0, 3).reshape(1, 1, cin, 9 * cout)
        columns = ops.shift_sum(ops.resize(ops.conv(x, taps, None), like, method, "W"), "W")
        rows = ops.shift_sum(ops.resize(columns, like, method, "H"), "H")
        return self._trace_finish(ops, rows if bias is None else ops.affine(rows, np.ones_like(bias), bias))

    def _folded_bias(self) -> np.ndarray | None:
        return array(self.norm.bias) if isinstance(self.norm, Shift) else None

    def _trace_finish(self, ops: Operations[T], x: T) -> T:
        """Traces what follows a convolution whose folded bias is in."""
        norm = self.norm
        if isinstance(norm, nnx.GroupNorm):
            x = ops.group_norm(x, norm.num_groups, array(norm.scale), array(norm.bias), norm.epsilon)
        return ops.relu(x) if self.relu else x

    def _cast(self, *maps: Array) -> list[Array]:
        """The maps and the kernel, in the dtype of the computation."""
        kernel = self.conv.kernel[...]
        return [array.astype(self.conv.dtype or kernel.dtype) for array in (*maps, kernel)]

    def _finish(self, x: Array) -> Array:
        x = self.norm(x)
        return nnx.relu(x) if self.relu else x


MakeConv = Callable[..., ConvNorm]  # a ConvNorm of channels in, out and more, with norm, dtype and rngs set


class Head(nnx.Conv):
    """A 3x3 convolution with bias, to logits; always float32."""

    def __init__(self, cin: int, cout: int, *, rngs: nnx.Rngs):
        init = xavier_uniform
        super().__init__(cin, cout, (3, 3), padding=1, kernel_init=init, dtype=jnp.float32, rngs=rngs)

    def __call__(self, x: Array) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(B, H, W, cin), any float dtype, to (B, H, W, cout) float32."""
        assert self.bias is not None  # the constructor makes it
        size = x.shape[1], x.shape[2]
        return resize_conv(x.astype(jnp.float32), self.kernel[...], size) + _channel(self.bias[...])

    def trace(self, ops: Operations[T], x: T, image: T) -> T:
        """Logits of the image's size, written in the operations of an export format."""
        return ops.resize(ops.conv(x, array(self.kernel), array(self.bias)), image, "bilinear")


def array(variable: Any) -> np.ndarray:
    """The value of an NNX variable, on the host."""
    return np.asarray(variable[...])


def max_pool(x: Array, window: int, stride: int, padding: int = 0, *, ceil_mode: bool = False) -> Array:
    """Max pooling of (B, H, W, C) with torch's padding: `padding` on every side, of -inf.

    Args:
      x: (B, H, W, C), any float dtype.
      window, stride: side of the windows and step between them, in pixels.
      ceil_mode: also keep windows that overlap the right and bottom border; they see only real pixels.
    Returns: (B, H', W', C) of x's dtype.
    Source: torch.nn.MaxPool2d.
    """
    for axis, size in ((2, x.shape[2]), (1, x.shape[1])):
        steps, beyond = divmod(size + 2 * padding - window, stride)
        # No window starts behind the map: it would see padding alone.
        if ceil_mode and beyond and (steps + 1) * stride < size + padding:
            steps += 1
        x = _max_pool_axis(x, axis, window, stride, (padding, steps * stride + window - size - padding))
    return x


def _max_pool_axis(x: Array, axis: int, window: int, stride: int, padding: tuple[int, int]) -> Array:
    """The largest of `window` shifted maps; among equals the first, whose gradient it is, as in torch.

    XLA's own windows look the largest pixel up again for the gradient, which takes a CPU ten times as long.
    """
    if any(padding):
        pad = [(*padding, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
        x = lax.pad(x, np.array(-np.inf, x.dtype), pad)
    length = (x.shape[axis] - window) // stride * stride + 1
    first, *others = (lax.slice_in_dim(x, at, at + length, stride, axis) for at in range(window))
    for other in others:
        first = jnp.where((other > first) | jnp.isnan(other), other, first)
    return first
