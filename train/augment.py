"""Images and labels go in; they come out mirrored, turned, warped and relit at random, on the device."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from flaxunet.losses import IGNORE

PADDING = IGNORE - 1  # inside this module: IGNORE because nothing is there, as opposed to nobody knows


@dataclass(frozen=True)
class Ranges:
    """How far each random change may go; every draw is symmetric about "no change".

    Attributes:
      quarter_turns: also turn by 90 and 270 degrees (square images only). Without it, images are mirrored in
        both directions, which includes the half turn, and keep their axes.
      scale: zoom, log-uniform in [1 / scale, scale].
      degrees: rotation about the centre, uniform in [-degrees, degrees].
      shift: translation in each direction, uniform, as a fraction of that side.
      gamma: exponent on intensities, log-uniform in [1 / gamma, gamma].
      contrast: factor about the image's mean, log-uniform in [1 / contrast, contrast].
      brightness: offset, uniform in [-brightness, brightness], where 1 is the full range from black to white.
      noise: standard deviation of white Gaussian noise, uniform in [0, noise], in the same unit.
    """

    quarter_turns: bool = False
    scale: float = 1.0
    degrees: float = 0.0
    shift: float = 0.0
    gamma: float = 1.0
    contrast: float = 1.0
    brightness: float = 0.0
    noise: float = 0.0


# Light and medium keep the axes of upright anatomy. Strong treats orientation as meaningless, as it is in
# microscopy: the eight symmetries of the square and 45 degrees either way cover the whole circle.
RANGES: dict[str, Ranges | None] = {
    "none": None,
    "light": Ranges(contrast=1.05, brightness=0.02),
    "medium": Ranges(
        scale=1.15,
        degrees=15,
        shift=0.05,
        gamma=1.25,
        contrast=1.25,
        brightness=0.1,
        noise=0.03,
    ),
    "strong": Ranges(
        quarter_turns=True,
        scale=1.4,
        degrees=45,
        shift=0.1,
        gamma=1.5,
        contrast=1.5,
        brightness=0.15,
        noise=0.08,
    ),
}


def augment(key: Array, image: Array, label: Array, strength: str) -> tuple[Array, Array]:
    """Changes every image of a batch at random and its label map with it.

    One sampling grid moves image (bilinear) and label (nearest) together; what it brings in from outside the
    frame is padding: black and IGNORE. Mirrors and turns alone are exact permutations of the pixels. Then the
    intensities change, of the image only. Padding, new or old, stays black, whereas pixels that a human
    marked IGNORE keep their content and change like the rest.

    The changes to image i are a function of (key, i) alone: neither the size of the batch nor its sharding
    over devices plays a part. Jit with `strength` static.

    Args:
      key: a JAX random key; fold the step into it.
      image: (B, H, W, C) float32 in [0, 1], or z-scores, for which padding is the mean, not black.
      label: (B, H, W) int32.
      strength: "none" (the identity), "light", "medium" or "strong".
    Returns: image and label, same shapes and dtypes; the image may leave [0, 1].
    Raises: ValueError if the strength is unknown or the shapes do not belong together.
    """
    if strength not in RANGES:
        raise ValueError(f"unknown augmentation strength {strength!r}; known: {', '.join(RANGES)}")
    if image.ndim != 4 or label.shape != image.shape[:3]:
        raise ValueError(
            f"expected image (B, H, W, C) and label (B, H, W), got {image.shape} and {label.shape}"
        )
    ranges = RANGES[strength]
    if ranges is None:
        return image, label

    def augment_one(index: Array, image: Array, label: Array) -> tuple[Array, Array]:
        place, light = jax.random.split(jax.random.fold_in(key, index))
        padding = (label == IGNORE) & jnp.all(image == 0, axis=-1)
        pivot = jnp.mean(image)  # taken here, lest XLA work out the moved image twice
        image, label = move(place, image, jnp.where(padding, PADDING, label), ranges)
        image = relight(light, image, pivot, ranges)
        return jnp.where((label == PADDING)[..., None], 0, image), jnp.maximum(label, IGNORE)

    return jax.vmap(augment_one)(jnp.arange(len(image)), image, label)


def move(key: Array, image: Array, label: Array, ranges: Ranges) -> tuple[Array, Array]:
    """Mirrors, turns, zooms, rotates and shifts one image (H, W, C) and its label (H, W) by one grid."""
    H, W = label.shape
    mirror_y, mirror_x, swap, zoom, turn, shift_y, shift_x = jax.random.uniform(key, (7,), minval=-1.0)
    scale = jnp.exp(zoom * math.log(ranges.scale))
    angle = turn * math.radians(ranges.degrees)
    cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale

    # Where each output pixel comes from, about the centre. Scalars rather than a 2x2 matrix product, which a
    # TPU would round to bfloat16. With zoom and turn at rest all numbers are multiples of 1/2, hence exact.
    y = (jnp.arange(H) - (H - 1) / 2 - shift_y * ranges.shift * H)[:, None]
    x = (jnp.arange(W) - (W - 1) / 2 - shift_x * ranges.shift * W)[None, :]
    y, x = cos * y + sin * x, cos * x - sin * y
    if ranges.quarter_turns and H == W:  # with the two mirrors, all eight symmetries of the square
        y, x = jnp.where(swap < 0, x, y), jnp.where(swap < 0, y, x)
    y = jnp.where(mirror_y < 0, -y, y) + (H - 1) / 2
    x = jnp.where(mirror_x < 0, -x, x) + (W - 1) / 2
    return sample(image, label, y, x)


def sample(image: Array, label: Array, y: Array, x: Array) -> tuple[Array, Array]:
    """Reads an image bilinearly and its label at the nearest pixel; black and PADDING off the pixels.

    Args:
      image: (H, W, C) float32.
      label: (H, W) int32.
      y, x: (h, w) float32 coordinates in pixels; (0, 0) is the centre of the first pixel.
    Returns: image (h, w, C) float32 and label (h, w) int32.
    """
    H, W, C = image.shape
    inside = (jnp.abs(y - (H - 1) / 2) <= H / 2) & (jnp.abs(x - (W - 1) / 2) <= W / 2)
    y, x = jnp.clip(y, 0, H - 1), jnp.clip(x, 0, W - 1)
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = y - top, x - left
    corner = top.astype(jnp.int32) * W + left.astype(jnp.int32)

    # Rows of a flat table: on a CPU, faster than two-dimensional gathers or 2x2 windows. On the last row and
    # column the far corner is some other pixel, but its weight is 0.
    def read(table: Array, index: Array) -> Array:
        return jnp.take(table, index, axis=0, mode="clip")

    pixels, classes = image.reshape(H * W, C), label.reshape(H * W)
    nearest = corner + jnp.where(down < 0.5, 0, W) + jnp.where(right < 0.5, 0, 1)
    label = jnp.where(inside, read(classes, nearest), PADDING)
    inside, down, right = inside[..., None], down[..., None], right[..., None]
    upper = read(pixels, corner) * (1 - right) + read(pixels, corner + 1) * right
    lower = read(pixels, corner + W) * (1 - right) + read(pixels, corner + W + 1) * right
    return jnp.where(inside, upper * (1 - down) + lower * down, 0), label


def relight(key: Array, image: Array, pivot: Array, ranges: Ranges) -> Array:
    """Changes gamma, contrast about the pivot, brightness and noise of one image (H, W, C)."""
    draw_key, noise_key = jax.random.split(key)
    gamma, contrast, brightness, noise = jax.random.uniform(draw_key, (4,), minval=-1.0)
    # Power and noise are most of the work of all augmentation: neither is computed where it changes nothing.
    if ranges.gamma > 1:
        # XLA's power is several times slower on a CPU. log(0) = -inf is right here: it comes back as 0.
        power = jnp.exp(jnp.log(jnp.abs(image)) * jnp.exp(gamma * math.log(ranges.gamma)))
        image = jnp.sign(image) * power  # z-scores have both signs
    image = (image - pivot) * jnp.exp(contrast * math.log(ranges.contrast)) + pivot
    image = image + brightness * ranges.brightness
    if ranges.noise > 0:
        image = image + jnp.abs(noise) * ranges.noise * jax.random.normal(noise_key, image.shape)
    return image  # not clipped: that would merge what is bright, such as white matter, into one value
