"""A tree of arrays enters; dtype, shape and a digest of the bits of every leaf leave, by dotted path.

The digest is the sum, modulo 2^32, of a leaf's words times an odd number for each place: exact in any order,
so it does not depend on how the leaf lies on devices, and no change of a single word leaves it as it was.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by dotted path, such as "params.encoder.stem.conv.kernel"."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in found}


def kind(leaf: Any) -> str:
    """Dtype and shape of an array or of what stands for one, such as "float32[3, 3, 64, 64]"."""
    return f"{leaf.dtype}{list(leaf.shape)}"


def of(tree: Any) -> dict[str, int]:
    """The digests of a tree's arrays, computed where the arrays are.

    Args:
      tree: of arrays of one, two or four bytes an element, or of random keys; on any devices.
    Returns: dotted path to a number below 2^32.
    """
    # A program for each shape, not one for the tree: optimizers repeat the parameters' shapes. One after the
    # other, because sums over several processes that run at once wait for each other in another order there.
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
    return jnp.sum(words * (_mixed(place) | 1), dtype=jnp.uint32)


def _mixed(place: Array) -> Array:
    """The finalizer of MurmurHash3 (Appleby 2011): neighbours get unrelated factors."""
    place = (place ^ place >> 16) * jnp.uint32(0x85EBCA6B)
    place = (place ^ place >> 13) * jnp.uint32(0xC2B2AE35)
    return place ^ place >> 16
