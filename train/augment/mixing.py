"""Mixes pairs of images of a batch, by cutting and pasting or by blending.

The partner of image i is image i + 1 of the batch, and the first one is that of the last: batches are
shuffled, so every partner is random. The results are a function of the key and of the whole batch.

Sources: Yun et al. 2019, CutMix; Zhang et al. 2018, mixup: Beyond empirical risk minimization.
"""

import jax
import jax.numpy as jnp
from jax import Array


def cutmix(key: Array, image: Array, label: Array, probability: float) -> tuple[Array, Array]:
    """Pastes a rectangle of its partner into some images, with the labels of that rectangle.

    Args:
      key: a JAX random key; the result for image i depends on (key, i) and on the two images.
      image, label: (B, H, W, C) float32 and (B, H, W) int32.
      probability: that an image gets a rectangle, in [0, 1]. The rectangle's fraction of the area is uniform,
        before the borders of the image cut it.
    Returns: image and label, same shapes and dtypes.
    """
    H, W = label.shape[1:]

    def rectangle(index: Array) -> Array:
        chance, area, y, x = jax.random.uniform(jax.random.fold_in(key, index), (4,))
        half = jnp.sqrt(area) / 2
        rows = jnp.abs((jnp.arange(H) + 0.5) / H - y) < half
        columns = jnp.abs((jnp.arange(W) + 0.5) / W - x) < half
        return (chance < probability) & rows[:, None] & columns[None, :]

    pasted = jax.vmap(rectangle)(jnp.arange(len(image)))
    return jnp.where(pasted[..., None], _partners(image), image), jnp.where(pasted, _partners(label), label)


def mixup(key: Array, image: Array, label: Array, alpha: float) -> tuple[Array, tuple[Array, Array], Array]:
    """Blends each image with its partner; every label stays hard, and there are two of them.

    There is one share for the whole batch: losses such as Dice divide sums over an image or a batch, so only
    whole losses can be blended. The loss of a blended batch is share * loss(labels) + (1 - share) *
    loss(partners' labels), which for cross-entropy equals the loss of blended labels, as in mixup.

    Args:
      key, image, label: as of `cutmix`.
      alpha: > 0; the share is drawn from Beta(alpha, alpha). 0.2 leaves most images nearly unchanged.
    Returns: the blended image, (labels, partners' labels), and the shares (2,) float32 of the two, whose sum
      is 1.
    """
    share = jax.random.beta(key, alpha, alpha)
    blended = share * image + (1 - share) * _partners(image)
    return blended, (label, _partners(label)), jnp.stack([share, 1 - share])


def _partners(array: Array) -> Array:
    return jnp.roll(array, -1, axis=0)
