"""Rematerialisation: a block's maps are computed again for its gradients instead of being kept."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array


def run(block: Any, *maps: Array | Sequence[Array], **settings: Any) -> Array:
    """Runs `block(*maps, **settings)`; if `block.remat` is set, only the maps are kept for the gradients.

    Args:
      block: a module with the attribute `remat`.
      maps, settings: what gradients are taken for besides the block's parameters, and anything else.
    Returns: the block's map.
    """
    if not block.remat:
        return block(*maps, **settings)
    graph, params, rest = nnx.split(block, nnx.Param, ...)

    def compute(params: Any, rest: Any, maps: Any) -> tuple[Array, Any]:
        module = nnx.merge(graph, params, rest)
        out = module(*maps, **settings)
        return out, nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.Param)))

    def forward(*inputs: Any) -> Any:
        return compute(*inputs), inputs

    def backward(inputs: Any, pulls: tuple[Array, Any]) -> Any:
        params, rest, maps = inputs
        pull, _ = pulls  # statistics have no gradients
        # XLA merges equal computations, and on a CPU sees through the barriers of jax.checkpoint, which then
        # saves nothing. Maps that wait for the gradient to arrive are none that it has already.
        arrived = pull.ravel()[0]
        maps = jax.tree.map(lambda x: jnp.where(jnp.isnan(arrived), jnp.nan, x), maps)
        _, transposed = jax.vjp(lambda params, maps: compute(params, rest, maps)[0], params, maps)
        dparams, dmaps = transposed(pull)
        return dparams, None, dmaps

    again = jax.custom_vjp(compute)
    again.defvjp(forward, backward)
    out, rest = again(nnx.to_pure_dict(params), nnx.to_pure_dict(rest), maps)
    nnx.update(block, rest)
    return out
