"""Augments batches: mirrors, rotates, zooms, shifts and warps images and labels, and changes colours."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flaxunet.labels import IGNORE
from train.augment.colour import blur, jitter_colours
from train.augment.ranges import RANGES, Ranges

PADDING = IGNORE - 1  # inside this module: outside of the image, as opposed to IGNORE, which humans mark
CELLS = 4  # of the control grid of the elastic warp, along each side


def augment(
    key: Array, image: Array, label: Array, strength: str, *, stain: float = 0.0
) -> tuple[Array, Array]:
    """Changes every image of a batch, and its label map with it, at random.

    One sampling grid moves image (bilinear) and label (nearest) together. What lies outside of the image, or
    is cut out, becomes padding: black and IGNORE. Mirrors and quarter turns alone permute the pixels exactly.
    Then the intensities of the image change. Padding, new or old, stays black, whereas pixels that a human
    marked IGNORE keep their content and change like the rest.

    The changes of image i are a function of (key, i) alone, whatever the size of the batch and its sharding
    over devices. Jit with `strength` and `stain` static.

    Args:
      key: a JAX random key; fold the step into it.
      image: (B, H, W, C) float32 in [0, 1], or z-scores, for which padding is the mean, not black.
      label: (B, H, W) int32.
      strength, stain: a key of RANGES ("none" is the identity), and `Ranges.stain` in addition.
    Returns: image and label, same shapes and dtypes; the image may leave [0, 1].
    Raises: ValueError if the strength is unknown or the shapes do not belong together.
    """
    if strength not in RANGES:
        raise ValueError(f"unknown augmentation strength {strength!r}; expected one of {', '.join(RANGES)}")
    if image.ndim != 4 or label.shape != image.shape[:3]:
        shapes = f"{image.shape} and {label.shape}"
        raise ValueError(f"expected image (B, H, W, C) and label (B, H, W), got {shapes}")
    if (ranges := RANGES[strength]) is None:
        return image, label
    ranges = dataclasses.replace(ranges, stain=stain)

    def augment_one(index: Array, image: Array, label: Array) -> tuple[Array, Array]:
        place, light = jax.random.split(jax.random.fold_in(key, index))
        padding = (label == IGNORE) & jnp.all(image == 0, axis=-1)
        pivot = jnp.mean(image)  # computed here, or XLA would compute the moved image twice
        image, label = move(place, image, jnp.where(padding, PADDING, label), ranges)
        if ranges.cutout > 0:
            label = cut_out(jax.random.fold_in(place, 1), label, ranges.cutout)
        image = jitter_colours(light, image, pivot, ranges)
        return jnp.where((label == PADDING)[..., None], 0, image), jnp.maximum(label, IGNORE)

    if ranges.blur > 0:  # before there is new padding, which would darken the pixels beside it
        image = blur(key, image, ranges.blur)
    return jax.vmap(augment_one)(jnp.arange(len(image)), image, label)


def move(key: Array, image: Array, label: Array, ranges: Ranges) -> tuple[Array, Array]:
    """Resamples one image (H, W, C) and its label (H, W) on one grid: mirrors, turn, zoom, shift and warp."""
    H, W = label.shape
    mirror_y, mirror_x, swap, zoom, turn, shift_y, shift_x = jax.random.uniform(key, (7,), minval=-1.0)
    scale = jnp.exp(zoom * math.log(ranges.scale))
    angle = turn * math.radians(ranges.degrees)
    cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale

    # The source of each output pixel, relative to the centre. Scalars, not a 2x2 matrix product, which a TPU
    # would round to bfloat16. Without zoom and turn all numbers are multiples of 1/2, hence exact.
    y = (jnp.arange(H) - (H - 1) / 2 - shift_y * ranges.shift * H)[:, None]
    x = (jnp.arange(W) - (W - 1) / 2 - shift_x * ranges.shift * W)[None, :]
    y, x = cos * y + sin * x, cos * x - sin * y
    if ranges.quarter_turns and H == W:  # with the two mirrors, all eight symmetries of the square
        y, x = jnp.where(swap < 0, x, y), jnp.where(swap < 0, y, x)
    y = jnp.where(mirror_y < 0, -y, y) + (H - 1) / 2
    x = jnp.where(mirror_x < 0, -x, x) + (W - 1) / 2
    if ranges.elastic > 0:
        warp_y, warp_x = warp(jax.random.fold_in(key, 0), H, W)
        y, x = y + ranges.elastic * H * warp_y, x + ranges.elastic * W * warp_x
    return sample(image, label, y, x)


def warp(key: Array, H: int, W: int) -> Array:
    """Draws a smooth displacement (2, H, W) in [-1, 1]: a cubic B-spline over a grid of control points.

    Sources: Rueckert et al. 1999, Nonrigid registration using free-form deformations; Choi and Lee 2000,
    Injectivity conditions of 2D and 3D uniform cubic B-spline functions: the warp does not fold as long as no
    displacement reaches 0.48 times the distance of the control points.
    """
    points = jax.random.uniform(key, (2, CELLS + 3, CELLS + 3), minval=-1.0)
    rows, columns = (jnp.asarray(_spline(side), jnp.float32) for side in (H, W))
    return jnp.einsum("hp,dpq,wq->dhw", rows, points, columns, precision=jax.lax.Precision.HIGHEST)


def _spline(side: int) -> np.ndarray:
    """Weights (side, CELLS + 3) of the control points at each pixel; every row adds up to 1."""
    place = (np.arange(side) + 0.5) / side * CELLS
    distance = np.abs(place[:, None] + 1 - np.arange(CELLS + 3))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, near, far)


def cut_out(key: Array, label: Array, largest: float) -> Array:
    """Marks a random rectangle of one label map (H, W) as PADDING.

    Source: DeVries and Taylor 2017, Cutout.
    """
    H, W = label.shape
    height, width, y, x = jax.random.uniform(key, (4,))
    rows = jnp.abs((jnp.arange(H) + 0.5) / H - y) < height * largest / 2
    columns = jnp.abs((jnp.arange(W) + 0.5) / W - x) < width * largest / 2
    return jnp.where(rows[:, None] & columns[None, :], PADDING, label)


def sample(image: Array, label: Array, y: Array, x: Array) -> tuple[Array, Array]:
    """Samples an image bilinearly and its label at the nearest pixel; black and PADDING outside.

    Args:
      image, label: (H, W, C) float32 and (H, W) int32.
      y, x: (h, w) float32 coordinates in pixels; (0, 0) is the centre of the first pixel.
    Returns: image (h, w, C) float32 and label (h, w) int32.
    """
    H, W, C = image.shape
    inside = (jnp.abs(y - (H - 1) / 2) <= H / 2) & (jnp.abs(x - (W - 1) / 2) <= W / 2)
    y, x = jnp.clip(y, 0, H - 1), jnp.clip(x, 0, W - 1)
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = y - top, x - left
    corner = top.astype(jnp.int32) * W + left.astype(jnp.int32)

    # Rows of a flat table are faster on a CPU than two-dimensional gathers or 2x2 windows. In the last row
    # and column the far corner is another pixel, but its weight is 0.
    read = partial(jnp.take, axis=0, mode="clip")
    pixels, classes = image.reshape(H * W, C), label.reshape(H * W)
    nearest = corner + jnp.where(down < 0.5, 0, W) + jnp.where(right < 0.5, 0, 1)
    label = jnp.where(inside, read(classes, nearest), PADDING)
    inside, down, right = inside[..., None], down[..., None], right[..., None]
    upper = read(pixels, corner) * (1 - right) + read(pixels, corner + 1) * right
    lower = read(pixels, corner + W) * (1 - right) + read(pixels, corner + W + 1) * right
    return jnp.where(inside, upper * (1 - down) + lower * down, 0), label
