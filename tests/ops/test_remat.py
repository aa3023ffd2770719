"""Rematerialisation changes what is kept for the gradients, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.support.networks import network


def training(arch, remat, **options):
    """A compiled function from an image to the gradients and the state behind a step in training mode."""
    model = network(arch, **options)
    model.rematerialize(remat)
    model.train()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    given = nnx.to_pure_dict(params), nnx.to_pure_dict(rest)

    def gradients(params, rest, image):
        def loss(params):
            model = nnx.merge(graph, params, rest)
            return jnp.square(model(image)).mean(), nnx.to_pure_dict(nnx.split(model, nnx.Param, ...)[2])

        return jax.grad(loss, has_aux=True)(params)

    return lambda image: jax.jit(gradients).lower(*given, image).compile(), given


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        pytest.param("unet", {"encoder": "shallow"}, marks=pytest.mark.long),
        pytest.param("unet", {"encoder": "plain"}, marks=pytest.mark.long),
        pytest.param("unetplusplus", {}, marks=pytest.mark.long),
        pytest.param("unet3plus", {}, marks=pytest.mark.long),
    ],
)
def test_gradients_and_statistics_are_the_same_from_less_memory(arch, options):
    image = np.random.default_rng(0).normal(size=(2, 96, 96, 3)).astype(np.float32)
    found, memory = [], []
    for remat in (False, True):
        build, given = training(arch, remat, **options)
        compiled = build(image)
        found.append(compiled(*given, image))
        memory.append(compiled.memory_analysis().temp_size_in_bytes)
    assert memory[1] < 0.9 * memory[0]
    kept, again = (jax.tree.leaves(tree) for tree in found)
    for one, other in zip(kept, again, strict=True):
        # Another order of the same sums; random keys and counters are equal.
        if one.dtype == jnp.float32:
            assert jnp.abs(one - other).max() <= 1e-4 * jnp.abs(one).max()
        else:
            assert jnp.array_equal(one, other)
