"""Random logits and labels, and a loss's value and gradient on them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from flaxunet.labels import IGNORE

SHAPE = (2, 13, 11)


def random_logits(K, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(0, 2, (*shape, K)).astype(np.float32)


def random_labels(K, shape=SHAPE, seed=1, ignored=0.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, max(K, 2), shape)
    labels[rng.random(shape) < ignored] = IGNORE
    return labels.astype(np.int32)


@functools.cache
def compiled(loss):
    return jax.jit(jax.value_and_grad(loss))


def value_and_gradient(loss, logits, labels):
    value, gradient = compiled(loss)(jnp.asarray(logits), jnp.asarray(labels))
    return float(value), np.asarray(gradient)


def value_of(loss, logits, labels):
    return value_and_gradient(loss, logits, labels)[0]


def confident(labels, K):
    """Logits of 1e4 for the labelled class and -1e4 for the others."""
    classes = np.arange(K) if K > 1 else np.array([1])
    return np.where(labels[..., None] == classes, 1e4, -1e4).astype(np.float32)
