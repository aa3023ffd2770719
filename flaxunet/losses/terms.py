"""Computes losses of logits and labels, each a differentiable float32 scalar.

Every loss is `f(logits (B, H, W, K), labels (B, H, W), *, options) -> scalar`. K = 1 is one sigmoid channel
with labels 0 and 1; K >= 2 is a softmax whose class 0 is background. Logits of any float dtype are reduced in
float32. A pixel labelled IGNORE contributes neither value nor gradient. Cross-entropy and focal average over
the counted pixels of the batch; the others are computed per image and averaged over the images that have a
counted pixel. A batch without any counted pixel has loss 0.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from flaxunet.labels import IGNORE
from flaxunet.losses import ssim

Loss = Callable[[Array, Array], Array]


def cross_entropy(logits: Array, labels: Array, *, class_weights: Sequence[float] | None = None) -> Array:
    """Cross-entropy: binary for K = 1, softmax for K >= 2; the mean weighs each pixel by its class.

    Args:
      logits: (B, H, W, K), any float dtype.
      labels: (B, H, W) integer classes, or IGNORE.
      class_weights: K weights >= 0, or (background, foreground) for K = 1; only their ratios matter.
    Returns: scalar float32, sum(weight * value) / sum(weight).
    Raises: ValueError for shapes that do not match or weights that are negative or not one per class.
    Source: torch.nn.functional.cross_entropy, for the weighted mean.
    """
    logits, labels, counted = _checked(logits, labels)
    weights = _pixel_weights(labels, counted, logits.shape[-1], class_weights)
    return _ratio((weights * _pixel_cross_entropy(logits, labels)).sum(), weights.sum())


def focal(
    logits: Array, labels: Array, *, gamma: float = 2.0, class_weights: Sequence[float] | None = None
) -> Array:
    """Focal loss: cross-entropy times (1 - p)^gamma, p the probability of the pixel's class.

    Args:
      logits, labels: as in `cross_entropy`.
      gamma: >= 0; 0 gives `cross_entropy`.
      class_weights: as in `cross_entropy`; for K = 1, (1 - alpha, alpha) are the paper's.
    Returns: scalar float32, sum(weight * value) / sum(weight).
    Raises: ValueError as `cross_entropy`, or for a negative gamma.
    Source: Lin et al. 2017, Focal loss for dense object detection, extended to a softmax.
    """
    if not gamma >= 0:
        raise ValueError(f"gamma is {gamma}; expected a number >= 0")
    logits, labels, counted = _checked(logits, labels)
    weights = _pixel_weights(labels, counted, logits.shape[-1], class_weights)
    entropy = _pixel_cross_entropy(logits, labels)
    # 1 - p without cancellation; the bound keeps the slope of 0^gamma finite for gamma < 1.
    missing = jnp.maximum(-jnp.expm1(-entropy), 1e-7)
    return _ratio((weights * missing**gamma * entropy).sum(), weights.sum())


def tversky(
    logits: Array, labels: Array, *, alpha: float = 0.3, beta: float = 0.7, smooth: float = 1.0
) -> Array:
    """Soft Tversky loss, 1 - TP / (TP + alpha FP + beta FN), averaged over foreground classes and images.

    Background does not count for K >= 2: it is nearly always right and would hide the errors elsewhere.

    Args:
      logits, labels: as in `cross_entropy`.
      alpha, beta: price of a false positive and of a false negative, >= 0.
      smooth: true positives, in pixels, that every class of every image starts with; > 0, so that a class
        neither present nor predicted costs nothing.
    Returns: scalar float32 in [0, 1].
    Raises: ValueError for shapes that do not match or options out of range.
    Source: Salehi et al. 2017, Tversky loss function for image segmentation.
    """
    if not (alpha >= 0 and beta >= 0 and smooth > 0):
        raise ValueError(f"alpha {alpha}, beta {beta}, smooth {smooth}: expected >= 0, >= 0 and > 0")
    probability, truth, counted = _foreground(logits, labels)
    hits = (probability * truth).sum((1, 2))
    misses = (alpha * probability * (1 - truth) + beta * (1 - probability) * truth).sum((1, 2))
    return _image_mean((misses / (hits + misses + smooth)).mean(-1), counted)


def dice(logits: Array, labels: Array, *, smooth: float = 1.0) -> Array:
    """Soft Dice loss, 1 - 2 TP / (2 TP + FP + FN): `tversky` with both prices 1/2.

    Args, Returns and Raises as `tversky`.

    Source: Milletari et al. 2016, V-Net, with an unsquared denominator.
    """
    return tversky(logits, labels, alpha=0.5, beta=0.5, smooth=smooth)


def jaccard(logits: Array, labels: Array, *, smooth: float = 1.0) -> Array:
    """Soft Jaccard (IoU) loss, 1 - TP / (TP + FP + FN): `tversky` with both prices 1.

    Args, Returns and Raises as `tversky`.

    Source: Rahman and Wang 2016, Optimizing intersection-over-union in deep neural networks.
    """
    return tversky(logits, labels, alpha=1.0, beta=1.0, smooth=smooth)


def lovasz(logits: Array, labels: Array, *, per_image: bool = True) -> Array:
    """Lovász extension of the Jaccard loss: of the hinge for K = 1, of softmax errors for K >= 2.

    For K >= 2 it averages over the classes present in the mask, background included, as the paper does.

    Args:
      logits, labels: as in `cross_entropy`.
      per_image: False takes the whole batch as one image.
    Returns: scalar float32 >= 0.
    Raises: ValueError for shapes that do not match.
    Source: Berman et al. 2018, The Lovász-softmax loss.
    """
    logits, labels, counted = _checked(logits, labels)
    B, K = (logits.shape[0] if per_image else 1), logits.shape[-1]
    truth = _one_hot(labels, K) & counted[..., None]
    if K == 1:
        errors = jax.nn.relu(1 - jnp.where(truth, logits, -logits))
    else:
        errors = jnp.abs(truth - jax.nn.softmax(logits))
    # Ignored pixels become errors of 0: sorted behind all that matter, they change no weight.
    errors = jnp.where(counted[..., None], errors, 0.0).reshape(B, -1, K).swapaxes(1, 2)
    truth = truth.reshape(B, -1, K).swapaxes(1, 2)
    negated, truth = lax.sort((-errors, truth), num_keys=1)
    losses = -(negated * _lovasz_weights(truth)).sum(-1)
    present = truth.any(-1).astype(jnp.float32) if K > 1 else jnp.ones((B, K), jnp.float32)
    losses = _ratio((losses * present).sum(-1), present.sum(-1))
    return _image_mean(losses, counted.reshape(B, -1, counted.shape[2]))


def ms_ssim(logits: Array, labels: Array) -> Array:
    """1 - multi-scale structural similarity of probability map and mask, over foreground classes and images.

    Args:
      logits, labels: as in `cross_entropy`.
    Returns: scalar float32 in [0, 1).
    Raises: ValueError for shapes that do not match.
    Source: Wang et al. 2003; as a loss, Huang et al. 2020, UNet 3+. See `flaxunet.losses.ssim`.
    """
    probability, truth, counted = _foreground(logits, labels)
    return _image_mean(1 - ssim.multiscale_similarity(probability, truth, counted).mean(-1), counted)


def unet3plus(logits: Array, labels: Array, *, class_weights: Sequence[float] | None = None) -> Array:
    """UNet 3+'s hybrid of pixel, patch and map: focal + MS-SSIM + Jaccard.

    Args, Returns and Raises as `focal`, whose term takes the class weights.

    Source: Huang et al. 2020, UNet 3+.
    """
    pixel = focal(logits, labels, class_weights=class_weights)
    return pixel + ms_ssim(logits, labels) + jaccard(logits, labels)


def deep_supervision(loss: Loss, logits: Sequence[Array], labels: Array) -> Array:
    """Weighted sum of the losses of all heads: 1, 1/2, 1/4, ... from the first on, scaled to sum to 1.

    Args:
      loss: `loss(logits, labels) -> scalar`.
      logits: one or more (B, H, W, K), the main head's first, all of the labels' size.
      labels: (B, H, W) integer classes, or IGNORE.
    Returns: scalar float32; for one head exactly `loss(logits[0], labels)`.
    Raises: ValueError if logits is empty.
    """
    if not logits:
        raise ValueError("deep supervision without logits; expected those of at least one head")
    total = sum(0.5**i for i in range(len(logits)))
    return sum((0.5**i / total * loss(head, labels) for i, head in enumerate(logits)), jnp.float32(0))


def presence(logits: Array, labels: Array) -> Array:
    """Binary cross-entropy of image-level logits against "this class occurs in this image's mask".

    Ignored pixels count as absent; an image without counted pixels has no weight.

    Args:
      logits: (B, K_fg), one per foreground class; any float dtype.
      labels: (B, H, W) integer classes, or IGNORE; foreground classes are 1 .. K_fg.
    Returns: scalar float32 >= 0.
    Raises: ValueError for shapes that do not match.
    Source: Huang et al. 2020, UNet 3+, its classification-guided module.
    """
    if logits.ndim != 2 or labels.ndim != 3 or logits.shape[0] != labels.shape[0]:
        raise ValueError(f"logits {logits.shape}, labels {labels.shape}; expected (B, K_fg) and (B, H, W)")
    labels = labels.astype(jnp.int32)
    counted = labels != IGNORE
    classes = jnp.arange(1, logits.shape[1] + 1, dtype=jnp.int32)
    occurs = (labels[..., None] == classes[None, None, None]).any((1, 2)).astype(jnp.float32)
    logits = jnp.where(counted.any((1, 2))[:, None], logits.astype(jnp.float32), 0.0)
    return _image_mean(optax.sigmoid_binary_cross_entropy(logits, occurs).mean(-1), counted)


def _checked(logits: Array, labels: Array) -> tuple[Array, Array, Array]:
    """Float32 logits and int32 labels, both 0 at ignored pixels, and the mask of those that count."""
    if logits.ndim != 4 or logits.shape[:3] != labels.shape:
        raise ValueError(f"logits {logits.shape}, labels {labels.shape}; expected (B, H, W, K) and (B, H, W)")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels are {labels.dtype}; expected integer classes")
    labels = labels.astype(jnp.int32)
    counted = labels != IGNORE
    # Cut off before any arithmetic, even infinities stay out of value and gradient.
    logits = jnp.where(counted[..., None], logits.astype(jnp.float32), 0.0)
    return logits, jnp.where(counted, labels, 0), counted


def _one_hot(labels: Array, K: int) -> Array:
    """(B, H, W, K) bool; for K = 1 the foreground."""
    classes = jnp.arange(K) if K > 1 else jnp.array([1])
    return labels[..., None] == classes[None, None, None]


def _foreground(logits: Array, labels: Array) -> tuple[Array, Array, Array]:
    """Probabilities and masks of the foreground classes, 0 where ignored, and the pixels that count."""
    logits, labels, counted = _checked(logits, labels)
    first, K = min(1, logits.shape[-1] - 1), logits.shape[-1]
    probability = jax.nn.sigmoid(logits) if K == 1 else jax.nn.softmax(logits)
    mask = counted[..., None].astype(jnp.float32)
    return probability[..., first:] * mask, _one_hot(labels, K)[..., first:] * mask, counted


def _pixel_cross_entropy(logits: Array, labels: Array) -> Array:
    """(B, H, W) cross-entropy of each pixel."""
    if logits.shape[-1] == 1:
        return optax.sigmoid_binary_cross_entropy(logits[..., 0], labels.astype(jnp.float32))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def _pixel_weights(labels: Array, counted: Array, K: int, class_weights: Sequence[float] | None) -> Array:
    """(B, H, W) weight of each pixel: its class's, or 1; 0 where ignored."""
    mask = counted.astype(jnp.float32)
    if class_weights is None:
        return mask
    if len(class_weights) != max(K, 2) or not all(0 <= weight < math.inf for weight in class_weights):
        raise ValueError(f"class weights {tuple(class_weights)}; expected {max(K, 2)} numbers >= 0")
    return mask * jnp.asarray(class_weights, jnp.float32)[labels]


def _lovasz_weights(truth: Array) -> Array:
    """What each error, sorted downwards on the last axis, adds to the Jaccard loss."""
    positives = truth.sum(-1, keepdims=True, dtype=jnp.int32)
    hit = jnp.cumsum(truth, axis=-1, dtype=jnp.int32)
    rank = 1 + lax.broadcasted_iota(jnp.int32, truth.shape, truth.ndim - 1)
    union = (positives + rank - hit).astype(jnp.float32)
    # The closed form of a difference of neighbouring ratios, which in a large image agree in most digits.
    # Without positives the first pixel is 0/0; its weight is 1, since one false positive makes the loss 1.
    outside = jnp.where(union > 1, (positives - hit) / union / jnp.maximum(union - 1, 1.0), 1.0)
    return jnp.where(truth, 1 / union, outside)


def _ratio(numerator: Array, denominator: Array) -> Array:
    """A mean's last step; 0 where nothing was counted."""
    return numerator / jnp.where(denominator > 0, denominator, 1.0)


def _image_mean(losses: Array, counted: Array) -> Array:
    """Mean of (B,) losses over the images that have a counted pixel."""
    images = counted.any((1, 2)).astype(jnp.float32)
    return _ratio((losses * images).sum(), images.sum())
