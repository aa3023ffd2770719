"""Labels and predictions in, a confusion matrix out, and from the matrix Dice and IoU.

The matrix is counted on the device, int32 per batch: exact below 2^31 pixels. A whole set is the sum of its
batches' matrices in int64 on the host: `total += np.asarray(confusion_matrix(...))`, starting from
`np.zeros((C, C), np.int64)`. Scores are taken once, from that sum, in float64; a mean of batch scores is
another number.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import ArrayLike


def predict(logits: Array) -> Array:
    """The most probable class of each pixel.

    Args:
      logits: (B, H, W, K), any float dtype.
    Returns: (B, H, W) int32; for K = 1, 1 where the probability exceeds one half.
    """
    if logits.shape[-1] == 1:
        return (logits[..., 0] > 0).astype(jnp.int32)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def confusion_matrix(labels: Array, predictions: Array, classes: int) -> Array:
    """Pixel counts of every pair (true class, predicted class).

    Args:
      labels: (B, H, W) integer classes; pixels labelled IGNORE (-1) are dropped.
      predictions: (B, H, W) integer classes.
      classes: K of the model; C = max(K, 2), since one sigmoid channel tells two classes apart.
    Returns: (C, C) int32 on the device; rows are truth, columns prediction.
    Raises: ValueError if the shapes differ.
    """
    if labels.shape != predictions.shape:
        raise ValueError(f"labels {labels.shape} and predictions {predictions.shape}; expected equal shapes")
    names = jnp.arange(max(classes, 2), dtype=jnp.int32)[:, None]
    truth, found = (x.astype(jnp.int32).reshape(1, -1) == names for x in (labels, predictions))
    # A product of one-hot rows, exact in int32, with no scatter; a label that is no class has no row.
    rows = (((1,), (1,)), ((), ()))
    return lax.dot_general(
        truth.astype(jnp.int8), found.astype(jnp.int8), rows, preferred_element_type=jnp.int32
    )


def dice(confusion: ArrayLike) -> np.ndarray:
    """Dice of each class, 2 TP / (2 TP + FP + FN).

    Args:
      confusion: (C, C) counts, rows truth, columns prediction; of a batch or summed over a set.
    Returns: (C,) float64 in [0, 1]; NaN for a class neither present nor predicted.
    """
    hits, truth, found = _counts(confusion)
    return _divide(2 * hits, truth + found)


def iou(confusion: ArrayLike) -> np.ndarray:
    """Intersection over union of each class, TP / (TP + FP + FN).

    Args:
      confusion: (C, C) counts, rows truth, columns prediction; of a batch or summed over a set.
    Returns: (C,) float64 in [0, 1]; NaN for a class neither present nor predicted.
    """
    hits, truth, found = _counts(confusion)
    return _divide(hits, truth + found - hits)


def mean_foreground(values: ArrayLike) -> float:
    """Mean score of the foreground classes.

    Args:
      values: (C,) scores of `dice` or `iou`; class 0 is background.
    Returns: the mean over the classes 1 .. C-1 that are not NaN; 1.0 if all are, for nothing was there and
      nothing was found.
    """
    foreground = np.asarray(values, np.float64)[1:]
    scored = foreground[~np.isnan(foreground)]
    return float(scored.mean()) if scored.size else 1.0


def _counts(confusion: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, true pixels and predicted pixels of each class."""
    counts = np.asarray(confusion).astype(np.int64)
    return np.diagonal(counts), counts.sum(1), counts.sum(0)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, NaN for 0 / 0."""
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.nan)
