"""Writes StableHLO by jax.export: from images (B, H, W, C) of any size to probabilities (B, H, W, K)."""

import dataclasses
import json
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export, lax

from flaxunet.export import graph
from flaxunet.export.check import Run, run_once
from flaxunet.models.guidance import suppress_absent
from flaxunet.models.operations import Bias, Operations
from flaxunet.ops.resize import Method
from flaxunet.prediction.predictor import Predictor

PLATFORMS = ("cpu", "cuda", "tpu")
LAYOUT = "(B, H, W, C)"
LOCATIONS = "jax_traceback_in_locations_limit"
AXES = {"H": 1, "W": 2}


def write(predictor: Predictor, about: Mapping[str, str]) -> bytes:
    """The file of a predictor of one network, for `jax.export.deserialize`.

    `about` becomes the exported function's name, as JSON: the format has no other place.
    """
    (model,) = predictor.models
    shape = (*export.symbolic_shape("batch, height, width"), predictor.channels)
    limit = getattr(jax.config, LOCATIONS)

    def predict(image: Array) -> Array:
        return graph.predict(model, image, _Maps(), predictor.intensity)

    jax.config.update(LOCATIONS, 0)  # else names of this machine's files are written next to the operations
    try:
        image = jax.ShapeDtypeStruct(shape, jnp.float32)
        lowered = export.export(jax.jit(predict), platforms=PLATFORMS)(image)
    finally:
        jax.config.update(LOCATIONS, limit)
    return bytes(dataclasses.replace(lowered, fun_name=json.dumps(about)).serialize())


def read(content: bytes) -> Run:
    """What the content of a file computes."""
    call = export.deserialize(bytearray(content)).call
    return lambda images: run_once(call, images)


class _Maps(Operations[Array]):
    """Operations on arrays (B, H, W, C) whose sides may be symbols; see `jax.export.symbolic_shape`.

    Every side is (n - 1) // 2 + 1 of another or the image's: sides written in any other way are not known to
    be equal.
    """

    def intensity(self, image: Array, name: str) -> Array:
        """Statistics are those of image - minimum: then a small range on a large offset keeps its digits."""
        if name == "dtype":
            return image
        x = image - image.min((1, 2), keepdims=True)
        top = x.max((1, 2), keepdims=True)
        if name == "zscore":
            moved = x - _mean(x)
            deviation = jnp.sqrt(_mean(moved * moved))
            return jnp.where(top == 0, 0, moved / jnp.where(top == 0, 1, deviation))
        ordered = jnp.sort(x.reshape(x.shape[0], x.shape[1] * x.shape[2], x.shape[3]), axis=1)
        last = ordered.shape[1] - 1
        near, share = last // 200, jnp.asarray(last % 200, jnp.float32) / 200
        far = jnp.minimum(near + 1, last)
        ranks = (near, far, last - near, last - far)
        at = [jnp.take(ordered, jnp.asarray(rank)[None], axis=1)[:, :, None] for rank in ranks]
        low, high = (a + (b - a) * share for a, b in (at[:2], at[2:]))
        same = low == high
        low, high = jnp.where(same, 0, low), jnp.where(same, top, high)
        span = high - low
        return jnp.clip((x - low) / jnp.where(span == 0, 1, span), 0, 1)

    def affine(self, x: Array, scale: np.ndarray, bias: np.ndarray) -> Array:
        scale, bias = (np.asarray(each, np.float32).reshape(1, 1, 1, -1) for each in (scale, bias))
        return x * scale + bias

    def conv(self, x: Array, kernel: np.ndarray, bias: Bias, stride: int = 1, groups: int = 1) -> Array:
        pads = [(kernel.shape[0] // 2,) * 2] * 2
        layout = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": groups}
        out = lax.conv_general_dilated(x, jnp.asarray(kernel), (stride, stride), pads, **layout)
        return out if bias is None else out + bias.reshape(1, 1, 1, -1)

    def group_norm(self, x: Array, groups: int, scale: np.ndarray, bias: np.ndarray, epsilon: float) -> Array:
        batch, height, width, channels = x.shape
        parts = x.reshape(batch, height, width, groups, channels // groups)
        mean = parts.mean((1, 2, 4), keepdims=True)
        var = jnp.square(parts - mean).mean((1, 2, 4), keepdims=True)
        even = ((parts - mean) * lax.rsqrt(var + epsilon)).reshape(x.shape)
        return self.affine(even, scale, bias)

    def relu(self, x: Array) -> Array:
        return jnp.maximum(x, 0)

    def add(self, a: Array, b: Array) -> Array:
        return a + b

    def concat(self, maps: Sequence[Array]) -> Array:
        return jnp.concatenate(maps, -1)

    def stem_pool(self, x: Array) -> Array:
        return _windows(x, 3, 2, [(1, 1), (1, 1)])

    def pool(self, x: Array, ratio: int, like: Array | None = None) -> Array:
        sizes = [(n - 1) // ratio + 1 for n in x.shape[1:3]] if like is None else like.shape[1:3]
        # Padded before the windows are cut, so that there are as many as `like` has pixels.
        beyond = [(0, ratio * size - n, 0) for size, n in zip(sizes, x.shape[1:3], strict=True)]
        pads = [(0, 0, 0), *beyond, (0, 0, 0)]
        return _windows(lax.pad(x, np.float32(-np.inf), pads), ratio, ratio, [(0, 0), (0, 0)])

    def resize(self, x: Array, like: Array, method: Method, axes: str = "HW") -> Array:
        for axis in (AXES[name] for name in axes):
            x = (_nearest if method == "nearest" else _bilinear)(x, axis, like.shape[axis])
        return x

    def shift_sum(self, x: Array, axis: str) -> Array:
        where = AXES[axis]
        first, middle, last = jnp.split(x, 3, axis=-1)

        def moved(part: Array, before: int) -> Array:
            pads = [(0, 0, 0)] * 4
            pads[where] = (before, 2 - before, 0)
            return lax.pad(part, np.float32(0), pads)

        total = moved(first, 2) + moved(middle, 1) + moved(last, 0)
        return lax.slice_in_dim(total, 1, x.shape[where] + 1, axis=where)

    def global_max(self, x: Array) -> Array:
        return x.max((1, 2), keepdims=True)

    def suppress(self, logits: Array, presence: Array, classes: int) -> Array:
        return suppress_absent(logits, presence[:, 0, 0])

    def probabilities(self, logits: Array, classes: int) -> Array:
        return jax.nn.sigmoid(logits) if classes == 1 else jax.nn.softmax(logits, axis=-1)


def _mean(x: Array) -> Array:
    """Of each channel; rows first, because one sum of all pixels would lose digits in float32."""
    return x.mean(2, keepdims=True).mean(1, keepdims=True)


def _windows(x: Array, window: int, stride: int, pads: Sequence[tuple[int, int]]) -> Array:
    windows, strides = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, np.float32(-np.inf), lax.max, windows, strides, [(0, 0), *pads, (0, 0)])


def _nearest(x: Array, axis: int, n: int) -> Array:
    """Of an enlargement by two, or by two less one pixel: the only ones in our networks."""
    return lax.slice_in_dim(jnp.repeat(x, 2, axis=axis), 0, n, axis=axis)


def _bilinear(x: Array, axis: int, n: int) -> Array:
    """In whole numbers: pixel i lies at ((2i + 1) n_in - n) / 2n, which float32 would round.

    int32 holds it as long as n times n_in is below 2^30: enlargements by two to sides of 46,000 pixels.
    """
    n_in = x.shape[axis]
    scaled = jnp.maximum((2 * jnp.arange(n) + 1) * n_in - n, 0)
    low = jnp.minimum(scaled // (2 * n), n_in - 1)
    high = jnp.minimum(low + 1, n_in - 1)
    shape = [-1 if a == axis else 1 for a in range(x.ndim)]
    weight = ((scaled - low * (2 * n)) / (2 * n)).astype(jnp.float32).reshape(shape)
    return jnp.take(x, low, axis, mode="clip") * (1 - weight) + jnp.take(x, high, axis, mode="clip") * weight
