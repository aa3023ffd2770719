"""Computes confusion matrices, and from them Dice, IoU, precision and recall.

The matrix of a whole dataset is the sum of the matrices of its images or batches, in int64 on the host;
scores are computed once, from that sum, in float64. A mean of the scores of batches is another number.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import ArrayLike


def predict(logits: Array) -> Array:
    """Choose the most probable class of each pixel.

    Args:
      logits: (B, H, W, K), any float dtype.
    Returns: (B, H, W) int32; for K = 1, 1 where the probability exceeds one half.
    """
    if logits.shape[-1] == 1:
        return (logits[..., 0] > 0).astype(jnp.int32)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)


def confusion_matrix(
    labels: np.ndarray | Array, predictions: np.ndarray | Array, classes: int
) -> np.ndarray | Array:
    """Count the pixels of every pair (true class, predicted class).

    NumPy arrays are counted on the host; JAX arrays on their device, also under `jit` and `vmap`.

    Args:
      labels: (...) integer classes; pixels that are IGNORE, or no class at all, are left out.
      predictions: (...) integer classes.
      classes: K of the model; C = max(K, 2), since one sigmoid channel tells two classes apart.
    Returns: (C, C) counts, rows truth, columns prediction: int64 of NumPy arrays; int32 of JAX arrays, exact
      below 2^31 pixels.
    Raises: ValueError if the shapes differ.
    """
    if labels.shape != predictions.shape:
        raise ValueError(f"labels {labels.shape} and predictions {predictions.shape}; expected equal shapes")
    C = max(classes, 2)
    if isinstance(labels, np.ndarray) and isinstance(predictions, np.ndarray):
        valid = (labels >= 0) & (labels < C) & (predictions >= 0) & (predictions < C)
        pairs = labels[valid].astype(np.int64) * C + predictions[valid]
        return np.bincount(pairs, minlength=C * C).reshape(C, C)
    names = jnp.arange(C, dtype=jnp.int32)[:, None]
    truth, prediction = (
        (x.astype(jnp.int32).reshape(1, -1) == names).astype(jnp.int8) for x in (labels, predictions)
    )
    # A product of one-hot rows, exact in int32, with no scatter; a label that is no class has no row.
    return lax.dot_general(truth, prediction, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32)


def dice(confusion: ArrayLike) -> np.ndarray:
    """Dice of each class, 2 TP / (2 TP + FP + FN).

    Args:
      confusion: (C, C) counts, rows truth, columns prediction; of a batch or summed over a set.
    Returns: (C,) float64 in [0, 1]; NaN for a class neither present nor predicted.
    """
    tp, true, predicted = _counts(confusion)
    return quotient(2 * tp, true + predicted)


def iou(confusion: ArrayLike) -> np.ndarray:
    """Intersection over union of each class, TP / (TP + FP + FN).

    Args and Returns as `dice`.
    """
    tp, true, predicted = _counts(confusion)
    return quotient(tp, true + predicted - tp)


def precision(confusion: ArrayLike) -> np.ndarray:
    """Precision of each class, TP / (TP + FP).

    Args and Returns as `dice`, with NaN for a class that is not predicted.
    """
    tp, _, predicted = _counts(confusion)
    return quotient(tp, predicted)


def recall(confusion: ArrayLike) -> np.ndarray:
    """Recall of each class, TP / (TP + FN).

    Args and Returns as `dice`, with NaN for a class that is not present.
    """
    tp, true, _ = _counts(confusion)
    return quotient(tp, true)


def mean_foreground(values: ArrayLike) -> float:
    """Mean score of the foreground classes.

    Args:
      values: (C,) scores of `dice` or another of the functions above; class 0 is background.
    Returns: the mean over the classes 1 .. C-1 that are not NaN; 1.0 if all are, since then no foreground was
      present and none was predicted.
    """
    foreground = np.asarray(values, np.float64)[1:]
    scored = foreground[~np.isnan(foreground)]
    return float(scored.mean()) if scored.size else 1.0


def _counts(confusion: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, true pixels and predicted pixels of each class."""
    counts = np.asarray(confusion).astype(np.int64)
    return np.diagonal(counts), counts.sum(1), counts.sum(0)


def quotient(numerator: np.ndarray | int, denominator: np.ndarray | int) -> np.ndarray:
    """The quotient of sums by counts of one shape; NaN where nothing was counted."""
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.nan)
