"""Describes the leaves of a tree of arrays by dotted path: dtype, shape and digest of their bits.

The digest is the sum, modulo 2^32, of a leaf's words, each times an odd number that depends on its place.
Such a sum is exact in any order, so that it does not depend on the sharding, and a change of one word always
changes it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def leaves(tree: Any) -> dict[str, Any]:
    """Maps dotted paths, such as "params.encoder.stem.conv.kernel", to the leaves of a tree."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in flat}


def kinds(tree: Any) -> dict[str, str]:
    """Maps dotted paths to dtypes and shapes of arrays or their descriptions: "float32[3, 3, 64, 64]"."""
    return {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves(tree).items()}


def of(tree: Any) -> dict[str, int]:
    """Computes the digests of a tree's arrays on the devices that hold them.

    Args:
      tree: of random keys and of arrays with elements of one, two or four bytes, on any devices.
    Returns: dotted paths with numbers below 2^32.
    """
    # One program per shape, not one for the tree: optimizers repeat the parameters' shapes. One at a time,
    # because several processes might start concurrent sums in different orders and wait for each other.
    return {path: int(_sum(leaf)) for path, leaf in leaves(tree).items()}


@jax.jit
def _sum(leaf: Array) -> Array:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    words = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, length in enumerate(words.shape):
        place = place * jnp.uint32(length) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    return jnp.sum(words * (_mix(place) | 1), dtype=jnp.uint32)


def _mix(place: Array) -> Array:
    """Scrambles places, so that neighbours get unrelated factors: MurmurHash3's finalizer, Appleby 2011."""
    place = (place ^ place >> 16) * jnp.uint32(0x85EBCA6B)
    place = (place ^ place >> 13) * jnp.uint32(0xC2B2AE35)
    return place ^ place >> 16
