"""Changes the colours, the sharpness and the noise of images at random."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from train.augment.ranges import Ranges

# Optical density that one unit of hematoxylin, eosin and DAB (rows) adds to red, green and blue.
# Source: Ruifrok and Johnston 2001, Quantification of histochemical staining by color deconvolution.
STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
DARKEST = 1e-3  # smallest transmission of a pixel; an optical density of 3 is black to any camera

# Luma and two axes of colour (rows) from red, green and blue: the YIQ space of NTSC television.
YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def jitter_colours(key: Array, image: Array, pivot: Array, ranges: Ranges) -> Array:
    """Changes stains, hue, saturation, gamma, contrast, brightness and noise of one image.

    Args:
      key: a JAX random key.
      image: (H, W, C) float32 in [0, 1], or z-scores, which have no stains. Three channels are red, green and
        blue. Gamma is odd: it treats values below 0 as those above.
      pivot: scalar, the value that contrast leaves unchanged.
      ranges: a change without a range is not computed.
    Returns: (H, W, C) float32, not clipped, which would merge bright tissue such as white matter.
    """
    draw_key, noise_key = jax.random.split(key)
    gamma, contrast, brightness, noise = jax.random.uniform(draw_key, (4,), minval=-1.0)
    # Keys of their own, so that an additional change does not alter the draws of the others.
    stain_key, tint_key = (jax.random.fold_in(key, number) for number in (2, 3))  # split used 0 and 1
    if image.shape[-1] == 3:
        if ranges.stain > 0:
            image = jitter_stains(stain_key, image, ranges.stain)
        if ranges.hue > 0 or ranges.saturation > 1:
            image = jitter_hue_and_saturation(tint_key, image, ranges)
    # Power and noise cost most of the time of augmentation: they are not computed where they change nothing.
    if ranges.gamma > 1:
        # XLA's power is several times slower on a CPU. log(0) = -inf is right here: exp makes 0 of it.
        power = jnp.exp(jnp.log(jnp.abs(image)) * jnp.exp(gamma * math.log(ranges.gamma)))
        image = jnp.where(image < 0, -power, power)
    image = (image - pivot) * jnp.exp(contrast * math.log(ranges.contrast)) + pivot
    image = image + brightness * ranges.brightness
    if ranges.noise > 0:
        image = image + jnp.abs(noise) * ranges.noise * white_noise(noise_key, image.shape)
    return image


def jitter_stains(key: Array, image: Array, stain: float) -> Array:
    """Changes the amount of each stain in one image (H, W, 3) in [0, 1].

    Source: Tellez et al. 2018, Whole-slide mitosis detection in H&E breast histology, for this jitter.
    """
    factor, offset = jax.random.uniform(key, (2, 3), minval=-stain, maxval=stain)
    # From densities to stains, scaled, and back: one 3x3 matrix.
    unmix, mix = jnp.asarray(np.linalg.inv(STAINS), jnp.float32), jnp.asarray(STAINS, jnp.float32)
    change = _product(unmix * (1 + factor)[None, :], mix)
    density = _mixed(-jnp.log(jnp.maximum(image, DARKEST)), change)
    return jnp.clip(jnp.exp(-density - _product(offset[None, :], mix)[None]), 0, 1)


def jitter_hue_and_saturation(key: Array, image: Array, ranges: Ranges) -> Array:
    """Changes hue and saturation of one image (H, W, 3) and leaves its luma unchanged."""
    turn, stretch = jax.random.uniform(key, (2,), minval=-1.0)
    angle = turn * math.radians(ranges.hue)
    factor = jnp.exp(stretch * math.log(ranges.saturation))
    cos, sin, zero, one = factor * jnp.cos(angle), factor * jnp.sin(angle), jnp.zeros(()), jnp.ones(())
    turned = jnp.stack([one, zero, zero, zero, cos, sin, zero, -sin, cos]).reshape(3, 3)
    there, back = jnp.asarray(YIQ.T, jnp.float32), jnp.asarray(np.linalg.inv(YIQ.T), jnp.float32)
    return _mixed(image, _product(_product(there, turned), back))


def blur(key: Array, image: Array, widest: float) -> Array:
    """Blurs each image of a batch (B, H, W, C) by a Gaussian with a standard deviation up to `widest` pixels.

    Beyond the borders the nearest pixel goes on. Image i depends on (key, i) alone.
    """
    key_of = jax.vmap(lambda index: jax.random.fold_in(jax.random.fold_in(key, index), 2))
    deviation = widest * jax.vmap(jax.random.uniform)(key_of(jnp.arange(len(image))))
    # A loop of one pass, which the compiler cannot know: else it works out the blur, all its taps, once more
    # for each of the reads that follow, and takes minutes to compile that.
    once = (jax.random.uniform(key) < 2).astype(jnp.int32)
    blurred = jax.vmap(partial(_gaussian, widest=widest))
    return jax.lax.fori_loop(0, once, lambda _, x: blurred(x, deviation), image)


def _gaussian(image: Array, deviation: Array, widest: float) -> Array:
    reach = math.ceil(2.5 * widest)
    distance = jnp.arange(-reach, reach + 1)
    weights = jnp.exp(-0.5 * (distance / jnp.maximum(deviation, 1e-2)) ** 2)
    weights = weights / weights.sum()
    for axis in (0, 1):
        # Sums of shifted images fuse into one pass; a convolution per image is slow on every backend.
        padded = jnp.pad(image, [(reach, reach) if axis == a else (0, 0) for a in range(3)], mode="edge")
        length = image.shape[axis]
        shifted = (jax.lax.slice_in_dim(padded, k, k + length, axis=axis) for k in range(2 * reach + 1))
        image = jnp.zeros(image.shape) + sum(w * part for w, part in zip(weights, shifted, strict=True))
    return image


def _product(a: Array, b: Array) -> Array:
    """Multiplies small matrices exactly; a TPU would round them to bfloat16."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _mixed(image: Array, matrix: Array) -> Array:
    """Multiplies the channels (H, W, 3) by a 3x3 matrix."""
    # XLA does not fuse a product with its operands; written out, every channel would be computed three times.
    return _product(image.reshape(-1, 3), matrix).reshape(image.shape)


def white_noise(key: Array, shape: tuple[int, ...]) -> Array:
    """Draws nearly normal numbers of mean 0 and standard deviation 1, none of them beyond 3.5.

    Each number is the sum of the four bytes of a hash of its position and the key. jax.random.normal takes as
    long as all other changes of an image together.

    Source: Appleby 2011, MurmurHash3, its finalizer.
    """
    seeds = jax.random.bits(key, (2,))
    word = jax.lax.iota(jnp.uint32, math.prod(shape)) * jnp.uint32(0x9E3779B9)
    for seed in seeds:
        word = word ^ seed
        word = (word ^ word >> 16) * jnp.uint32(0x85EBCA6B)
        word = (word ^ word >> 13) * jnp.uint32(0xC2B2AE35)
        word = word ^ word >> 16
    total = jnp.zeros(word.shape) + sum((word >> shift & 255).astype(jnp.int32) for shift in (0, 8, 16, 24))
    variance = 4 * (256**2 - 1) / 12
    return ((total - 510) / math.sqrt(variance)).reshape(shape)
